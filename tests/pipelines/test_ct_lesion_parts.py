"""Parts of ct_lesion against known answers: history texts, registration, measures, dividing of lesions."""

import math

import highdicom as hd
import numpy as np
import pytest
from ct_oracle import CHANNELS, OracleCase, Reviewer, Sphere, oracle_bundles
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.ct_lesion import measure
from pipelines.ct_lesion.grid import Grid, grid_over, image_of, onto
from pipelines.ct_lesion.history import earlier_treatment
from pipelines.ct_lesion.lesions import CLASSES, LesionMap, find_lesions, on_source, proposals
from pipelines.ct_lesion.localisation import coarse_phases, find_liver
from pipelines.ct_lesion.registration import register
from pipelines.ct_lesion.review import PATCH, Verdict, review


@pytest.mark.parametrize(
    "text",
    [
        "CT liver post TACE",
        "Abdomen 3-phase, s/p right hepatectomy 2019",
        "follow-up after RFA",
        "prior TACE x2, new lesion?",
        "HCC, microwave ablation 3/2021",
        "status post liver transplantation",
        "Leber nach Chemoembolisation",
        "肝癌切除术后复查",
        "上腹部增强 肝癌介入术后",
        "射频消融后",
        "TACE治疗史",
        "liver_resection_followup",
        "history of hepatic resection",
    ],
)
def test_earlier_treatment_is_noticed(text: str) -> None:
    assert earlier_treatment(["CT", text]) is not None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "CT liver arterial portal",
        "no prior resection",
        "HCC without TACE",
        "pre-TACE planning",
        "before hepatectomy",
        "prior to resection",
        "evaluation for liver transplant",
        "liver donor work-up for transplantation",
        "no history of previous TACE, RFA naive",
        "status post right colon resection, liver metastases?",
        "renal transplant",
        "无切除史",
        "术前评估 拟行肝切除",
        "介入科 上腹部增强CT",
        "未行介入治疗",
        "胃切除术后",
        "FACE surface interface",
    ],
)
def test_no_earlier_treatment_is_read_into_other_words(text: str) -> None:
    assert earlier_treatment([text]) is None


def test_registration_recovers_a_breath() -> None:
    """8 mm to the head and a little aside: left over everywhere in the liver is less than 2 mm."""
    case = OracleCase(
        (Sphere((30, -10, 10), 12, "HCC"),),
        (50, 120, 120),
        (3.5, 2.0, 2.0),
        arterial_shift_mm=(1.0, 2.0, 8.0),
        noise_hu=6,
    )
    study = case.study()
    arterial, portal_venous = image_of(study.arterial), image_of(study.portal_venous)
    bundle = oracle_bundles()["ct_liver"]
    grid = grid_over(study.portal_venous, bundle.spacing_mm)
    localised = find_liver(*coarse_phases(arterial, portal_venous, grid), grid, bundle)
    found = register(arterial, portal_venous, localised)
    points = grid.positions_mm(np.argwhere(localised.liver)[::97])
    moved = np.asarray([found.transform.TransformPoint(point) for point in points.tolist()]) - points
    assert np.abs(moved - (1.0, 2.0, 8.0)).max() < 2.0
    assert found.shift_mm == pytest.approx((1.0, 2.0, 8.0), abs=1.0)
    assert found.gain > 0.05


def test_phases_that_match_are_left_where_they_are() -> None:
    study = OracleCase((), (50, 120, 120), (3.5, 2.0, 2.0), noise_hu=6).study()
    arterial, portal_venous = image_of(study.arterial), image_of(study.portal_venous)
    bundle = oracle_bundles()["ct_liver"]
    grid = grid_over(study.portal_venous, bundle.spacing_mm)
    localised = find_liver(*coarse_phases(arterial, portal_venous, grid), grid, bundle)
    points = grid.positions_mm(np.argwhere(localised.liver)[::97])
    transform = register(arterial, portal_venous, localised).transform
    moved = np.asarray([transform.TransformPoint(point) for point in points.tolist()]) - points
    assert np.abs(moved).max() < 1.0


