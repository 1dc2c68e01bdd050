"""Outcome measures with their 95 % intervals. numpy and scipy only; everything random is seeded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

_Z = 1.959963984540054  # two-sided 95 %


@dataclass(frozen=True)
class Estimate:
    """A measure with its 95 % interval; NaN where the data do not allow one."""

    value: float
    low: float
    high: float
    count: int  # of what the measure is taken over

    def __str__(self) -> str:
        return f"{self.value:.3f} ({self.low:.3f}-{self.high:.3f})"


@dataclass(frozen=True)
class Comparison:
    """Two AUROCs on the same cases."""

    first: float
    second: float
    difference: float  # first - second
    p_value: float  # two-sided


@dataclass(frozen=True)
class Agreement:
    """Bland-Altman: bias and limits of agreement, in the unit of the values."""

    bias: Estimate
    lower_limit: float  # bias - 1.96 SD
    upper_limit: float  # bias + 1.96 SD


def auroc(truth: ArrayLike, score: ArrayLike) -> Estimate:
    """Area under the ROC curve with DeLong's interval on the logit scale.

    truth : [n] bool or 0/1. score : [n], higher for the positives; ties count half.
    Returns NaN for everything unless both classes are there. With a perfect separation DeLong's variance is 0; the
    interval is then the exact one for n of n correct in the smaller class (Clopper-Pearson), which is wider.
    Source: DeLong et al., Biometrics 44:837 (1988); Sun & Xu, IEEE Signal Process. Lett. 21:1389 (2014).
    """
    positives, negatives = _by_class(truth, score)
    count = len(positives) + len(negatives)
    if not len(positives) or not len(negatives):
        return Estimate(float("nan"), float("nan"), float("nan"), count)
    value, of_positives, of_negatives = _placements(positives, negatives)
    variance = _variance(of_positives) + _variance(of_negatives)
    if not 0 < value < 1 or variance <= 0:
        smaller = min(len(positives), len(negatives))
        edge = 0.025 ** (1 / smaller)
        low, high = (edge, 1.0) if value >= 0.5 else (0.0, 1 - edge)
        return Estimate(value, min(low, value), max(high, value), count)
    logit, error = np.log(value / (1 - value)), np.sqrt(variance) / (value * (1 - value))
    low, high = (float(1 / (1 + np.exp(-(logit + sign * _Z * error)))) for sign in (-1, 1))
    return Estimate(value, low, high, count)


def delong_test(truth: ArrayLike, first: ArrayLike, second: ArrayLike) -> Comparison:
    """Compare the AUROCs of two scores of the same cases.

    truth, first, second : [n]. Raises ValueError unless both classes are there.
    Source: DeLong et al., Biometrics 44:837 (1988).
    """
    pairs = [_by_class(truth, score) for score in (first, second)]
    if not len(pairs[0][0]) or not len(pairs[0][1]):
        raise ValueError("both classes are needed to compare AUROCs")
    (a, a_pos, a_neg), (b, b_pos, b_neg) = (_placements(*pair) for pair in pairs)
    variance = _variance(a_pos - b_pos) + _variance(a_neg - b_neg)
    if variance <= 0:
        return Comparison(a, b, a - b, 1.0 if a == b else 0.0)
    return Comparison(a, b, a - b, float(2 * stats.norm.sf(abs(a - b) / np.sqrt(variance))))


def roc_curve(truth: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False-positive and true-positive rates, each [points], from (0, 0) to (1, 1)."""
    positive = np.asarray(truth, dtype=bool)
    values = np.asarray(score, dtype=np.float64)
    order = np.argsort(-values, kind="stable")
    last = np.append(np.diff(values[order]) != 0, True) if len(values) else np.zeros(0, dtype=bool)
    hits, alarms = np.cumsum(positive[order])[last], np.cumsum(~positive[order])[last]
    rates = [np.concatenate([[0.0], n / max(1, n[-1] if len(n) else 1)]) for n in (alarms, hits)]
    return rates[0], rates[1]


def pearson(x: ArrayLike, y: ArrayLike) -> Estimate:
    """Pearson's r with Fisher's interval (z = atanh r, SE 1/sqrt(n - 3)). x, y : [n]; NaN interval under 4 cases."""
    a, b = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    count = len(a)
    if count < 2 or a.std() == 0 or b.std() == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), count)
    r = float(np.clip(np.corrcoef(a, b)[0, 1], -1, 1))
    if count < 4 or abs(r) >= 1:
        return Estimate(r, float("nan") if count < 4 else r, float("nan") if count < 4 else r, count)
    z, error = np.arctanh(r), 1 / np.sqrt(count - 3)
    return Estimate(r, float(np.tanh(z - _Z * error)), float(np.tanh(z + _Z * error)), count)


