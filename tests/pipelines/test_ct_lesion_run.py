"""ct_lesion end to end with a network that is always right: geometry, sizes, refusals, repeatability."""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import highdicom as hd
import numpy as np
import pytest
from ct_oracle import OracleCase, Sphere, oracle_bundles
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipelines.ct_lesion import run
from pipelines.findings import Findings, UnsuitableInput

LESIONS = (
    Sphere((30.0, -10.0, 10.0), 14.0, "MET"),
    Sphere((-40.0, 0.0, -20.0), 9.0, "HCC"),
    Sphere((0.0, -30.0, 25.0), 6.5, "MET"),
)
CASE = OracleCase(LESIONS, shape=(48, 112, 112), spacing_mm=(4.0, 2.1, 2.1), noise_hu=3.0)


def bundles() -> dict[str, Any]:
    return oracle_bundles((8.0, 4.2, 4.2), (4.0, 2.1, 2.1))


@pytest.fixture(scope="module")
def answer() -> Findings:
    return run(CASE.study(), bundles())


def test_every_lesion_is_found_at_its_place_and_size(answer: Findings) -> None:
    lesions = answer.summary["lesions"]
    assert len(lesions) == len(LESIONS)
    for found, truth in zip(lesions, LESIONS, strict=True):  # both run from large to small
        assert np.linalg.norm(np.subtract(found["centre_mm"], truth.centre_mm)) < 1.0
        assert found["volume_mm3"] == pytest.approx(4 / 3 * math.pi * truth.radius_mm**3, rel=0.1)
        assert found["long_axis_mm"] == pytest.approx(2 * truth.radius_mm, abs=1.6)
        low, high = np.asarray(found["box_mm"])
        assert np.all(low < truth.centre_mm)
        assert np.all(high > truth.centre_mm)
        assert high - low == pytest.approx([2 * truth.radius_mm] * 3, abs=4.5)
        assert max(found["class_probabilities"], key=found["class_probabilities"].get) == truth.kind
        assert found["malignant_probability"] > 0.9


def test_summary_and_findings_say_the_same(answer: Findings) -> None:
    assert answer.role == "portal_venous"
    for entry, finding in zip(answer.summary["lesions"], answer.findings, strict=True):
        values = {item.concept: (item.value, item.unit) for item in finding.measurements}
        assert entry["tracking_id"] == finding.tracking_id
        assert values["long_axis"] == (entry["long_axis_mm"], "mm")
        assert values["volume"] == (entry["volume_mm3"], "mm3")
        assert values["malignant_probability"][0] == pytest.approx(100 * entry["malignant_probability"], abs=0.06)
        assert {(item.concept, item.value) for item in finding.evaluations} >= {("malignancy", "malignant")}
        assert finding.mask.shape == CASE.shape
        assert finding.mask.sum() * math.prod(CASE.spacing_mm) == pytest.approx(entry["volume_mm3"], rel=1e-3)
        assert sum(entry["class_probabilities"].values()) == pytest.approx(1, abs=1e-3)
    assert [finding.tracking_id for finding in answer.findings] == ["Lesion 1", "Lesion 2", "Lesion 3"]


def test_liver_volume_is_that_of_the_ellipsoid(answer: Findings) -> None:
    expected = 4 / 3 * math.pi * math.prod(CASE.liver_radii_mm) / 1000
    assert answer.summary["liver_volume_ml"] == pytest.approx(expected, rel=0.03)
    (region,) = answer.regions
    assert region.label == "Liver"
    assert region.mask.sum() * math.prod(CASE.spacing_mm) / 1000 == pytest.approx(expected, rel=0.03)


def test_the_aorta_is_no_lesion(answer: Findings) -> None:
    """It is as bright as a lesion, but outside of the liver."""
    for lesion in answer.summary["lesions"]:
        assert lesion["centre_mm"][1] < 60


def test_same_input_same_answer(answer: Findings) -> None:
    again = run(CASE.study(), bundles())
    assert again.summary == answer.summary
    for a, b in zip(again.findings, answer.findings, strict=True):
        assert np.array_equal(a.mask, b.mask)


def test_no_lesion_is_an_answer_too() -> None:
    found = run(replace(CASE, lesions=()).study(), bundles())
    assert found.findings == ()
    assert found.summary["lesions"] == []
    assert found.summary["liver_volume_ml"] > 1000


def _flipped(volume: hd.Volume, axes: list[int]) -> hd.Volume:
    return volume.flip_spatial(axes) if axes else volume


def test_storage_order_and_table_position_do_not_matter(answer: Findings) -> None:
    """Reversed slices, mirrored storage and another origin: the same lesions at the same places in the patient."""
    axes, shift = [0, 2], (-217.3, 88.4, 291.0)
    study = CASE.study()
    move = np.eye(4)
    move[:3, 3] = shift
    arterial, portal_venous = (
        _flipped(hd.Volume(volume.array, move @ volume.affine, "PATIENT"), axes)
        for volume in (study.arterial, study.portal_venous)
    )
    found = run(replace(study, arterial=arterial, portal_venous=portal_venous), bundles())
    for a, b in zip(found.summary["lesions"], answer.summary["lesions"], strict=True):
        assert np.subtract(a["centre_mm"], shift) == pytest.approx(b["centre_mm"], abs=0.6)
        assert a["volume_mm3"] == pytest.approx(b["volume_mm3"], rel=0.06)
        assert a["long_axis_mm"] == pytest.approx(b["long_axis_mm"], abs=1.0)
    mask = _flipped(hd.Volume(found.findings[0].mask, portal_venous.affine, "PATIENT"), axes).array
    assert np.mean(mask != answer.findings[0].mask) < 5e-4