def _ball(radius_mm: float, spacing_mm: tuple[float, float, float], centre: tuple[float, float, float]) -> hd.Volume:
    shape = [2 * math.ceil(radius_mm / s) + 6 for s in spacing_mm]
    affine = np.diag([0.0, 0, 0, 1])
    affine[2, 0], affine[1, 1], affine[0, 2] = spacing_mm
    affine[:3, 3] = np.asarray(centre) - affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    points = np.indices(shape).reshape(3, -1).T @ affine[:3, :3].T + affine[:3, 3]
    inside = np.linalg.norm(points - centre, axis=1) <= radius_mm
    return hd.Volume(inside.reshape(shape), affine, "PATIENT")


@settings(max_examples=25, deadline=None)
@given(
    radius=st.floats(9, 25),
    pixel=st.floats(0.5, 0.9),
    slices=st.floats(0.6, 1.6),
    centre=st.tuples(*[st.floats(-200, 200)] * 3),
)
def test_measures_of_a_ball(radius: float, pixel: float, slices: float, centre: tuple[float, float, float]) -> None:
    volume = _ball(radius, (slices, pixel, pixel), centre)
    mask = volume.array
    assert measure.volume_mm3(mask, volume) == pytest.approx(4 / 3 * math.pi * radius**3, rel=0.05)
    assert measure.long_axis_mm(mask, volume) == pytest.approx(2 * radius, abs=1.5 * pixel + slices**2 / (2 * radius))
    assert measure.centre_mm(mask, volume) == pytest.approx(centre, abs=0.05)
    low, high = measure.box_mm(mask, volume)
    assert np.subtract(high, low) == pytest.approx([2 * radius] * 3, abs=2 * max(pixel, slices))
    assert np.add(high, low) / 2 == pytest.approx(centre, abs=1e-6)


@settings(max_examples=10, deadline=None)
@given(axes=st.sets(st.sampled_from([0, 1, 2])), order=st.permutations([0, 1, 2]))
def test_measures_do_not_depend_on_storage(axes: set[int], order: list[int]) -> None:
    volume = _ball(9.0, (1.0, 0.7, 0.7), (10.0, -20.0, 30.0))
    stored = volume.flip_spatial(sorted(axes)) if axes else volume
    assert np.ravel(measure.box_mm(stored.array, stored)) == pytest.approx(
        np.ravel(measure.box_mm(volume.array, volume))
    )
    assert measure.centre_mm(stored.array, stored) == pytest.approx((10.0, -20.0, 30.0), abs=1e-6)
    turned = volume.permute_spatial_axes(order)
    assert np.ravel(measure.box_mm(turned.array, turned)) == pytest.approx(
        np.ravel(measure.box_mm(volume.array, volume))
    )


def test_part_of_a_volume_measures_as_the_whole() -> None:
    volume = _ball(9.0, (1.0, 0.7, 0.7), (0.0, 0.0, 0.0))
    part = volume.array[4:, 3:, 5:]
    assert measure.centre_mm(part, volume, (4, 3, 5)) != measure.centre_mm(part, volume)
    whole = np.zeros_like(volume.array)
    whole[4:, 3:, 5:] = part
    assert measure.centre_mm(part, volume, (4, 3, 5)) == pytest.approx(measure.centre_mm(whole, volume))
    assert np.ravel(measure.box_mm(part, volume, (4, 3, 5))) == pytest.approx(np.ravel(measure.box_mm(whole, volume)))


def test_single_voxel_has_a_size() -> None:
    volume = hd.Volume(np.ones((1, 1, 1), bool), np.diag([3.0, 0.7, 0.7, 1.0]), "PATIENT")
    assert measure.long_axis_mm(volume.array, volume) == pytest.approx(0.7)
    assert measure.volume_mm3(volume.array, volume) == pytest.approx(3 * 0.7 * 0.7)


