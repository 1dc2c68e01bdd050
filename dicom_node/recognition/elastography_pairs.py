"""Which parts of elastography belong together: the same slices, taken at the same time, by the same sequence."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from dicom_node.recognition.elastography_rules import ELASTOGRAM, MAGNITUDE, PHASE, RAW_3D, vendor_of
from dicom_node.recognition.stacks import Stack, dot

#: Two slices nearer than this along the normal are the same one; slices of elastography are 3 to 10 mm apart.
SAME_SLICE_MM = 1.0
#: Magnitude and phase of one acquisition start within this time. Resoundant's sorter allows 5, without a unit.
PAIR_WINDOW_S = 300.0
_SAME_ECHO_MS = 0.5


@dataclass(frozen=True)
class Part:
    """The images of one Series that show one thing on one grid."""

    stack: Stack
    component: str
    reason: str
    needs_partner: bool  # it is elastography only if an image that surely is belongs to it
    is_masked: bool


def partners(unsure: Sequence[Part], sure: Sequence[Part]) -> dict[int, Part]:
    """Index in `unsure` -> the part that is elastography beyond doubt and was acquired together with it.

    Each sure part has at most one partner that shows the same: of several that lie where it lies, one is its own and
    the others are something else, such as diffusion at the same places.
    """
    fitting = sorted(
        (
            (_distance(part, other), u, s)
            for u, part in enumerate(unsure)
            for s, other in enumerate(sure)
            if _may_be_partners(part, other)
        )
    )
    found: dict[int, Part] = {}
    taken = {
        (s, another.component)
        for s, other in enumerate(sure)
        for another in sure
        if another is not other and _same_slices(another, other) and _apart_s(another, other) <= PAIR_WINDOW_S
    }
    for _, u, s in fitting:
        if u not in found and (s, unsure[u].component) not in taken:
            found[u] = sure[s]
            taken.add((s, unsure[u].component))
    return found


def _may_be_partners(part: Part, other: Part) -> bool:
    vendor = vendor_of(part.stack.attributes)
    if vendor != vendor_of(other.stack.attributes):
        return False
    if other.component in (PHASE, RAW_3D):
        return other.component != part.component and _one_acquisition(part, other)
    of_map = vendor == "Canon" and other.component == ELASTOGRAM  # phase is not named as elastography there
    return of_map and _same_slices(part, other) and _apart_s(part, other) <= PAIR_WINDOW_S


def acquisitions(parts: Sequence[Part]) -> list[list[Part]]:
    """Parts by acquisition, in the order in which they were acquired.

    Every phase part is one, with the magnitude nearest to it; computed maps join the acquisition whose slices they
    lie on, of several the one that is nearest in time. What joins none is an acquisition of its own.
    """
    groups = [[part] for part in sorted(parts, key=_in_time) if part.component == PHASE]
    magnitudes = [part for part in sorted(parts, key=_in_time) if part.component == MAGNITUDE]
    pairs = sorted(
        (
            (_distance(part, group[0]), g, m)
            for g, group in enumerate(groups)
            for m, part in enumerate(magnitudes)
            if _one_acquisition(part, group[0])
        ),
    )
    paired: set[int] = set()
    for _, g, m in pairs:
        if len(groups[g]) == 1 and m not in paired:
            groups[g].append(magnitudes[m])
            paired.add(m)
    groups += [[part] for m, part in enumerate(magnitudes) if m not in paired]
    for part in sorted(parts, key=_in_time):
        if part.component in (PHASE, MAGNITUDE):
            continue
        fitting = [group for group in groups if any(_same_slices(part, other) for other in group)]
        if not fitting:
            groups.append([part])
            continue
        best = min(fitting, key=_nearness(part))
        # Without anything raw, a second map of the same kind far off in time is of a second acquisition.
        is_raw = any(other.component in (PHASE, MAGNITUDE) for other in best)
        if not is_raw and _apart_s(part, best[0]) > PAIR_WINDOW_S:
            groups.append([part])
        else:
            best.append(part)
    return sorted(groups, key=lambda group: min(_in_time(part) for part in group))


def _nearness(part: Part) -> Callable[[Sequence[Part]], tuple[Any, ...]]:
    def nearness(group: Sequence[Part]) -> tuple[Any, ...]:
        is_taken = any(other.component == part.component and other.is_masked == part.is_masked for other in group)
        return min(_distance(part, other)[:2] for other in group), is_taken, min(_distance(part, o) for o in group)

    return nearness


def _in_time(part: Part) -> tuple[Any, ...]:
    stack = part.stack
    time = stack.acquired_at_s
    return (time is None, time or 0.0, stack.attributes.get("SeriesNumber") or 0, stack.stack_id)


def _distance(a: Part, b: Part) -> tuple[Any, ...]:
    """Nearest first: one Series, then time (to the tenth second), then Series Numbers."""
    numbers = [part.stack.attributes.get("SeriesNumber") or 0 for part in (a, b)]
    apart = _apart_s(a, b)
    return (
        a.stack.series_instance_uid != b.stack.series_instance_uid,
        round(apart, 1),
        abs(numbers[0] - numbers[1]),
        a.stack.stack_id,
        b.stack.stack_id,
    )


def _apart_s(a: Part, b: Part) -> float:
    """Seconds between their first images; 0 where a header does not say when."""
    first, second = a.stack.acquired_at_s, b.stack.acquired_at_s
    return abs(first - second) if first is not None and second is not None else 0.0


def _one_acquisition(a: Part, b: Part) -> bool:
    """Whether both may be components of the same measured signal: same slices, grid and echo, taken together."""
    mine, other = a.stack.attributes, b.stack.attributes
    echoes = [echo for header in (mine, other) if (echo := header.get("EchoTime")) is not None]
    return (
        _same_slices(a, b)
        and (mine.get("Rows"), mine.get("Columns")) == (other.get("Rows"), other.get("Columns"))
        and _close(mine.get("PixelSpacing"), other.get("PixelSpacing"), 0.001)
        and (len(echoes) < 2 or abs(echoes[0] - echoes[1]) <= _SAME_ECHO_MS)
        and _apart_s(a, b) <= PAIR_WINDOW_S
    )


def _same_slices(a: Part, b: Part) -> bool:
    """Same direction and Frame of Reference, and the places of one are among those of the other."""
    one, two = a.stack, b.stack
    if one.normal is None or two.normal is None or dot(one.normal, two.normal) < 0.999:
        return False
    frames = one.attributes.get("FrameOfReferenceUID"), two.attributes.get("FrameOfReferenceUID")
    if None not in frames and frames[0] != frames[1]:
        return False
    few, many = sorted((one.positions_mm, two.positions_mm), key=len)
    shared = sum(any(abs(p - q) < SAME_SLICE_MM for q in many) for p in few)
    return bool(few) and 2 * shared > len(few)


def _close(a: Any, b: Any, tolerance: float) -> bool:
    if not a or not b:
        return a == b
    return all(abs(x - y) <= tolerance for x, y in zip(a, b, strict=True))