@settings(max_examples=2, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    slice_mm=st.floats(2.5, 5.0),
    pixel_mm=st.floats(1.6, 2.4),
    turn_degrees=st.floats(-12, 12),
)
def test_any_grid_gives_the_same_lesions(slice_mm: float, pixel_mm: float, turn_degrees: float) -> None:
    """Other spacings, and a patient lying obliquely to the scanner's axes."""
    shape = (round(180 / slice_mm), round(250 / pixel_mm), round(250 / pixel_mm))
    angle = math.radians(turn_degrees)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.array([[0, 0, pixel_mm], [0, pixel_mm, 0], [slice_mm, 0, 0]])
    affine[:3, 3] = -affine[:3, :3] @ ((np.asarray(shape) - 1) / 2)
    case = OracleCase(LESIONS[:2], shape=shape, spacing_mm=(slice_mm, pixel_mm, pixel_mm), affine=affine)
    found = run(case.study(), bundles()).summary["lesions"]
    assert len(found) == 2
    for entry, truth in zip(found, LESIONS, strict=False):
        assert np.linalg.norm(np.subtract(entry["centre_mm"], truth.centre_mm)) < 1.2
        assert entry["volume_mm3"] == pytest.approx(4 / 3 * math.pi * truth.radius_mm**3, rel=0.12)
        assert entry["long_axis_mm"] == pytest.approx(2 * truth.radius_mm, abs=2.2)


def test_breathing_between_the_phases_is_undone() -> None:
    """A lesion seen in the arterial phase alone is reported where it lies in the portal-venous phase."""
    case = replace(CASE, arterial_shift_mm=(1.0, 2.0, 8.0))
    arterial_only = run(case.study(), bundles()).summary["lesions"][1]
    assert np.linalg.norm(np.subtract(arterial_only["centre_mm"], LESIONS[1].centre_mm)) < 2.0


def test_two_touching_lesions_are_told_apart() -> None:
    pair = (Sphere((20.0, -10.0, 0.0), 12.0, "MET"), Sphere((42.0, -10.0, 0.0), 12.0, "MET"))
    found = run(replace(CASE, lesions=pair).study(), bundles()).summary["lesions"]
    assert len(found) == 2
    assert sorted(entry["centre_mm"][0] for entry in found) == pytest.approx([20, 42], abs=2)


def _as_stored(case: OracleCase, change: Callable[[np.ndarray], np.ndarray]) -> OracleCase:
    class Changed(OracleCase):
        def volume(self, phase: int) -> hd.Volume:
            volume = super().volume(phase)
            return volume.with_array(change(volume.array))

    return Changed(**vars(case))


SMALL = OracleCase(shape=(40, 90, 90), spacing_mm=(4.5, 2.5, 2.5))


@pytest.mark.parametrize(
    ("case", "words"),
    [
        (replace(SMALL, shape=(3, 90, 90)), "3 images over 14 mm; the whole liver is needed"),
        (replace(SMALL, shape=(20, 90, 90), spacing_mm=(9.0, 2.5, 2.5)), "at most 7 mm between slices"),
        (replace(SMALL, age_years=11.0), "11 years old"),
        (replace(SMALL, descriptions=("CT liver", "post TACE follow-up")), "TACE"),
        (replace(SMALL, liver_radii_mm=(34.0, 34.0, 34.0)), "200 ml are needed"),
        (replace(SMALL, shape=(22, 90, 90), liver_radii_mm=(110.0, 110.0, 110.0)), "cut off"),
        (replace(SMALL, liver_hu=(56.0, 56.0), aorta_hu=(42.0, 42.0), extra={"vein_pvp": 0.0}), "No contrast"),
        (replace(SMALL, liver_hu=(110.0, 112.0), aorta_hu=(155.0, 155.0)), "look alike"),
        (replace(SMALL, liver_hu=(118.0, 70.0), aorta_hu=(155.0, 300.0)), "exchanged"),
        (_as_stored(SMALL, lambda array: array + 1024), "not in Hounsfield units"),
        (_as_stored(SMALL, lambda array: np.clip((array + 160) / 400 * 255, 0, 255)), "not in Hounsfield units"),
        (_as_stored(SMALL, lambda array: np.full_like(array, -1000)), "not in Hounsfield units"),
    ],
)
def test_unsuitable_studies_are_refused_in_words(case: OracleCase, words: str) -> None:
    with pytest.raises(UnsuitableInput, match=words):
        run(case.study(), oracle_bundles((6.0, 4.5, 4.5), (4.0, 2.5, 2.5)))


def test_a_study_without_a_liver_is_refused() -> None:
    with pytest.raises(UnsuitableInput, match="No liver was found"):
        run(replace(SMALL, liver_hu=(-100.0, -100.0), aorta_hu=(-100.0, -100.0)).study(), oracle_bundles())


def test_arterial_phase_must_cover_the_liver() -> None:
    study = SMALL.study()
    half = study.arterial[:24]
    with pytest.raises(UnsuitableInput, match=r"covers \d+ % of the liver"):
        run(replace(study, arterial=half), oracle_bundles((6.0, 4.5, 4.5)))


def test_unknown_age_and_thick_slices_are_read() -> None:
    case = OracleCase(shape=(28, 90, 90), spacing_mm=(6.5, 2.5, 2.5), age_years=None)
    found = run(case.study(), oracle_bundles((6.5, 4.5, 4.5), (4.0, 2.5, 2.5)))
    assert any("6.5 mm apart" in warning for warning in found.warnings)