GRID = Grid((0.0, 0.0, 0.0), (3.0, 1.5, 1.5), (30, 60, 60))


def _maps(**classes: tuple[tuple[int, int, int], int, float]) -> np.ndarray:
    """Liver everywhere, with cubes of a class: name=(corner, edge in voxels, probability)."""
    out = np.zeros((len(CHANNELS), *GRID.shape), np.float32)
    out[1] = 1
    for name, (corner, edge, p) in classes.items():
        where = tuple(slice(c, c + edge) for c in corner)
        out[(CHANNELS.index(name), *where)] = p
        out[(1, *where)] -= p
    return out


def _believed(maps: np.ndarray, grid: Grid = GRID, **options: np.ndarray) -> LesionMap:
    """All proposals taken for lesions, of the class that is most probable in the maps."""
    proposed = proposals(maps, CHANNELS, grid.spacing_mm, **options)
    verdicts = {}
    for label in np.unique(proposed.labels[proposed.labels > 0]).tolist():
        means = {name: float(maps[CHANNELS.index(name)][proposed.labels == label].mean()) for name in CLASSES}
        verdicts[label] = Verdict(0.9, {name: value / sum(means.values()) for name, value in means.items()})
    return find_lesions(proposed, verdicts, grid)


def test_specks_are_not_proposed_and_faint_spots_are() -> None:
    maps = _maps(HCC=((5, 5, 5), 5, 0.45), CYST=((20, 40, 40), 1, 0.99), MET=((20, 5, 5), 5, 0.05))
    labels = proposals(maps, CHANNELS, GRID.spacing_mm).labels
    assert np.array_equal(labels > 0, maps[CHANNELS.index("HCC")] > 0)


def test_a_faint_veil_does_not_join_two_clear_lesions() -> None:
    """Two sure lesions in one piece of low probability stay two; the veil itself is no third one."""
    maps = _maps(HCC=((8, 8, 8), 20, 0.2))
    for corner in (10, 22):
        where = (slice(10, 15), slice(corner, corner + 5), slice(12, 17))
        maps[(CHANNELS.index("HCC"), *where)], maps[(1, *where)] = 0.9, 0.1
    found = proposals(maps, CHANNELS, GRID.spacing_mm).labels
    assert [(found == label).sum() for label in np.unique(found[found > 0])] == [125, 125]


def test_verdicts_decide() -> None:
    proposed = proposals(_maps(HCC=((5, 5, 5), 6, 0.6), HEM=((20, 40, 40), 5, 0.9)), CHANNELS, GRID.spacing_mm)
    assert len(np.unique(proposed.labels)) == 3
    shares = dict.fromkeys(CLASSES, 0.0) | {"HCC": 0.75, "HEM": 0.25}
    first = int(proposed.labels[7, 7, 7])
    found = find_lesions(proposed, {first: Verdict(0.8, shares), 3 - first: Verdict(0.1, shares)}, GRID)
    (candidate,) = found.candidates
    assert candidate.score == 0.8
    assert candidate.class_probabilities == shares
    assert candidate.malignant_probability == pytest.approx(0.75)
    assert found.labels[7, 7, 7] == 1
    assert not found.labels[20:].any()
    assert find_lesions(proposed, {}, GRID).candidates == ()


