"""One sender of the administrator's file: who it is, what it may send, and how much at a time."""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # its table, not in its stubs

RATES = ("max_objects_per_second", "max_megabytes_per_second")

_UID = re.compile(r"(0|[1-9][0-9]*)(\.(0|[1-9][0-9]*))+")
_STANDARD_ROOT = "1.2.840.10008."
#: name and keyword of every SOP Class of the standard (PS3.6 Table A-1), in lower case -> UID
_NAMED = {
    name.lower(): uid
    for uid, (text, kind, _, _, keyword) in UID_dictionary.items()
    if kind == "SOP Class"
    for name in (text.removesuffix(" (Retired)"), keyword)
    if name
}


@dataclass(frozen=True)
class Sender:
    """Who may send. What is None is not limited."""

    ae_title: str  # "*": any
    hosts: tuple[str, ...]  # addresses, networks such as 10.1.2.0/24, names; "*": any
    called_ae_titles: tuple[str, ...] | None = None  # None: the node's own
    sop_classes: tuple[str, ...] | None = None  # UIDs
    max_associations: int | None = None
    max_objects_per_second: float | None = None
    max_megabytes_per_second: float | None = None  # 1 MB is 1,000,000 bytes
    port: int | None = None  # where it takes reports of storage commitment
    is_archive: bool = False  # of the destinations: may report on storage commitment, and store nothing

    @property
    def key(self) -> str:
        """A name for files, the same as long as AE title and hosts are."""
        readable = re.sub(r"[^0-9A-Za-z_]", "_", self.ae_title)
        return f"sender-{readable}-{hashlib.sha256(repr((self.ae_title, self.hosts)).encode()).hexdigest()[:12]}"

    def as_json(self) -> dict[str, Any]:
        """For the list that receivers read; `host` as in the administrator's file."""
        values = {name: value for name, value in asdict(self).items() if value is not None and value is not False}
        hosts = values.pop("hosts")
        return {"ae_title": values.pop("ae_title"), "host": hosts[0] if len(hosts) == 1 else list(hosts), **values}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> "Sender":
        """What `as_json` gave, of this version or an older one. Raises ValueError, TypeError for anything else."""
        host = entry.get("host") or "*"

        def texts(key: str) -> tuple[str, ...] | None:
            return None if entry.get(key) is None else tuple(str(item) for item in entry[key])

        def rate(key: str) -> float | None:
            return None if entry.get(key) is None else float(entry[key])

        return cls(
            str(entry.get("ae_title") or "*"),
            (host,) if isinstance(host, str) else tuple(str(item) for item in host),
            called_ae_titles=texts("called_ae_titles"),
            sop_classes=texts("sop_classes"),
            max_associations=None if entry.get("max_associations") is None else int(entry["max_associations"]),
            max_objects_per_second=rate(RATES[0]),
            max_megabytes_per_second=rate(RATES[1]),
            port=None if entry.get("port") is None else int(entry["port"]),
            is_archive=entry.get("is_archive") is True,
        )


def sop_class_uid(name_or_uid: str) -> str | None:
    """The UID of a SOP Class given by name ("CT Image Storage"), keyword ("CTImageStorage") or UID."""
    if uid := _NAMED.get(name_or_uid.strip().lower()):
        return str(uid)
    return name_or_uid if _UID.fullmatch(name_or_uid) and len(name_or_uid) <= 64 else None


def sop_class_problem(name_or_uid: str) -> str | None:
    """What is wrong with it as a SOP Class that a sender may store; None: nothing."""
    uid = sop_class_uid(name_or_uid)
    if uid is None:
        return "no SOP Class of the standard has this name, and it is no UID"
    if not uid.startswith(_STANDARD_ROOT):
        return None  # makers keep raw data in SOP Classes of their own
    known = UID_dictionary.get(uid)
    if known is not None and (known[1] != "SOP Class" or "Storage" not in known[0] or "Commitment" in known[0]):
        return f"{known[0]} is not a storage SOP Class"
    return None
