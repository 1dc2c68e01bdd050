"""Diagnostic or not: a slice from its networks and its physical measures, the exam from its slices."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from pipelines.mre_qc.physics import Measures
from pipelines.mre_qc.reasons import named, physical_reasons
from pipelines.mre_qc.thresholds import Thresholds

#: Steepness of the probability in the logarithm of the area: half way to a limit is about 80 %.
STEEPNESS = 5.0
_CERTAIN = 0.005  # no verdict is more certain than this allows
_CM2 = 100.0


@dataclass(frozen=True)
class SliceVerdict:
    """What is said of one slice."""

    probability: float  # of being diagnostic
    is_diagnostic: bool
    quality: str  # "diagnostic", "limited", "non_diagnostic"
    reasons: tuple[str, ...]  # empty when diagnostic
    network_probability: float
    physical_probability: float | None
    readable_mm2: float | None  # by physics, else by the networks' map
    by_network: Mapping[str, float] = field(default_factory=dict)  # each network alone


@dataclass(frozen=True)
class ExamVerdict:
    """What is said of the exam."""

    probability: float
    is_diagnostic: bool
    reasons: tuple[str, ...]
    diagnostic_slices: int
    diagnostic_mm2: float  # readable area of the diagnostic slices; nominal where it cannot be measured


def physical_probability(measures: Measures, limits: Thresholds) -> float | None:
    """Probability of a diagnostic slice by its readable area; 0.5 in the middle of what is borderline."""
    area, share = measures.readable_mm2, measures.readable_share
    if area is None or share is None:
        return None
    s = limits.slice
    middles = (np.sqrt(s.diagnostic_mm2 * s.refused_mm2), np.sqrt(s.diagnostic_share * s.refused_share))
    worst = min(np.log(max(value, 1e-6) / middle) for value, middle in zip((area, share), middles, strict=True))
    return _bounded(float(1 / (1 + np.exp(-STEEPNESS * worst))))


def slice_verdict(
    network: float,
    network_reasons: Mapping[str, float] | None,
    measures: Measures,
    limits: Thresholds,
    *,
    wrong_frequency: bool = False,
    seen_mm2: float | None = None,
    by_network: Mapping[str, float] | None = None,
) -> SliceVerdict:
    """Join what the networks say (0..1) with the physical measures, in the logit, by the weights of the table.

    seen_mm2: readable area that the networks draw, for slices whose images do not let it be measured.
    """
    physical = physical_probability(measures, limits)
    weights = limits.verdict
    if wrong_frequency:
        probability = _CERTAIN
    elif physical is None:
        probability = _bounded(network)
    else:
        logit = weights.network * _logit(network) + weights.physics * _logit(physical) + weights.offset
        probability = _bounded(float(1 / (1 + np.exp(-logit))))
    is_diagnostic = probability >= limits.slice.diagnostic_from
    reasons: tuple[str, ...] = ()
    if not is_diagnostic:
        shares = physical_reasons(measures, limits, wrong_frequency=wrong_frequency)
        if network_reasons and not wrong_frequency:
            shares = dict(network_reasons)
        reasons = named(shares) or ("INSUFFICIENT_ROI",)
    limited = is_diagnostic and probability < limits.slice.limited_below
    return SliceVerdict(
        probability,
        is_diagnostic,
        "limited" if limited else "diagnostic" if is_diagnostic else "non_diagnostic",
        reasons,
        network,
        physical,
        seen_mm2 if measures.readable_mm2 is None else measures.readable_mm2,
        dict(by_network or {}),
    )


def exam_verdict(slices: Sequence[SliceVerdict], limits: Thresholds) -> ExamVerdict:
    """The exam by its definition: enough diagnostic slices with enough readable area together.

    A slice of unknown area counts with the least area of a diagnostic slice plus a quarter, so that
    three of them suffice. The probability takes slices as independent.
    """
    nominal = 1.25 * limits.slice.diagnostic_mm2
    # A diagnostic slice has at least the refused area, whatever was measured.
    areas = [nominal if s.readable_mm2 is None else max(s.readable_mm2, limits.slice.refused_mm2) for s in slices]
    chosen = [index for index, one in enumerate(slices) if one.is_diagnostic]
    area = sum(areas[index] for index in chosen)
    needed = limits.exam.diagnostic_slices
    is_diagnostic = len(chosen) >= needed and area >= limits.exam.diagnostic_mm2
    reasons: tuple[str, ...] = ()
    if not is_diagnostic:
        first = [one.reasons[0] for one in slices if one.reasons]
        ranked = sorted(set(first), key=lambda name: (-first.count(name), name))
        reasons = tuple(ranked) or ("COVERAGE",)
    return ExamVerdict(
        _probability([one.probability for one in slices], areas, limits), is_diagnostic, reasons, len(chosen), area
    )


def _probability(chances: Sequence[float], areas: Sequence[float], limits: Thresholds) -> float:
    """Of at least the needed number of diagnostic slices with the needed area, by counting in whole cm2."""
    enough, count = int(np.ceil(limits.exam.diagnostic_mm2 / _CM2)), int(limits.exam.diagnostic_slices)
    table = np.zeros((count + 1, enough + 1))  # more than needed counts as what is needed
    table[0, 0] = 1.0
    for chance, area in zip(chances, areas, strict=True):
        step, after = round(area / _CM2), (1 - chance) * table
        for number in range(count + 1):
            for cm2 in np.flatnonzero(table[number]):
                after[min(number + 1, count), min(int(cm2) + step, enough)] += chance * table[number, cm2]
        table = after
    return float(table[count, enough])


def _bounded(probability: float) -> float:
    return float(np.clip(probability, _CERTAIN, 1 - _CERTAIN))


def _logit(probability: float) -> float:
    p = _bounded(probability)
    return float(np.log(p / (1 - p)))