def cohen_kappa(first: Sequence[object], second: Sequence[object]) -> Estimate:
    """Cohen's kappa of two raters with the large-sample interval.

    first, second : [n] categories. NaN where chance agreement is complete.
    Source: Fleiss, Cohen & Everitt, Psychol. Bull. 72:323 (1969).
    """
    names = sorted({str(item) for item in (*first, *second)})
    table = np.zeros((len(names), len(names)))
    for a, b in zip(first, second, strict=True):
        table[names.index(str(a)), names.index(str(b))] += 1
    count = int(table.sum())
    if not count:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    p = table / count
    rows, columns = p.sum(axis=1), p.sum(axis=0)
    observed, chance = float(np.trace(p)), float(rows @ columns)
    if chance >= 1:
        return Estimate(float("nan"), float("nan"), float("nan"), count)
    kappa = (observed - chance) / (1 - chance)
    diagonal = float((np.diag(p) * (1 - (rows + columns) * (1 - kappa)) ** 2).sum())
    sums = (columns[:, np.newaxis] + rows[np.newaxis, :]) ** 2
    off = float((p * sums * (1 - np.eye(len(names)))).sum()) * (1 - kappa) ** 2
    spread = diagonal + off - (kappa - chance * (1 - kappa)) ** 2
    error = np.sqrt(max(0.0, spread) / count) / (1 - chance)
    return Estimate(kappa, float(max(-1.0, kappa - _Z * error)), float(min(1.0, kappa + _Z * error)), count)


def proportion(hits: int, total: int) -> Estimate:
    """hits / total with Wilson's interval. Source: Wilson, J. Am. Stat. Assoc. 22:209 (1927)."""
    if total <= 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    p, z2 = hits / total, _Z**2
    centre = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = _Z * np.sqrt(p * (1 - p) / total + z2 / (4 * total**2)) / (1 + z2 / total)
    low = 0.0 if hits == 0 else float(centre - half)  # exact at the ends in spite of rounding
    high = 1.0 if hits == total else float(centre + half)
    return Estimate(p, low, high, total)


def bootstrap(
    cases: Sequence[Sequence[float]],
    measure: Callable[[NDArray[np.float64]], float],
    *,
    rounds: int = 2000,
    seed: int = 20240501,
) -> Estimate:
    """A measure of summed counts per case, with the percentile interval over resampled cases.

    cases : [case][count], e.g. true positives, false positives, false negatives of every patient; lesions of one
        patient are not independent, so patients are drawn, not lesions.
    measure : of the counts summed over cases.
    """
    counts = np.asarray(cases, dtype=np.float64)
    if counts.size == 0:
        return Estimate(float("nan"), float("nan"), float("nan"), 0)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(counts), np.full(len(counts), 1 / len(counts)), size=rounds) @ counts
    values = np.asarray([measure(draw) for draw in draws])
    values = values[np.isfinite(values)]
    low, high = np.percentile(values, [2.5, 97.5]) if len(values) else (np.nan, np.nan)
    return Estimate(float(measure(counts.sum(axis=0))), float(low), float(high), len(counts))


def f1_score(counts: NDArray[np.float64]) -> float:
    """F1 of (true positives, false positives, false negatives); NaN where all three are 0."""
    hits, alarms, misses = counts[:3]
    total = 2 * hits + alarms + misses
    return float(2 * hits / total) if total else float("nan")


def bland_altman(measured: ArrayLike, reference: ArrayLike) -> Agreement:
    """Bias (measured - reference) with its t interval, and the 95 % limits of agreement.

    Source: Bland & Altman, Lancet 327:307 (1986).
    """
    difference = np.asarray(measured, dtype=np.float64) - np.asarray(reference, dtype=np.float64)
    count = len(difference)
    if count < 2:
        nan = float("nan")
        return Agreement(Estimate(float(difference.mean()) if count else nan, nan, nan, count), nan, nan)
    bias, spread = float(difference.mean()), float(difference.std(ddof=1))
    half = float(stats.t.ppf(0.975, count - 1)) * spread / np.sqrt(count)
    return Agreement(Estimate(bias, bias - half, bias + half, count), bias - _Z * spread, bias + _Z * spread)


def _by_class(truth: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    positive, values = np.asarray(truth, dtype=bool), np.asarray(score, dtype=np.float64)
    if positive.shape != values.shape or positive.ndim != 1:
        raise ValueError(f"truth and score must be lists of one length, got {positive.shape} and {values.shape}")
    return values[positive], values[~positive]


def _placements(
    positives: NDArray[np.float64], negatives: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64], NDArray[np.float64]]:
    """AUROC and DeLong's structural components, by midranks."""
    m, n = len(positives), len(negatives)
    together = stats.rankdata(np.concatenate([positives, negatives]))
    of_positives = (together[:m] - stats.rankdata(positives)) / n
    of_negatives = 1 - (together[m:] - stats.rankdata(negatives)) / m
    return float(of_positives.mean()), of_positives, of_negatives


def _variance(placements: NDArray[np.float64]) -> float:
    return float(placements.var(ddof=1)) / len(placements) if len(placements) > 1 else 0.0
