"""Parts of mre_qc against what is known by construction: waves of known stiffness, noise of known size, definitions."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from pipelines.inputs import MrePlane, MreSlice
from pipelines.mre_qc import thresholds as table
from pipelines.mre_qc.channels import unwrapped
from pipelines.mre_qc.grids import inside_mm, onto
from pipelines.mre_qc.harmonics import harmonics
from pipelines.mre_qc.inversion import invert
from pipelines.mre_qc.physics import Measures, SlicePhysics, examine
from pipelines.mre_qc.reasons import REASONS, named
from pipelines.mre_qc.stiffness import SliceStiffness, exam_stiffness, slice_stiffness
from pipelines.mre_qc.verdict import SliceVerdict, exam_verdict, physical_probability, slice_verdict

N, PIXEL_MM, HZ = 128, 2.5, 60.0
LIMITS = table.in_force()
PLANE = MrePlane((-158.75, -158.75, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (PIXEL_MM, PIXEL_MM), (N, N))
DOWN, ACROSS = np.indices((N, N)) * PIXEL_MM - 158.75
BODY = (DOWN / 105) ** 2 + (ACROSS / 145) ** 2 < 1
LIVER = ((DOWN + 5) / 55) ** 2 + ((ACROSS + 65) / 60) ** 2 < 1


def wave_phase(kpa: float, radians: float, noise: float, *, offsets: int = 4, seed: int = 1) -> np.ndarray:
    """Wrapped phase of two crossing waves in a medium of `kpa`, with white noise."""
    k = 2 * np.pi * HZ / np.sqrt(kpa * 1000 / 1000) / 1000  # rad/mm
    field = radians * (0.7 * np.exp(-1j * k * ACROSS) + 0.3 * np.exp(1j * k * (0.6 * ACROSS + 0.8 * DOWN)))
    turns = np.exp(2j * np.pi * np.arange(offsets) / offsets)[:, None, None]
    phase = (field * turns).real + np.random.default_rng(seed).normal(0, noise, (offsets, N, N))
    return np.angle(np.exp(1j * phase)).astype(np.float32)


@pytest.mark.parametrize(("kpa", "noise"), [(2.0, 0.05), (3.5, 0.05), (6.0, 0.05), (3.5, 0.35)])
def test_the_inversion_finds_the_stiffness_that_made_the_wave(kpa: float, noise: float) -> None:
    found = invert(harmonics(unwrapped(wave_phase(kpa, 1.5, noise), BODY)), BODY, HZ, (PIXEL_MM, PIXEL_MM))
    inner = ndimage.binary_erosion(BODY, iterations=10)
    trusted = inner & (found.confidence >= 0.95)
    assert trusted.sum() > 0.3 * inner.sum()
    assert np.median(found.stiffness_kpa[trusted]) == pytest.approx(kpa, rel=0.06)


def test_an_inversion_of_noise_is_not_trusted() -> None:
    found = invert(harmonics(wave_phase(3.0, 0.0, 0.3)), BODY, HZ, (PIXEL_MM, PIXEL_MM))
    assert (found.confidence[BODY] >= 0.95).mean() < 0.03


@pytest.mark.parametrize("offsets", [3, 4, 8])
def test_the_residual_measures_the_error_of_the_first_harmonic(offsets: int) -> None:
    noise = 0.1
    found = harmonics(wave_phase(4.0, 0.0, noise, offsets=offsets))
    expected = noise * np.sqrt(4 / offsets)
    assert np.sqrt((np.abs(found.first) ** 2).mean()) == pytest.approx(expected, rel=0.05)
    assert np.sqrt((np.abs(found.residual) ** 2).mean()) == pytest.approx(expected, rel=0.05)


def test_unwrapping_brings_back_what_was_wrapped() -> None:
    clean = wave_phase(6.0, 1.0, 0.0) * np.float32(6)  # up to 6 rad: wraps twice
    phase = np.angle(np.exp(1j * clean)).astype(np.float32)
    assert np.abs(np.diff(phase, axis=2)).max() > np.pi
    error = unwrapped(phase, BODY) - clean
    inner = ndimage.binary_erosion(BODY, iterations=2)
    assert max(np.ptp(one[inner]) for one in error) < 1e-3


def test_an_image_lands_where_it_lay() -> None:
    shifted = MrePlane((-158.75 + 5, -158.75, 0.0), (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (PIXEL_MM, PIXEL_MM), (N, N))
    image = np.asarray(LIVER, np.float32)
    moved = onto(image, PLANE, shifted)
    assert np.array_equal(moved[:, :-2], image[:, 2:])
    flipped = MrePlane((158.75, -158.75, 0.0), (-1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (PIXEL_MM, PIXEL_MM), (N, N))
    assert np.allclose(onto(image, PLANE, flipped), image[:, ::-1], atol=1e-5)


def scanned(radians: float, snr: float, **maps: np.ndarray) -> SlicePhysics:
    """A slice of 3 kPa with a bright body; noise of magnitude and phase fit each other. maps: of the scanner."""
    rng = np.random.default_rng(3)
    half = np.exp(0.5j * wave_phase(3.0, radians, 0.0))  # below pi: no wraps to be halved
    noise = rng.normal(0, 100 / snr * np.sqrt(2), (2, 2, 4, N, N))  # one polarity has more noise than the mean of two
    plus, minus = 100 * BODY * half + noise[0, 0] + 1j * noise[0, 1], 100 * BODY / half + noise[1, 0] + 1j * noise[1, 1]
    magnitude = np.sqrt(np.abs(plus) * np.abs(minus)).astype(np.float32)
    phase = np.angle(plus * np.conj(minus)).astype(np.float32)
    planes = dict.fromkeys(("magnitude", "phase", *maps), PLANE)
    one = MreSlice(0.0, planes, magnitude=magnitude, phase=phase, **maps)
    return examine(one, PLANE, HZ, LIMITS, liver=LIVER)


def test_a_strong_wave_is_readable_everywhere_inside_the_capsule_and_no_wave_nowhere() -> None:
    good, silent = scanned(1.2, 25.0), scanned(0.0, 25.0)
    inner = float((LIVER & (inside_mm(LIVER, (PIXEL_MM, PIXEL_MM)) > 8)).sum()) * PIXEL_MM**2
    assert good.measures.inner_mm2 == pytest.approx(inner)
    assert good.measures.readable_share > 0.95
    assert good.measures.coherence > 0.97
    assert silent.measures.readable_mm2 == 0
    assert silent.measures.noisy_share > 0.95
    assert good.source == "inversion"
    assert np.nanmedian(good.stiffness_kpa) == pytest.approx(3.0, rel=0.06)
    assert not np.isfinite(good.stiffness_kpa[~good.valid]).any()


def test_too_little_signal_is_dark() -> None:
    dim = scanned(1.2, 3.0)
    assert dim.measures.snr == pytest.approx(3.4, abs=0.4)  # noise adds to a magnitude this low
    assert dim.measures.dark_share > 0.7
    assert dim.measures.readable_mm2 == 0


# ------------------------------------------------------------------ thresholds


def test_a_site_may_have_its_own_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(table.SHIPPED.read_text().replace("diagnostic_mm2: 2800.0", "diagnostic_mm2: 3500.0"))
    monkeypatch.setenv(table.VARIABLE, str(own))
    assert table.in_force().exam.diagnostic_mm2 == 3500.0
    monkeypatch.delenv(table.VARIABLE)
    assert table.in_force().exam.diagnostic_mm2 == 2800.0


@pytest.mark.parametrize(
    ("old", "new", "named_in"),
    [
        ("  least_snr: 4.0", "  snr: 4.0", "least_snr"),
        ("wave_over_error: 5.0", "wave_over_error: five", "slice.wave_over_error"),
        ("{below: 2.5,", "{below: 9.5,", "rise"),
        ("exam:", "study:", "exam"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, old: str, new: str, named_in: str) -> None:
    text = table.SHIPPED.read_text()
    assert old in text
    own = tmp_path / "own.yaml"
    own.write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=named_in):
        table.read(own)


def test_bins_hold_at_their_frequency_only() -> None:
    assert LIMITS.bin_of(2.49, 60).meaning == "normal"
    assert LIMITS.bin_of(2.5, 60).meaning == "normal or inflammation"
    assert LIMITS.bin_of(7.0, 60).meaning == "stage 4 fibrosis or cirrhosis"
    assert LIMITS.bin_of(2.49, 40) is None


# ------------------------------------------------------------------ verdicts


def measures(readable: float | None, inner: float = 8000.0, **other: float) -> Measures:
    values = dict.fromkeys(Measures.__dataclass_fields__) | {
        "liver_mm2": 1.3 * inner, "inner_mm2": inner, "readable_mm2": readable, "cut_share": 0.0,
    }  # fmt: skip
    return Measures(**(values | other))


def test_the_probability_by_area_follows_the_definition() -> None:
    def chance(readable: float, inner: float = 5000.0) -> float:
        found = physical_probability(measures(readable, inner), LIMITS)
        assert found is not None
        return found

    assert chance(1100) > 0.75
    assert chance(600) < 0.25
    assert chance(3000) > 0.97
    assert chance(1000, inner=10_000) < 0.1  # 10 % of the area
    assert physical_probability(measures(None), LIMITS) is None


def verdict(probability: float, readable: float | None = 2000.0, reason: str = "MOTION") -> SliceVerdict:
    return slice_verdict(probability, {reason: 1.0}, measures(readable), LIMITS)


def test_networks_and_physics_are_joined_and_disagreement_is_limited_quality() -> None:
    sure, doubtful = verdict(0.95, 3000.0), verdict(0.8, 900.0)
    assert (sure.quality, sure.reasons) == ("diagnostic", ())
    assert doubtful.quality == "limited"
    assert verdict(0.1).quality == "non_diagnostic"
    assert verdict(0.1, reason="BLUR").reasons == ("BLUR",)
    wrong = slice_verdict(0.99, None, measures(3000.0), LIMITS, wrong_frequency=True)
    assert (wrong.is_diagnostic, wrong.reasons) == (False, ("WRONG_FREQUENCY",))


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([(0.9, 1500.0), (0.9, 1400.0), (0.1, 0.0)], True),
        ([(0.9, 1500.0), (0.9, 1200.0)], False),  # 27 cm2
        ([(0.9, 5000.0), (0.1, 0.0)], False),  # one slice
        ([(0.9, None)] * 3, True),
        ([], False),
    ],
)
def test_an_exam_is_diagnostic_by_its_definition(slices: list, expected: bool) -> None:
    made = [SliceVerdict(p, p > 0.5, "", () if p > 0.5 else ("MOTION",), p, None, area) for p, area in slices]
    found = exam_verdict(made, LIMITS)
    assert found.is_diagnostic is expected
    assert bool(found.reasons) is not expected
    assert (found.probability > 0.5) is expected
    assert set(found.reasons) <= set(REASONS)


def test_the_probability_of_an_exam_counts_every_way_to_enough() -> None:
    made = [SliceVerdict(0.8, True, "", (), 0.8, None, 1500.0)] * 3  # any two suffice
    assert exam_verdict(made, LIMITS).probability == pytest.approx(0.8**3 + 3 * 0.8**2 * 0.2)


def test_reasons_are_ranked_and_a_second_one_must_weigh() -> None:
    assert named({"BLUR": 0.5, "MOTION": 0.4, "COVERAGE": 0.1}) == ("BLUR", "MOTION")
    assert named({"BLUR": 0.9, "MOTION": 0.1, "OTHER": 5.0}) == ("BLUR",)
    assert named({}) == ()


def test_stiffness_is_weighted_by_area_and_refused_when_there_is_too_little() -> None:
    physics = scanned(1.2, 25.0)
    given = [(physics, SliceStiffness(3.0, 0.1, 1000.0), True), (physics, SliceStiffness(4.0, 0.1, 3000.0), True)]
    found, why = exam_stiffness([*given, (physics, SliceStiffness(9.0, 0.1, 9000.0), False)], True, LIMITS)
    assert (found.mean_kpa, found.valid_mm2, found.source, why) == (3.75, 4000.0, "inversion", "")
    assert exam_stiffness(given, False, LIMITS) == (None, "the exam is not diagnostic")
    small = [(physics, SliceStiffness(3.0, 0.1, 300.0), True)]
    assert exam_stiffness(small, True, LIMITS)[0] is None
    assert "3.0 cm2" in exam_stiffness(small, True, LIMITS)[1]
    nothing = [(replace(physics, source=None), None, True)]
    assert "no elastogram" in exam_stiffness(nothing, True, LIMITS)[1]


def test_stiffness_is_read_where_the_scanners_map_and_our_inversion_agree() -> None:
    alone = scanned(1.2, 25.0)
    left = ACROSS < -65
    map_kpa = np.where(left, 3.0, 4.5).astype(np.float32)  # right of that it gainsays the wave, which is of 3 kPa
    found = scanned(1.2, 25.0, elastogram=map_kpa, confidence=np.ones((N, N), np.float32))
    assert found.source == "elastogram"
    away = np.abs(ACROSS + 65) > 15
    assert (found.valid & left & away).sum() > 0.9 * (alone.valid & left & away).sum() > 0
    assert not (found.valid & ~left & away).any()


def test_a_slice_valid_in_a_corner_of_what_can_be_read_is_not_measured() -> None:
    whole = scanned(1.2, 25.0)
    assert slice_stiffness(whole, LIMITS) is not None
    place = np.flatnonzero(whole.valid)
    for share, stated in ((0.08, False), (0.14, True)):
        few = np.zeros(N * N, bool)
        few[place[: int(share * whole.readable.sum())]] = True
        assert few.sum() * PIXEL_MM**2 > LIMITS.stiffness.least_slice_mm2
        assert (slice_stiffness(replace(whole, valid=few.reshape(N, N)), LIMITS) is not None) == stated
