"""One result object, opened from its bytes, and how its faults are told."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    EncapsulatedPDFStorage,
    EnhancedSRStorage,
    ExplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)

from dicom_node.encoding.header import IDENTITY_KEYWORDS
from dicom_node.encoding.read_back.elements import BrokenBytesError, Item, read_elements, tag_of, walk
from dicom_node.encoding.sources import InvalidResult

LABEL_MAP_SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.7"  # Sup 243; not yet in pydicom's dictionary

#: SOP Class -> what the object is called in messages, and its Modality (PS3.3 C.7.3.1.1.1).
NAMES = {
    str(Comprehensive3DSRStorage): ("SR", "SR"),
    str(ComprehensiveSRStorage): ("Comprehensive SR", "SR"),
    str(EnhancedSRStorage): ("Enhanced SR", "SR"),
    str(BasicTextSRStorage): ("Basic Text SR", "SR"),
    str(SegmentationStorage): ("SEG", "SEG"),
    LABEL_MAP_SEGMENTATION: ("label map SEG", "SEG"),
    str(ParametricMapStorage): ("Parametric Map", ""),  # that of its source, or OT
    str(KeyObjectSelectionDocumentStorage): ("KOS", "KO"),
    str(SecondaryCaptureImageStorage): ("Secondary Capture", ""),
    str(MultiFrameTrueColorSecondaryCaptureImageStorage): ("Secondary Capture", ""),
    str(EncapsulatedPDFStorage): ("PDF", "DOC"),
}
REPORT_CLASSES = tuple(uid for uid, (name, _) in NAMES.items() if name.endswith("SR"))
MEASUREMENT_REPORT_CLASSES = tuple(uid for uid in REPORT_CLASSES if uid != BasicTextSRStorage)
SEGMENTATION_CLASSES = (str(SegmentationStorage), LABEL_MAP_SEGMENTATION)
_IDENTITY = frozenset(tag_of(keyword) for keyword in IDENTITY_KEYWORDS)
_TRANSFER_SYNTAXES = (str(ExplicitVRLittleEndian), str(RLELossless))


class Encoded(Protocol):
    """An object as it is kept and sent; see results.EncodedObject."""

    @property
    def kind(self) -> str: ...
    @property
    def sop_instance_uid(self) -> str: ...
    @property
    def sop_class_uid(self) -> str: ...
    @property
    def transfer_syntax_uid(self) -> str: ...
    @property
    def series_instance_uid(self) -> str: ...
    @property
    def data(self) -> bytes: ...


@dataclass(frozen=True)
class Opened:
    """A result object and what its bytes say."""

    encoded: Encoded
    meta: Item = field(repr=False)
    dataset: Item = field(repr=False)

    @property
    def uid(self) -> str:
        """SOP Instance UID."""
        return self.dataset.text("SOPInstanceUID")

    @property
    def sop_class_uid(self) -> str:
        """SOP Class UID."""
        return self.dataset.text("SOPClassUID")

    @property
    def series_uid(self) -> str:
        """Series Instance UID."""
        return self.dataset.text("SeriesInstanceUID")

    @cached_property
    def own(self) -> Item:
        """The Dataset without what was copied of patient and study."""
        return Item({tag: element for tag, element in self.dataset.items() if tag not in _IDENTITY})

    @cached_property
    def items(self) -> list[tuple[str, Item]]:
        """Every item of every sequence of `own`, at any depth, with the keyword of its sequence."""
        return list(walk(self.own))

    @property
    def is_report(self) -> bool:
        """Whether it is an SR of any kind."""
        return self.sop_class_uid in REPORT_CLASSES

    @property
    def is_segmentation(self) -> bool:
        """Whether it is a SEG of any kind."""
        return self.sop_class_uid in SEGMENTATION_CLASSES

    @property
    def character_set(self) -> list[str]:
        """Specific Character Set (0008,0005)."""
        return self.dataset.words("SpecificCharacterSet")

    def fault(self, text: str) -> InvalidResult:
        """What is wrong with this object; `text` holds no word that the object itself carries of the patient."""
        name = NAMES.get(self.sop_class_uid, (self.encoded.kind, ""))[0]
        return InvalidResult(f"{name} {self.uid}: {text}")


@contextmanager
def told(result: Opened) -> Iterator[None]:
    """Turn what cannot be read in an object into its fault."""
    try:
        yield
    except BrokenBytesError as error:
        raise result.fault(f"{error}.") from None


def opened(encoded: Encoded) -> Opened:
    """Read an object as a Part 10 file (PS3.10 section 7.1). Raises InvalidResult."""

    def fault(text: str) -> InvalidResult:
        return InvalidResult(f"{encoded.kind} {encoded.sop_instance_uid}: {text}")

    data = encoded.data
    if data[128:132] != b"DICM":
        raise fault("no DICOM file: there is no prefix DICM.")
    try:
        meta, position = read_elements(data, 132, last_group=2)
        syntax = meta.text("TransferSyntaxUID")
        if syntax not in _TRANSFER_SYNTAXES:
            raise fault(f"Transfer Syntax UID (0002,0010) is {syntax!r}; needed: {' or '.join(_TRANSFER_SYNTAXES)}.")
        dataset, _ = read_elements(data, position)
    except BrokenBytesError as error:
        raise fault(f"the bytes cannot be read back: {error}.") from None
    found = Opened(encoded, meta, dataset)
    length = meta.integer("FileMetaInformationGroupLength")
    if length is None or length != position - 132 - 12:
        raise found.fault(f"File Meta Information Group Length (0002,0000) is {length}, not {position - 144}.")
    for keyword in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID", "ImplementationClassUID"):
        if not meta.has(keyword):
            raise found.fault(f"File Meta Information has no {keyword}.")
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if meta.text(f"MediaStorage{keyword}") != dataset.text(keyword):
            raise found.fault(f"MediaStorage{keyword} is not the {keyword} of the Dataset.")
    if found.sop_class_uid not in NAMES:
        raise found.fault(f"SOP Class {found.sop_class_uid} is none that this node sends.")
    modality = NAMES[found.sop_class_uid][1]
    if modality and dataset.text("Modality") != modality:
        raise found.fault(f"Modality is {dataset.text('Modality')!r}; viewers need {modality!r} for this SOP Class.")
    return found
