"""Which stack plays which role of a pipeline, why, and why the others do not. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations, product
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword

from dicom_node.recognition.elastography import kind_of
from dicom_node.recognition.elastography_rules import COMPONENTS
from dicom_node.recognition.stacks import Stack
from dicom_node.recognition.study import Recognised, RecognisedStack
from dicom_node.routing.conditions import Condition
from pipelines.pipeline import Pipeline, Role
from storage.records import Series

#: The verdict of recognition that each role wants.
ROLE_KINDS: Mapping[str, str] = {
    "arterial": "ct arterial",
    "portal_venous": "ct portal_venous",
    **{component: kind_of(component) for component in COMPONENTS},
}
#: Verdicts that an administrator's own condition may turn into a role: soft-tissue volumes of any phase.
_BINDABLE = frozenset({"ct plain", "ct arterial", "ct portal_venous", "ct delayed", "ct unknown phase"})
#: The same for a role of elastography: whatever MR there is.
_BINDABLE_MRE = ("mr", "mre ")

#: A candidate that covers less than this part of the longest one of its role is on its way, or is a key image.
LEAST_COVERAGE = 0.8
_GOOD_SPACING_MM = (0.9, 3.1)
_FAIR_SPACING_MM = 5.1
_MOST_CANDIDATES = 6
_MOST_COMBINATIONS = 5000
_SHOWN_STACKS = 8


@dataclass(frozen=True)
class Count:
    """What a declared number of images says about one stack."""

    state: str  # "met" | "short" | "ignored" | "none"
    text: str


@dataclass(frozen=True)
class Binding:
    """Which stack plays which role, and why."""

    stacks: Mapping[str, Stack]  # role -> stack; roles without one are absent
    reasons: Mapping[str, str]  # role -> why this stack, and why not the others
    missing: str  # what required roles lack, in words; empty if nothing
    counts: Mapping[str, Count]
    images_in_study: int = 0
    declared_in_study: int | None = None
    awaited: str = ""  # optional roles that may still come, in words; empty if none

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the bound Instances and their bytes: the same images give the same job."""
        rows = sorted(
            f"{role} {instance.sop_instance_uid} {instance.sha256}"
            for role, stack in self.stacks.items()
            for instance in stack.instances
        )
        return hashlib.sha256("\n".join(rows).encode()).hexdigest()

    @property
    def inputs(self) -> dict[str, Any]:
        """Job.inputs: role -> series_instance_uid, sop_instance_uids and paths, along the stack's normal."""
        return {
            role: {
                "series_instance_uid": stack.series_instance_uid,
                "sop_instance_uids": [instance.sop_instance_uid for instance in stack.instances],
                "paths": [instance.path for instance in stack.instances],
            }
            for role, stack in self.stacks.items()
        }


def bind_roles(
    roles: Sequence[Role],
    recognised: Recognised,
    overrides: Mapping[str, Condition] | None = None,
    series: Sequence[Series] = (),
    any_of: Sequence[Sequence[str]] = (),
) -> Binding:
    """Give every role its stack.

    any_of : sets of roles of which at least one must be bound whole, beside the required ones (Pipeline.any_of).
    overrides : role -> condition that replaces recognition for this role; it is tried on the header of each stack's
        Series (from `series`, where given) with the stack's own values in front. Only soft-tissue CT volumes qualify.
    Of several candidates those are taken that cover most, then with a spacing of 1 to 3 mm, then alike in all roles.
    Stacks that were acquired as a group (elastography) are bound together: of several groups the latest that suffices.
    """
    overrides = overrides or {}
    headers = {one.series_instance_uid: one.header for one in series}
    claimed: dict[str, list[RecognisedStack]] = {}
    for role in roles:
        if role.name in overrides:
            claimed[role.name] = [r for r in recognised.stacks if _claims(role.name, overrides[role.name], r, headers)]
    taken = {r.stack.stack_id for found in claimed.values() for r in found}
    candidates: dict[str, list[RecognisedStack]] = {}
    for role in roles:
        found = claimed.get(role.name)
        if found is None:
            kind = ROLE_KINDS.get(role.name, role.name)
            found = [r for r in recognised.stacks if r.kind == kind and r.stack.stack_id not in taken]
        candidates[role.name] = found
    chosen = _best_group(roles, candidates, any_of)
    reasons = {role: _why(role, picked, candidates[role], role in overrides) for role, picked in chosen.items()}
    lacking = [role.name for role in roles if role.required and role.name not in chosen]
    if not lacking and not _suffices(chosen, any_of):
        lacking = [" or ".join(" with ".join(names) for names in any_of)]
    awaited = [role.name for role in roles if role.is_awaited and role.name not in chosen]
    return Binding(
        stacks={role: picked.stack for role, picked in chosen.items()},
        reasons=reasons,
        missing=_missing(lacking, recognised, chosen, overrides),
        counts={role: _count(picked.stack, recognised) for role, picked in chosen.items()},
        images_in_study=recognised.images,
        declared_in_study=recognised.declared_images,
        awaited=_awaited(awaited, recognised, chosen),
    )


