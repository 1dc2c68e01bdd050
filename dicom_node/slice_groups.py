"""Which slices of a study are whole already, while others are still on their way. Pure.

An answer about elastography is about slices, and the technologist waits for it beside the patient. A slice group is
all that is bound of one slice, in all roles; it may be analysed as soon as it is complete. Slices that share an
Instance (frames of one multi-frame object) are one group.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from dicom_node.binding import Binding
from dicom_node.recognition.elastography_images import LEAST_OFFSETS
from dicom_node.recognition.elastography_pairs import SAME_SLICE_MM
from dicom_node.recognition.stacks import Stack, normal_of, positions_along
from storage.records import Instance

#: Roles with one image per phase offset. Without the number of offsets nobody can say that such a slice is whole.
_WITH_OFFSETS = ("magnitude", "phase")


@dataclass(frozen=True)
class SliceGroup:
    """All that is bound of one slice, or of slices that come in one object."""

    positions_mm: tuple[float, ...]  # along the normal, rising
    instances: Mapping[str, tuple[Instance, ...]]  # role -> those of the slice, in the order of their phase offsets
    is_complete: bool
    reason: str  # why it is, or what it waits for

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over roles, Instances and their bytes, as Binding.fingerprint: the same images give the same job."""
        rows = sorted(
            f"{role} {i.sop_instance_uid} {i.sha256}" for role, found in self.instances.items() for i in found
        )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @property
    def inputs(self) -> dict[str, Any]:
        """As Job.inputs: role -> series_instance_uid, sop_instance_uids and paths."""
        return {
            role: {
                "series_instance_uid": found[0].series_instance_uid,
                "sop_instance_uids": [instance.sop_instance_uid for instance in found],
                "paths": [instance.path for instance in found],
            }
            for role, found in self.instances.items()
        }


def slice_groups(binding: Binding, *, is_silent: bool = False) -> tuple[SliceGroup, ...]:
    """The slices of a bound study, from the first position to the last.

    A group is complete when magnitude and phase are both there with all phase offsets: as many as the header states,
    or, where it states none, as many as the other slices have once the declared number of images has come. Maps that
    the scanner computes come later and are not waited for. Empty if magnitude or phase is not bound.

    is_silent : no magnitude or phase image has come for some seconds. Then a number of offsets that nobody stated is
        taken to be what the fullest slice has, if magnitude and phase agree on it or there is one magnitude image of
        all offsets: a sender does not stop between the offsets of one slice.
    """
    stacks = {role: stack for role, stack in binding.stacks.items() if stack.positions_mm}
    if not all(role in stacks for role in _WITH_OFFSETS):
        return ()
    places = _joined(stacks, _places(stacks.values()))
    counted = {role: _offsets_wanted(binding, role) for role in _WITH_OFFSETS}
    if is_silent and None in counted.values():
        most = {role: max(stacks[role].offsets, default=0) for role in _WITH_OFFSETS}
        if most["magnitude"] in (1, most["phase"]):
            counted = {role: counted[role] or most[role] for role in _WITH_OFFSETS}
    return tuple(_group(stacks, counted, positions) for positions in places)


def _offsets_wanted(binding: Binding, role: str) -> int | None:
    """Phase offsets that every slice of the role will have; None: nobody has said so."""
    stack = binding.stacks[role]
    is_counted = stack.is_multi_frame or binding.counts[role].state == "met"
    return max(stack.offsets) if is_counted else stack.offsets_stated


def _places(stacks: Any) -> list[float]:
    places: list[float] = []
    for mm in sorted(mm for stack in stacks for mm in stack.positions_mm):
        if not places or mm - places[-1] >= SAME_SLICE_MM:
            places.append(mm)
    return places


def _of_slice(stack: Stack, positions: Sequence[float]) -> tuple[Instance, ...]:
    """Instances of the stack that have an image at one of the positions."""
    normal = stack.normal or normal_of(stack.instances[0])
    return tuple(
        instance
        for instance in stack.instances
        if normal is not None
        and any(abs(p - mm) < SAME_SLICE_MM for p in positions_along(instance, normal) for mm in positions)
    )


def _joined(stacks: Mapping[str, Stack], places: Sequence[float]) -> list[tuple[float, ...]]:
    """Places that share an Instance are one group."""
    groups: list[tuple[tuple[float, ...], set[str]]] = []
    for mm in places:
        uids = {i.sop_instance_uid for stack in stacks.values() for i in _of_slice(stack, (mm,))}
        touching = [group for group in groups if group[1] & uids]
        positions = tuple(sorted([mm, *(p for group in touching for p in group[0])]))
        groups = [group for group in groups if group not in touching]
        groups.append((positions, uids.union(*(group[1] for group in touching))))
    return sorted(positions for positions, _ in groups)


def _group(stacks: Mapping[str, Stack], wanted: Mapping[str, int | None], positions: tuple[float, ...]) -> SliceGroup:
    found = {role: images for role, stack in stacks.items() if (images := _of_slice(stack, positions))}
    waits = [text for role in _WITH_OFFSETS if (text := _waits_for(stacks[role], role, wanted[role], positions))]
    reason = "; ".join(waits) or "magnitude and phase are there with all phase offsets"
    return SliceGroup(positions, found, not waits, reason)


def _waits_for(stack: Stack, role: str, wanted: int | None, positions: Sequence[float]) -> str:
    """What the role lacks of these slices, in words; empty if nothing."""
    has = [
        count
        for mm, count in zip(stack.positions_mm, stack.offsets, strict=True)
        if any(abs(mm - p) < SAME_SLICE_MM for p in positions)
    ]
    if len(has) < len(positions):
        return f"no {role} yet"
    if wanted is None:
        return f"{role}: {min(has)} images, and how many phase offsets there will be is not stated"
    if role == "phase":
        wanted = max(wanted, LEAST_OFFSETS)
    return "" if min(has) >= wanted else f"{role}: {min(has)} of {wanted} phase offsets"
