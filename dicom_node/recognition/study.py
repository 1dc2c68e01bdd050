"""Everything of one study recognised: the one entry that scheduler, `run` and `why` use."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from pydicom.uid import UID

from dicom_node.recognition.ct_phase import CT_CLASSES, Pixels, Verdict, ct_verdicts
from dicom_node.recognition.elastography import elastography
from dicom_node.recognition.stacks import Stack, stacks_of_series
from storage.records import Instance

OURS = "our own result"


@dataclass(frozen=True)
class RecognisedStack:
    """A stack with its verdict."""

    stack: Stack
    kind: str  # "ct arterial", "localizer", ...
    reason: str
    group: str = ""  # stacks that were acquired together have the same; roles are bound within one
    rank: int = 0  # of several stacks of a kind in a group, the lowest suits best


@dataclass(frozen=True)
class SeriesVerdict:
    """A Series in one line."""

    series_instance_uid: str
    kind: str
    reason: str
    images: int


@dataclass(frozen=True)
class Recognised:
    """All stacks and Series of one study."""

    stacks: tuple[RecognisedStack, ...]
    series: tuple[SeriesVerdict, ...]
    images: int  # Instances of the study, our own results and conflicts left out
    declared_images: int | None  # Number of Study Related Instances (0020,1206), if the sender says so

    @cached_property
    def kinds(self) -> dict[str, list[RecognisedStack]]:
        """Stacks by kind."""
        found: dict[str, list[RecognisedStack]] = defaultdict(list)
        for stack in self.stacks:
            found[stack.kind].append(stack)
        return dict(found)


def recognise(instances: Sequence[Instance], pixels: Pixels | None = None) -> Recognised:
    """Recognise the stacks of one study.

    instances : all of the study, in any order; those in conflict with an earlier one of the same UID are left out.
    pixels : measures a CT stack on demand (ct_pixels.measure_enhancement); None: headers alone, nothing is read.
    Never raises for odd headers: unknown is a kind.
    """
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in instances:
        if not instance.is_conflict:
            by_series[instance.series_instance_uid].append(instance)
    mre, others = elastography(instance for members in by_series.values() for instance in members)
    other_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in others:
        other_series[instance.series_instance_uid].append(instance)
    taken: dict[str, int] = Counter(part.stack.series_instance_uid for part in mre)
    stacks = [stack for uid, members in other_series.items() for stack in _numbered_on(members, taken[uid])]
    stacks.sort(key=_study_order)
    ct = [stack for stack in stacks if stack.sop_class_uid in CT_CLASSES and not stack.instances[0].is_ours]
    verdicts = {s.stack_id: v for s, v in zip(ct, ct_verdicts(ct, pixels), strict=True)}
    recognised = []
    for stack in stacks:
        verdict = verdicts.get(stack.stack_id) or _other_verdict(stack)
        recognised.append(RecognisedStack(stack, verdict.kind, verdict.reason))
    recognised += [RecognisedStack(part.stack, part.kind, part.reason, part.group, part.rank) for part in mre]
    recognised.sort(key=lambda r: _study_order(r.stack))
    order = dict.fromkeys(r.stack.series_instance_uid for r in recognised)
    series = tuple(_series_verdict(uid, recognised) for uid in order)
    foreign = {i.sop_instance_uid for members in by_series.values() for i in members if not i.is_ours}
    declared = [
        n
        for members in by_series.values()
        for i in members
        if not i.is_ours and isinstance(n := i.attributes.get("NumberOfStudyRelatedInstances"), int) and n > 0
    ]
    return Recognised(tuple(recognised), series, len(foreign), max(declared) if declared else None)


def _numbered_on(members: Sequence[Instance], taken: int) -> list[Stack]:
    """Stacks of a Series of which `taken` are known already."""
    stacks = stacks_of_series(members)
    if not taken:
        return stacks
    return [replace(s, stack_id=f"{s.series_instance_uid}#{n}") for n, s in enumerate(stacks, start=taken + 1)]


def _study_order(stack: Stack) -> tuple[int, str, str]:
    return (stack.attributes.get("SeriesNumber") or 0, stack.series_instance_uid, stack.stack_id)


def _series_verdict(uid: str, recognised: Sequence[RecognisedStack]) -> SeriesVerdict:
    members = [r for r in recognised if r.stack.series_instance_uid == uid]
    images = len({i.sop_instance_uid for r in members for i in r.stack.instances + r.stack.duplicates})
    if len(members) == 1:
        return SeriesVerdict(uid, members[0].kind, members[0].reason, images)
    kinds = " + ".join(dict.fromkeys(r.kind for r in members))
    parts = "; ".join(
        f"{r.stack.distinguished_by or r.stack.stack_id}, {r.stack.slices} images: {r.kind} ({r.reason})"
        for r in members
    )
    return SeriesVerdict(uid, kinds, f"{len(members)} stacks: {parts}", images)


# ------------------------------------------------------------------ what is no CT

_BY_CLASS = {
    "1.2.840.10008.5.1.4.1.1.88.67": "dose report",
    "1.2.840.10008.5.1.4.1.1.88.59": "key object selection",
    "1.2.840.10008.5.1.4.1.1.66": "raw data",
    "1.2.840.10008.5.1.4.1.1.66.4": "segmentation",
    "1.2.840.10008.5.1.4.1.1.66.7": "segmentation",
    "1.2.840.10008.5.1.4.1.1.30": "parametric map",
    "1.2.840.10008.5.1.4.1.1.481.3": "structure set",
    "1.2.840.10008.5.1.4.1.1.67": "real world value mapping",
}
_BY_CLASS_ROOT = (
    ("1.2.840.10008.5.1.4.1.1.88", "structured report"),
    ("1.2.840.10008.5.1.4.1.1.7", "secondary capture"),
    ("1.2.840.10008.5.1.4.1.1.104", "document"),
    ("1.2.840.10008.5.1.4.1.1.11", "presentation state"),
    ("1.2.840.10008.5.1.4.1.1.4", "mr"),
    ("1.2.840.10008.5.1.4.1.1.3", "ultrasound"),
    ("1.2.840.10008.5.1.4.1.1.6", "ultrasound"),
    ("1.2.840.10008.5.1.4.1.1.128", "pet"),
    ("1.2.840.10008.5.1.4.1.1.130", "pet"),
)


def _other_verdict(stack: Stack) -> Verdict:
    if stack.instances[0].is_ours:
        return Verdict(OURS, "made by this node; stored and never routed")
    uid = stack.sop_class_uid
    name = UID(uid).name if UID(uid).name != uid else f"SOP Class {uid}"
    kind = _BY_CLASS.get(uid)
    if kind is None:
        kind = next((kind for root, kind in _BY_CLASS_ROOT if uid == root or uid.startswith(f"{root}.")), None)
    if kind is None:
        return Verdict("unknown", f"{name} is used by no pipeline")
    return Verdict(kind, name)
