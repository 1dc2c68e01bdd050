"""Frames of a multi-frame result on the grid of its source: where each lies, and on which image."""

from collections.abc import Mapping, Sequence

import numpy as np

from dicom_node.encoding.read_back.elements import Item
from dicom_node.encoding.read_back.images import InputImages, Place, Plane
from dicom_node.encoding.read_back.opened import Opened
from dicom_node.encoding.read_back.references import check_referenced_series

_POSITION_TOLERANCE_MM = 1e-3
_COSINE_TOLERANCE = 1e-4
_SPACING_TOLERANCE = 1e-3  # as a fraction
_SLICE_SPACING_TOLERANCE = 0.02  # as a fraction; gaps of one stack differ a little
_SAME_PLACE_MM = 0.05  # images of one place, such as two echoes, may differ by this


def frame_groups(result: Opened) -> tuple[Item, list[Item]]:
    """Shared functional groups and those of each frame (PS3.3 C.7.6.16). Raises InvalidResult."""
    groups = result.dataset.sequence("PerFrameFunctionalGroupsSequence")
    count = result.dataset.integer("NumberOfFrames")
    if count != len(groups) or not count:
        raise result.fault(f"Number of Frames (0028,0008) is {count}; there are groups of {len(groups)} frames.")
    return result.dataset.first("SharedFunctionalGroupsSequence"), groups


def places_of_frames(result: Opened, images: InputImages) -> list[Place]:
    """The source image or frame that each frame lies on. Raises InvalidResult where it does not lie on it exactly.

    References, positions and matrix must all say the same: some viewers go by the one, some by the other.
    """
    series_uid = check_referenced_series(result, images)
    source = images.series[series_uid][0]
    matrix = result.dataset.integer("Rows"), result.dataset.integer("Columns")
    if matrix != (source.rows, source.columns):
        raise result.fault(f"has {matrix} rows and columns; its source images have {(source.rows, source.columns)}.")
    shared, groups = frame_groups(result)
    known = {place: images.plane(place) for place in images.places(series_uid)}
    if all(plane is None for plane in known.values()):
        return [
            _referenced_place(result, item, shared, number, known, images)
            for number, item in enumerate(groups, start=1)
        ]
    uid = next(plane.frame_of_reference_uid for plane in known.values() if plane is not None)
    if result.dataset.text("FrameOfReferenceUID") != uid:
        raise result.fault(
            f"Frame of Reference UID (0020,0052) is {result.dataset.text('FrameOfReferenceUID')!r}; "
            f"the source images have {uid}."
        )
    places = []
    for number, frame in enumerate(groups, start=1):
        position = _macro(frame, shared, "PlanePositionSequence").numbers("ImagePositionPatient")
        place = _referenced_place(result, frame, shared, number, known, images)
        plane = known[place]
        if plane is None:
            raise result.fault(f"frame {number} refers to Instance {place[0]}, which has no place in space.")
        if len(position) != 3 or np.abs(position - plane.position).max() > _POSITION_TOLERANCE_MM:
            raise result.fault(
                f"frame {number} lies at {position.tolist()} mm; Instance {place[0]}, which it refers to, lies at "
                f"{plane.position.tolist()} mm."
            )
        _check_orientation(result, number, frame, shared, plane)
        places.append(place)
    _check_slice_spacing(result, shared, groups, known, places)
    return places


def frame_voxel_mm3(result: Opened) -> float:
    """Volume of a voxel by what the result itself says, mm3."""
    shared, groups = frame_groups(result)
    measures = _macro(groups[0], shared, "PixelMeasuresSequence")
    spacing = measures.numbers("PixelSpacing")
    depth = measures.numbers("SpacingBetweenSlices")
    depth = depth if len(depth) else measures.numbers("SliceThickness")
    return float(np.prod(spacing) * abs(depth[0])) if len(spacing) == 2 and len(depth) else float("nan")


def _referenced_place(
    result: Opened,
    frame: Item,
    shared: Item,
    number: int,
    known: Mapping[Place, Plane | None],
    images: InputImages,
) -> Place:
    """The one image or frame of the Referenced Series among the source images of a frame."""
    derivations = frame.sequence("DerivationImageSequence") or shared.sequence("DerivationImageSequence")
    named: set[Place] = set()
    for image in (image for derivation in derivations for image in derivation.sequence("SourceImageSequence")):
        uid, frames = image.text("ReferencedSOPInstanceUID"), image.numbers("ReferencedFrameNumber")
        named |= {(uid, int(item)) for item in frames} if len(frames) else {(uid, None)}
    here = [place for place in {images.known(item) for item in named} if place in known]
    if len(here) != 1:
        raise result.fault(
            f"frame {number} refers to {len(here)} images or frames of its Referenced Series; one is needed, with its "
            "frame number if it has frames."
        )
    return here[0]


def _check_orientation(result: Opened, number: int, frame: Item, shared: Item, plane: Plane) -> None:
    orientation = _macro(frame, shared, "PlaneOrientationSequence").numbers("ImageOrientationPatient")
    if len(orientation) != 6 or np.abs(orientation - plane.orientation).max() > _COSINE_TOLERANCE:
        raise result.fault(f"frame {number} has the orientation {orientation.tolist()}, its source another.")
    spacing = _macro(frame, shared, "PixelMeasuresSequence").numbers("PixelSpacing")
    if len(spacing) != 2 or np.abs(spacing / plane.spacing - 1).max() > _SPACING_TOLERANCE:
        raise result.fault(
            f"frame {number} has a Pixel Spacing of {spacing.tolist()} mm, its source {plane.spacing.tolist()} mm."
        )


def _check_slice_spacing(
    result: Opened,
    shared: Item,
    groups: Sequence[Item],
    known: Mapping[Place, Plane | None],
    places: Sequence[Place],
) -> None:
    """What is stated between slices is what lies between those of the source; volumes are reckoned with it."""
    stated = _macro(groups[0], shared, "PixelMeasuresSequence").numbers("SpacingBetweenSlices")
    used = known[places[0]]
    if used is None or not len(stated):
        return
    normal = np.cross(used.orientation[:3], used.orientation[3:])
    along = np.sort([
        float(plane.position @ normal)
        for plane in known.values()
        if plane is not None and np.abs(plane.orientation - used.orientation).max() <= _COSINE_TOLERANCE
    ])  # fmt: skip
    gaps = np.diff(along)
    own = [plane.position for place in set(places) if (plane := known[place]) is not None]
    beside = np.diff(np.sort(np.array(own) @ normal))
    gaps = gaps[gaps > _SAME_PLACE_MM]
    usual = [np.median(gaps), gaps.mean()] if len(gaps) else [abs(float(stated[0]))]
    usual += list(np.sort(beside[beside > _SAME_PLACE_MM])[:1])  # in a Series of several stacks
    if np.abs(abs(float(stated[0])) / np.array(usual) - 1).min() > _SLICE_SPACING_TOLERANCE:
        raise result.fault(
            f"Spacing Between Slices (0018,0088) is {stated[0]} mm; the source's slices lie {usual[0]:.4f} mm apart."
        )


def _macro(frame: Item, shared: Item, keyword: str) -> Item:
    return frame.first(keyword) if frame.sequence(keyword) else shared.first(keyword)
