"""MR elastography in a study: which images are magnitude, phase, wave, elastogram, confidence map or its picture in
colours, how they make stacks, and which stacks belong to one acquisition.

An acquisition of elastography images each slice several times, at phase offsets of the vibration. So its stacks hold
several images per place, which for any other series would mean several volumes.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dicom_node.recognition.elastography_images import (
    LEAST_OFFSETS,
    OFFSET_KEYS,
    MreImage,
    images_of_series,
    offset_order,
)
from dicom_node.recognition.elastography_pairs import Part, acquisitions, partners
from dicom_node.recognition.elastography_rules import (
    COMPONENTS,
    MAGNITUDE,
    PHASE,
    RAW_3D,
    WAVE,
    vendor_of,
)
from dicom_node.recognition.stacks import (
    Stack,
    acquisition_time_s,
    declared_images,
    grid_of,
    is_same_grid,
    orientation_name,
    spacing_and_gaps,
)
from storage.records import Instance

_WITH_OFFSETS = (MAGNITUDE, PHASE, WAVE)


@dataclass(frozen=True)
class MreStack:
    """One part of an acquisition of elastography."""

    stack: Stack
    component: str  # magnitude | phase | wave | elastogram | confidence | colour, or what no pipeline reads
    reason: str
    group: str  # stacks of one acquisition have the same; empty for what belongs to none
    rank: int  # of several stacks of one component in a group the lowest is meant

    @property
    def kind(self) -> str:
        return kind_of(self.component) if self.stack.positions_mm else f"{kind_of(self.component)} without geometry"


def kind_of(component: str) -> str:
    """magnitude -> "mre magnitude", as roles and the console name it."""
    return f"mre {component}"


def elastography(instances: Iterable[Instance]) -> tuple[list[MreStack], list[Instance]]:
    """Stacks of elastography in a study, and the Instances that are something else.

    instances : of one study, in any order. Those of one acquisition share MreStack.group.
    Never raises for odd headers.
    """
    by_series: dict[str, list[Instance]] = defaultdict(list)
    for instance in sorted(instances, key=lambda i: i.sop_instance_uid):
        by_series[instance.series_instance_uid].append(instance)
    images = {uid: images_of_series(members) for uid, members in by_series.items()}
    labelled = {image.instance.sop_instance_uid for found in images.values() for image in found}
    others = {i.sop_instance_uid: i for members in by_series.values() for i in members}
    others = {uid: instance for uid, instance in others.items() if uid not in labelled}
    parts = [part for found in images.values() for part in _parts(found)]
    sure, unsure = [p for p in parts if not p.needs_partner], [p for p in parts if p.needs_partner]
    found_partners = partners(unsure, sure)
    for number, part in enumerate(unsure):
        partner = found_partners.get(number)
        if partner is None:
            others |= {i.sop_instance_uid: i for i in part.stack.instances + part.stack.duplicates}
            continue
        component = RAW_3D if partner.component == RAW_3D else part.component
        reason = f"{part.reason}; it lies where and was taken when {partner.stack.name} was, the {partner.component}"
        sure.append(replace(part, component=component, reason=reason, needs_partner=False))
    return _numbered(sure), list(others.values())


# ------------------------------------------------------------------ stacks


def _parts(images: Sequence[MreImage]) -> list[Part]:
    """The images of one Series by what they show and on which grid."""
    sets: list[tuple[tuple[Any, ...], Any, list[MreImage]]] = []
    for image in sorted(images, key=_order):
        label, grid = image.label, grid_of(image.instance)
        key = (label.component, label.needs_partner, label.is_masked)
        for known, known_grid, members in sets:
            if known == key and is_same_grid(known_grid, grid):
                members.append(image)
                break
        else:
            sets.append((key, grid, [image]))
    numbers = tuple(sorted({image.number for image in images if image.number is not None}))
    several = len(sets) > 1
    parts = []
    for index, ((component, needs_partner, is_masked), _, members) in enumerate(sets, start=1):
        stack = _stack(members, component, numbers, index, several)
        reason = members[0].label.reason
        parts.append(Part(stack, component, reason, needs_partner, is_masked))
    return parts


def _order(image: MreImage) -> tuple[Any, ...]:
    return (image.number or 0, image.frame or 0, image.instance.sop_instance_uid)


def _stack(
    members: Sequence[MreImage], component: str, series_numbers: tuple[int, ...], index: int, is_one_of_several: bool
) -> Stack:
    normal = members[0].normal
    kept, duplicates = _without_copies(members, has_offsets=component in _WITH_OFFSETS)
    placed = [image for image in kept if image.place_mm is not None]
    places = _places(placed)
    ordered = [image for _, at_place in places for image in at_place] if places else list(kept)
    instances = list({image.instance.sop_instance_uid: image.instance for image in ordered}.values())
    left_out = {i.instance.sop_instance_uid: i.instance for i in duplicates} | {
        i.instance.sop_instance_uid: i.instance for i in kept if places and i.place_mm is None
    }
    there = {instance.sop_instance_uid for instance in instances}
    spacing, gaps = spacing_and_gaps([(mm, at_place[0].instance) for mm, at_place in places])
    declared, declared_by = declared_images(instances)
    times = [t for i in instances if (t := acquisition_time_s(i.attributes)) is not None]
    return Stack(
        stack_id=f"{instances[0].series_instance_uid}#{index}",
        series_instance_uid=instances[0].series_instance_uid,
        instances=tuple(instances),
        duplicates=tuple(i for uid, i in left_out.items() if uid not in there),
        distinguished_by=component if is_one_of_several else "",
        orientation=orientation_name(normal) if places else "",
        normal=normal if places else None,
        positions_mm=tuple(mm for mm, _ in places),
        spacing_mm=spacing,
        gaps=gaps,
        declared_count=declared,
        declared_by=declared_by,
        series_instance_numbers=series_numbers,
        acquired_at_s=min(times) if times else None,
        offsets=tuple(len(at_place) for _, at_place in places) if component in _WITH_OFFSETS else (),
        offsets_stated=_offsets_stated(instances[0].attributes) if component in (MAGNITUDE, PHASE) else None,
    )


def _without_copies(members: Sequence[MreImage], *, has_offsets: bool) -> tuple[list[MreImage], list[MreImage]]:
    """Images, and further ones of the same place and phase offset: sent twice under two UIDs, or another version."""
    seen: set[tuple[Any, ...]] = set()
    kept: list[MreImage] = []
    copies: list[MreImage] = []
    for image in members:
        a = image.instance.attributes
        key: tuple[Any, ...] = (image.place,)
        if has_offsets or image.place is None:
            key += (image.number, image.frame, *(a.get(keyword) for keyword in OFFSET_KEYS[1:]))
            if image.number is None:
                key += (image.instance.sop_instance_uid,)
        (copies if key in seen else kept).append(image)
        seen.add(key)
    return kept, copies


def _places(images: Sequence[MreImage]) -> list[tuple[float, list[MreImage]]]:
    """Images by place along the normal, rising; those of a place in the order of their phase offsets."""
    places: dict[int, list[MreImage]] = defaultdict(list)
    for image in sorted(images, key=lambda i: (i.place or 0, *_order(i))):
        places[image.place or 0].append(image)
    orders, _ = offset_order([[image.times for image in at_place] for at_place in places.values()])
    return [
        (at_place[0].place_mm or 0.0, [at_place[i] for i in order])
        for at_place, order in zip(places.values(), orders, strict=True)
    ]


def _offsets_stated(attributes: Mapping[str, Any]) -> int | None:
    """Phase offsets that the header states: Philips counts its dynamics, others use Number of Temporal Positions."""
    keyword = "PhilipsDynamics" if vendor_of(attributes) == "Philips" else "NumberOfTemporalPositions"
    stated = attributes.get(keyword)
    return stated if isinstance(stated, int) and LEAST_OFFSETS <= stated <= 64 else None


# ------------------------------------------------------------------ acquisitions


def _numbered(parts: Sequence[Part]) -> list[MreStack]:
    """Parts with the acquisition they belong to, and a word about the others of it."""
    readable = [p for p in parts if p.component in COMPONENTS and p.stack.positions_mm]
    found: list[MreStack] = []
    for number, members in enumerate(acquisitions(readable), start=1):
        names = {component: [p.stack.name for p in members if p.component == component] for component in COMPONENTS}
        for part in members:
            with_it = ", ".join(
                f"{component} {' and '.join(stacks)}"
                for component, stacks in names.items()
                if stacks and component != part.component
            )
            text = f"{part.reason}; elastography {number}" + (f", with {with_it}" if with_it else ", alone")
            found.append(
                MreStack(part.stack, part.component, text, f"elastography {number}", int(_is_spare(part, members)))
            )
    grouped = {id(part) for part in readable}
    for part in parts:
        if id(part) not in grouped:
            reason = part.reason if part.stack.positions_mm else f"{part.reason}; it has no position or orientation"
            found.append(MreStack(part.stack, part.component, reason, "", 0))
    return found


def _is_spare(part: Part, members: Sequence[Part]) -> bool:
    """Of elastograms the whole one is meant, of pictures in colours the one that shows the confidence."""
    alike = [p for p in members if p.component == part.component]
    wanted = part.component == "colour"
    return part.is_masked != wanted and any(p.is_masked == wanted for p in alike)
