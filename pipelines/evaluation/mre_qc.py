"""Outcome measures of mre_qc: diagnostic or not per slice and per exam, reasons, stiffness, refusals."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.report import Report
from pipelines.evaluation.statistics import (
    Estimate,
    auroc,
    bland_altman,
    bootstrap,
    cohen_kappa,
    pearson,
    proportion,
    roc_curve,
)

#: A slice of the result is that of the truth when their positions differ by less.
SAME_PLACE_MM = 1.0
REASONS = (
    "NO_DRIVER_WAVES", "LOW_WAVE_AMPLITUDE", "LOW_SNR_IRON", "MOTION", "PHASE_WRAP", "BLUR", "INSUFFICIENT_ROI",
    "WRONG_FREQUENCY", "COVERAGE",
)  # fmt: skip


@dataclass(frozen=True)
class JudgedSlice:
    """One slice that truth knows, with the answer."""

    diagnostic: bool
    borderline: bool  # either answer counts: left out of accuracy, kappa and AUROC
    reasons: tuple[str, ...]
    probability: float | None  # None: the exam was refused or the slice is not in the answer
    called: bool
    found_reasons: tuple[str, ...]
    network: float | None  # of the networks alone


@dataclass(frozen=True)
class JudgedExam:
    """One exam with its slices."""

    group: str  # "GE GRE", for the table of vendors and sequences
    slices: tuple[JudgedSlice, ...]
    diagnostic: bool
    borderline: bool
    called: bool
    answered: bool
    true_kpa: float | None
    found_kpa: float | None


def evaluate_mre_qc(cases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Report:
    """Compare results with the truth.

    cases : (truth.json, result.json) of every case, as contract.md has them. A slice or exam that truth calls
        borderline counts in no measure of accuracy; a site's truth without that key has none. An exam without an
        answer counts as called non-diagnostic: silence never says that a scan was good.
    """
    exams = [_judged(truth, result) for truth, result in cases]
    refused = [result for _, result in cases if result.get("status") == "refused"]
    measures = _measures(exams)
    measures["cases answered"] = proportion(sum(e.answered for e in exams), len(exams))
    return Report(
        pipeline="mre_qc",
        cases=len(cases),
        measures=measures,
        tables={"group": _by_group(exams), "reason": _by_reason(exams)},
        reasons=tuple(str(result.get("reason")) for result in refused),
        details={"exams": exams},
    )


def plot_mre_qc(report: Report, folder: Path) -> list[Path]:
    """Write ROC, reasons and stiffness as PNG; returns the paths."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def save(name: str, figure: Any) -> None:
        figure.tight_layout()
        figure.savefig(folder / name, dpi=120)
        plt.close(figure)
        written.append(folder / name)

    exams: list[JudgedExam] = report.details["exams"]
    clear = [s for e in exams for s in e.slices if not s.borderline and s.probability is not None]
    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    alarms, hits = roc_curve([s.diagnostic for s in clear], [s.probability or 0.0 for s in clear])
    axes.plot(alarms, hits, drawstyle="steps-post", label=f"AUROC {report.measures['slice AUROC']}")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title="Diagnostic slices")
    axes.legend(loc="lower right")
    save("mre_qc_roc.png", figure)

    figure, axes = plt.subplots(figsize=(6.5, 3.8))
    rows = [row for row in report.tables["reason"] if row["slices"]]
    axes.barh(
        [f"{row['reason']} (n = {row['slices']})" for row in rows], [row["agreement"] for row in rows], color="0.6"
    )
    axes.set(xlim=(0, 1.02), xlabel="reason named", title="Agreement on the reason")
    save("mre_qc_reasons.png", figure)

    figure, axes = plt.subplots(figsize=(4.5, 4.0))
    pairs = _stiffness_pairs(exams)
    if pairs:
        true, found = (np.asarray(column) for column in zip(*pairs, strict=True))
        axes.scatter(true, 100 * (found / true - 1), s=12, color="0.3")
        axes.axhline(0, color="0.7", linewidth=0.8)
    axes.set(xlabel="true shear stiffness, kPa", ylabel="error, %", title="Stiffness of diagnostic exams")
    save("mre_qc_stiffness.png", figure)
    return written


# ------------------------------------------------------------------ truth beside the answer


def _judged(truth: Mapping[str, Any], result: Mapping[str, Any]) -> JudgedExam:
    answers = result.get("slices") or [] if result.get("status") == "done" else []
    exam, stiffness = result.get("exam") or {}, result.get("stiffness") or {}
    kpa = truth.get("stiffness_kpa")
    group = " ".join(part for part in (str(result.get("vendor") or "other"), str(result.get("sequence") or "")) if part)
    return JudgedExam(
        group=group,
        slices=tuple(_judged_slice(one, answers) for one in truth.get("slices", ())),
        diagnostic=bool(truth["exam_diagnostic"]),
        borderline=bool(truth.get("exam_borderline", False)),
        called=bool(answers and exam.get("diagnostic")),
        answered=bool(answers),
        true_kpa=None if kpa is None else float(kpa),
        found_kpa=float(stiffness["mean_kpa"]) if answers and stiffness else None,
    )


def _judged_slice(truth: Mapping[str, Any], answers: Sequence[Mapping[str, Any]]) -> JudgedSlice:
    place = float(truth["slice_position_mm"])
    near = min(answers, key=lambda a: abs(float(a["slice_position_mm"]) - place), default=None)
    if near is not None and abs(float(near["slice_position_mm"]) - place) > SAME_PLACE_MM:
        near = None
    network = None if near is None else near.get("network_probability")
    return JudgedSlice(
        diagnostic=bool(truth["diagnostic"]),
        borderline=bool(truth.get("borderline", False)),
        reasons=tuple(truth.get("reasons", ())),
        probability=None if near is None else float(near["diagnostic_probability"]),
        called=bool(near and near["diagnostic"]),
        found_reasons=tuple(near.get("reasons", ())) if near else (),
        network=None if network is None else float(network),
    )


