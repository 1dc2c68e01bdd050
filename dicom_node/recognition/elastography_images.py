"""Single images of elastography: Instances, or frames of multi-frame objects, with what each shows and where it lies.

Here also GE's one series of two halves is told apart, and images of a slice get the order of their phase offsets.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dicom_node.recognition.elastography_rules import COMPLEX, HALVES, MAGNITUDE, PHASE, Label, label_of
from dicom_node.recognition.stacks import SAME_POSITION_MM, Vector, declared_images, dot, normal_of
from storage.records import Instance

_MR_ROOT, _CAPTURE_ROOT = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.7"
#: Fewer phase offsets than this cannot tell amplitude and phase of a vibration (a mean, a sine and a cosine).
LEAST_OFFSETS = 3
#: What puts the images of one slice into the order of their phase offsets, first the surest.
OFFSET_KEYS = ("FrameTime", "TemporalPositionIdentifier", "TriggerTime", "AcquisitionNumber", "InstanceNumber")


@dataclass(frozen=True)
class MreImage:
    """An Instance, or one frame of a multi-frame object."""

    instance: Instance
    frame: int | None
    label: Label
    normal: Vector | None
    place_mm: float | None  # along the normal
    place: int | None  # counts the places of the Series from 0; images at one place have the same

    @property
    def times(self) -> dict[str, Any]:
        """What may order it among the images of its slice."""
        return times_of(self.instance.attributes, self.frame)

    @property
    def number(self) -> int | None:
        number = self.instance.attributes.get("InstanceNumber")
        return number if isinstance(number, int) else None


def images_of_series(instances: Sequence[Instance]) -> list[MreImage]:
    """Images of elastography among the Instances of one Series, GE's halves told apart."""
    found = [image for instance in instances if not instance.is_ours for image in _images_of(instance)]
    placed = sorted({image.place_mm for image in found if image.place_mm is not None})
    index: dict[float, int] = {}
    for before, mm in zip([None, *placed], placed, strict=False):
        step = 0 if before is None else index[before] + (mm - before >= SAME_POSITION_MM)
        index[mm] = step
    return _halves_told_apart(
        [replace(image, place=None if image.place_mm is None else index[image.place_mm]) for image in found]
    )


def _images_of(instance: Instance) -> list[MreImage]:
    uid, a = instance.sop_class_uid, instance.attributes
    if not any(uid == root or uid.startswith(f"{root}.") for root in (_MR_ROOT, _CAPTURE_ROOT)):
        return []
    if uid.startswith(_CAPTURE_ROOT) and a.get("Modality") not in ("MR", "OT", None):
        return []
    normal, position = normal_of(instance), a.get("ImagePositionPatient")
    positions = a.get("FramePositions")
    frames = [(None, position)] if not positions else list(enumerate(positions))
    found = []
    for frame, position in frames:
        label = label_of(a, frame)
        if label is not None:
            place_mm = dot(position, normal) if normal and position else None
            found.append(MreImage(instance, frame, label, normal, place_mm, None))
    return found


# ------------------------------------------------------------------ GE's halves


def _halves_told_apart(images: list[MreImage]) -> list[MreImage]:
    """Phase and magnitude of the series in which GE sends the one after the other; others as they are."""
    raw = [image for image in images if image.label.component == HALVES]
    if not raw:
        return images
    rest = [image for image in images if image.label.component != HALVES]
    kinds = {image.instance.attributes.get("GeImageKind") for image in raw}
    if {0, 1} <= kinds:
        names: dict[Any, str] = {0: MAGNITUDE, 1: PHASE}
        said = [names.get(image.instance.attributes.get("GeImageKind"), COMPLEX) for image in raw]
        return rest + [
            _relabelled(i, what, f"GE's private image type says {what}") for i, what in zip(raw, said, strict=True)
        ]
    total, why_not = _images_of_halves(raw)
    if total is None:
        text = f"its phase and magnitude cannot be told apart: {why_not}"
        return rest + [_relabelled(image, HALVES, text) for image in raw]
    numbers = [image.number or 0 for image in raw]
    first, half = _first_number(numbers, total), total // 2
    texts = {
        PHASE: f"phase is the first half of {total} images, to Instance Number {first + half - 1}",
        MAGNITUDE: f"magnitude is the second half of {total} images, from Instance Number {first + half}",
    }
    said = [PHASE if number - first < half else MAGNITUDE for number in numbers]
    return rest + [_relabelled(image, what, texts[what]) for image, what in zip(raw, said, strict=True)]


def _first_number(numbers: Sequence[int], total: int) -> int:
    """1, where the numbers allow it: the first images may be missing."""
    return 1 if min(numbers) >= 1 and max(numbers) <= total else min(numbers)


def _relabelled(image: MreImage, component: str, text: str) -> MreImage:
    return replace(image, label=Label(component, f"{image.label.reason}; {text}"))


def _images_of_halves(raw: Sequence[MreImage]) -> tuple[int | None, str]:
    """How many images the whole series has, phase and magnitude together; None and why not, if that is not sure."""
    per_place: dict[int, list[int]] = defaultdict(list)
    for image in raw:
        if image.number is None or image.place is None:
            return None, "an image has no Instance Number or no position"
        per_place[image.place].append(image.number)
    numbers = sorted({n for at_place in per_place.values() for n in at_place})
    places, most = len(per_place), max(len(set(at_place)) for at_place in per_place.values())
    declared, by = declared_images([image.instance for image in raw])
    total = places * most
    if declared is not None and declared >= len(numbers) and declared % (2 * places) == 0:
        total = declared
    elif most % 2:
        return None, f"a slice has {most} images, and halves need an even number"
    if total // (2 * places) < LEAST_OFFSETS:
        return None, f"{total} images of {places} slices are {total // (2 * places)} phase offsets, too few"
    first = _first_number(numbers, total)
    if numbers[-1] - first >= total:
        return None, f"Instance Numbers {numbers[0]} to {numbers[-1]} do not fit {total} images ({by or 'counted'})"
    half, offsets = first + total // 2, total // (2 * places)
    for at_place in per_place.values():
        unique = set(at_place)
        early = sum(n < half for n in unique)
        if early > offsets or len(unique) - early > offsets:
            return None, f"a slice has {early} images in the first half and {len(unique) - early} in the second"
    return total, ""


def times_of(attributes: Mapping[str, Any], frame: int | None) -> dict[str, Any]:
    """What may order an image among those of its slice, by OFFSET_KEYS."""
    times = {keyword: attributes.get(keyword) for keyword in OFFSET_KEYS[1:]}
    of_frames = attributes.get("FrameTimes")
    if frame is not None:
        times = {"FrameTime": of_frames[frame] if of_frames else None, "InstanceNumber": frame}
    return times


def offset_order(slices: Sequence[Sequence[Mapping[str, Any]]]) -> tuple[list[list[int]], str]:
    """Per slice the indices of its images by rising phase offset, and the key that they were ordered by.

    slices : per slice what `times_of` gives of each image. One key serves all slices: the first that is there and
    different for every image of each slice; empty if none is, and then the images stay as they come.
    """
    for keyword in OFFSET_KEYS:
        rows: list[list[Any]] = [[image.get(keyword) for image in at_place] for at_place in slices]
        if all(None not in row and len(set(row)) == len(row) for row in rows):
            return [[i for i, _ in sorted(enumerate(row), key=lambda pair: pair[1])] for row in rows], keyword
    return [list(range(len(at_place))) for at_place in slices], ""
