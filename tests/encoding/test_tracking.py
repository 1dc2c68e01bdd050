"""Which finding is which of an earlier run: by place, whatever it is called and however the images were cut."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from encoded_studies import ball, ct_stack, provenance
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import Dataset

from dicom_node.encoding.places import Place, apartness, frames, overlap, place_of_mask, place_of_outline
from dicom_node.encoding.sources import InvalidResult, source_stack
from dicom_node.encoding.tracking import TrackedFinding, follow, latest, tracked
from pipelines.findings import Finding, Findings, PlanarFinding, Region

FOR = "2.25.9"
_GRID = np.indices((10,) * 3).reshape(3, -1).T + 0.5


def ball_at(x: float, y: float, z: float, diameter: float, space: str = FOR) -> Place:
    """A ball in the patient, mm."""
    inside = ((_GRID / 10 - 0.5) ** 2).sum(axis=1) <= 0.25
    low, cell = np.asarray([x, y, z]) - diameter / 2, diameter / 10
    return Place(space, (low[0], low[1], low[2]), (cell, cell, cell), np.packbits(inside).tobytes())


def known(name: str, place: Place, uid: str = "") -> TrackedFinding:
    return TrackedFinding(name, uid or f"2.25.1{name.removeprefix('Lesion ')}", "lesion", place)


def named(found: Sequence[tuple[str, str, Place]], earlier: Sequence[TrackedFinding], taken: Sequence[str] = ()):
    """Name that was proposed -> (name, Tracking UID) that it got."""
    result = follow(found, earlier, lambda name: f"new {name}", taken)
    return {f[0]: (t.tracking_id, t.tracking_uid) for f, t in zip(found, result, strict=True)}


def test_the_lesion_keeps_its_uid_and_name_where_the_numbers_have_moved() -> None:
    small, large, third = ball_at(0, 0, 0, 10), ball_at(50, 0, 0, 20), ball_at(0, 60, 0, 30)
    earlier = [known("Lesion 1", large), known("Lesion 2", small)]
    found = [("Lesion 1", "lesion", third), ("Lesion 2", "lesion", large), ("Lesion 3", "lesion", small)]
    assert named(found, earlier) == {
        "Lesion 1": ("Lesion 3", "new Lesion 3"),
        "Lesion 2": ("Lesion 1", "2.25.11"),
        "Lesion 3": ("Lesion 2", "2.25.12"),
    }


def test_a_lesion_that_has_gone_leaves_neither_its_name_nor_its_uid() -> None:
    earlier = [known("Lesion 1", ball_at(0, 0, 0, 10)), known("Lesion 2", ball_at(90, 0, 0, 10))]
    found = [("Lesion 1", "lesion", ball_at(0, 90, 0, 10)), ("Cyst", "cyst", ball_at(0, 0, 0, 10))]
    assert named(found, earlier) == {"Lesion 1": ("Lesion 3", "new Lesion 3"), "Cyst": ("Cyst", "new Cyst")}
    assert named([("Liver", "lesion", ball_at(0, 0, 90, 9))], earlier, ["Liver"]) == {
        "Liver": ("Liver 2", "new Liver 2")
    }


@pytest.mark.parametrize(
    ("a", "b", "is_same"),
    [
        (ball_at(0, 0, 0, 10), ball_at(3, 0, 0, 10), True),
        (ball_at(0, 0, 0, 10), ball_at(0, 0, 0, 20), True),  # another threshold
        (ball_at(0, 0, 0, 5), ball_at(0, 0, 0, 40), False),  # a nodule within a mass is not the mass
        (ball_at(0, 0, 0, 10), ball_at(10, 0, 0, 10), False),  # neighbours that touch
        (ball_at(0, 0, 0, 10), ball_at(0, 0, 0, 10, space="2.25.8"), False),  # nobody knows how they lie
    ],
)
def test_who_is_taken_for_who(a: Place, b: Place, is_same: bool) -> None:
    for one, other in ((a, b), (b, a)):
        ((_, uid),) = named([("Lesion 1", "lesion", one)], [known("Lesion 1", other)]).values()
        assert (uid == "2.25.11") is is_same


def test_a_rim_and_its_core_are_one_lesion() -> None:
    distance = np.linalg.norm(_GRID / 10 - 0.5, axis=1)
    rim, core = np.packbits((distance > 0.4) & (distance <= 0.5)), np.packbits(distance <= 0.38)
    places = [Place(FOR, (0, 0, 0), (2, 2, 2), cells.tobytes()) for cells in (rim, core)]
    assert overlap(*places) == 0
    assert named([("Lesion 1", "lesion", places[0])], [known("Lesion 7", places[1])])["Lesion 1"][0] == "Lesion 7"


def test_of_two_halves_one_goes_on_and_the_other_is_new() -> None:
    whole = known("Lesion 1", ball_at(0, 0, 0, 20))
    halves = [("Lesion 1", "lesion", ball_at(-5, 0, 0, 10)), ("Lesion 2", "lesion", ball_at(4, 0, 0, 12))]
    assert named(halves, [whole]) == {"Lesion 1": ("Lesion 2", "new Lesion 2"), "Lesion 2": ("Lesion 1", "2.25.11")}


coordinates = st.integers(-40, 40).map(float)
places = st.builds(ball_at, coordinates, coordinates, coordinates, st.integers(4, 30).map(float))


@st.composite
def runs(draw: st.DrawFn) -> tuple[list[tuple[str, str, Place]], list[TrackedFinding]]:
    """Findings of a run and of those before, some at the same places."""
    before = draw(st.lists(places, max_size=6))
    now = draw(st.lists(st.one_of(places, *([st.sampled_from(before)] if before else [])), max_size=6))
    concepts = st.sampled_from(["lesion", "lesion", "cyst"])
    numbers = draw(st.permutations(range(1, len(before) + 4)))
    earlier = [
        TrackedFinding(f"Lesion {number}", f"2.25.1{number}", draw(concepts), place)
        for number, place in zip(numbers, before, strict=False)
    ]
    return [(f"Lesion {number}", draw(concepts), place) for number, place in enumerate(now, 1)], earlier


@settings(max_examples=150, deadline=None)
@given(runs(), st.randoms(use_true_random=False))
def test_names_and_uids_whatever_the_order(run, random) -> None:
    found, earlier = run
    result = named(found, earlier)
    shuffled, shuffled_earlier = random.sample(found, len(found)), random.sample(earlier, len(earlier))
    assert named(shuffled, shuffled_earlier) == result
    names, uids = [name for name, _ in result.values()], [uid for _, uid in result.values()]
    assert len(set(names)) == len(set(uids)) == len(found)
    before = {item.tracking_uid: item for item in earlier}
    for name, concept, place in found:
        given_name, uid = result[name]
        if uid in before:
            assert given_name == before[uid].tracking_id
            assert concept == before[uid].concept
            assert overlap(place, before[uid].place) > 0 or apartness(place, before[uid].place) < 1
        else:
            assert uid == f"new {given_name}"
            assert given_name not in {item.tracking_id for item in earlier}
    left = [item for uid, item in before.items() if uid not in uids]
    for (name, concept, place), item in itertools.product(found, left):  # nobody was left out who could be matched
        if result[name][1] not in before and concept == item.concept:
            assert overlap(place, item.place) < 0.1


@settings(max_examples=100, deadline=None)
@given(runs())
def test_the_same_again_keeps_every_name_and_uid(run) -> None:
    found, earlier = run
    distinct = {}
    for name, concept, place in found:
        if all(overlap(place, other) < 0.5 for _, _, other in distinct.values()):
            distinct[name] = (name, concept, place)
    first = follow(list(distinct.values()), earlier, lambda name: f"new {name}")
    proposed = [(f"Lesion {number}", item.concept, item.place) for number, item in enumerate(first[::-1], 1)]
    second = follow(proposed, latest([first, earlier]), lambda name: f"newer {name}")
    assert [(s.tracking_id, s.tracking_uid) for s in second] == [(f.tracking_id, f.tracking_uid) for f in first[::-1]]


@settings(max_examples=100, deadline=None)
@given(places, places)
def test_overlap_is_the_same_both_ways_and_survives_writing(a: Place, b: Place) -> None:
    assert overlap(a, b) == overlap(b, a)
    assert apartness(a, b) == apartness(b, a)
    assert 0 <= overlap(a, b) <= 1
    assert overlap(a, a) == 1
    assert Place.from_json(a.as_json()) == a


@pytest.mark.parametrize("orientation", [(1, 0, 0, 0, 1, 0), (0.8, 0.6, 0, 0, 0, -1), (0, 1, 0, 0.6, 0, 0.8)])
@pytest.mark.parametrize("reverse", [False, True])
def test_a_ball_lies_at_one_place_on_every_grid(orientation: tuple[float, ...], reverse: bool) -> None:
    """The same ball in the patient, drawn on a fine and on a coarse grid."""
    fine, coarse = (
        source_stack(ct_stack(slices=count, size=size, spacing=spacing, orientation=orientation, reverse=reverse))
        for count, size, spacing in ((24, 64, (2.5, 0.8, 0.8)), (12, 40, (5.0, 1.28, 1.28)))
    )
    row, column = np.asarray(orientation[:3]), np.asarray(orientation[3:])
    centre = np.asarray([-100.0, -110.0, -50.0]) + row * 22 + column * 30 + np.cross(row, column) * 28

    def drawn(stack) -> Place:
        slices = np.stack([item.point for item in stack.slices])
        rows, columns = (np.arange(count) * float(stack.pixel_spacing[0]) for count in (stack.rows, stack.columns))
        points = slices[:, None, None] + rows[:, None, None] * column + columns[:, None] * row
        return place_of_mask(((points - centre) ** 2).sum(axis=-1) <= 9.0**2, stack)

    places = drawn(fine), drawn(coarse)
    assert overlap(*places) > 0.75
    for place, tolerance in zip(places, (0.3, 1.0), strict=True):
        assert np.abs(place.centre - centre).max() < tolerance
        assert place.size == pytest.approx(4 / 3 * np.pi * 9**3, rel=0.15)
        assert Place.from_json(place.as_json()) == place


def test_a_mask_thinner_than_its_cells_and_one_voxel_have_places() -> None:
    stack = source_stack(ct_stack())
    line = np.zeros(stack.shape, dtype=bool)
    line[range(12), range(12), range(12)] = True
    voxel = np.zeros(stack.shape, dtype=bool)
    voxel[3, 4, 5] = True
    assert place_of_mask(line, stack).size > 0
    assert place_of_mask(voxel, stack).size == pytest.approx(2.5 * 0.8 * 0.8, rel=0.01)
    assert np.allclose(place_of_mask(voxel, stack).centre, [-100 + 4, -110 + 3.2, -50 + 7.5], atol=0.01)
    for wrong in (np.zeros(stack.shape, dtype=bool), voxel[1:]):
        with pytest.raises(InvalidResult):
            place_of_mask(wrong, stack)


def box_on_frame(column: float, row: float, size: float = 20.0) -> np.ndarray:
    corners = [(0, 0), (size, 0), (size, size), (0, size), (0, 0)]
    return np.asarray([(column + x, row + y) for x, y in corners], dtype=float)


def test_findings_on_frames_meet_on_the_same_and_on_the_next_one() -> None:
    here = place_of_outline(box_on_frame(100, 50), "2.25.5", 7)
    assert overlap(here, place_of_outline(box_on_frame(100, 50), "2.25.5", 7)) == 1
    assert overlap(here, place_of_outline(box_on_frame(104, 50), "2.25.5", 8)) > 0.4
    assert overlap(here, place_of_outline(box_on_frame(100, 50), "2.25.5", 10)) == 0
    assert overlap(here, place_of_outline(box_on_frame(100, 50), "2.25.6", 7)) == 0
    triangle = place_of_outline(np.asarray([(0.0, 0.0), (40.0, 0.0), (0.0, 40.0), (0.0, 0.0)]), "2.25.5", 7)
    assert triangle.size == pytest.approx(800 * 3, rel=0.15)
    assert place_of_outline(np.asarray([(5.0, 5.0)] * 3), "2.25.5", 7).size > 0


def pictures(*counts: int) -> list[Dataset]:
    made = []
    for number, count in enumerate(counts, 1):
        dataset = Dataset()
        dataset.SOPInstanceUID, dataset.NumberOfFrames = f"2.25.{number}", count
        made.append(dataset)
    return made


def test_images_and_frames_are_counted_as_the_findings_count_them() -> None:
    assert frames(pictures(1, 1), None) == [("2.25.1", 1), ("2.25.2", 1)]
    assert frames(pictures(3), None) == [("2.25.1", 1), ("2.25.1", 2), ("2.25.1", 3)]
    assert frames(pictures(3) * 3, None) == frames(pictures(3), None)
    assert frames(pictures(9), [4, 2]) == [("2.25.1", 4), ("2.25.1", 2)]
    assert frames(pictures(9) * 2, [4, 2]) == [("2.25.1", 4), ("2.25.1", 2)]


def test_a_second_version_on_a_cine_knows_the_focus_again() -> None:
    def run(version: str, frame: int, names: Sequence[str], earlier: Sequence[TrackedFinding] = ()):
        spots = [box_on_frame(10, 10), box_on_frame(200, 90)]
        planar = tuple(
            PlanarFinding(name, "lesion", "liver", frame, spots[number - 1])
            for name, number in zip(names, (1, 2) if version == "1" else (2, 1), strict=True)
        )
        findings = Findings("bmode", (), planar=planar, summary={"focal": [{"frame": frame, "tracking_id": names[0]}]})
        return tracked(findings, {"bmode": pictures(20)}, provenance(version=version), earlier)

    _, _, first = run("1", 7, ["Focus 1", "Focus 2"])
    findings, known_as, second = run("2", 8, ["Focus 1", "Focus 2"], first)
    assert [item.tracking_id for item in findings.planar] == ["Focus 2", "Focus 1"]
    assert [item.tracking_uid for item in second] == [first[1].tracking_uid, first[0].tracking_uid]
    assert known_as.tracking_uid("Focus 2") == first[1].tracking_uid
    assert findings.summary["focal"] == [{"frame": 8, "tracking_id": "Focus 2", "tracking_uid": first[1].tracking_uid}]


def test_a_first_run_names_by_the_run_so_that_another_can_never_say_the_same_of_another_lesion() -> None:
    stack = ct_stack()
    mask = ball((12, 64, 64), (6, 30, 30), 8.0, (2.5, 0.8, 0.8))
    findings = Findings(
        "portal_venous", (Finding("Lesion 1", "lesion", "liver", mask),), (Region("Liver", "liver", mask),)
    )
    uids = {}
    for change in ({}, {"version": "2"}, {"fingerprint": "0" * 64}):
        ours = provenance(**change)
        _, named_as, (item,) = tracked(findings, {"portal_venous": stack}, ours)
        assert named_as.tracking_uid("Lesion 1") == item.tracking_uid
        assert named_as.tracking_uid("Liver") == provenance().tracking_uid("Liver")  # a region is what it is called
        assert TrackedFinding.from_json(item.as_json()) == item
        uids[str(change)] = item.tracking_uid
    assert len(set(uids.values())) == 3
