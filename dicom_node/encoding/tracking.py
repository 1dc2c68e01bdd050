"""Which finding is which finding of an earlier run of the same pipeline on the same study.

After late images, or in a new version of the pipeline, "Lesion 1" may be another lesion than before. What lies where
an earlier finding lay keeps its Tracking UID and name; what is new gets a Tracking UID and a name that nothing in this
study has had, so that no viewer takes two lesions for one.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pydicom import Dataset

from dicom_node.encoding.places import Place, apartness, frames, overlap, place_of_mask, place_of_outline
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.sources import InvalidResult, source_stack
from pipelines.findings import Findings

#: From this Dice coefficient on two places may be of one lesion: a ball found half as wide again overlaps by 0.46,
#: twice as wide by 0.22; neighbours that touch do not overlap at all.
LEAST_OVERLAP = 0.1
#: Places that hardly overlap, such as a rim and its core, may be of one lesion if their centres are so near, in edges
#: of the smaller one's box.
NEAR = 0.25

_NUMBERED = re.compile(r"(?P<stem>.*?)(?P<number>[0-9]{1,9})")


@dataclass(frozen=True)
class TrackedFinding:
    """One finding of one run, as the next run must know it."""

    tracking_id: str
    tracking_uid: str
    concept: str
    place: Place

    def as_json(self) -> dict[str, Any]:
        """Plain JSON, for result.json."""
        names = {"tracking_id": self.tracking_id, "tracking_uid": self.tracking_uid, "concept": self.concept}
        return {**names, "place": self.place.as_json()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "TrackedFinding":
        """What `as_json` gave. Raises KeyError, ValueError, TypeError for anything else."""
        name, uid, concept = (str(values[key]) for key in ("tracking_id", "tracking_uid", "concept"))
        return cls(name, uid, concept, Place.from_json(values["place"]))


def follow(
    found: Sequence[tuple[str, str, Place]],
    earlier: Sequence[TrackedFinding],
    new_uid: Callable[[str], str],
    taken: Collection[str] = (),
) -> tuple[TrackedFinding, ...]:
    """Name the findings of a run.

    found : (name that the pipeline proposes, concept, place), names distinct.
    earlier : every finding of the runs before, each Tracking UID and name once, at its latest place.
    new_uid : final name -> a Tracking UID that no earlier run can have used. taken : names that are not free besides.
    Returns one per finding, in their order. Pairs are formed best first, one to one, of like concept only; the order
    of `found` and `earlier` does not count.
    """
    pairs = sorted(_pairs(found, earlier))
    kept: dict[str, TrackedFinding] = {}
    used: set[str] = set()
    for _, _, tracking_uid, name, index in pairs:
        if name not in kept and tracking_uid not in used:
            kept[name] = earlier[index]
            used.add(tracking_uid)
    names = {name: before.tracking_id for name, before in kept.items()}
    occupied = {*taken, *(before.tracking_id for before in earlier)}
    for name in sorted((name for name, _, _ in found if name not in kept), key=_in_order):
        names[name] = _free(name, occupied)
        occupied.add(names[name])
    return tuple(
        TrackedFinding(names[name], kept[name].tracking_uid if name in kept else new_uid(names[name]), concept, place)
        for name, concept, place in found
    )


def _pairs(
    found: Sequence[tuple[str, str, Place]], earlier: Sequence[TrackedFinding]
) -> list[tuple[float, float, str, str, int]]:
    """Who may be who: (-overlap, distance, Tracking UID, proposed name, index in `earlier`); the best sorts first."""
    pairs = []
    for name, concept, place in found:
        for index, before in enumerate(earlier):
            if before.concept != concept:
                continue
            shared, apart = overlap(place, before.place), apartness(place, before.place)
            if shared >= LEAST_OVERLAP or apart <= NEAR:
                pairs.append((-shared, apart, before.tracking_uid, name, index))
    return pairs


def _free(name: str, occupied: Collection[str]) -> str:
    """The name itself, or with the next number that has not been given: "Lesion 4"."""
    if name not in occupied:
        return name
    match = _NUMBERED.fullmatch(name)
    stem = match["stem"] if match else f"{name} "
    numbers = [int(m["number"]) for other in occupied if (m := _NUMBERED.fullmatch(other)) and m["stem"] == stem]
    return f"{stem}{max(numbers, default=1) + 1}"


def _in_order(name: str) -> tuple[str, int]:
    match = _NUMBERED.fullmatch(name)
    return (match["stem"], int(match["number"])) if match else (name, -1)


def latest(runs: Sequence[Sequence[TrackedFinding]]) -> tuple[TrackedFinding, ...]:
    """Every finding of several runs, newest run first: each Tracking UID once, where it was seen last."""
    found: dict[str, TrackedFinding] = {}
    for run in runs:
        for finding in run:
            found.setdefault(finding.tracking_uid, finding)
    return tuple(found.values())


def tracked(
    findings: Findings,
    sources: Mapping[str, Sequence[Dataset]],
    provenance: Provenance,
    earlier: Sequence[TrackedFinding] = (),
    frame_numbers: Sequence[int] | None = None,
) -> tuple[Findings, Provenance, tuple[TrackedFinding, ...]]:
    """Findings under their lasting names, the provenance that knows their Tracking UIDs, and what to keep of them.

    sources, frame_numbers : as for encode_results. earlier : see `follow`.
    Raises InvalidResult where findings and images do not fit, or two findings have one name.
    """
    found = _placed(findings, sources, frame_numbers)
    if len({name for name, _, _ in found}) < len(found):
        raise InvalidResult(f"Two findings share a name: {', '.join(name for name, _, _ in found)}.")
    others = {region.label for region in findings.regions} | {statement.label for statement in findings.images}
    followed = follow(found, earlier, lambda name: provenance.uid(f"tracking {name}"), others)
    names = {name: finding.tracking_id for (name, _, _), finding in zip(found, followed, strict=True)}
    uids = {finding.tracking_id: finding.tracking_uid for finding in followed}
    renamed = replace(
        findings,
        findings=tuple(replace(item, tracking_id=names[item.tracking_id]) for item in findings.findings),
        planar=tuple(replace(item, tracking_id=names[item.tracking_id]) for item in findings.planar),
        summary=_named(findings.summary, names, uids),
    )
    return renamed, replace(provenance, tracking=tuple(uids.items())), followed


def _placed(
    findings: Findings, sources: Mapping[str, Sequence[Dataset]], frame_numbers: Sequence[int] | None
) -> list[tuple[str, str, Place]]:
    images = sources.get(findings.role) or ()
    found = []
    if findings.findings:
        stack = source_stack(images, frame_numbers)
        found = [(item.tracking_id, item.concept, place_of_mask(item.mask, stack)) for item in findings.findings]
    listed = frames(images, frame_numbers) if findings.planar else []
    for item in findings.planar:
        if not 0 <= item.image < len(listed):
            raise InvalidResult(f"{item.tracking_id}: image {item.image} of {len(listed)} is not there.")
        found.append((item.tracking_id, item.concept, place_of_outline(item.outline, *listed[item.image])))
    return found


def _named(part: Any, names: Mapping[str, str], uids: Mapping[str, str]) -> Any:
    """The pipeline's part of result.json with lasting names, and the Tracking UID beside each."""
    if isinstance(part, Mapping):
        changed = {key: _named(value, names, uids) for key, value in part.items()}
        if (name := names.get(str(part.get("tracking_id")))) is not None:
            changed |= {"tracking_id": name, "tracking_uid": uids[name]}
        return changed
    if isinstance(part, list | tuple):
        return [_named(item, names, uids) for item in part]
    return part
