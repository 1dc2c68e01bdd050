"""A Series -> stacks: one volume each, with its geometry and with what its headers say about being complete."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from itertools import pairwise
from typing import Any

from storage.records import Instance

#: Two positions closer than this along the normal are the same place. CT and MR slices are 0.4 mm apart or more.
SAME_POSITION_MM = 0.05
#: A step along the normal of more than this many slice spacings is a gap: at least one image is missing.
GAP_IN_SPACINGS = 1.5
#: Directions whose cosines differ less than this are one orientation (0.6 degrees).
SAME_DIRECTION = 0.01

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Gap:
    """A step between neighbours that is longer than the stack's spacing."""

    before: int | None  # Instance Number of the image before it
    after: int | None
    mm: float


@dataclass(frozen=True)
class Stack:
    """Images of one Series that make one volume, or that have no geometry at all."""

    stack_id: str  # Series Instance UID + "#1", counted in the order of Instance Numbers
    series_instance_uid: str
    instances: tuple[Instance, ...]  # rising along the normal; one per place
    duplicates: tuple[Instance, ...]  # further images at a place that is already taken
    distinguished_by: str  # what sets it apart in its Series: "AcquisitionNumber 2"; empty if it is alone
    orientation: str  # axial | coronal | sagittal | oblique; empty without geometry
    normal: Vector | None  # unit vector, row x column direction, LPS
    positions_mm: tuple[float, ...]  # of every frame along the normal, rising
    spacing_mm: float | None  # between neighbouring slices; None for fewer than two
    gaps: tuple[Gap, ...]
    declared_count: int | None  # images that the sender says belong here
    declared_by: str  # the element that says so
    series_instance_numbers: tuple[int, ...]  # Instance Numbers of the whole Series, sorted; it is numbered as one
    acquired_at_s: float | None  # earliest acquisition, seconds; only differences mean something
    #: elastography, where a slice is one image per phase offset: images per place, along positions_mm
    offsets: tuple[int, ...] = ()
    offsets_stated: int | None = None  # phase offsets that the header says each slice has

    @property
    def study_instance_uid(self) -> str:
        return self.instances[0].study_instance_uid

    @property
    def sop_class_uid(self) -> str:
        return self.instances[0].sop_class_uid

    @property
    def attributes(self) -> Mapping[str, Any]:
        """Header values of the first image; they stand for the stack."""
        return self.instances[0].attributes

    @property
    def extent_mm(self) -> tuple[float, float] | None:
        """First and last position along the normal, mm; None without geometry."""
        return (self.positions_mm[0], self.positions_mm[-1]) if self.positions_mm else None

    @property
    def slices(self) -> int:
        """Slices, counting the frames of multi-frame objects."""
        return len(self.positions_mm) or len(self.instances)

    @property
    def is_multi_frame(self) -> bool:
        """Whether its images are frames of multi-frame objects, which come whole."""
        return "FramePositions" in self.attributes

    @cached_property
    def name(self) -> str:
        """For people: series number, description, size."""
        number = self.attributes.get("SeriesNumber")
        described = self.attributes.get("SeriesDescription")
        parts = [f"series {number}" if number is not None else f"series {self.series_instance_uid}"]
        if described:
            parts.append(f"'{described}'")
        if self.distinguished_by:
            parts.append(f"[{self.distinguished_by}]")
        return " ".join(parts)


def stacks_of_series(instances: Sequence[Instance]) -> list[Stack]:
    """Split one Series into stacks.

    Orientation, matrix, pixel spacing, SOP Class and being a localizer always split. AcquisitionNumber, temporal
    position, echo time, b-value, ImageType, kernel and the like split only where positions repeat, because a
    helical scan of several breath-holds changes its AcquisitionNumber along the way and is one volume.
    """
    unique: dict[str, Instance] = {}
    for instance in sorted(instances, key=_order):
        unique.setdefault(instance.sop_instance_uid, instance)
    numbers = tuple(sorted({n for i in unique.values() if isinstance(n := i.attributes.get("InstanceNumber"), int)}))
    grids: list[tuple[Any, list[Instance]]] = []
    for instance in unique.values():
        grid = grid_of(instance)
        for known, members in grids:
            if is_same_grid(known, grid):
                members.append(instance)
                break
        else:
            grids.append((grid, [instance]))
    parts = [part for _, members in grids for part in _split_where_positions_repeat(members, "")]
    parts.sort(key=lambda part: _order(part[0][0]))
    if len(parts) > 1 and len(grids) > 1:
        parts = [(members, label or _grid_label(members[0])) for members, label in parts]
    return [_stack(members, label, number, numbers) for number, (members, label) in enumerate(parts, start=1)]


