"""One destination of the administrator's file: where results go, what it takes, and when."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

import yaml

from dicom_node.encoding.package import KINDS, Package
from dicom_node.routing.addresses import (
    ae_title_problem,
    count_problem,
    path_problem,
    port_problem,
    single_host_problem,
)
from dicom_node.routing.hours import Hours, parse_window
from dicom_node.routing.nodes import NodeReader, near, plain, scalar_in

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"

_ALWAYS = {"type", "objects", "omit_empty_frames", "fall_backs", "hours"}
_ASSOCIATIONS = {"tls", "transfer_syntaxes", "max_associations", "commitment"}
#: secrets are in the environment or in files of the machines that send, never in the rules
_CREDENTIALS = ("user", "password_env", "password_file", "token_env", "token_file")
#: type -> keys that it may have
KEYS = {
    "dimse": {*_ALWAYS, *_ASSOCIATIONS, "host", "port", "ae_title"},
    "sender": {*_ALWAYS, *_ASSOCIATIONS},
    "stow": {*_ALWAYS, "tls", "max_associations", "url", *_CREDENTIALS},
    "folder": {*_ALWAYS, "path"},
}
#: names in the file -> UID
_SYNTAXES = {
    "explicit": EXPLICIT_LITTLE,
    "explicit vr little endian": EXPLICIT_LITTLE,
    EXPLICIT_LITTLE: EXPLICIT_LITTLE,
    "implicit": IMPLICIT_LITTLE,
    "implicit vr little endian": IMPLICIT_LITTLE,
    IMPLICIT_LITTLE: IMPLICIT_LITTLE,
}


@dataclass(frozen=True)
class DestinationTls:
    """TLS towards a destination; paths are those of the machine that sends."""

    ca: str | None = None  # PEM file; None: the system's CAs
    certificate: str | None = None  # PEM file, shown to the destination, with `key`
    key: str | None = None
    server_name: str | None = None  # in its certificate, where that is not the host


@dataclass(frozen=True)
class CommitmentScp:
    """Who is asked for Storage Commitment, where that is another application than the one that stores."""

    host: str | None = None  # None: the destination's own
    port: int | None = None
    ae_title: str | None = None


@dataclass(frozen=True)
class Destination:
    """Where results go. A key that its type does not have keeps its default."""

    name: str
    type: str  # key of KEYS
    host: str = ""
    port: int = 0
    ae_title: str = ""
    tls: DestinationTls | None = None  # None: without
    objects: tuple[str, ...] | None = None  # keys of KINDS, in their order; None: the usual ones
    omit_empty_frames: bool = True
    fall_backs: bool = True
    #: UIDs in which objects that are not compressed are offered, the preferred one first
    transfer_syntaxes: tuple[str, ...] = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)
    hours: Hours | None = None  # None: always
    max_associations: int = 1  # at one time, over all workers
    commitment: bool = False  # ask whether what it took is safe (Storage Commitment)
    commitment_scp: CommitmentScp = CommitmentScp()
    url: str = ""  # of the DICOMweb service; "/studies" follows
    user: str | None = None  # HTTP Basic, with one of the next two
    password_env: str | None = None  # name of an environment variable
    password_file: str | None = None
    token_env: str | None = None  # or a bearer token
    token_file: str | None = None
    path: str = ""  # folder

    @property
    def commitment_address(self) -> tuple[str, int, str]:
        """Host, port and AE title of the one that is asked for Storage Commitment."""
        scp = self.commitment_scp
        return scp.host or self.host, scp.port or self.port, scp.ae_title or self.ae_title

    def package(self, besides: Iterable[str] = ()) -> Package:
        """What it is to get of an answer.

        besides : kinds that go with the usual ones where it does not state what it wants.
        """
        kinds = Package().with_kinds(besides).kinds if self.objects is None else self.objects
        return Package(kinds, self.omit_empty_frames, self.fall_backs)


def read_destination(reader: NodeReader, name: str, node: yaml.Node) -> Destination | None:
    """One entry of `destinations`; what is wrong goes to the reader's problems."""
    what = f"destination {name}"
    if ":" in name:
        reader.problem(node, f"{what}: a name with a colon in it cannot be told from a reply's")
    kind = scalar_in(node, "type")
    if kind not in KEYS:
        if isinstance(node, yaml.MappingNode) and kind is None:
            reader.problem(node, f"{what}: 'type' is missing; there is: {', '.join(KEYS)}")
        else:
            reader.problem(node, f"{what}: type {kind!r} is not known; there is: {', '.join(KEYS)}")
        return None
    values = reader.mapping(node, what, KEYS[kind], set())
    found: dict[str, object] = {}

    def text(key: str, check: Callable[[str], str | None], needed: bool = False) -> None:
        if (key in values or needed) and (value := reader.text(values, node, what, key, check)) is not None:
            found[key] = value

    if kind == "dimse":
        text("host", single_host_problem, needed=True)
        if (port := reader.value(values, node, what, "port", port_problem)) is not None:
            found["port"] = port
        text("ae_title", ae_title_problem, needed=True)
    if kind == "stow":
        text("url", _url_problem, needed=True)
        text("user", _user_problem)
        for key in ("password_env", "token_env"):
            text(key, _variable_problem)
        for key in ("password_file", "token_file"):
            text(key, path_problem)
        if problem := _credentials_problem(found):
            reader.problem(node, f"{what}: {problem}")
    if kind == "folder":
        text("path", path_problem, needed=True)
    if "max_associations" in values:
        count = reader.value(values, node, what, "max_associations", count_problem)
        found["max_associations"] = count or 1
    syntaxes = reader.texts(values, what, "transfer_syntaxes", _syntax_problem)
    if syntaxes:
        found["transfer_syntaxes"] = tuple(dict.fromkeys(_SYNTAXES[text.lower()] for text in syntaxes))
    if hours := _hours(reader, values.get("hours"), what):
        found["hours"] = hours
    if objects := reader.texts(values, what, "objects", _kind_problem):
        found["objects"] = tuple(kind for kind in KINDS if kind in objects)
        if "seg_labelmap" in objects and "seg" not in objects:
            reader.problem(values["objects"], f"{what}: objects: seg_labelmap goes beside seg, never instead of it")
    if isinstance(values.get("commitment"), yaml.MappingNode):
        found["commitment"], found["commitment_scp"] = True, _commitment_scp(reader, values.pop("commitment"), what)
    else:
        found["commitment"] = reader.flag(values, what, "commitment", False)
    for key in ("omit_empty_frames", "fall_backs"):
        found[key] = reader.flag(values, what, key, True)
    return Destination(name, kind, tls=_tls(reader, values.get("tls"), f"{what}: tls"), **found)  # type: ignore[arg-type]