# ------------------------------------------------------------------ measures


def _measures(exams: Sequence[JudgedExam]) -> dict[str, Estimate]:
    slices = [[s for s in e.slices if not s.borderline] for e in exams]
    clear = [s for found in slices for s in found]
    judged = [s for s in clear if s.probability is not None]
    with_network = [s for s in clear if s.network is not None]
    measures = {
        # Slices of one exam are not independent: exams are drawn for the interval.
        "slice accuracy": _share_of_exams([(sum(s.called == s.diagnostic for s in one), len(one)) for one in slices]),
        "slice sensitivity": _share_of_exams(
            [(sum(s.called for s in one if s.diagnostic), sum(s.diagnostic for s in one)) for one in slices]
        ),
        "slice specificity": _share_of_exams(
            [(sum(not s.called for s in one if not s.diagnostic), sum(not s.diagnostic for s in one)) for one in slices]
        ),
        "slice kappa": cohen_kappa([s.diagnostic for s in clear], [s.called for s in clear]),
        "slice AUROC": auroc([s.diagnostic for s in judged], [s.probability or 0.0 for s in judged]),
        "slice AUROC, networks alone": auroc(
            [s.diagnostic for s in with_network], [s.network or 0.0 for s in with_network]
        ),
        "reason agreement": _reason_agreement(clear),
    }
    certain = [e for e in exams if not e.borderline]
    measures |= {
        "exam accuracy": proportion(sum(e.called == e.diagnostic for e in certain), len(certain)),
        "exam sensitivity": _rate([e.called for e in certain if e.diagnostic]),
        "exam specificity": _rate([not e.called for e in certain if not e.diagnostic]),
        "exam kappa": cohen_kappa([e.diagnostic for e in certain], [e.called for e in certain]),
        "stiffness refused when insufficient": _rate([e.found_kpa is None for e in certain if not e.diagnostic]),
    }
    pairs = _stiffness_pairs(exams)
    true, found = ([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    errors = [100 * (b / a - 1) for a, b in pairs]
    measures |= {
        "stiffness error %": bland_altman(errors, [0.0] * len(errors)).bias,
        "stiffness error SD %": _spread(errors),
        "stiffness r": pearson(true, found),
        "stiffness stated when diagnostic": _rate([e.found_kpa is not None for e in certain if e.diagnostic]),
    }
    return measures


def _reason_agreement(clear: Sequence[JudgedSlice]) -> Estimate:
    """Of slices that truth and answer call non-diagnostic: the answer's first reason is among the truth's."""
    both = [s for s in clear if not s.diagnostic and not s.called and s.reasons and s.found_reasons]
    return proportion(sum(s.found_reasons[0] in s.reasons for s in both), len(both))


def _stiffness_pairs(exams: Sequence[JudgedExam]) -> list[tuple[float, float]]:
    """(true, found) of exams that are diagnostic and have both."""
    return [(e.true_kpa, e.found_kpa) for e in exams if e.diagnostic and e.true_kpa and e.found_kpa is not None]


def _share_of_exams(counts: Sequence[tuple[int, int]]) -> Estimate:
    """Hits over all, with the interval over resampled exams; Wilson's where every one is a hit or none is."""
    hits, total = sum(c[0] for c in counts), sum(c[1] for c in counts)
    if not total or hits in (0, total):
        return proportion(hits, total)
    found = bootstrap(counts, lambda c: float(c[0] / c[1]) if c[1] else float("nan"))
    return Estimate(found.value, found.low, found.high, total)


def _rate(hits: Sequence[bool]) -> Estimate:
    return proportion(sum(hits), len(hits))


def _spread(values: Sequence[float]) -> Estimate:
    """Standard deviation with the interval over resampled exams."""
    if len(values) < 2:
        return Estimate(float("nan"), float("nan"), float("nan"), len(values))

    def deviation(sums: Any) -> float:
        return float(np.sqrt(max(0.0, (sums[1] - sums[0] ** 2 / sums[2]) / max(1.0, sums[2] - 1))))

    return bootstrap([(v, v * v, 1.0) for v in values], deviation)


def _by_group(exams: Sequence[JudgedExam]) -> list[dict[str, Any]]:
    """One row per vendor and sequence."""
    rows = []
    for group in sorted({e.group for e in exams}):
        chosen = [e for e in exams if e.group == group]
        found = _measures(chosen)
        accuracy = found["slice accuracy"]
        rows.append(
            {
                "group": group,
                "exams": len(chosen),
                "slices": accuracy.count,
                "accuracy": accuracy.value,
                "low": accuracy.low,
                "high": accuracy.high,
                "kappa": found["slice kappa"].value,
                "auroc": found["slice AUROC"].value,
                "stiffness error %": found["stiffness error %"].value,
            }
        )
    return rows


def _by_reason(exams: Sequence[JudgedExam]) -> list[dict[str, Any]]:
    """One row per true first reason: how often the slice was refused, and the reason named."""
    rows = []
    for reason in REASONS:
        chosen = [s for e in exams for s in e.slices if not s.borderline and s.reasons[:1] == (reason,)]
        refused = [s for s in chosen if not s.called]
        agreed = proportion(sum(reason in s.found_reasons for s in refused), len(refused))
        rows.append(
            {
                "reason": reason,
                "slices": len(chosen),
                "refused": proportion(len(refused), len(chosen)).value,
                "agreement": agreed.value,
                "low": agreed.low,
                "high": agreed.high,
            }
        )
    return rows
