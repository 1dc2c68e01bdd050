"""The source images of a result: their order, places and identity. Reads geometry and UIDs only, never pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.errors import NodeError

#: Allowed departure of one gap between slices from the usual one, as a fraction; more is a missing image.
GAP_TOLERANCE = 0.5


class InvalidResult(NodeError):
    """A result does not fit its source images or is not what it should be; nothing is sent and the job fails."""


@dataclass(frozen=True)
class SourceSlice:
    """One image or frame."""

    sop_class_uid: str
    sop_instance_uid: str
    frame_number: int | None  # 1-based; None for single-frame images
    position: Any  # Image Position (Patient) as the source writes it, three DS; None if it has none
    instance_number: int | None = None  # as viewers show it
    rows: int = 0  # of the image; 0 where the source does not say
    columns: int = 0

    @property
    def point(self) -> NDArray[np.float64]:
        """Centre of the first voxel, LPS mm."""
        return np.asarray([float(part) for part in self.position])


@dataclass(frozen=True)
class SourceImages:
    """The images or frames of one role in order, wherever they lie; those of ultrasound lie nowhere."""

    header: Dataset  # of the first image's Instance, for identity and common attributes
    slices: tuple[SourceSlice, ...]


@dataclass(frozen=True)
class SourceStack(SourceImages):
    """One stack with geometry, in the order of the masks' slice axis."""

    rows: int
    columns: int
    orientation: Any  # Image Orientation (Patient) as the source writes it, six DS
    pixel_spacing: Any  # between rows, between columns, mm, two DS
    slice_spacing_mm: float  # between slice centres along the normal
    slice_thickness: Any  # DS or None
    frame_of_reference_uid: str

    @property
    def voxel_mm3(self) -> float:
        """Volume of one voxel of the grid."""
        return float(self.pixel_spacing[0]) * float(self.pixel_spacing[1]) * self.slice_spacing_mm

    @property
    def shape(self) -> tuple[int, int, int]:
        """(slice, row, column)."""
        return len(self.slices), self.rows, self.columns


def source_stack(datasets: Sequence[Dataset], frame_numbers: Sequence[int] | None = None) -> SourceStack:
    """Geometry of a stack.

    datasets : one per slice of the masks, in their order. For an enhanced multi-frame Instance it is given once, or
        once per frame.
    frame_numbers : the 1-based frame of each slice; not given: frames in order of position along the normal.
    Raises InvalidResult if the images are not one evenly spaced stack: a result can only lie on such a grid.
    """
    first = datasets[0]
    if int(first.get("NumberOfFrames") or 1) > 1 or "PerFrameFunctionalGroupsSequence" in first:
        slices, orientation, measures = _multi_frame(datasets, frame_numbers)
    else:
        slices = [_slice(ds, None, _position(ds)) for ds in datasets]
        orientation, measures = first.get("ImageOrientationPatient"), first
        series = {_uid(ds, "SeriesInstanceUID") for ds in datasets}
        if len(series) > 1:
            raise InvalidResult(f"The stack mixes images of {len(series)} Series: {', '.join(sorted(series))}.")
    if len({(item.sop_instance_uid, item.frame_number) for item in slices}) < len(slices):
        raise InvalidResult(f"Instance {slices[0].sop_instance_uid}: an image stands for two slices of the stack.")
    spacing = measures.get("PixelSpacing")
    if orientation is None or spacing is None or not first.get("FrameOfReferenceUID"):
        raise InvalidResult(
            f"Instance {slices[0].sop_instance_uid}: Image Orientation (0020,0037), Pixel Spacing (0028,0030) and "
            "Frame of Reference UID (0020,0052) are needed to place a segmentation."
        )
    return SourceStack(
        header=first,
        slices=tuple(slices),
        rows=int(first.Rows),
        columns=int(first.Columns),
        orientation=orientation,
        pixel_spacing=spacing,
        slice_spacing_mm=_slice_spacing(slices, orientation, measures),
        slice_thickness=measures.get("SliceThickness") or None,
        frame_of_reference_uid=str(first.FrameOfReferenceUID),
    )


def source_images(datasets: Sequence[Dataset], frame_numbers: Sequence[int] | None = None) -> SourceImages:
    """Images of a role on which nothing was segmented: a stack if they are one, else single images in the order given.

    datasets : as for `source_stack`; several multi-frame Instances count one after the other, frame by frame.
    """
    try:
        return source_stack(datasets, frame_numbers)
    except InvalidResult:
        slices: list[SourceSlice] = []
        for dataset in {_uid(dataset, "SOPInstanceUID"): dataset for dataset in datasets}.values():
            count = int(dataset.get("NumberOfFrames") or 1)
            slices += [_slice(dataset, number if count > 1 else None, None) for number in range(1, count + 1)]
        return SourceImages(datasets[0], tuple(slices))


