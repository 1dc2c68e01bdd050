"""Outcome measures of ct_lesion: detection, malignancy, sizes, refusals."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipelines.evaluation.detection import (
    RULES,
    FoundLesion,
    Matched,
    TrueLesion,
    found_lesions,
    froc,
    match,
    true_lesions,
)
from pipelines.evaluation.report import Report
from pipelines.evaluation.statistics import (
    Estimate,
    auroc,
    bland_altman,
    bootstrap,
    cohen_kappa,
    f1_score,
    pearson,
    proportion,
    roc_curve,
)

#: Lower edges of the size bins, mm of equal-volume diameter; the last one is open.
SIZE_EDGES_MM = (0.0, 10.0, 20.0, 50.0)
#: False positives per case at which sensitivity is reported.
FROC_AT = (0.25, 0.5, 1.0, 2.0, 4.0)
_CLASSES = ("HCC", "ICC", "MET", "FNH", "HEM", "CYST")


def evaluate_ct_lesion(cases: Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]) -> Report:
    """Compare results with the truth.

    cases : (truth.json, result.json) of every case, as contract.md has them.
    A refused case counts its lesions as missed: silence of the system is a miss for the patient.
    """
    truths = [true_lesions(truth) for truth, _ in cases]
    found = [found_lesions(result) for _, result in cases]
    matched = {rule: [match(t, f, rule) for t, f in zip(truths, found, strict=True)] for rule in RULES}
    refused = [result for _, result in cases if result.get("status") == "refused"]
    measures: dict[str, Estimate] = {}
    for rule in RULES:
        measures |= _detection(rule, matched[rule])
    pairs = _pairs(matched["centre"])
    measures |= _malignancy(pairs)
    measures["cases answered"] = proportion(len(cases) - len(refused), len(cases))
    tables = {
        "size": _by_size(matched["centre"]),
        "class": _by_class(matched["centre"]),
        "confusion": _confusion(pairs),
        "froc": _froc_table(matched["centre"]),
    }
    return Report(
        pipeline="ct_lesion",
        cases=len(cases),
        measures=measures,
        tables=tables,
        reasons=tuple(str(result.get("reason")) for result in refused),
        details={"matched": matched, "pairs": pairs},
    )


def plot_ct_lesion(report: Report, folder: Path) -> list[Path]:
    """Write ROC, recall by size and FROC as PNG; returns the paths."""
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

    pairs = report.details["pairs"]
    figure, axes = plt.subplots(figsize=(4.5, 4.5))
    alarms, hits = roc_curve([t.malignant for t, _ in pairs], [f.malignant_probability for _, f in pairs])
    axes.plot(alarms, hits, drawstyle="steps-post", label=f"AUROC {report.measures['malignancy AUROC']}")
    axes.plot([0, 1], [0, 1], color="0.7", linewidth=0.8)
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title="Malignant or benign, found lesions")
    axes.legend(loc="lower right")
    save("ct_lesion_roc.png", figure)

    figure, axes = plt.subplots(figsize=(4.5, 3.5))
    rows = report.tables["size"]
    values = [float(row["recall"]) for row in rows]
    errors = [
        [value - float(row["low"]) for value, row in zip(values, rows, strict=True)],
        [float(row["high"]) - value for value, row in zip(values, rows, strict=True)],
    ]
    axes.bar([f"{row['size']}\nn = {row['lesions']}" for row in rows], np.nan_to_num(values), color="0.6")
    axes.errorbar(range(len(rows)), values, yerr=np.nan_to_num(errors), fmt="none", ecolor="black", capsize=3)
    axes.set(ylim=(0, 1.02), ylabel="lesions found", title="Recall by size (95 % interval)")
    save("ct_lesion_recall_by_size.png", figure)

    figure, axes = plt.subplots(figsize=(4.5, 3.5))
    for rule in RULES:
        per_case, sensitivity, _ = froc(report.details["matched"][rule])
        axes.plot(per_case, sensitivity, drawstyle="steps-post", label=f"{rule} rule")
    axes.set(xlabel="false positives per case", ylabel="lesions found", ylim=(0, 1.02), title="FROC")
    axes.legend(loc="lower right")
    save("ct_lesion_froc.png", figure)
    return written


Pair = tuple[TrueLesion, FoundLesion]


def _detection(rule: str, cases: Sequence[Matched]) -> dict[str, Estimate]:
    counts = [case.counts for case in cases]
    hits, alarms, misses = (sum(column) for column in zip(*counts, strict=True)) if counts else (0, 0, 0)
    return {
        f"detection F1 ({rule})": bootstrap(counts, f1_score),
        f"precision ({rule})": proportion(hits, hits + alarms),
        f"recall ({rule})": proportion(hits, hits + misses),
        f"false positives per case ({rule})": bootstrap([(*count, 1) for count in counts], lambda c: c[1] / c[3]),
    }


def _pairs(cases: Sequence[Matched]) -> list[Pair]:
    return [
        (case.truth[index], lesion)
        for case in cases
        for lesion, index in zip(case.found, case.truth_of_found, strict=True)
        if index is not None
    ]


def _malignancy(pairs: Sequence[Pair]) -> dict[str, Estimate]:
    """Measures on the lesions that were found."""
    malignant = [truth.malignant for truth, _ in pairs]
    probability = [found.malignant_probability for _, found in pairs]
    called = [p >= 0.5 for p in probability]
    right = sum(a == b for a, b in zip(malignant, called, strict=True))
    classes = [truth.kind for truth, _ in pairs]
    named = [max(_CLASSES, key=lambda name: found.class_probabilities.get(name, 0.0)) for _, found in pairs]
    diameters = [(6 * found.volume_mm3 / np.pi) ** (1 / 3) for _, found in pairs]
    true_diameters = [truth.diameter_mm for truth, _ in pairs]
    return {
        "malignancy AUROC": auroc(malignant, probability),
        "malignancy accuracy": proportion(right, len(pairs)),
        "malignancy sensitivity": proportion(
            sum(a and b for a, b in zip(malignant, called, strict=True)), sum(malignant)
        ),
        "malignancy specificity": proportion(
            sum(not a and not b for a, b in zip(malignant, called, strict=True)), len(pairs) - sum(malignant)
        ),
        "class accuracy": proportion(sum(a == b for a, b in zip(classes, named, strict=True)), len(pairs)),
        "class kappa": cohen_kappa(classes, named),
        "diameter r": pearson(diameters, true_diameters),
        "diameter bias mm": bland_altman(diameters, true_diameters).bias,
    }


def _by_size(cases: Sequence[Matched]) -> list[dict[str, Any]]:
    rows = []
    for low, high in zip(SIZE_EDGES_MM, (*SIZE_EDGES_MM[1:], float("inf")), strict=True):
        seen = [
            index is not None
            for case in cases
            for lesion, index in zip(case.truth, case.found_of_truth, strict=True)
            if low < lesion.diameter_mm <= high
        ]
        recall = proportion(sum(seen), len(seen))
        name = f"> {low:.0f} mm" if high == float("inf") else f"{low:.0f}-{high:.0f} mm"
        rows.append(
            {"size": name, "lesions": len(seen), "recall": recall.value, "low": recall.low, "high": recall.high}
        )
    return rows


def _by_class(cases: Sequence[Matched]) -> list[dict[str, Any]]:
    rows = []
    for name in _CLASSES:
        seen = [
            index is not None
            for case in cases
            for lesion, index in zip(case.truth, case.found_of_truth, strict=True)
            if lesion.kind == name
        ]
        recall = proportion(sum(seen), len(seen))
        rows.append(
            {"class": name, "lesions": len(seen), "recall": recall.value, "low": recall.low, "high": recall.high}
        )
    return rows


def _confusion(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
    """One row per true class: how often each class was named."""
    rows = []
    for name in _CLASSES:
        row: dict[str, Any] = {"class": name} | dict.fromkeys(_CLASSES, 0)
        for truth, found in pairs:
            if truth.kind == name:
                row[max(_CLASSES, key=lambda key: found.class_probabilities.get(key, 0.0))] += 1
        rows.append(row)
    return rows


def _froc_table(cases: Sequence[Matched]) -> list[dict[str, Any]]:
    alarms, sensitivity, _ = froc(cases)
    rows = []
    for limit in FROC_AT:
        within = sensitivity[alarms <= limit]
        rows.append({"false positives per case": limit, "sensitivity": float(within.max()) if len(within) else 0.0})
    return rows
