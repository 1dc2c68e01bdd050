"""Outcome measures against values worked out by hand or by brute force."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.evaluation import EVALUATIONS
from pipelines.evaluation.detection import FoundLesion, TrueLesion, froc, match
from pipelines.evaluation.statistics import (
    auroc,
    bland_altman,
    bootstrap,
    cohen_kappa,
    delong_test,
    f1_score,
    pearson,
    proportion,
    roc_curve,
)

scores = st.lists(st.tuples(st.booleans(), st.integers(0, 6)), min_size=2, max_size=40).filter(
    lambda items: len({truth for truth, _ in items}) == 2
)


@given(scores)
def test_auroc_is_the_share_of_pairs_in_order(items: list[tuple[bool, int]]) -> None:
    positives = [s for t, s in items if t]
    negatives = [s for t, s in items if not t]
    pairs = [(p > n) + 0.5 * (p == n) for p in positives for n in negatives]
    found = auroc([t for t, _ in items], [s for _, s in items])
    assert found.value == pytest.approx(np.mean(pairs))
    assert found.low <= found.value <= found.high
    alarms, hits = roc_curve([t for t, _ in items], [s for _, s in items])
    assert np.trapezoid(hits, alarms) == pytest.approx(found.value)


def test_auroc_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    truth = np.repeat([True, False], [30, 40])
    expected = 0.5 * math.erfc(-1.0 / 2)  # two normals one SD apart: Phi(1 / sqrt 2)
    inside = 0
    for _ in range(300):
        found = auroc(truth, rng.normal(truth.astype(float), 1))
        inside += found.low <= expected <= found.high
    assert 0.90 <= inside / 300 <= 0.99


def test_perfect_auroc_still_has_an_interval() -> None:
    found = auroc([True] * 10 + [False] * 10, list(range(20, 0, -1)))
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.6 < found.low < 0.8


def test_auroc_of_one_class_is_undefined() -> None:
    assert math.isnan(auroc([True, True], [0.1, 0.2]).value)


def test_delong_tells_a_better_score_from_a_worse_and_equals_from_equals() -> None:
    rng = np.random.default_rng(4)
    truth = rng.random(300) < 0.5
    good, bad = truth + rng.normal(0, 0.5, 300), truth + rng.normal(0, 3, 300)
    assert delong_test(truth, good, bad).p_value < 1e-6
    assert delong_test(truth, good, good).p_value == 1.0
    back = delong_test(truth, bad, good)
    assert back.difference == pytest.approx(-delong_test(truth, good, bad).difference)
    false_alarms = [
        delong_test(truth, truth + rng.normal(0, 1, 300), truth + rng.normal(0, 1, 300)).p_value < 0.05
        for _ in range(200)
    ]
    assert 0.01 < np.mean(false_alarms) < 0.12


def test_pearson_and_its_fisher_interval() -> None:
    x = np.arange(28.0)
    y = x + np.tile([3.0, -3.0], 14)
    found = pearson(x, y)
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert np.arctanh(found.high) - np.arctanh(found.low) == pytest.approx(2 * 1.96 / 5, rel=1e-3)
    assert math.isnan(pearson([1, 1], [2, 3]).value)


def test_kappa_of_the_textbook() -> None:
    """20 yes/yes, 5 yes/no, 10 no/yes, 15 no/no: observed 0.7, chance 0.5, kappa 0.4."""
    first = ["y"] * 25 + ["n"] * 25
    second = ["y"] * 20 + ["n"] * 5 + ["y"] * 10 + ["n"] * 15
    found = cohen_kappa(first, second)
    assert found.value == pytest.approx(0.4)
    assert (found.low, found.high) == pytest.approx((0.149, 0.651), abs=0.005)
    assert cohen_kappa(first, first).value == 1.0


def test_wilson_interval() -> None:
    found = proportion(8, 10)
    assert (found.low, found.high) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert proportion(0, 10).low == 0.0
    assert proportion(10, 10).high == 1.0
    assert math.isnan(proportion(0, 0).value)


def test_bootstrap_draws_cases_and_repeats_itself() -> None:
    same = bootstrap([(2, 1, 1)] * 20, f1_score)
    assert same.value == same.low == same.high == pytest.approx(2 / 3)
    mixed = [(3, 0, 0), (0, 2, 3), (1, 1, 1), (4, 0, 1), (0, 0, 2)] * 4
    first = bootstrap(mixed, f1_score)
    assert first == bootstrap(mixed, f1_score)
    assert first.low < first.value < first.high


def test_bland_altman() -> None:
    found = bland_altman([1.0, 2.0, 3.0, 4.0], [0.0, 2.0, 2.0, 4.0])
    assert found.bias.value == pytest.approx(0.5)
    spread = np.std([1, 0, 1, 0], ddof=1)
    assert found.upper_limit == pytest.approx(0.5 + 1.96 * spread, abs=1e-3)
    assert found.bias.low == pytest.approx(0.5 - 3.182 * spread / 2, abs=1e-3)


def _true(x: float, diameter: float = 20.0, kind: str = "HCC") -> TrueLesion:
    return TrueLesion((x, 0.0, 0.0), diameter, kind, kind in ("HCC", "ICC", "MET"))


def _found(x: float, diameter: float = 20.0, score: float = 0.9, malignant: float = 0.8) -> FoundLesion:
    r = diameter / 2
    box = ((x - r, -r, -r), (x + r, r, r))
    classes = {"HCC": malignant, "CYST": 1 - malignant}
    return FoundLesion((x, 0.0, 0.0), box, math.pi / 6 * diameter**3, score, malignant, classes)


@pytest.mark.parametrize("rule", ["overlap", "centre"])
def test_one_to_one_by_falling_score(rule: str) -> None:
    found = match([_true(0), _true(60)], [_found(1, score=0.5), _found(2, score=0.9), _found(200)], rule)
    assert found.truth_of_found == (None, 0, None)
    assert found.found_of_truth == (1, None)
    assert found.counts == (1, 2, 1)


def test_overlap_threshold_is_three_tenths() -> None:
    """Two equal cubes of side 20 shifted by d: IoU = (20 - d) / (20 + d); 0.3 at d = 10.77."""
    assert match([_true(0)], [_found(10.7)], "overlap").counts == (1, 0, 0)
    assert match([_true(0)], [_found(10.8)], "overlap").counts == (0, 1, 1)


def test_centre_rule_is_fair_to_tiny_lesions() -> None:
    assert match([_true(0, 6)], [_found(4.9, 6)], "centre").counts == (1, 0, 0)
    assert match([_true(0, 6)], [_found(4.9, 6)], "overlap").counts == (0, 1, 1)
    assert match([_true(0, 6)], [_found(5.1, 6)], "centre").counts == (0, 1, 1)
    assert match([_true(0, 40)], [_found(19)], "centre").counts == (1, 0, 0)


@settings(max_examples=50)
@given(
    truth=st.lists(st.floats(-100, 100), max_size=6),
    found=st.lists(st.tuples(st.floats(-100, 100), st.floats(0, 1)), max_size=6),
)
def test_counts_always_add_up(truth: list[float], found: list[tuple[float, float]]) -> None:
    case = match([_true(x) for x in truth], [_found(x, score=s) for x, s in found], "centre")
    hits, alarms, misses = case.counts
    assert hits + alarms == len(found)
    assert hits + misses == len(truth)
    for index, partner in enumerate(case.truth_of_found):
        assert partner is None or case.found_of_truth[partner] == index


def test_froc_of_two_cases() -> None:
    cases = [
        match([_true(0)], [_found(0, score=0.9), _found(90, score=0.6)], "centre"),
        match([_true(0)], [_found(0, score=0.4)], "centre"),
    ]
    alarms, sensitivity, thresholds = froc(cases)
    assert thresholds.tolist() == [0.9, 0.6, 0.4]
    assert sensitivity.tolist() == [0.5, 0.5, 1.0]
    assert alarms.tolist() == [0.0, 0.5, 0.5]


def _result(*lesions: FoundLesion) -> dict[str, object]:
    return {
        "status": "done",
        "reason": None,
        "lesions": [
            {
                "centre_mm": list(lesion.centre_mm),
                "box_mm": [list(corner) for corner in lesion.box_mm],
                "volume_mm3": lesion.volume_mm3,
                "score": lesion.score,
                "malignant_probability": lesion.malignant_probability,
                "class_probabilities": dict(lesion.class_probabilities),
            }
            for lesion in lesions
        ],
    }


def _truth(*lesions: TrueLesion) -> dict[str, object]:
    return {
        "lesions": [
            {"centre_mm": list(t.centre_mm), "diameter_mm": t.diameter_mm, "class": t.kind, "malignant": t.malignant}
            for t in lesions
        ]
    }


def test_report_of_ct_lesion_and_its_plots(tmp_path: Path) -> None:
    cases = [
        (_truth(_true(0), _true(60, 8, "CYST")), _result(_found(0), _found(60, 8, malignant=0.1))),
        (_truth(_true(0, 30)), _result(_found(2, 30, malignant=0.7), _found(90, score=0.3))),
        (_truth(_true(0, 12, "FNH")), {"status": "refused", "reason": "No liver was found.", "lesions": []}),
    ]
    evaluate, plot = EVALUATIONS["ct_lesion"]()
    report = evaluate(cases)
    assert report.measures["detection F1 (centre)"].value == pytest.approx(2 * 3 / (2 * 3 + 1 + 1))
    assert report.measures["recall (overlap)"].value == pytest.approx(0.75)
    assert report.measures["precision (overlap)"].value == pytest.approx(0.75)
    assert report.measures["malignancy AUROC"].value == 1.0
    assert report.measures["cases answered"].value == pytest.approx(2 / 3)
    assert report.reasons == ("No liver was found.",)
    sizes = {row["size"]: row["lesions"] for row in report.tables["size"]}
    assert sizes == {"0-10 mm": 1, "10-20 mm": 2, "20-50 mm": 1, "> 50 mm": 0}
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["cases"] == 3
    assert all(len(row) == 4 for row in report.rows())
    paths = plot(report, tmp_path / "plots")
    assert {path.name for path in paths} == {
        "ct_lesion_roc.png", "ct_lesion_recall_by_size.png", "ct_lesion_froc.png"
    }  # fmt: skip
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_report_without_any_case_or_lesion(tmp_path: Path) -> None:
    evaluate, plot = EVALUATIONS["ct_lesion"]()
    for cases in ([], [(_truth(), _result())]):
        report = evaluate(cases)
        json.dumps(report.as_dict(), allow_nan=False)
        assert len(plot(report, tmp_path)) == 3