def _slice(dataset: Dataset, frame_number: int | None, position: Any) -> SourceSlice:
    number = dataset.get("InstanceNumber")
    return SourceSlice(
        sop_class_uid=_uid(dataset, "SOPClassUID"),
        sop_instance_uid=_uid(dataset, "SOPInstanceUID"),
        frame_number=frame_number,
        position=position,
        instance_number=None if number is None else int(number),
        rows=int(dataset.get("Rows") or 0),
        columns=int(dataset.get("Columns") or 0),
    )


def _multi_frame(
    datasets: Sequence[Dataset], frame_numbers: Sequence[int] | None
) -> tuple[list[SourceSlice], Any, Dataset]:
    """Slices, orientation and Pixel Measures item of one enhanced Instance (PS3.3 C.7.6.16)."""
    first = datasets[0]
    uid, count = _uid(first, "SOPInstanceUID"), int(first.get("NumberOfFrames") or 1)
    if any(_uid(dataset, "SOPInstanceUID") != uid for dataset in datasets) or len(datasets) not in (1, count):
        raise InvalidResult(f"Instance {uid}: {len(datasets)} images were given for its {count} frames.")
    shared = first.get("SharedFunctionalGroupsSequence") or [Dataset()]
    per_frame = first.get("PerFrameFunctionalGroupsSequence") or []
    if len(per_frame) != count:
        raise InvalidResult(
            f"Instance {uid}: Per-frame Functional Groups (5200,9230) has {len(per_frame)} of {count} items."
        )

    def macro(index: int, name: str) -> Dataset:
        found = per_frame[index].get(name) or shared[0].get(name)
        if not found:
            raise InvalidResult(f"Instance {uid}: frame {index + 1} has no {name}.")
        return found[0]

    orientation = macro(0, "PlaneOrientationSequence").get("ImageOrientationPatient")
    positions = [_position(macro(index, "PlanePositionSequence"), uid) for index in range(count)]
    if frame_numbers is None:
        normal = _normal(orientation)
        along = [float(np.dot([float(part) for part in position], normal)) for position in positions]
        frame_numbers = [1 + int(index) for index in np.argsort(along, kind="stable")]
    slices = [_slice(first, number, positions[number - 1]) for number in frame_numbers]
    return slices, orientation, macro(0, "PixelMeasuresSequence")


def _position(dataset: Dataset, uid: str | None = None) -> Any:
    position = dataset.get("ImagePositionPatient")
    if position is None or len(position) != 3:
        raise InvalidResult(
            f"Instance {uid or _uid(dataset, 'SOPInstanceUID')}: no Image Position (Patient) (0020,0032)."
        )
    return position


def _normal(orientation: Any) -> NDArray[np.float64]:
    cosines = np.asarray([float(part) for part in orientation])
    return np.cross(cosines[:3], cosines[3:])


def _slice_spacing(slices: Sequence[SourceSlice], orientation: Any, measures: Dataset) -> float:
    """Mean distance of neighbouring slices along the normal, mm."""
    if len(slices) == 1:
        return abs(float(measures.get("SpacingBetweenSlices") or measures.get("SliceThickness") or 1.0))
    along = np.asarray([item.point for item in slices]) @ _normal(orientation)
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    for index in np.flatnonzero(np.abs(gaps - usual) > GAP_TOLERANCE * abs(usual)).tolist() or (
        [0] if usual == 0 else []
    ):
        raise InvalidResult(
            f"Instances {slices[index].sop_instance_uid} and {slices[index + 1].sop_instance_uid} lie "
            f"{gaps[index]:.2f} mm apart along the normal, the others {usual:.2f} mm: the stack is out of order or "
            "an image is missing."
        )
    return abs(float(along[-1] - along[0])) / (len(slices) - 1)


def _uid(dataset: Dataset, keyword: str) -> str:
    value = dataset.get(keyword)
    if not value:
        raise InvalidResult(f"A source image has no {keyword}.")
    return str(value)


def check_one_study(sources: Mapping[str, Sequence[Dataset]], study_instance_uid: str) -> None:
    """Every source image must be of the study that the result is for; InvalidResult otherwise."""
    for role, datasets in sources.items():
        for dataset in datasets:
            if _uid(dataset, "StudyInstanceUID") != study_instance_uid:
                raise InvalidResult(
                    f"Instance {_uid(dataset, 'SOPInstanceUID')} ({role}) is of Study {dataset.StudyInstanceUID}; "
                    f"the result is for Study {study_instance_uid}."
                )
