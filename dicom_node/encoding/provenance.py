"""Where a result comes from: node, pipeline, bundles, inputs; and everything derived from that.

UIDs are 2.25.<128 bits of SHA-256> of what makes the object what it is, so that the same job gives the same object
wherever and however often it runs. Nothing here reads a clock; Provenance carries the time.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from pydicom import Dataset

from dicom_node.encoding.concepts import concept
from dicom_node.encoding.package import KINDS
from pipelines.catalogue import PIPELINES
from pipelines.pipeline import Pipeline

MANUFACTURER = "dicom-node"
MODEL_NAME = "Liver imaging AI node"

#: Series Numbers from here on are ours, so that results sort after the images and meet no Series of a scanner.
FIRST_SERIES_NUMBER = 9000


class BundleUsed(NamedTuple):
    """One bundle that took part."""

    name: str
    version: str
    sha256: str


class Predecessor(NamedTuple):
    """The SR that a new one replaces."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str


class _Opened(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def version(self) -> str: ...
    @property
    def sha256(self) -> str: ...
    @property
    def trained_on(self) -> str: ...


@dataclass(frozen=True)
class Provenance:
    """What made a result, from what, and when the job was ordered."""

    node_id: str
    study_instance_uid: str
    pipeline: str  # "ct_lesion"
    version: str
    title: str  # for people: "AI CT liver lesions"
    bundles: tuple[BundleUsed, ...]
    fingerprint: str  # digest of the inputs: the same images give the same
    trained_on: str  # in words: "simulated CT"
    created_at: datetime  # fixed per job, so that a second attempt gives the same bytes
    configuration: tuple[tuple[str, str], ...] = ()  # settings that change the answer
    slot: int = 0  # of the pipeline among those of the node; keeps Series Numbers apart
    predecessor: Predecessor | None = None  # the report of the run before
    other_predecessors: tuple[Predecessor, ...] = ()  # the same report in other SOP Classes
    partial: str = ""  # in words, which part of an exam was answered while more is on its way; empty: all there is
    tracking: tuple[tuple[str, str], ...] = ()  # Tracking UIDs of the findings by name (see tracking.py)

    @classmethod
    def of(
        cls,
        *,
        node_id: str,
        study_instance_uid: str,
        pipeline: Pipeline,
        bundles: Mapping[str, _Opened],
        fingerprint: str,
        created_at: datetime,
        configuration: Mapping[str, str] | None = None,
        predecessors: Sequence[Predecessor] = (),
        partial: str = "",
    ) -> "Provenance":
        """Provenance of one run of `pipeline` with its opened bundles.

        predecessors : the reports of the run before, the main one first.
        created_at : with a time zone it is turned into the node's own, which is what a hospital's clock shows.
        """
        names = list(PIPELINES)
        return cls(
            node_id=node_id,
            study_instance_uid=study_instance_uid,
            pipeline=pipeline.name,
            version=pipeline.version,
            title=pipeline.title,
            bundles=tuple(BundleUsed(item.name, item.version, item.sha256) for item in bundles.values()),
            fingerprint=fingerprint,
            trained_on="; ".join(dict.fromkeys(item.trained_on for item in bundles.values())),
            created_at=created_at.astimezone() if created_at.tzinfo else created_at,
            configuration=tuple(sorted((configuration or {}).items())),
            slot=names.index(pipeline.name) if pipeline.name in names else len(names),
            predecessor=predecessors[0] if predecessors else None,
            other_predecessors=tuple(predecessors[1:]),
            partial=partial,
        )

    @property
    def is_trained_on_simulation(self) -> bool:
        """Whether the reader must be told that no patient's images taught the model."""
        return any(word in self.trained_on.lower() for word in ("simulat", "phantom", "synthetic"))

    @property
    def report_series_number(self) -> int:
        """Series Number of the SR."""
        return FIRST_SERIES_NUMBER + 2 * self.slot

    @property
    def segmentation_series_number(self) -> int:
        """Series Number of the SEG."""
        return self.report_series_number + 1

    def series_number(self, kind: str, number: int = 1) -> int:
        """Series Number of the kinds of objects that not every destination gets, such as "pm"; see `package.KINDS`.

        number : 1 to 10, of several objects of that kind, which lie in a Series each.
        """
        return FIRST_SERIES_NUMBER + 100 * (1 + list(KINDS).index(kind)) + 10 * self.slot + number - 1

    def uid(self, role: str) -> str:
        """UID of one output ("sr instance", "seg series" ...) of this very job; see `derive_uid`."""
        return derive_uid(
            self.node_id,
            self.study_instance_uid,
            self.fingerprint,
            self.pipeline,
            self.version,
            configuration_digest(self.bundles, self.configuration),
            role,
        )

    @property
    def edition(self) -> str:
        """Digest of what answers: version, bundles and settings. Another edition may answer differently."""
        return _digest(self.version, configuration_digest(self.bundles, self.configuration)).hex()

    def predecessor_for(self, sop_class_uid: str) -> Predecessor | None:
        """The report that one of this SOP Class replaces: of the same SOP Class if there is one."""
        if self.predecessor is None:
            return None
        earlier = (self.predecessor, *self.other_predecessors)
        return next((item for item in earlier if item.sop_class_uid == sop_class_uid), self.predecessor)

    def tracking_uid(self, tracking_id: str) -> str:
        """Tracking UID of a finding as `tracking` has it; of what has a fixed name, such as "Liver", by that name."""
        by_name = tracking_uid(self.node_id, self.study_instance_uid, self.pipeline, tracking_id)
        return dict(self.tracking).get(tracking_id, by_name)

    @property
    def device_uid(self) -> str:
        """UID of the node as an observer (PS3.16 TID 1004)."""
        return _uid("device", self.node_id)

    def algorithm_parameters(self) -> list[str]:
        """What a reader needs to know which networks and settings answered (PS3.16 TID 4019, Algorithm Parameters)."""
        bundles = [f"bundle {bundle.name} {bundle.version} sha256:{bundle.sha256}" for bundle in self.bundles]
        trained = [f"trained on: {self.trained_on}"] if self.trained_on else []
        return [*bundles, *trained, *(f"{key}={value}" for key, value in self.configuration)]


def derive_uid(  # one parameter per thing that makes the object another object
    node_id: str, study_instance_uid: str, fingerprint: str, pipeline: str, version: str, configuration: str, role: str
) -> str:
    """UID of an output: a name-based UID under 2.25 (PS3.5 B.2), the same for the same arguments."""
    return _uid("output", node_id, study_instance_uid, fingerprint, pipeline, version, configuration, role)


def tracking_uid(node_id: str, study_instance_uid: str, pipeline: str, tracking_id: str) -> str:
    """Tracking UID (0062,0021) of what is the same wherever its name is: a region, the exam as a whole."""
    return _uid("tracking", node_id, study_instance_uid, pipeline, tracking_id)


def configuration_digest(bundles: Iterable[BundleUsed], configuration: Iterable[tuple[str, str]]) -> str:
    """Hexadecimal SHA-256 of the bundles and settings behind an answer; their order does not count."""
    lines = [*("\t".join(bundle) for bundle in bundles), *(f"{key}={value}" for key, value in configuration)]
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _uid(*parts: str) -> str:
    return f"2.25.{int.from_bytes(_digest(*parts)[:16], 'big')}"


def _digest(*parts: str) -> bytes:
    return hashlib.sha256("\x1f".join(parts).encode()).digest()


def add_equipment(dataset: Dataset, provenance: Provenance) -> None:
    """Enhanced General Equipment (PS3.3 C.7.5.2) of an object that we make."""
    dataset.Manufacturer = MANUFACTURER
    dataset.ManufacturerModelName = MODEL_NAME
    dataset.DeviceSerialNumber = provenance.node_id[:64]
    dataset.SoftwareVersions = [f"{provenance.pipeline} {provenance.version}"]


def contributing_equipment(provenance: Provenance) -> Dataset:
    """Item of Contributing Equipment Sequence (0018,A001) that says what we did to the images (PS3.3 C.12.1.1.5)."""
    code = concept("processing_equipment").code
    purpose = Dataset()
    purpose.CodeValue, purpose.CodingSchemeDesignator, purpose.CodeMeaning = (
        code.value,
        code.scheme_designator,
        code.meaning,
    )
    item = Dataset()
    add_equipment(item, provenance)
    item.PurposeOfReferenceCodeSequence = [purpose]
    item.ContributionDateTime = provenance.created_at.strftime("%Y%m%d%H%M%S")
    item.ContributionDescription = f"{provenance.title} {provenance.version}"[:1024]
    return item


def is_ours(header: Dataset | Mapping[str, Any]) -> bool:
    """Whether an object was made by a dicom-node, so that it must not be analysed again (loop guard).

    header : a Dataset; or attributes by keyword ("Manufacturer"); or the DICOM JSON model (PS3.18 F) by tag.
    By the equipment alone: any dicom-node counts, since two nodes can feed each other.
    """
    if _text(header, "Manufacturer", "00080070") == MANUFACTURER and (
        _text(header, "ManufacturerModelName", "00081090") == MODEL_NAME
    ):
        return True
    return any(
        _text(item, "Manufacturer", "00080070") == MANUFACTURER
        and _text(item, "ManufacturerModelName", "00081090") == MODEL_NAME
        for item in _items(header)
    )


def _text(header: Any, keyword: str, tag: str) -> str:
    value = header.get(keyword)
    if value is None and not isinstance(header, Dataset):
        value = header.get(tag)
    if isinstance(value, Mapping):
        value = (value.get("Value") or [""])[0]
    return str(value or "").strip()


def _items(header: Any) -> list[Any]:
    value = header.get("ContributingEquipmentSequence")
    if value is None and not isinstance(header, Dataset):
        value = header.get("0018A001")
    if isinstance(value, Mapping):
        value = value.get("Value")
    return [item for item in value or () if hasattr(item, "get")]
