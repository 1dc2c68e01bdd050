"""What may be answered of an exam before its study is complete, for the one who waits beside the scanner. Pure.

The archive must not fill with half reports, so an early answer covers all slices that are whole, not one; it waits a
moment for the next slices; and nothing is answered twice. An exam that is whole before its study is needs no second
answer at all.
"""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from dicom_node.assembly import Ready, unlike
from dicom_node.binding import Binding
from dicom_node.slice_groups import SliceGroup, slice_groups
from storage.records import Instance, Job

#: A slice that is whole waits so long for others, since they usually come together.
PAUSE_S = 1.0
#: But not longer than this while images of the exam keep coming.
LONGEST_PAUSE_S = 3.0
#: No magnitude or phase image for so long: a slice whose number of offsets nobody has stated will get no more.
SILENCE_S = 1.5
#: While an answer is being made nothing else of the exam is asked for; looked at again after so long.
LOOK_AGAIN_S = 0.5

_RAW = ("magnitude", "phase")


@dataclass(frozen=True)
class Early:
    """An answer to ask for now."""

    fingerprint: str
    inputs: Mapping[str, Any]
    partial: str  # in words, what it covers, at most 64 characters
    evidence: str


@dataclass(frozen=True)
class Later:
    """Nothing now; look again then, or when something arrives."""

    at: datetime | None


def early_answer(binding: Binding, jobs: Sequence[Job], now: datetime) -> Ready | Early | Later:
    """What to answer of an exam that goes on arriving.

    jobs : of this pipeline on the study, those that were superseded included.
    Ready: every slice that was declared is there, and of the maps that come with them too, so this is the answer.
    Early: some slices are whole that no job has covered, and no other job is on its way.
    """
    raw = [i for role in _RAW if role in binding.stacks for i in binding.stacks[role].instances]
    if not raw:
        return Later(None)
    silent_at = _last(raw) + timedelta(seconds=SILENCE_S)
    groups = slice_groups(binding, is_silent=now >= silent_at)
    whole = [group for group in groups if group.is_complete]
    kept = [job for job in jobs if job.state != "superseded"]
    if groups and len(whole) == len(groups) and _is_all(binding):
        if any(job.fingerprint == binding.fingerprint for job in kept):
            return Later(None)
        run_at = _run_at(binding, whole)
        evidence = f"the exam is whole, all {_slices(whole)} that were declared"
        return Later(run_at) if now < run_at else Ready(binding.fingerprint, binding.inputs, evidence)
    covered = {uid for job in kept for uid in _raw_uids(job)}
    new = [group for group in whole if not _uids(group) <= covered]
    if not new:
        return Later(silent_at if len(whole) < len(groups) and now < silent_at else None)
    run_at = _run_at(binding, new)
    if now < run_at:
        return Later(run_at)
    if any(job.state in ("waiting", "running") for job in jobs):
        return Later(now + timedelta(seconds=LOOK_AGAIN_S))
    rest = len(groups) - len(whole)
    partial = f"{_slices(whole)}{f' of {_count(groups)}' if rest else ''} so far, more may come"
    waits = f"; others wait: {next(g.reason for g in groups if not g.is_complete)}" if rest else ""
    return Early(_fingerprint(whole), _inputs(binding, whole), partial, f"early answer on {partial}{waits}")


def _last(instances: Collection[Instance]) -> datetime:
    times = [instance.received_at for instance in instances if instance.received_at is not None]
    return max(times, default=datetime.fromtimestamp(0, UTC))


def _run_at(binding: Binding, new: Sequence[SliceGroup]) -> datetime:
    """A moment after the first slice that is not answered became whole; later while images of the exam come."""
    first = min(_last([i for role in _RAW for i in group.instances[role]]) for group in new)
    last = _last([i for stack in binding.stacks.values() for i in stack.instances])
    pause, longest = timedelta(seconds=PAUSE_S), timedelta(seconds=LONGEST_PAUSE_S)
    return min(max(first, last) + pause, first + longest)


def _is_all(binding: Binding) -> bool:
    """Whether the header vouches for all slices, and what is there of other roles covers the same."""
    declared = all(binding.counts[role].state == "met" or binding.stacks[role].is_multi_frame for role in _RAW)
    return declared and not binding.missing and not unlike(binding)


def _uids(group: SliceGroup) -> set[str]:
    return {i.sop_instance_uid for role in _RAW for i in group.instances[role]}


def _raw_uids(job: Job) -> list[str]:
    return [uid for role in _RAW for uid in job.inputs.get(role, {}).get("sop_instance_uids", ())]


def _count(groups: Sequence[SliceGroup]) -> int:
    return sum(len(group.positions_mm) for group in groups)


def _slices(groups: Sequence[SliceGroup]) -> str:
    count = _count(groups)
    return f"{count} slice{'s' * (count != 1)}"


def _fingerprint(groups: Sequence[SliceGroup]) -> str:
    """Never that of a whole exam, which is answered anew with the same images and says so."""
    return hashlib.sha256("\n".join(["early", *(group.fingerprint for group in groups)]).encode()).hexdigest()


def _inputs(binding: Binding, groups: Sequence[SliceGroup]) -> dict[str, Any]:
    """As Job.inputs, of these slices alone, each role in the order of its stack."""
    wanted = {i.sop_instance_uid for group in groups for found in group.instances.values() for i in found}
    inputs: dict[str, Any] = {}
    for role, stack in binding.stacks.items():
        found = [i for i in stack.instances if i.sop_instance_uid in wanted]
        if found:
            inputs[role] = {
                "series_instance_uid": stack.series_instance_uid,
                "sop_instance_uids": [i.sop_instance_uid for i in found],
                "paths": [i.path for i in found],
            }
    return inputs