# ------------------------------------------------------------------ splitting


def _order(instance: Instance) -> tuple[int, int, str]:
    a = instance.attributes
    return (a.get("AcquisitionNumber") or 0, a.get("InstanceNumber") or 0, instance.sop_instance_uid)


@dataclass(frozen=True)
class Grid:
    """What images of one stack have in common."""

    fixed: tuple[Any, ...]
    directions: tuple[float, ...] | None
    pixel_spacing: tuple[float, ...] | None


def is_localizer(instance: Instance) -> bool:
    """ImageType value 3 of CT images tells LOCALIZER from AXIAL (PS3.3 C.8.2.1.1.1)."""
    return any("LOCALIZER" in str(v).upper() for v in instance.attributes.get("ImageType") or ())


def grid_of(instance: Instance) -> Grid:
    a = instance.attributes
    directions, spacing = a.get("ImageOrientationPatient"), a.get("PixelSpacing")
    fixed = (
        instance.sop_class_uid,
        instance.is_ours,
        is_localizer(instance),
        a.get("Rows"),
        a.get("Columns"),
        _has_position(instance),
    )
    return Grid(fixed, tuple(directions) if directions else None, tuple(spacing) if spacing else None)


def _has_position(instance: Instance) -> bool:
    return "ImagePositionPatient" in instance.attributes or "FramePositions" in instance.attributes


def is_same_grid(a: Grid, b: Grid) -> bool:
    return (
        a.fixed == b.fixed
        and _is_close(a.directions, b.directions, SAME_DIRECTION)
        and _is_close(a.pixel_spacing, b.pixel_spacing, 0.001)
    )


def _is_close(a: tuple[float, ...] | None, b: tuple[float, ...] | None, tolerance: float) -> bool:
    if a is None or b is None:
        return a is b
    return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))


def _grid_label(instance: Instance) -> str:
    a = instance.attributes
    words = [orientation_name(normal_of(instance)), f"{a.get('Rows')}x{a.get('Columns')}"]
    if is_localizer(instance):
        words.insert(0, "localizer")
    return " ".join(w for w in words if w and "None" not in w)


#: What may set apart images at the same place, in the order in which it is tried.
_KEYS: tuple[tuple[str, Callable[[Instance], Any]], ...] = tuple(
    (keyword, lambda instance, keyword=keyword: _hashable(instance.attributes.get(keyword)))  # type: ignore[misc]
    for keyword in (
        "AcquisitionNumber",
        "TemporalPositionIdentifier",
        "EchoTime",
        "DiffusionBValue",
        "ImageType",
        "ConvolutionKernel",
        "ContrastBolusAgentPhase",
        "ComplexImageComponent",
        "SequenceName",
        "SliceThickness",
        "KVP",
        "SeriesDescription",
        "AcquisitionTime",
    )
)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _repeats(members: Sequence[Instance]) -> int:
    """How many images lie at a place that another one has already taken."""
    places = Counter(_place(instance) for instance in members if "ImagePositionPatient" in instance.attributes)
    return sum(count - 1 for count in places.values())


def _place(instance: Instance) -> int:
    normal = normal_of(instance)
    position = instance.attributes["ImagePositionPatient"]
    return round(dot(position, normal) / SAME_POSITION_MM) if normal else 0


