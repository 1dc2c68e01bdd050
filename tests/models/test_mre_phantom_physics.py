"""The physics of the MRE phantoms: waves, inversion, acquisition, and what counts as readable."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from models.phantoms.mre import colour
from models.phantoms.mre.anatomy import Section, draw_patient, sections
from models.phantoms.mre.field import WaveField
from models.phantoms.mre.processing import Inversion, first_harmonic, invert, unwrap
from models.phantoms.mre.protocol import Protocol
from models.phantoms.mre.readable import SliceTruth, assess, judge, judge_exam
from models.phantoms.mre.scan import State, acquire, encoding, place
from models.phantoms.mre.tissue import AIR, LIVER, MUSCLE, TISSUES, modulus_pa, signals
from models.phantoms.mre.wave import solve_wave

PITCH = 2.0


@pytest.mark.parametrize(("hz", "kpa", "spacing_mm"), [(60.0, 2.1, 3.0), (80.0, 1.5, 3.0), (40.0, 6.0, 3.0)])
def test_a_plane_wave_has_the_wavelength_and_loss_of_its_modulus(hz: float, kpa: float, spacing_mm: float) -> None:
    modulus = modulus_pa(np.full((24, 160), kpa), np.full((24, 160), 0.17), hz)
    source = np.zeros(modulus.shape, complex)
    source[:, 0] = 1
    u = solve_wave(modulus, np.ones(modulus.shape, bool), source, hz, spacing_mm)[12, 5:40]
    wave_number = 2 * np.pi * hz * np.sqrt(1000 / modulus[0, 0])  # rad/m; u ~ e^{-ikx} in the e^{iwt} convention
    steps = np.arange(len(u))
    assert -np.polyfit(steps, np.unwrap(np.angle(u)), 1)[0] * 1000 / spacing_mm == pytest.approx(
        wave_number.real, rel=0.01
    )
    assert np.polyfit(steps, np.log(np.abs(u)), 1)[0] * 1000 / spacing_mm == pytest.approx(wave_number.imag, rel=0.03)


def test_a_lossless_wave_at_60_hz_in_3_6_kpa_is_32_mm_long() -> None:
    """c = sqrt(|G| / rho) = 1.897 m/s, 31.6 mm at 60 Hz; a free end reflects, so maxima lie half of that apart."""
    modulus = modulus_pa(np.full((9, 200), 3.6), np.full((9, 200), 0.01), 60.0)
    source = np.zeros(modulus.shape, complex)
    source[:, 0] = 1
    size = np.abs(solve_wave(modulus, np.ones(modulus.shape, bool), source, 60.0, 2.0)[4])
    maxima = np.flatnonzero((size[1:-1] > size[:-2]) & (size[1:-1] > size[2:])) + 1
    assert float(np.diff(maxima).mean() * 2.0) == pytest.approx(31.6 / 2, rel=0.02)


def test_a_grid_too_coarse_for_the_wave_is_refused() -> None:
    modulus = modulus_pa(np.full((20, 20), 1.0), np.full((20, 20), 0.1), 80.0)
    with pytest.raises(ValueError, match="points per wavelength"):
        solve_wave(modulus, np.ones((20, 20), bool), np.ones((20, 20), complex), 80.0, 8.0)


def _plane(kpa: float, hz: float, amplitude: float, *, rows: int = 128, columns: int = 176) -> WaveField:
    """Two crossing waves that neither grow nor vanish in the liver, and much more motion at the right wall."""
    k = 2 * np.pi * hz * np.sqrt(1 / kpa) * 1e-3  # rad/mm
    y, x = np.arange(rows)[:, None] * PITCH, np.arange(columns)[None, :] * PITCH
    u = amplitude * (np.exp(-1j * k * (0.8 * x + 0.6 * y)) + 0.6 * np.exp(-1j * k * (0.9 * y - 0.436 * x)))
    u = u * (1 + 15 * np.exp(-x / 12))
    return WaveField(u, np.zeros_like(u), np.full((rows, columns), kpa, np.float32))


def _section(liver_radius_mm: float = 55.0, rows: int = 128, columns: int = 176) -> Section:
    """A disc of liver in an ellipse of muscle."""
    y, x = (np.arange(n, dtype=np.float32) * PITCH - (n - 1) * PITCH / 2 for n in (rows, columns))
    body = (y[:, None] / 115) ** 2 + (x[None, :] / 160) ** 2 < 1
    liver = y[:, None] ** 2 + (x[None, :] + 60) ** 2 < liver_radius_mm**2
    shares = np.zeros((TISSUES, rows, columns), np.float32)
    shares[AIR], shares[MUSCLE], shares[LIVER] = ~body, body & ~liver, liver
    ones = np.ones((rows, columns), np.float32)
    inner = np.pi * max(0.0, liver_radius_mm - 8) ** 2
    return Section(0.0, y, x, shares, liver.astype(np.float32), 0 * ones, ones, ones, inner)


def _protocol(**changes: object) -> Protocol:
    usual = Protocol(
        "GE", "gre", 3.0, 60.0, 4, 20.0, 50.0, 25.0, 380.0, 256, 80, 128, 0, 2, 8.0, 1.0, 4,
    )  # fmt: skip
    return replace(usual, **changes)  # type: ignore[arg-type]


def _state(**changes: object) -> State:
    usual = State(amplitude_rad=1.2, driver_hz=60.0, liver_r2_star=40.0, snr=30.0, pulsation=0.0, seed=3)
    return replace(usual, **changes)  # type: ignore[arg-type]


def _truth(state: State, protocol: Protocol | None = None, *, kpa: float = 3.0, radius_mm: float = 55.0) -> SliceTruth:
    used = protocol or _protocol()
    scene = place(_section(radius_mm), _plane(kpa, state.driver_hz, 1.0), used, state)
    return assess(scene, state, acquire(scene, state))


@pytest.mark.parametrize("kpa", [2.0, 3.5, 6.0])
@pytest.mark.parametrize("form", ["speed", "modulus"])
def test_the_inversion_returns_the_stiffness_of_a_clean_slice(kpa: float, form: str) -> None:
    state = _state(snr=300.0)
    scene = place(_section(), _plane(kpa, 60.0, 1.0), _protocol(), state)
    phase = np.angle(acquire(scene, state).noisy).astype(np.float32)
    body = scene.crop(scene.signal) > 0
    stiffness, confidence, _ = invert(
        first_harmonic(unwrap(phase, body)), body, 60.0, scene.protocol.pixel_mm, Inversion(form=form)
    )
    truth = assess(scene, state, acquire(scene, state))
    assert float(stiffness[truth.readable].mean()) == pytest.approx(kpa, rel=0.05)
    assert float(np.median(confidence[truth.readable])) > 0.95


def test_noise_takes_the_valid_area() -> None:
    quiet, loud = (_state(snr=snr, amplitude_rad=0.5) for snr in (80.0, 3.0))
    valid = []
    for state in (quiet, loud):
        scene = place(_section(), _plane(3.0, 60.0, 1.0), _protocol(), state)
        phase = np.angle(acquire(scene, state).noisy).astype(np.float32)
        body = scene.crop(scene.signal) > 0
        _, confidence, _ = invert(first_harmonic(phase), body, 60.0, scene.protocol.pixel_mm, Inversion())
        valid.append(float((confidence[scene.crop(scene.liver) > 0.5] > 0.95).mean()))
    assert valid[0] > 0.9
    assert valid[1] < 0.25


def test_wraps_are_undone() -> None:
    y = np.linspace(0, 6 * np.pi, 96, dtype=np.float32)
    phase = np.stack([(5 * np.sin(y + k))[:, None] * np.ones(80, np.float32) for k in range(4)])
    wrapped = np.angle(np.exp(1j * phase)).astype(np.float32)
    assert np.abs(wrapped - phase).max() > 6
    found = unwrap(wrapped, np.ones((96, 80), bool))
    assert np.abs(np.rint((found - phase) / (2 * np.pi))).std(axis=(1, 2)).max() == 0


def test_the_first_harmonic_is_the_amplitude() -> None:
    u = np.array([[1.5 * np.exp(0.7j)]])
    for offsets in (4, 8):
        phase = (u * np.exp(2j * np.pi * np.arange(offsets) / offsets)[:, None, None]).real + 0.4
        assert first_harmonic(phase.astype(np.float32))[0, 0] == pytest.approx(u[0, 0], abs=1e-5)


def test_iron_takes_the_gradient_echo_before_the_spin_echo() -> None:
    def lost(sequence: str, te_ms: float, r2_star: float) -> float:
        normal, iron = (signals(sequence, 3.0, te_ms, 1000.0, 90.0, r)[LIVER] for r in (40.0, r2_star))
        return float(iron / normal)

    assert lost("gre", 20.0, 101.0) < 0.35
    assert lost("se_epi", 50.0, 101.0) > 0.6
    assert lost("se_epi", 50.0, 289.0) < 0.25


def test_encoding_of_another_frequency() -> None:
    assert encoding(1.0) == 1.0
    assert encoding(1.0 + 2e-4) == pytest.approx(1.0, abs=1e-3)
    assert encoding(2.0) == pytest.approx(0.0, abs=1e-12)  # two periods in one of the gradient cancel
    assert 0.5 < encoding(4 / 3) < 0.9


@pytest.mark.parametrize(
    ("area_cm2", "share", "expected"),
    [
        (11.0, 0.22, (True, False)),
        (10.9, 0.40, (True, True)),
        (30.0, 0.21, (True, True)),
        (8.4, 0.50, (False, True)),
        (30.0, 0.13, (False, True)),
        (6.0, 0.50, (False, True)),
        (5.9, 0.90, (False, False)),
        (40.0, 0.119, (False, False)),
        (0.0, 0.0, (False, False)),
    ],
)
def test_verdict_on_a_slice(area_cm2: float, share: float, expected: tuple[bool, bool]) -> None:
    inner = area_cm2 * 100 / share if share else 0.0
    assert judge(area_cm2 * 100 + 1e-6, inner) == expected


def test_another_frequency_is_never_diagnostic() -> None:
    assert judge(9000.0, 9500.0, wrong_frequency=True) == (False, False)
    truth = _truth(_state(driver_hz=50.0))
    assert (truth.diagnostic, truth.borderline, truth.reasons) == (False, False, ("WRONG_FREQUENCY",))
    assert truth.readable_mm2 == 0
    assert truth.stiffness_kpa is None


def test_a_good_slice_is_readable_and_stiff_as_it_was_made() -> None:
    truth = _truth(_state())
    assert (truth.diagnostic, truth.borderline, truth.reasons) == (True, False, ())
    assert truth.inner_mm2 == pytest.approx(np.pi * 47**2, rel=0.06)
    assert truth.readable_mm2 > 0.9 * truth.inner_mm2
    assert truth.stiffness_kpa == pytest.approx(3.0, rel=0.01)


@pytest.mark.parametrize(
    ("fault", "protocol", "radius_mm", "reason"),
    [
        ({"amplitude_rad": 0.002}, {}, 55, "NO_DRIVER_WAVES"),
        ({"amplitude_rad": 0.12}, {}, 55, "LOW_WAVE_AMPLITUDE"),
        ({"liver_r2_star": 200.0}, {}, 55, "LOW_SNR_IRON"),
        ({"motion_mm": 9.0, "motion_rad": 3.0, "motion_s": 2.3}, {}, 55, "MOTION"),
        ({"amplitude_rad": 14.0}, {}, 55, "PHASE_WRAP"),
        ({"blur_mm": 12.0}, {}, 55, "BLUR"),
        ({}, {}, 22, "INSUFFICIENT_ROI"),
        ({"centre_mm": (0.0, 270.0)}, {}, 55, "COVERAGE"),
        ({}, {}, 9, "COVERAGE"),
    ],
)
def test_each_cause_is_named(
    fault: dict[str, float], protocol: dict[str, float], radius_mm: float, reason: str
) -> None:
    truth = _truth(_state(**fault), _protocol(**protocol), radius_mm=radius_mm)
    assert not truth.diagnostic
    assert truth.reasons[0] == reason


def _slice(area_cm2: float, *, borderline: bool = False, diagnostic: bool = True) -> SliceTruth:
    empty: NDArray[np.bool_] = np.zeros((1, 1), bool)
    return SliceTruth(diagnostic, borderline, (), area_cm2 * 100, 9000.0, 3.0, empty, empty)


def test_verdict_on_an_exam() -> None:
    assert judge_exam([_slice(14), _slice(14)]) == (True, False)
    assert judge_exam([_slice(60)]) == (False, False)  # one slice is no exam
    assert judge_exam([_slice(13), _slice(14)]) == (False, False)  # 27 cm2
    assert judge_exam([_slice(20), _slice(10, borderline=True)]) == (True, True)
    assert judge_exam([_slice(20), _slice(8, borderline=True, diagnostic=False)]) == (False, True)
    assert judge_exam([]) == (False, False)


def test_a_section_above_the_dome_has_no_liver() -> None:
    patient = draw_patient(np.random.default_rng(4))
    middle, above = sections(patient, [0.0])[0], sections(patient, [130.0])[0]
    assert middle.inner_mm2 > 3000
    assert above.inner_mm2 < 200
    np.testing.assert_allclose(middle.shares.sum(0), 1, atol=1e-4)


def test_hatching_leaves_confident_pixels_alone() -> None:
    kpa = np.full((40, 40), 3.0, np.float32)
    confidence = np.where(np.arange(40)[None, :] < 20, 0.99, 0.5) * np.ones((40, 1))
    plain = colour.elastogram(kpa)
    hatched = colour.overlaid(plain, confidence)
    assert (hatched[:, :20] == plain[:, :20]).all()
    assert 0.1 < (hatched[:, 20:] == 0).all(axis=2).mean() < 0.6
