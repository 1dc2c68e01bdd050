"""Why a slice is not diagnostic: from its physical measures, and together with what the networks say."""

from collections.abc import Mapping

from pipelines.mre_qc.physics import NOMINAL_SNR, Measures
from pipelines.mre_qc.thresholds import Thresholds

#: Reason -> words for people, in the order of a report.
REASONS: Mapping[str, str] = {
    "NO_DRIVER_WAVES": "no waves from the driver",
    "LOW_WAVE_AMPLITUDE": "waves too weak",
    "LOW_SNR_IRON": "signal too low (iron)",
    "MOTION": "motion",
    "PHASE_WRAP": "phase wraps",
    "BLUR": "blurred",
    "INSUFFICIENT_ROI": "too little liver to read",
    "WRONG_FREQUENCY": "driver and sequence differ in frequency",
    "COVERAGE": "liver not covered",
}
#: What to do before the scan is repeated.
ADVICE: Mapping[str, str] = {
    "NO_DRIVER_WAVES": "check driver, tube and power",
    "LOW_WAVE_AMPLITUDE": "tighten or move the driver, raise its power",
    "LOW_SNR_IRON": "use a spin-echo EPI sequence with short TE",
    "MOTION": "repeat the breath-hold at end-expiration",
    "PHASE_WRAP": "lower the driver's power or the motion sensitivity",
    "BLUR": "shorten the readout, repeat the breath-hold",
    "INSUFFICIENT_ROI": "move slices to the largest section of the liver",
    "WRONG_FREQUENCY": "set driver and sequence to one frequency",
    "COVERAGE": "move slices or field of view onto the liver",
}
#: A further reason is named from this part of the whole on.
SECOND_SHARE = 0.35
MISSED_MM2 = 200.0  # area inside the capsule below which a slice misses the liver
CUT_SHARE = 0.05  # of the image's border
SILENT = 1.55  # wave over noise where there is no wave at all: filtered noise has about 1.4
SOFT_MM = 3.0  # width of edges
LOW_SNR = 0.6  # of the nominal


def physical_reasons(measures: Measures, limits: Thresholds, *, wrong_frequency: bool) -> dict[str, float]:
    """Share 0..1 of each reason in what makes a slice unreadable; empty if the measures do not tell."""
    if wrong_frequency:
        return {"WRONG_FREQUENCY": 1.0}
    if measures.inner_mm2 < MISSED_MM2:
        return {"COVERAGE": 1.0}
    share = measures.readable_share
    if measures.inner_mm2 < limits.slice.diagnostic_mm2 or (
        share is not None and share >= limits.slice.diagnostic_share
    ):
        return {"COVERAGE" if measures.cut_share > CUT_SHARE else "INSUFFICIENT_ROI": 1.0}
    noisy, wrong = measures.noisy_share or 0.0, measures.wrong_share or 0.0
    dim = measures.snr is not None and measures.snr < LOW_SNR * NOMINAL_SNR
    silent = measures.wave_over_error is not None and measures.wave_over_error < SILENT and noisy > 0.9
    soft = (measures.sharpness_mm or 0.0) > SOFT_MM
    shares = dict.fromkeys(REASONS, 0.0)
    shares["LOW_SNR_IRON"] += measures.dark_share or 0.0
    shares["PHASE_WRAP"] += measures.wrapped_share or 0.0
    shares["LOW_SNR_IRON" if dim else "NO_DRIVER_WAVES" if silent else "LOW_WAVE_AMPLITUDE"] += noisy
    shares["BLUR" if soft else "MOTION"] += wrong
    total = sum(shares.values())
    return {name: value / total for name, value in shares.items() if value > 0} if total else {}


def named(shares: Mapping[str, float]) -> tuple[str, ...]:
    """The likeliest reason, then those that have SECOND_SHARE of the whole; unknown names are left out."""
    known = {name: value for name, value in shares.items() if name in REASONS and value > 0}
    total = sum(known.values())
    ranked = sorted(known, key=lambda name: (-known[name], list(REASONS).index(name)))
    return tuple(name for i, name in enumerate(ranked) if i == 0 or known[name] >= SECOND_SHARE * total)
