"""Is a study complete? Decided by evidence; a clock is only the last resort. Pure: time and settings are passed in.

`decide` weighs what speaks for and against the bound stacks being complete. Strongest first: counts that the sender
declares, gap-free geometry with the same extent in every role and Instance Numbers from 1, associations that ended
by release with none open, and at last a quiet period.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import combinations, pairwise
from typing import Any

from dicom_node.binding import Binding, bind, bind_roles, images_text, size_text
from dicom_node.recognition.elastography_pairs import SAME_SLICE_MM
from dicom_node.recognition.stacks import Stack
from storage.records import Association

__all__ = ["Binding", "Overdue", "Ready", "Wait", "bind", "bind_roles", "decide", "unlike"]

#: Two stacks cover the same if their ends differ by less than this part of the finer spacing. One slice that is
#: still missing at an end is a difference of 1.
SAME_END_IN_SPACINGS = 0.9


@dataclass(frozen=True)
class Ready:
    """Everything needed is there."""

    fingerprint: str
    inputs: Mapping[str, Any]
    evidence: str


@dataclass(frozen=True)
class Wait:
    """Something may still come; look again at `until`, or when something arrives."""

    reason: str
    until: datetime


@dataclass(frozen=True)
class Overdue:
    """It was waited for long enough; a person must look."""

    reason: str


def decide(
    binding: Binding,
    associations: Sequence[Association],
    *,
    last_received_at: datetime,
    now: datetime,
    quiet_period_s: float = 60.0,
    overdue_s: float = 600.0,
    association_idle_s: float = 10.0,
) -> Ready | Wait | Overdue:
    """Run now, wait, or tell a person.

    associations : all that brought something of this study.
    Gaps inside a stack and declared counts that are not met never run, whatever the clock says.
    """
    opened = [a for a in associations if a.state == "open"]
    idle_at = last_received_at + timedelta(seconds=association_idle_s)
    if opened and now < idle_at:
        return Wait("images are still arriving: an association with the sender is open", idle_at)
    overdue_at = last_received_at + timedelta(seconds=overdue_s)

    def wait(reason: str, until: datetime = overdue_at) -> Wait | Overdue:
        if now >= overdue_at:
            return Overdue(f"{reason} (nothing has come for {_duration(now - last_received_at)})")
        return Wait(reason, min(until, overdue_at))

    if binding.missing:
        return wait(binding.missing)
    incomplete = _incomplete(binding)
    if incomplete:
        return wait(incomplete)

    last_end = max([last_received_at, *(a.closed_at for a in associations if a.closed_at)])
    quiet_at = last_end + timedelta(seconds=quiet_period_s)
    doubts = _doubts(binding, opened, associations)
    if not doubts:
        return Ready(binding.fingerprint, binding.inputs, _evidence(binding, opened))
    if any(doubt.is_final for doubt in doubts):
        return wait("; ".join(doubt.text for doubt in doubts))
    if now < quiet_at:
        text = "; ".join(doubt.text for doubt in doubts)
        return wait(f"{text}; waiting for {quiet_period_s:g} s without new images", quiet_at)
    note = "; ".join(doubt.text for doubt in doubts)
    evidence = f"{_evidence(binding, opened)}; note: {note}, but nothing came for {quiet_period_s:g} s"
    return Ready(binding.fingerprint, binding.inputs, evidence)


@dataclass(frozen=True)
class _Doubt:
    """What speaks against completeness; final doubts are not removed by waiting."""

    text: str
    is_final: bool = False


def _incomplete(binding: Binding) -> str:
    """Images that are certainly missing, in words; empty if none."""
    texts = []
    for role, stack in binding.stacks.items():
        count = binding.counts[role]
        if count.state == "short":
            texts.append(f"{role}: {count.text} are there ({stack.name})")
        if stack.gaps:
            gap = stack.gaps[0]
            more = f" and {len(stack.gaps) - 1} more gaps" if len(stack.gaps) > 1 else ""
            where = f"between Instance Numbers {gap.before} and {gap.after}"
            texts.append(
                f"{role}: a gap of {gap.mm:g} mm {where}, {stack.spacing_mm:g} mm elsewhere{more} ({stack.name})"
            )
        short = short_slices(role, stack)
        if short:
            each = ", ".join(f"{has} of {wanted} at {mm:.1f} mm" for mm, has, wanted in short[:3])
            more = f" and {len(short) - 3} more slices" if len(short) > 3 else ""
            texts.append(f"{role}: phase offsets are missing, {each}{more} ({stack.name})")
    return "; ".join(texts)


def short_slices(role: str, stack: Stack) -> list[tuple[float, int, int]]:
    """Slices of elastography without all their phase offsets: (position in mm, offsets there, offsets needed).

    Needed are as many as the best slice has, and of phase images what the header states: some senders make one
    magnitude image of all offsets.
    """
    if not stack.offsets:
        return []
    wanted = max(stack.offsets)
    if role == "phase" and not stack.is_multi_frame:
        wanted = max(wanted, stack.offsets_stated or 0)
    return [(mm, has, wanted) for mm, has in zip(stack.positions_mm, stack.offsets, strict=True) if has < wanted]


def unlike(binding: Binding) -> str:
    """In words, what is certainly missing in the stacks, or how they differ in what they cover; empty if nothing."""
    return _incomplete(binding) or _differing_extents(binding.stacks)


def _doubts(binding: Binding, opened: Sequence[Association], associations: Sequence[Association]) -> list[_Doubt]:
    doubts: list[_Doubt] = []
    all_counted = all(count.state == "met" for count in binding.counts.values())
    differing = _differing_extents(binding.stacks)
    numbering = _odd_numbering(binding.stacks)
    if not all_counted:
        if differing:
            doubts.append(_Doubt(differing))
        elif len(binding.stacks) < 2:
            doubts.append(_Doubt("no declared count and no second stack to compare the extent with"))
        if numbering:
            doubts.append(_Doubt(numbering))
    if binding.awaited:
        doubts.append(_Doubt(binding.awaited))
    broken = _unhealed(associations)
    if broken and not all_counted:
        # What was cut off was not resent. Equal extents may still be whole; unequal ones are what is left of more.
        text = (
            f"the association with {broken.calling_ae_title} was {broken.state} before it ended and nothing was resent"
        )
        doubts.append(_Doubt(text, is_final=bool(differing) or len(binding.stacks) < 2))
    if opened and doubts:
        doubts.append(_Doubt("an association with the sender is still open"))
    declared, there = binding.declared_in_study, binding.images_in_study
    if declared is not None and there < declared:
        # A PACS often sends a part of a study on purpose: this count delays, and never forbids.
        text = f"{there} of {declared} images of the study are there (NumberOfStudyRelatedInstances)"
        doubts.append(_Doubt(text))
    return doubts


def _differing_extents(stacks: Mapping[str, Stack]) -> str:
    """In words, how the stacks of the roles differ in what they cover; empty if they cover the same."""
    for (role_a, a), (role_b, b) in combinations(stacks.items(), 2):
        if not _have_same_extent(a, b):
            return f"{_covers(role_a, a)}, {_covers(role_b, b)}: they do not cover the same"
    return ""


def _covers(role: str, stack: Stack) -> str:
    extent = stack.extent_mm
    where = f" from {extent[0]:.1f} to {extent[1]:.1f} mm" if extent else ""
    return f"{role} has {images_text(stack.slices)}{where}"


def _have_same_extent(a: Stack, b: Stack) -> bool:
    """Compared by the centres of the end slices, or by their outer faces where the spacings differ."""
    if a.offsets or b.offsets:
        return a.slices == b.slices and all(
            abs(p - q) < SAME_SLICE_MM for p, q in zip(a.positions_mm, b.positions_mm, strict=True)
        )
    if (
        a.extent_mm is None
        or b.extent_mm is None
        or not a.spacing_mm
        or not b.spacing_mm
        or not a.normal
        or not b.normal
    ):
        return False
    same_way = sum(x * y for x, y in zip(a.normal, b.normal, strict=True))
    if same_way < 0.99:
        return False
    allowed = SAME_END_IN_SPACINGS * min(a.spacing_mm, b.spacing_mm)
    for half_a, half_b in ((0.0, 0.0), (a.spacing_mm / 2, b.spacing_mm / 2)):
        low = abs((a.extent_mm[0] - half_a) - (b.extent_mm[0] - half_b))
        high = abs((a.extent_mm[1] + half_a) - (b.extent_mm[1] + half_b))
        if low <= allowed and high <= allowed:
            return True
    return False


def _odd_numbering(stacks: Mapping[str, Stack]) -> str:
    """In words, a Series whose Instance Numbers do not run from 1 without a hole; empty if all do."""
    for role, stack in stacks.items():
        numbers = stack.series_instance_numbers
        if not numbers:
            return f"{role}: the images have no Instance Numbers"
        if numbers[0] > 1:
            return f"{role}: Instance Numbers start at {numbers[0]}"
        if numbers[-1] - numbers[0] + 1 != len(numbers):
            hole = next(a for a, b in pairwise(numbers) if b != a + 1)
            return f"{role}: Instance Number {hole + 1} is missing in the Series"
    return ""


def _unhealed(associations: Sequence[Association]) -> Association | None:
    """An association that was cut off and after which none was opened and released: nobody resent what it lost."""
    for broken in associations:
        if broken.state not in ("aborted", "lost"):
            continue
        # A lost one is noticed when the receiver is back, which may be after the sender came again.
        ended = (broken.closed_at or broken.opened_at) if broken.state == "aborted" else broken.opened_at
        if not any(a.state == "released" and a.opened_at >= ended for a in associations):
            return broken
    return None


def _evidence(binding: Binding, opened: Sequence[Association]) -> str:
    parts = []
    for role, stack in binding.stacks.items():
        count = binding.counts[role]
        text = f"{role}: {size_text(stack)}, without a gap"
        if count.state in ("met", "ignored"):
            text += f", {count.text}"
        parts.append(text)
    if len(binding.stacks) > 1 and not _differing_extents(binding.stacks):
        parts.append("the stacks cover the same")
    parts.append("an open association has been silent" if opened else "no association is open")
    return "; ".join(parts)


def _duration(time: timedelta) -> str:
    seconds = time.total_seconds()
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
