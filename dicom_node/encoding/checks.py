"""Result objects read back as a stranger would, and compared with what they were made from.

Every fault here is one that validators let pass and a viewer shows as something plausible: so nothing leaves unchecked.
"""

from collections.abc import Iterator, Mapping, Sequence
from io import BytesIO

import highdicom as hd
import numpy as np
from pydicom import Dataset, dcmread

from dicom_node.encoding.header import identity_bytes
from dicom_node.encoding.segmentation import Segment
from dicom_node.encoding.sources import InvalidResult, SourceStack

_MEASUREMENT_GROUP, _TRACKING_UID = "125007", "112040"
_POSITION_TOLERANCE_MM = 1e-3


def check_segmentation(data: bytes, segments: Sequence[Segment], stack: SourceStack) -> None:
    """Frames lie on their source slices and hold exactly the masks. Raises InvalidResult otherwise."""
    _check_identity(dcmread(BytesIO(data), stop_before_pixels=True), stack.header)
    dataset = hd.seg.segread(BytesIO(data))
    if set(dataset.get_segment_numbers()) != {segment.number for segment in segments}:
        raise InvalidResult("SEG: Segment Numbers are not those of the findings.")
    by_number = {segment.number: segment for segment in segments}
    places = {(item.sop_instance_uid, item.frame_number): index for index, item in enumerate(stack.slices)}
    size = stack.rows * stack.columns
    bits = np.frombuffer(dataset.PixelData, dtype=np.uint8)
    found = dict.fromkeys(by_number, 0)
    for frame, groups in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        number = int(groups.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        source = groups.DerivationImageSequence[0].SourceImageSequence[0]
        frame_number = source.get("ReferencedFrameNumber")
        key = (str(source.ReferencedSOPInstanceUID), None if frame_number is None else int(frame_number))
        index = places.get(key)
        position = np.asarray([float(part) for part in groups.PlanePositionSequence[0].ImagePositionPatient])
        if index is None or np.abs(position - stack.slices[index].point).max() > _POSITION_TOLERANCE_MM:
            raise InvalidResult(f"SEG: frame {frame + 1} does not lie on the image that it refers to.")
        first, last = frame * size, (frame + 1) * size
        plane = np.unpackbits(bits[first // 8 : -(-last // 8)], bitorder="little")[first % 8 : first % 8 + size]
        if not np.array_equal(plane.view(np.bool_), by_number[number].mask[index].ravel()):
            raise InvalidResult(f"SEG: frame {frame + 1} is not the mask of Segment {number}.")
        found[number] += int(np.count_nonzero(plane))
    wrong = [number for number, voxels in found.items() if voxels != by_number[number].voxels]
    if wrong:
        raise InvalidResult(f"SEG: Segments {wrong} do not have the voxels of their masks.")


def check_report(
    data: bytes,
    sources: Mapping[str, Sequence[Dataset]],
    header: Dataset,
    segments: Sequence[Segment],
    stack: SourceStack | None,
) -> None:
    """References resolve, evidence is complete, outlines lie in their Segments. Raises InvalidResult otherwise.

    segments, stack : of the findings; none for a study that was refused.
    """
    dataset = dcmread(BytesIO(data))
    _check_identity(dataset, header)
    hd.sr.srread(BytesIO(data))  # parses the tree by the rules of its IOD and TID 1500
    evidence = {
        str(item.ReferencedSOPInstanceUID)
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    inputs = {str(source.SOPInstanceUID) for datasets in sources.values() for source in datasets}
    referenced = {
        str(reference.ReferencedSOPInstanceUID)
        for item in _items(dataset)
        for reference in item.get("ReferencedSOPSequence", ())
    }
    if missing := (inputs | referenced) - evidence:
        raise InvalidResult(f"SR: Instances {sorted(missing)[:3]} are not in the evidence.")
    by_uid = {segment.tracking_uid: segment for segment in segments}
    drawn: dict[str, bool] = {}
    for group in (item for item in _items(dataset) if _name(item) == _MEASUREMENT_GROUP):
        uid = next((str(item.UID) for item in group.ContentSequence if _name(item) == _TRACKING_UID), None)
        if uid is None:
            raise InvalidResult("SR: a measurement group has no Tracking Unique Identifier.")
        coordinates = [item for item in _items(group) if item.ValueType == "SCOORD"]
        drawn[uid] = drawn.get(uid, False) or bool(coordinates)
        if stack is not None and uid in by_uid:
            for item in coordinates:
                _check_inside(item, by_uid[uid], stack)
    if stack is not None and not all(drawn.values()):
        raise InvalidResult("SR: a finding has no graphic on an image; viewers would show nothing of the report.")
    if lost := set(by_uid) - set(drawn) - {item.tracking_uid for item in segments if item.site is None}:
        raise InvalidResult(f"SR: {len(lost)} findings are not in the report.")


def _check_inside(item: Dataset, segment: Segment, stack: SourceStack) -> None:
    """Every point of a graphic touches a voxel of its Segment on the image that it is drawn on."""
    reference = item.ContentSequence[0].ReferencedSOPSequence[0]
    frame = reference.get("ReferencedFrameNumber")
    index = next(
        (
            index
            for index, source in enumerate(stack.slices)
            if source.sop_instance_uid == reference.ReferencedSOPInstanceUID
            and (source.frame_number is None or source.frame_number == int(frame or 0))
        ),
        None,
    )
    if index is None:
        raise InvalidResult(f"SR: a graphic of {segment.tracking_id} is on an image outside of the stack.")
    mask = np.pad(segment.mask[index], 1)
    points = np.asarray(item.GraphicData, dtype=np.float64).reshape(-1, 2)
    columns, rows = points.T
    touches = np.zeros(len(points), dtype=bool)
    for shift_column in (-1e-3, 1e-3):  # a point on an edge touches the pixels on both sides
        for shift_row in (-1e-3, 1e-3):
            row = np.clip(np.floor(rows + shift_row).astype(int) + 1, 0, mask.shape[0] - 1)
            column = np.clip(np.floor(columns + shift_column).astype(int) + 1, 0, mask.shape[1] - 1)
            touches |= mask[row, column]
    if not touches.all():
        raise InvalidResult(f"SR: a graphic of {segment.tracking_id} leaves its Segment.")


def _check_identity(dataset: Dataset, source: Dataset) -> None:
    """Patient and study are those of the source, byte for byte."""
    ours, theirs = identity_bytes(dataset), identity_bytes(source)
    if differing := sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)):
        raise InvalidResult(f"{dataset.Modality}: {', '.join(differing)} differ from the source images.")


def _items(dataset: Dataset) -> Iterator[Dataset]:
    for item in dataset.get("ContentSequence", ()):
        yield item
        yield from _items(item)


def _name(item: Dataset) -> str:
    names = item.get("ConceptNameCodeSequence")
    return str(names[0].CodeValue) if names else ""