def test_the_reviewer_sees_the_candidate_in_the_middle() -> None:
    maps = _maps(MET=((2, 3, 50), 5, 0.7))
    proposed = proposals(maps, CHANNELS, GRID.spacing_mm)
    image = np.random.default_rng(0).normal(60, 10, (2, *GRID.shape)).astype(np.float32)
    reviewer = Reviewer()
    verdicts = review(reviewer, image, proposed.lesion, proposed.liver, proposed.labels)
    ((label, verdict),) = verdicts.items()
    assert proposed.labels[4, 5, 52] == label
    assert verdict.score == pytest.approx(0.7, abs=1e-5)
    assert sum(verdict.class_probabilities.values()) == pytest.approx(1)
    (patch,) = reviewer.seen
    assert patch.shape == (5, *PATCH)
    middle = tuple(size // 2 for size in PATCH)
    assert patch[(slice(2, None), *middle)] == pytest.approx([0.7, 1.0, 1.0])
    assert patch[(0, *middle)] == image[0, 4, 5, 52]
    assert patch[4].sum() == 125


@settings(max_examples=15, deadline=None)
@given(corner=st.tuples(st.integers(2, 25), st.integers(2, 55), st.integers(2, 55)), thick=st.floats(3.0, 7.0))
def test_every_lesion_has_a_voxel_on_a_coarser_source(corner: tuple[int, int, int], thick: float) -> None:
    """Thick source slices may pass a tiny lesion by; it still gets a voxel."""
    found = _believed(_maps(MET=(corner, 2, 0.6)))
    source = hd.Volume(np.zeros((14, 40, 40), np.int16), np.diag([thick, 2.3, 2.3, 1.0])[[2, 1, 0, 3]], "PATIENT")
    masks = on_source(found, image_of(source))
    assert [bool(mask.any()) for mask in masks.lesions] == [True] * len(found.candidates)


def test_resampling_averages_the_noise_away() -> None:
    """Onto voxels of 8 times the volume, white noise falls at least to half."""
    rng = np.random.default_rng(1)
    volume = hd.Volume(rng.normal(100, 20, (40, 60, 60)).astype(np.float32), np.eye(4)[[2, 1, 0, 3]], "PATIENT")
    grid = grid_over(volume, (2.0, 2.0, 2.0))
    assert onto(image_of(volume), grid)[2:-2, 2:-2, 2:-2].std() < 10


def test_resampling_onto_the_same_grid_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    affine = np.diag([3.0, 0.8, 0.8, 1.0])[[2, 1, 0, 3]]
    affine[:3, 3] = (-100, 20, 7)
    volume = hd.Volume(rng.integers(-100, 200, (20, 30, 40)).astype(np.int16), affine, "PATIENT")
    for stored in (volume, volume.flip_spatial([0]), volume.flip_spatial([1, 2])):
        assert onto(image_of(stored), grid_over(stored, (3.0, 0.8, 0.8))) == pytest.approx(volume.array, abs=1e-3)


def test_lesions_away_from_the_coarse_liver_do_not_count() -> None:
    within = np.zeros(GRID.shape, bool)
    within[:, :, :30] = True
    found = _believed(_maps(HCC=((5, 5, 5), 5, 0.9), MET=((5, 40, 40), 5, 0.9)), within=within)
    assert [max(c.class_probabilities, key=c.class_probabilities.__getitem__) for c in found.candidates] == ["HCC"]
    assert not (found.liver_probability[:, :, 30:] > 0).any()


def test_what_lies_beside_the_liver_is_no_lesion() -> None:
    """A kidney touching the liver that the network takes for a lesion is dropped; a lesion under the capsule stays."""
    grid = Grid((0.0, 0.0, 0.0), (3.0, 1.5, 1.5), (30, 60, 80))
    channels = ("background", "liver", *CLASSES)
    probabilities = np.zeros((len(channels), *grid.shape), np.float32)
    probabilities[0] = 1.0
    liver = np.zeros(grid.shape, bool)
    liver[5:25, 10:50, 10:50] = True
    kidney, subcapsular = np.zeros_like(liver), np.zeros_like(liver)
    kidney[10:20, 20:40, 50:66] = True
    subcapsular[12:16, 24:32, 12:20] = True
    for channel, mask in ((1, liver), (channels.index("HEM"), kidney), (channels.index("HCC"), subcapsular)):
        probabilities[:, mask] = 0.005
        probabilities[channel, mask] = 0.965
    found = _believed(probabilities, grid, coarse_liver=liver)
    assert [max(c.class_probabilities, key=c.class_probabilities.__getitem__) for c in found.candidates] == ["HCC"]
    assert (found.labels[subcapsular] == 1).all()