def _tls(reader: NodeReader, node: yaml.Node | None, what: str) -> DestinationTls | None:
    if node is None or (isinstance(node, yaml.ScalarNode) and plain(node) is False):
        return None
    if isinstance(node, yaml.ScalarNode) and plain(node) is True:
        return DestinationTls()
    if not isinstance(node, yaml.MappingNode):
        reader.problem(node, f"{what}: true, false or a mapping with ca, certificate, key, server_name is needed")
        return None
    values = reader.mapping(node, what, {"ca", "certificate", "key", "server_name"}, set())
    checks = {"ca": path_problem, "certificate": path_problem, "key": path_problem, "server_name": single_host_problem}
    found = {key: reader.text(values, node, what, key, check) for key, check in checks.items() if key in values}
    if ("certificate" in values) != ("key" in values):
        reader.problem(node, f"{what}: a certificate needs its key, and a key its certificate")
    return DestinationTls(**found)


def _commitment_scp(reader: NodeReader, node: yaml.Node, destination: str) -> CommitmentScp:
    what = f"{destination}: commitment"
    values = reader.mapping(node, what, {"host", "port", "ae_title"}, set())
    checks = {"host": single_host_problem, "ae_title": ae_title_problem}
    found = {key: reader.text(values, node, what, key, check) for key, check in checks.items() if key in values}
    port = reader.value(values, node, what, "port", port_problem) if "port" in values else None
    return CommitmentScp(port=port, **found)


def _hours(reader: NodeReader, node: yaml.Node | None, what: str) -> Hours | None:
    if node is None:
        return None
    windows = []
    for item in node.value if isinstance(node, yaml.SequenceNode) else [node]:
        try:
            windows.append(parse_window(str(plain(item))))
        except ValueError as error:
            reader.problem(item, f"{what}: hours {plain(item)!r}: {error}")
    if isinstance(node, yaml.SequenceNode) and not node.value:
        reader.problem(node, f"{what}: hours: the list is empty; leave hours out, or name at least one window")
    return Hours(tuple(windows)) if windows else None


def _kind_problem(value: str) -> str | None:
    return None if value in KINDS else f"no such kind of object{near(value, set(KINDS))}"


def _syntax_problem(value: str) -> str | None:
    if value.lower() in _SYNTAXES:
        return None
    return "'explicit' or 'implicit' is needed (VR Little Endian); compressed objects go as they are"


def _url_problem(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        is_web = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_web = False
    if not is_web or parts.query or parts.fragment:
        return "a URL as https://archive.example/dicom-web is needed"
    if parts.username is not None or parts.password is not None:
        return "no user or password in the URL; give user and password_env or password_file"
    return None


def _credentials_problem(found: Mapping[str, object]) -> str | None:
    given = [key for key in _CREDENTIALS if key in found]
    if not given:
        return None
    if given not in (["user", "password_env"], ["user", "password_file"], ["token_env"], ["token_file"]):
        return "give user with password_env or password_file, or token_env, or token_file"
    parts = urlsplit(str(found.get("url", "")))
    if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
        return f"{given[-1]} would go over the network in the clear; the url must begin with https"
    return None


def _user_problem(value: str) -> str | None:
    is_user = value.isprintable() and value.strip() and ":" not in value
    return None if is_user else "a name without a colon is needed (RFC 7617)"


def _variable_problem(value: str) -> str | None:
    return None if value.isidentifier() else "the name of an environment variable is needed"