def bind(
    pipeline: Pipeline,
    recognised: Recognised,
    overrides: Mapping[str, Condition] | None = None,
    series: Sequence[Series] = (),
) -> Binding:
    """`bind_roles` for all that a pipeline asks for."""
    return bind_roles(pipeline.roles, recognised, overrides, series, pipeline.any_of)


def _claims(
    role: str, condition: Condition, candidate: RecognisedStack, headers: Mapping[str, Mapping[str, Any]]
) -> bool:
    of_mre = role in COMPONENTS
    if not (candidate.kind.startswith(_BINDABLE_MRE) if of_mre else candidate.kind in _BINDABLE):
        return False
    header = dict(headers.get(candidate.stack.series_instance_uid, {}))
    header.update(_as_header(candidate.stack.attributes))
    return condition.explain(header).holds


def _as_header(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword -> value as DICOM JSON model (PS3.18 Annex F)."""
    header: dict[str, Any] = {}
    for keyword, value in attributes.items():
        tag = tag_for_keyword(keyword)
        if tag is None or keyword == "PatientAge":  # here in years, in a header as Age String
            continue
        values = list(value) if isinstance(value, list | tuple) else [value]
        header[f"{tag:08X}"] = {"vr": dictionary_VR(tag), "Value": values}
    return header


def _length(stack: Stack) -> float:
    """Covered length along the normal, mm; slices where there is no geometry."""
    extent = stack.extent_mm
    return extent[1] - extent[0] + (stack.spacing_mm or 0.0) if extent else float(stack.slices)


def _spacing_rank(stack: Stack) -> int:
    """0: 1 to 3 mm, 1: up to 5 mm, 2: thinner or thicker, 3: unknown."""
    spacing = stack.spacing_mm
    if spacing is None:
        return 3
    low, high = _GOOD_SPACING_MM
    if low <= spacing <= high:
        return 0
    return 1 if high < spacing <= _FAIR_SPACING_MM else 2


def _suffices(chosen: Mapping[str, RecognisedStack], any_of: Sequence[Sequence[str]]) -> bool:
    return not any_of or any(all(role in chosen for role in names) for names in any_of)


def _best_group(
    roles: Sequence[Role], candidates: Mapping[str, Sequence[RecognisedStack]], any_of: Sequence[Sequence[str]]
) -> dict[str, RecognisedStack]:
    """The best combination of each group of stacks, and of those the latest that has all that is needed.

    A scan that was repeated is repeated because the first one failed. Stacks of no group may join any.
    """
    names = [role.name for role in roles]
    groups = sorted({r.group for found in candidates.values() for r in found if r.group})
    if not groups:
        return _best_combination(names, candidates)
    awaited = [role.name for role in roles if role.is_awaited]
    best: tuple[Any, ...] | None = None
    chosen: dict[str, RecognisedStack] = {}
    for group in groups:
        found = _best_combination(
            names, {role: [r for r in every if r.group in ("", group)] for role, every in candidates.items()}
        )
        times = [r.stack.acquired_at_s for r in found.values() if r.stack.acquired_at_s is not None]
        numbers = [r.stack.attributes.get("SeriesNumber") or 0 for r in found.values()]
        rank = (
            all(role.name in found for role in roles if role.required) and _suffices(found, any_of),
            sum(role in found for role in awaited),
            max(times, default=0.0),
            max(numbers, default=0),
        )
        if best is None or rank > best:
            best, chosen = rank, found
    return chosen


def _best_combination(
    roles: Sequence[str], candidates: Mapping[str, Sequence[RecognisedStack]]
) -> dict[str, RecognisedStack]:
    """One candidate per role, no stack in two roles; a role stays empty only where there is no other way."""
    longest = {role: max((_length(r.stack) for r in candidates[role]), default=0.0) for role in roles}

    def is_short(role: str, candidate: RecognisedStack) -> bool:
        return _length(candidate.stack) < LEAST_COVERAGE * longest[role]

    most = _MOST_CANDIDATES
    while most > 1 and (most + 1) ** len(roles) > _MOST_COMBINATIONS:
        most -= 1
    shortlists: list[list[RecognisedStack | None]] = []
    for role in roles:
        ranked = sorted(candidates[role], key=lambda r, role=role: (is_short(role, r), *_own_rank(r)))  # type: ignore[misc]
        shortlists.append([*ranked[:most], None])
    best: tuple[Any, ...] | None = None
    chosen: dict[str, RecognisedStack] = {}
    for picks in product(*shortlists):
        filled = {role: pick for role, pick in zip(roles, picks, strict=True) if pick is not None}
        if len({r.stack.stack_id for r in filled.values()}) < len(filled):
            continue
        pairs = list(combinations([r.stack for r in filled.values()], 2))
        rank = (
            len(roles) - len(filled),
            sum(is_short(role, r) for role, r in filled.items()),
            sum(_spacing_rank(r.stack) for r in filled.values()),
            sum(not _is_like(a, b) for a, b in pairs),
            sum(a.attributes.get("FrameOfReferenceUID") != b.attributes.get("FrameOfReferenceUID") for a, b in pairs),
            *(_own_rank(pick) if pick is not None else () for pick in picks),
        )
        if best is None or rank < best:
            best, chosen = rank, filled
    return chosen


def _own_rank(candidate: RecognisedStack) -> tuple[Any, ...]:
    stack = candidate.stack
    image_type = [str(v).upper() for v in stack.attributes.get("ImageType") or ()]
    return (
        candidate.rank,
        _spacing_rank(stack),
        "DERIVED" in image_type[:1],
        stack.spacing_mm or 0.0,
        stack.attributes.get("SeriesNumber") or 0,
        stack.stack_id,
    )


def _is_like(a: Stack, b: Stack) -> bool:
    """Same spacing within a tenth: reconstructed for each other."""
    return (
        a.spacing_mm is not None and b.spacing_mm is not None and abs(a.spacing_mm - b.spacing_mm) <= 0.1 * a.spacing_mm
    )


def size_text(stack: Stack) -> str:
    spacing = f", {stack.spacing_mm:g} mm apart" if stack.spacing_mm else ""
    if stack.offsets:
        fewest, most = min(stack.offsets), max(stack.offsets)
        each = f"{most}" if fewest == most else f"{fewest} to {most}"
        return f"{stack.slices} slice{'s' * (stack.slices != 1)} with {each} phase offsets{spacing}"
    return f"{images_text(stack.slices)}{spacing}"


def images_text(count: int) -> str:
    return f"{count} image" if count == 1 else f"{count} images"


def _why(role: str, picked: RecognisedStack, candidates: Sequence[RecognisedStack], overridden: bool) -> str:
    because = "the rule's own condition for this role holds" if overridden else picked.reason
    text = f"{role}: {picked.stack.name}, {size_text(picked.stack)}, because {because}"
    others = [r for r in candidates if r is not picked]
    if others:
        listed = ", ".join(f"{r.stack.name} ({size_text(r.stack)})" for r in others[:_SHOWN_STACKS])
        text += f"; it suits better than {listed}"
    return text


def _missing(
    lacking: Sequence[str],
    recognised: Recognised,
    chosen: Mapping[str, RecognisedStack],
    overrides: Mapping[str, Condition],
) -> str:
    if not lacking:
        return ""
    used = {r.stack.stack_id for r in chosen.values()}
    rest = [r for r in recognised.stacks if r.stack.stack_id not in used]
    texts = []
    for role in lacking:
        wanted = "no stack meets the rule's own condition for it" if role in overrides else "no stack recognised"
        texts.append(f"{role}: {wanted}")
    seen = "; ".join(f"{r.stack.name} is '{r.kind}' because {r.reason}" for r in rest[:_SHOWN_STACKS])
    more = f"; and {len(rest) - _SHOWN_STACKS} more" if len(rest) > _SHOWN_STACKS else ""
    bound = "; ".join(f"{role} is {r.stack.name}" for role, r in chosen.items())
    return ". ".join(part for part in ("; ".join(texts), bound, seen + more) if part)


def _awaited(roles: Sequence[str], recognised: Recognised, chosen: Mapping[str, RecognisedStack]) -> str:
    """Optional roles that are worth waiting for, with what of the same kind of exam plays no role; empty if none."""
    if not roles or not chosen:
        return ""
    used = {r.stack.stack_id for r in chosen.values()}
    rest = [r for r in recognised.stacks if r.stack.stack_id not in used and r.kind.startswith(_BINDABLE_MRE[1])]
    seen = "; ".join(f"{r.stack.name} is '{r.kind}' because {r.reason}" for r in rest[:_SHOWN_STACKS])
    return f"{' and '.join(roles)} may still come" + (f" ({seen})" if seen else "")


# ------------------------------------------------------------------ declared counts


def _count(stack: Stack, recognised: Recognised) -> Count:
    """Weigh a declared count: for the stack, the Series or the acquisition, whichever it can mean.

    A number smaller than what is there means something else and is ignored. Only stacks that declare the same number
    can be reconstructions of one acquisition that it counts.
    """
    declared, by = stack.declared_count, stack.declared_by
    if declared is None or stack.slices > len(stack.instances):  # a multi-frame object is complete in itself
        return Count("none", "")
    own = len(stack.instances) + len(stack.duplicates)
    if own == declared:
        return Count("met", f"{own} of {declared} declared by {by}")
    if own > declared:
        return Count("ignored", f"{by} says {declared} where {own} are there, so it means something else")
    same_series = [r.stack for r in recognised.stacks if r.stack.series_instance_uid == stack.series_instance_uid]
    if _total(same_series) == declared:
        return Count("met", f"{declared} of {declared} of the Series declared by {by}")
    acquisitions = _acquisitions(stack)
    together = [
        r.stack
        for r in recognised.stacks
        if r.stack.stack_id == stack.stack_id
        or (
            r.stack.declared_count == declared
            and _acquisitions(r.stack) == acquisitions
            and r.stack.acquired_at_s is not None
            and stack.acquired_at_s is not None
            and abs(r.stack.acquired_at_s - stack.acquired_at_s) < 1.0
        )
    ]
    if _total(together) == declared:
        return Count("met", f"{declared} of {declared} in all {len(together)} reconstructions declared by {by}")
    return Count("short", f"{own} of {declared} declared by {by}")


def _total(stacks: Sequence[Stack]) -> int:
    return sum(len(stack.instances) + len(stack.duplicates) for stack in stacks)


def _acquisitions(stack: Stack) -> frozenset[Any]:
    return frozenset(instance.attributes.get("AcquisitionNumber") for instance in stack.instances)
