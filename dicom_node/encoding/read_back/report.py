"""An SR read back: PS3.16 TID 1500 as viewers need it, and what every report of a machine must say of itself."""

from collections.abc import Mapping

import numpy as np
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComprehensiveSRStorage,
    CTImageStorage,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedSRStorage,
    MRImageStorage,
)

from dicom_node.encoding.read_back import tree
from dicom_node.encoding.read_back.elements import BrokenBytesError
from dicom_node.encoding.read_back.images import InputImages
from dicom_node.encoding.read_back.opened import MEASUREMENT_REPORT_CLASSES, Opened
from dicom_node.encoding.read_back.tree import Content, Graphic, Group, content_of, groups_of

_TEXTUAL = frozenset(
    ("TEXT", "CODE", "DATETIME", "DATE", "TIME", "UIDREF", "PNAME", "COMPOSITE", "IMAGE", "WAVEFORM", "CONTAINER")
)
#: SOP Class -> Value Types of its content (PS3.3 A.35.1 to A.35.3 and A.35.13).
_VALUE_TYPES: Mapping[str, frozenset[str]] = {
    str(BasicTextSRStorage): _TEXTUAL,
    str(EnhancedSRStorage): _TEXTUAL | {"NUM", "SCOORD", "TCOORD"},
    str(ComprehensiveSRStorage): _TEXTUAL | {"NUM", "SCOORD", "TCOORD"},
    str(Comprehensive3DSRStorage): _TEXTUAL | {"NUM", "SCOORD", "TCOORD", "SCOORD3D"},
}
#: Graphic Type -> fewest and most points (PS3.3 C.18.6.1.2).
_POINTS = {"POINT": (1, 1), "MULTIPOINT": (1, None), "POLYLINE": (2, None), "CIRCLE": (2, 2), "ELLIPSE": (4, 4)}
#: Sources whose geometry an Image Library states (TID 1602), by which a viewer finds an image's place.
_LIBRARY_CLASSES = (CTImageStorage, EnhancedCTImageStorage, MRImageStorage, EnhancedMRImageStorage)
_FAKED_VIEWERS = (b"cornerstonetools@", b"cornerstone3dtools@")


def check_report(result: Opened, images: InputImages) -> list[Group]:
    """Check an SR by itself and against its source images; its measurement groups. Raises InvalidResult."""
    dataset = result.dataset
    if dataset.text("VerificationFlag") != "UNVERIFIED" or dataset.has("VerifyingObserverSequence"):
        raise result.fault(
            f"Verification Flag (0040,A493) is {dataset.text('VerificationFlag')!r}; no person has verified it."
        )
    if dataset.text("CompletionFlag") not in ("COMPLETE", "PARTIAL"):
        raise result.fault(f"Completion Flag (0040,A491) is {dataset.text('CompletionFlag')!r}.")
    document = content_of(dataset)
    for content in document.below:
        if content.kind not in _VALUE_TYPES[result.sop_class_uid]:
            raise result.fault(f"holds a content item of type {content.kind!r}, which its SOP Class has not.")
    observers = [content.item for content in document.below if content.name == tree.OBSERVER_TYPE]
    if not observers or any(item.code("ConceptCodeSequence") != tree.DEVICE for item in observers):
        raise result.fault("the observer is not typed as a device; it would read as a person's report.")
    if result.sop_class_uid not in MEASUREMENT_REPORT_CLASSES:
        return []
    return _check_measurement_report(result, document, images)


def _check_measurement_report(result: Opened, document: Content, images: InputImages) -> list[Group]:
    dataset = result.dataset
    if document.name != tree.REPORT_TITLE:
        raise result.fault(f"its title is {document.name}; viewers show only an Imaging Measurement Report (126000).")
    template = dataset.first("ContentTemplateSequence")
    if (template.text("MappingResource"), template.text("TemplateIdentifier")) != ("DCMR", "1500"):
        raise result.fault(f"its template is {template.text('TemplateIdentifier')!r}, not 1500 of DCMR.")
    if tree.IMAGING_MEASUREMENTS not in {content.name for content in document.below}:
        raise result.fault("it has no Imaging Measurements (126010, DCM).")
    algorithm = {part.name for part in document.below if part.name in _ALGORITHM and part.item.has("TextValue")}
    if algorithm != set(_ALGORITHM):
        raise result.fault("it does not say which algorithm it is from, with name and version (TID 4019).")
    for content in document.below:
        if content.kind == "NUM":
            _check_number(result, content)
    groups = groups_of(document)
    if not groups:
        raise result.fault("it has no measurement group.")
    for group in groups:
        _check_group(result, group, images)
    drawn = {group.tracking_uid for group in groups if group.graphics or group.has_3d}
    if bare := [group for group in groups if group.tracking_uid not in drawn and not group.is_refusal]:
        raise result.fault(
            f"{len(bare)} measurement groups have no graphic under their Tracking UID, such as {bare[0].tracking_uid}; "
            "viewers would show nothing of the whole report."
        )
    _check_library(result, document, groups, images)
    for content in document.below:
        uid = content.item.text("UID")
        if content.name == tree.SOURCE_SERIES and uid not in images.series:
            raise result.fault(f"names Series {uid!r} as the source of a segmentation, which is none of the sources.")
    return groups