def _split_where_positions_repeat(members: list[Instance], label: str) -> list[tuple[list[Instance], str]]:
    """Split by the key that leaves the fewest repeated positions, until none repeats or no key helps."""
    repeats = _repeats(members)
    # A few images at one place are copies, or breath-holds that overlap; a second volume repeats many places.
    if repeats < max(2, len(members) // 10):
        return [(members, label)]
    best: tuple[int, str, dict[Any, list[Instance]]] | None = None
    for keyword, key in _KEYS:
        groups: dict[Any, list[Instance]] = defaultdict(list)
        for instance in members:
            groups[key(instance)].append(instance)
        if len(groups) < 2:
            continue
        # A key that is new for every image, such as a time per slice, says nothing.
        if len(groups) > len(members) // 2:
            continue
        left = sum(_repeats(group) for group in groups.values())
        if left < repeats and (best is None or left < best[0]):
            best = (left, keyword, groups)
    if best is None:
        return [(members, label)]
    _, keyword, groups = best
    if keyword == "AcquisitionNumber":
        groups = _joined_breath_holds(groups)
    parts = []
    for value, group in groups.items():
        text = f"{keyword} {_value_text(value)}"
        parts += _split_where_positions_repeat(group, f"{label}, {text}" if label else text)
    return parts


def _joined_breath_holds(groups: Mapping[Any, list[Instance]]) -> dict[Any, list[Instance]]:
    """Acquisitions in a row that continue each other without overlap are breath-holds of one volume."""
    joined: list[tuple[list[Any], list[Instance]]] = []
    for value, group in sorted(groups.items(), key=lambda pair: pair[0] or 0):
        if joined and _continue_each_other(joined[-1][1], group):
            joined[-1][0].append(value)
            joined[-1][1].extend(group)
        else:
            joined.append(([value], list(group)))
    return {values[0] if len(values) == 1 else tuple(values): group for values, group in joined}


def _continue_each_other(a: Sequence[Instance], b: Sequence[Instance]) -> bool:
    normal = normal_of(a[0])
    if normal is None:
        return False
    first = sorted(p for i in a for p in positions_along(i, normal))
    second = sorted(p for i in b for p in positions_along(i, normal))
    if len(first) < 2 or len(second) < 2:
        return False
    step = max((first[-1] - first[0]) / (len(first) - 1), (second[-1] - second[0]) / (len(second) - 1))
    between = max(second[0] - first[-1], first[0] - second[-1])
    return SAME_POSITION_MM < between <= 2 * step


def _value_text(value: Any) -> str:
    if value is None:
        return "absent"
    return "\\".join(map(str, value)) if isinstance(value, tuple) else str(value)


# ------------------------------------------------------------------ geometry


def dot(a: Sequence[float], b: Sequence[float]) -> float:
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def normal_of(instance: Instance) -> Vector | None:
    """Unit normal of the slice plane (row direction x column direction), LPS; None without a usable orientation."""
    cosines = instance.attributes.get("ImageOrientationPatient")
    if not cosines:
        return None
    (a, b, c), (d, e, f) = cosines[:3], cosines[3:]
    n = (b * f - c * e, c * d - a * f, a * e - b * d)
    length = dot(n, n) ** 0.5
    return (n[0] / length, n[1] / length, n[2] / length) if length > 0.5 else None


def orientation_name(normal: Vector | None) -> str:
    """axial, coronal or sagittal within 25 degrees (a tilted gantry is still axial), else oblique."""
    if normal is None:
        return ""
    for index, name in enumerate(("sagittal", "coronal", "axial")):
        if abs(normal[index]) > 0.906:
            return name
    return "oblique"


def positions_along(instance: Instance, normal: Vector) -> list[float]:
    """Position of the image, or of every frame, along `normal`, mm; empty without one."""
    frames = instance.attributes.get("FramePositions")
    if frames:
        return [dot(position, normal) for position in frames]
    position = instance.attributes.get("ImagePositionPatient")
    return [dot(position, normal)] if position else []


def _stack(members: Sequence[Instance], label: str, number: int, series_numbers: tuple[int, ...]) -> Stack:
    normal = normal_of(members[0])
    placed: list[tuple[float, Instance]] = []
    if normal is not None:
        placed = [(p, instance) for instance in members for p in positions_along(instance, normal)]
        placed.sort(key=lambda pair: (pair[0], *_order(pair[1])))
    kept: list[tuple[float, Instance]] = []
    duplicates: list[Instance] = []
    for position, instance in placed:
        if kept and position - kept[-1][0] < SAME_POSITION_MM:
            # the frames of one multi-frame object may share a place: that object stays, its pipeline judges it
            if instance is not kept[-1][1]:
                duplicates.append(instance)
        else:
            kept.append((position, instance))
    instances = list(dict.fromkeys(i.sop_instance_uid for _, i in kept))
    by_uid = {i.sop_instance_uid: i for i in members}
    ordered = [by_uid[uid] for uid in instances] or sorted(members, key=_order)
    dropped = [i for i in dict.fromkeys(i.sop_instance_uid for i in duplicates) if i not in set(instances)]
    spacing, gaps = spacing_and_gaps(kept)
    declared, declared_by = declared_images(ordered)
    times = [t for i in ordered if (t := acquisition_time_s(i.attributes)) is not None]
    return Stack(
        stack_id=f"{members[0].series_instance_uid}#{number}",
        series_instance_uid=members[0].series_instance_uid,
        instances=tuple(ordered),
        duplicates=tuple(by_uid[uid] for uid in dropped),
        distinguished_by=label,
        orientation=orientation_name(normal) if kept else "",
        normal=normal if kept else None,
        positions_mm=tuple(position for position, _ in kept),
        spacing_mm=spacing,
        gaps=gaps,
        declared_count=declared,
        declared_by=declared_by,
        series_instance_numbers=series_numbers,
        acquired_at_s=min(times) if times else None,
    )


def spacing_and_gaps(kept: Sequence[tuple[float, Instance]]) -> tuple[float | None, tuple[Gap, ...]]:
    """Slice spacing from the short steps (long ones may be gaps), and the steps that are longer."""
    steps = [after[0] - before[0] for before, after in pairwise(kept)]
    if not steps:
        return None, ()
    short = sorted(steps)[(len(steps) - 1) // 10]
    usual = sorted(step for step in steps if step <= GAP_IN_SPACINGS * short)
    spacing = usual[len(usual) // 2]
    gaps = tuple(
        Gap(before[1].attributes.get("InstanceNumber"), after[1].attributes.get("InstanceNumber"), round(step, 2))
        for (before, after), step in zip(pairwise(kept), steps, strict=True)
        if step > GAP_IN_SPACINGS * spacing
    )
    return round(spacing, 4), gaps


# ------------------------------------------------------------------ counts and times


def declared_images(members: Sequence[Instance]) -> tuple[int | None, str]:
    """What the sender declares: the sum of Images in Acquisition over the stack's acquisitions, else of the Series.

    Both stand in real data for other things too, so that the assembly judges whether they can be meant.
    """
    per_acquisition: dict[Any, int] = {}
    for instance in members:
        count = instance.attributes.get("ImagesInAcquisition")
        if isinstance(count, int) and count > 0:
            acquisition = instance.attributes.get("AcquisitionNumber")
            per_acquisition[acquisition] = max(count, per_acquisition.get(acquisition, 0))
    acquisitions = {i.attributes.get("AcquisitionNumber") for i in members}
    if per_acquisition and set(per_acquisition) == acquisitions:
        return sum(per_acquisition.values()), "ImagesInAcquisition (0020,1002)"
    counts = _integers(members, "NumberOfSeriesRelatedInstances")
    if counts:
        return max(counts), "NumberOfSeriesRelatedInstances (0020,1209)"
    return None, ""


def _integers(members: Iterable[Instance], keyword: str) -> list[int]:
    return [n for i in members if isinstance(n := i.attributes.get(keyword), int) and n > 0]


def seconds_of_day(text: object) -> float | None:
    """A DICOM time (TM), such as 101112.25, in seconds; None if it is none."""
    digits = str(text or "").replace(":", "").split(".")
    hhmmss = digits[0]
    if not (2 <= len(hhmmss) <= 6 and hhmmss.isascii() and hhmmss.isdigit()):
        return None
    hhmmss = hhmmss.ljust(6, "0")
    fraction = digits[1] if len(digits) > 1 and digits[1].isascii() and digits[1].isdigit() else "0"
    return int(hhmmss[:2]) * 3600 + int(hhmmss[2:4]) * 60 + int(hhmmss[4:6]) + float(f"0.{fraction}")


def days(text: object) -> int | None:
    """A DICOM date (DA) as a number of days; None if it is none."""
    value = str(text or "").replace(".", "")
    if not (len(value) == 8 and value.isascii() and value.isdigit()):
        return None
    try:
        return date(int(value[:4]), int(value[4:6]), int(value[6:])).toordinal()
    except ValueError:
        return None


def acquisition_time_s(attributes: Mapping[str, Any]) -> float | None:
    """When the image was acquired, in seconds from an arbitrary day; None if the header does not say."""
    moment = str(attributes.get("AcquisitionDateTime") or "")
    day, time = days(moment[:8]), seconds_of_day(moment[8:].split("+")[0].split("-")[0])
    if day is not None and time is not None:
        return day * 86400.0 + time
    time = seconds_of_day(attributes.get("AcquisitionTime"))
    if time is None:
        return None
    day = days(attributes.get("AcquisitionDate")) or days(attributes.get("StudyDate")) or 0
    return day * 86400.0 + time
