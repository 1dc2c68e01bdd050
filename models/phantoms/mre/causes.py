"""How an acquisition is drawn: the ranges of good practice, and what each cause of failure changes in them."""

from dataclasses import replace

import numpy as np

from models.phantoms.mre.anatomy import Patient
from models.phantoms.mre.protocol import Protocol
from models.phantoms.mre.scan import State
from models.phantoms.mre.tissue import LIVER, MATERIALS

# Causes that belong to one acquisition; a small liver and a misplaced slice belong to patient and position.
OFTEN = {
    "": 0.26,
    "NO_DRIVER_WAVES": 0.07,
    "LOW_WAVE_AMPLITUDE": 0.11,
    "LOW_SNR_IRON": 0.12,
    "MOTION": 0.12,
    "PHASE_WRAP": 0.12,
    "BLUR": 0.10,
    "WRONG_FREQUENCY": 0.05,
    "COVERAGE": 0.05,
}
BY_DEGREES = ("LOW_WAVE_AMPLITUDE", "LOW_SNR_IRON", "MOTION", "PHASE_WRAP", "BLUR")
FREQUENCIES_HZ = (40.0, 50.0, 60.0, 70.0, 80.0)


def draw_cause(rng: np.random.Generator) -> str:
    """A key of OFTEN; "" is an acquisition without a fault."""
    return str(rng.choice(list(OFTEN), p=list(OFTEN.values())))


def good_state(rng: np.random.Generator, patient: Patient, protocol: Protocol) -> State:
    """An acquisition as it should be: enough wave, breath held, driver and sequence in step."""
    heavy = max(0.0, patient.fat_mm - 20) / 10
    high = int(protocol.tesla > 2)
    snr = float(np.clip(rng.normal(24 - 2.5 * heavy, 5), 11, 42))
    return State(
        amplitude_rad=float(np.clip(np.exp(rng.normal(0.3 - 0.12 * heavy, 0.4)), 0.45, 3.0)),
        driver_hz=protocol.hz,
        liver_r2_star=MATERIALS[LIVER].r2_star[high] + float(abs(rng.normal(0, 9))),
        snr=snr,
        motion_mm=float(rng.uniform(0, 0.8)) if rng.random() < 0.35 else 0.0,
        motion_s=float(rng.uniform(2.5, 6.5)),
        motion_rad=0.0,
        jumps_mm=float(rng.uniform(0, 1.2)),
        blur_mm=float(rng.uniform(0, 1.3)),
        pulsation=float(rng.uniform(0.01, 0.12)),
        nyquist=float(abs(rng.normal(0, 0.05))),
        centre_mm=(float(rng.normal(0, 7)), float(rng.normal(0, 7))),
        seed=int(rng.integers(2**31)),
    )


def spoil(
    state: State, protocol: Protocol, cause: str, severity: float, rng: np.random.Generator
) -> tuple[State, Protocol]:
    """The same acquisition with a fault. severity 0..1, from hardly felt to hopeless; cause: a key of OFTEN."""

    def span(low: float, high: float) -> float:  # geometric, with some scatter
        return float(low * (high / low) ** np.clip(severity + rng.normal(0, 0.08), -0.1, 1.1))

    if cause == "NO_DRIVER_WAVES":
        return replace(state, amplitude_rad=float(rng.uniform(0, 0.012))), protocol
    if cause == "LOW_WAVE_AMPLITUDE":
        return replace(state, amplitude_rad=span(0.9, 0.06)), protocol
    if cause == "LOW_SNR_IRON":
        iron = span(28, 240) if protocol.sequence == "gre" else span(80, 900)
        return replace(state, liver_r2_star=state.liver_r2_star + iron), protocol
    if cause == "MOTION":
        faulty = replace(
            state, motion_mm=span(1.5, 12), motion_rad=span(0.3, 3.5), jumps_mm=span(0.8, 7),
            motion_s=float(rng.uniform(1.5, 6)),
        )  # fmt: skip
        return faulty, protocol
    if cause == "PHASE_WRAP":
        return replace(state, amplitude_rad=span(4.5, 36)), protocol
    if cause == "BLUR":
        return replace(state, blur_mm=span(1.8, 10)), protocol
    if cause == "WRONG_FREQUENCY":  # the driver keeps its frequency, the sequence has another
        other = [hz for hz in FREQUENCIES_HZ if abs(hz - state.driver_hz) > 1]
        return state, replace(protocol, hz=float(rng.choice(other)))
    if cause == "COVERAGE":
        if rng.random() < 0.6:  # the field of view is pushed to the patient's left: the right lobe is cut off
            return replace(state, centre_mm=(state.centre_mm[0], span(100, 220))), protocol
        small = float(np.clip(protocol.fov_mm * (0.85 - 0.35 * severity), 180, 360))
        return state, replace(protocol, fov_mm=round(small))
    return state, protocol


def severity_of(rng: np.random.Generator, middle: float = 0.36) -> float:
    """Mostly around `middle`, where a single slice begins to be lost."""
    return float(np.clip(rng.normal(middle, 0.2) if rng.random() < 0.7 else rng.uniform(0, 1), 0, 1))


__all__ = ["OFTEN", "draw_cause", "good_state", "severity_of", "spoil"]