_ALGORITHM = (tree.ALGORITHM_NAME, tree.ALGORITHM_VERSION)


def _check_group(result: Opened, group: Group, images: InputImages) -> None:
    if not group.tracking_uid or not group.tracking_identifier:
        raise result.fault("a measurement group has no Tracking UID or no Tracking Identifier (TID 4108).")
    if group.tracking_identifier.lower().startswith(_FAKED_VIEWERS):
        raise result.fault("a Tracking Identifier pretends to be a viewer's own; it would compute the values anew.")
    for graphic in group.graphics:
        _check_graphic(result, group, graphic, images)


def _check_number(result: Opened, content: Content) -> None:
    """A finite number with a unit of UCUM (PS3.3 C.18.1)."""
    item, called = content.item, f"the number {'/'.join(content.name)}"
    if not item.sequence("MeasuredValueSequence"):
        if not item.sequence("NumericValueQualifierCodeSequence"):
            raise result.fault(f"{called} has neither a value nor a reason why not.")
        return
    measured = item.first("MeasuredValueSequence")
    try:
        value = measured.numbers("NumericValue")
    except BrokenBytesError:
        value = np.empty(0)
    if len(value) != 1 or not np.isfinite(value).all():
        raise result.fault(f"{called} has the value {measured.text('NumericValue')!r}; one finite number is needed.")
    scheme, unit = measured.code("MeasurementUnitsCodeSequence")
    if scheme != "UCUM" or not unit:
        raise result.fault(f"{called} has the unit {unit!r} of {scheme!r}; a unit of UCUM is needed.")


def _check_graphic(result: Opened, group: Group, graphic: Graphic, images: InputImages) -> None:
    """Drawn on a source image or frame, within it (PS3.3 C.18.6)."""
    called = f"the {graphic.kind or 'graphic'} of {group.tracking_uid}"
    if graphic.place is None:
        raise result.fault(f"{called} was selected from no image.")
    image = images.by_uid.get(graphic.place[0])
    if image is None:
        raise result.fault(f"{called} lies on Instance {graphic.place[0]}, which is no source image.")
    if image.frames is not None and graphic.place[1] is None:
        raise result.fault(
            f"{called} lies on Instance {image.uid}, which has {image.frames} frames, without saying on which."
        )
    fewest, most = _POINTS.get(graphic.kind, (None, None))
    count = len(graphic.points)
    if fewest is None or count < fewest or (most is not None and count > most):
        raise result.fault(f"{called} has {count} points.")
    if not np.isfinite(graphic.points).all():
        raise result.fault(f"{called} has a point that is no number.")
    outside = (graphic.points < 0) | (graphic.points > [image.columns, image.rows])
    if outside.any():
        raise result.fault(f"{called} leaves its image of {image.columns} columns and {image.rows} rows.")


def _check_library(result: Opened, document: Content, groups: list[Group], images: InputImages) -> None:
    """Images with a region on them are in the Image Library, if their kind has descriptors (TID 1600, 1602)."""
    libraries = [content for content in document.below if content.name == tree.IMAGE_LIBRARY]
    entries = {place[0] for library in libraries for content in library.below if (place := tree.place_of(content.item))}
    for graphic in (graphic for group in groups for graphic in group.graphics):
        image = images.by_uid[graphic.place[0]] if graphic.place is not None else None
        if image is None or image.sop_class_uid not in _LIBRARY_CLASSES or not graphic.is_region:
            continue
        if image.uid not in entries:
            raise result.fault(f"Instance {image.uid} has a region on it, but is not in the Image Library (TID 1600).")
