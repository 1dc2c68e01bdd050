"""What holds of our own objects beyond what any good object must be: so that nothing of ours leaves half-marked."""

from collections.abc import Mapping, Sequence

from pydicom.datadict import dictionary_VR

from dicom_node.encoding.concepts import UNITS
from dicom_node.encoding.header import IDENTITY_KEYWORDS
from dicom_node.encoding.provenance import FIRST_SERIES_NUMBER, MANUFACTURER, MODEL_NAME
from dicom_node.encoding.read_back import tree
from dicom_node.encoding.read_back.elements import tag_of
from dicom_node.encoding.read_back.identity import check_identity
from dicom_node.encoding.read_back.images import InputImages
from dicom_node.encoding.read_back.opened import Opened
from dicom_node.encoding.read_back.references import check_evidence
from dicom_node.encoding.read_back.segmentation import ReadSegmentation
from dicom_node.encoding.read_back.tree import Group

_OUR_ROOT = "2.25."


def check_our_object(result: Opened, set_: Mapping[str, Opened], images: InputImages) -> None:
    """Marked as ours in every way: record, equipment, Series, identity. Raises InvalidResult."""
    dataset, encoded = result.dataset, result.encoded
    record = {
        "SOP Instance UID": (encoded.sop_instance_uid, result.uid),
        "SOP Class UID": (encoded.sop_class_uid, result.sop_class_uid),
        "Series Instance UID": (encoded.series_instance_uid, result.series_uid),
        "Transfer Syntax UID": (encoded.transfer_syntax_uid, result.meta.text("TransferSyntaxUID")),
    }
    for what, (kept, read) in record.items():
        if kept != read:
            raise result.fault(f"its {what} is {read}; it would be kept and sent as {kept}.")
    check_identity(result, images, complete=True)
    _check_copied_sequences(result, images)
    if not (result.uid.startswith(_OUR_ROOT) and result.series_uid.startswith(_OUR_ROOT)):
        raise result.fault(f"its UIDs do not begin with {_OUR_ROOT}, as those that this node derives do.")
    if (dataset.text("Manufacturer"), dataset.text("ManufacturerModelName")) != (MANUFACTURER, MODEL_NAME):
        raise result.fault("it does not name this node as its equipment: it would be analysed as an image.")
    for keyword in ("DeviceSerialNumber", "SoftwareVersions", "SeriesDescription", "ContributingEquipmentSequence"):
        if not dataset.has(keyword):
            raise result.fault(f"{keyword} is missing.")
    number = dataset.integer("SeriesNumber")
    if number is None or number < FIRST_SERIES_NUMBER:
        raise result.fault(f"Series Number (0020,0011) is {number}; ours begin at {FIRST_SERIES_NUMBER}.")
    if dataset.text("ContentQualification") != "RESEARCH":
        raise result.fault("Content Qualification (0018,9004) is not RESEARCH.")
    if dataset.sequence("CurrentRequestedProcedureEvidenceSequence"):
        check_evidence(result, set_, images, complete=result.is_report)


def check_our_report(result: Opened, groups: Sequence[Group]) -> None:
    """Every tracked thing with a 2D graphic, every group with its algorithm, units of our table."""
    if result.is_report and result.dataset.text("PreliminaryFlag") != "PRELIMINARY":
        raise result.fault("Preliminary Flag (0040,A496) is not PRELIMINARY.")
    drawn = {group.tracking_uid for group in groups if group.graphics}
    for group in groups:
        called = f"the group of {group.tracking_uid}"
        if group.tracking_uid not in drawn and not group.is_refusal:
            raise result.fault(f"{called} has no 2D graphic; viewers would show nothing of the whole report.")
        if not {tree.ALGORITHM_NAME, tree.ALGORITHM_VERSION} <= {part.name for part in group.content.below}:
            raise result.fault(f"{called} does not say which algorithm it is from.")
        for number in group.numbers:
            unit = number.item.first("MeasuredValueSequence").code("MeasurementUnitsCodeSequence")[1]
            if number.item.sequence("MeasuredValueSequence") and unit not in UNITS:
                raise result.fault(f"{called} has a number in {unit!r}, which is not in the table of units.")
        for graphic in group.graphics:
            if graphic.is_region and graphic.kind == "POLYLINE" and (graphic.points[0] != graphic.points[-1]).any():
                raise result.fault(f"{called} has an outline that is not closed.")


def check_our_segments(found: ReadSegmentation) -> None:
    """Every Segment can be tracked and told apart: Tracking UID, algorithm, colour."""
    for number, item in found.segments.items():
        for keyword in ("TrackingUID", "TrackingID", "SegmentationAlgorithmIdentificationSequence"):
            if not item.has(keyword):
                raise found.result.fault(f"Segment {number} has no {keyword}.")
        if found.numbers is not None and len(item.numbers("RecommendedDisplayCIELabValue")) != 3:
            raise found.result.fault(f"Segment {number} has no colour (0062,000D).")


def check_our_set(results: Sequence[Opened], segmentations: Sequence[ReadSegmentation]) -> None:
    """What is referred to stands in front of what refers to it, so that it arrives first; all SEGs hold the same."""
    held = [{uid: found.voxels[number] for uid, number in found.tracked.items()} for found in segmentations]
    for found, voxels in zip(segmentations, held, strict=True):
        if voxels != held[0]:
            raise found.result.fault("has other Segments, by Tracking UID and voxels, than the first SEG of the set.")
    place = {result.uid: index for index, result in enumerate(results)}
    for index, result in enumerate(results):
        for _, item in result.items:
            if place.get(item.text("ReferencedSOPInstanceUID"), -1) > index:
                raise result.fault("refers to an object that would be sent after it.")


def _check_copied_sequences(result: Opened, images: InputImages) -> None:
    """Sequences of the Patient and Study modules: as many items as in a source image."""
    keywords = [keyword for keyword in IDENTITY_KEYWORDS if dictionary_VR(tag_of(keyword)) == "SQ"]

    def differing(header: object) -> list[str]:
        return [
            keyword
            for keyword in keywords
            if len(header.get(keyword) or ()) != len(result.dataset.sequence(keyword))  # type: ignore[attr-defined]
        ]

    found: list[str] = []
    for image in [*images.first, *images.by_uid.values()]:
        found = differing(image.header)
        if not found:
            return
    raise result.fault(f"{', '.join(found)} differ from those of the source images.")
