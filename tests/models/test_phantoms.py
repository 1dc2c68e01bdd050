"""Simulated CT: the truth that it states is the truth in its voxels."""

import numpy as np
import pytest

from models.phantoms.ct import CtCase, simulate_ct_case
from models.phantoms.lesions import CLASSES, MALIGNANT

SMALL = {"spacing_mm": (5.0, 3.0, 3.0), "shape": (46, 120, 140)}


@pytest.fixture(scope="module")
def cases() -> list[CtCase]:
    return [simulate_ct_case(seed, **SMALL, motion_mm=0, noise=False) for seed in range(12)]  # type: ignore[arg-type]


def test_the_same_seed_makes_the_same_patient() -> None:
    one, two, other = (simulate_ct_case(seed, **SMALL) for seed in (4, 4, 5))  # type: ignore[arg-type]
    np.testing.assert_array_equal(one.arterial, two.arterial)
    np.testing.assert_array_equal(one.portal_venous, two.portal_venous)
    assert one.lesions == two.lesions
    assert not np.array_equal(one.portal_venous, other.portal_venous)


def test_volumes_are_finite_hu(cases: list[CtCase]) -> None:
    for case in cases:
        for volume in (case.arterial, case.portal_venous):
            assert volume.dtype == np.float32
            assert np.isfinite(volume).all()
            assert volume.min() >= -1100
            assert volume.max() < 3000


def test_livers_are_of_human_size_and_enhance_more_in_the_portal_venous_phase(cases: list[CtCase]) -> None:
    for case in cases:
        millilitres = case.liver.sum() * case.grid.voxel_mm3 / 1000
        assert 500 < millilitres < 4500
        parenchyma = case.liver & (case.lesion_labels == 0)
        assert np.median(case.portal_venous[parenchyma]) == pytest.approx(case.contrast.liver[1], abs=6)
        assert case.contrast.liver[1] > case.contrast.liver[0]


def test_stated_diameter_and_centre_are_those_of_the_voxels(cases: list[CtCase]) -> None:
    checked = 0
    for case in cases:
        for lesion in case.lesions:
            inside = case.lesion_labels == lesion.label
            assert inside.any()
            assert (inside <= case.liver).all() or (inside & ~case.liver).mean() < 0.01
            if lesion.diameter_mm < 15:
                continue
            diameter = np.cbrt(6 * inside.sum() * case.grid.voxel_mm3 / np.pi)
            assert diameter == pytest.approx(lesion.diameter_mm, rel=0.12)
            centre = [
                o + s * i.mean()
                for o, s, i in zip(case.grid.origin_mm, case.grid.spacing_mm, np.nonzero(inside), strict=True)
            ]
            np.testing.assert_allclose(centre, lesion.centre_mm, atol=2.0)
            checked += 1
    assert checked >= 8


def test_cysts_are_water_in_both_phases() -> None:
    found = 0
    for seed in range(4):
        case = simulate_ct_case(seed, **SMALL, motion_mm=0, noise=False, kinds=["CYST"] * 5)  # type: ignore[arg-type]
        assert {lesion.kind for lesion in case.lesions} == {"CYST"}
        for lesion in case.lesions:
            inside = case.lesion_labels == lesion.label
            if lesion.diameter_mm > 20:
                for volume in (case.arterial, case.portal_venous):
                    assert -15 < np.median(volume[inside]) <= 22
                found += 1
    assert found >= 3


def test_every_lesion_can_be_told_from_the_liver_in_one_phase_at_least(cases: list[CtCase]) -> None:
    unseen = 0
    for case in cases:
        for lesion in case.lesions:
            inside = case.lesion_labels == lesion.label
            seen = max(
                float(np.abs(volume[inside] - liver).mean())
                for volume, liver in zip((case.arterial, case.portal_venous), case.contrast.liver, strict=True)
            )
            unseen += seen < 6
    assert unseen <= 1


def test_noise_has_the_stated_spread() -> None:
    clean = simulate_ct_case(2, **SMALL, motion_mm=0, noise=False)  # type: ignore[arg-type]
    noisy = simulate_ct_case(2, **SMALL, motion_mm=0)  # type: ignore[arg-type]
    core = clean.liver & (clean.lesion_labels == 0)
    spread = float((noisy.portal_venous - clean.portal_venous)[core].std())
    assert spread == pytest.approx(noisy.scans[1].noise_hu, rel=0.35)


def test_class_labels_name_the_lesions(cases: list[CtCase]) -> None:
    for case in cases:
        for lesion in case.lesions:
            inside = case.lesion_labels == lesion.label
            assert set(np.unique(case.class_labels[inside])) == {2 + CLASSES.index(lesion.kind)}
            assert lesion.malignant == (lesion.kind in MALIGNANT)
