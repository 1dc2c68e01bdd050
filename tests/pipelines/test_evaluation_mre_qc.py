"""Outcome measures of mre_qc on answers whose measures can be counted by hand."""

from pathlib import Path
from typing import Any

import pytest

from pipelines.evaluation import EVALUATIONS

Pair = tuple[dict[str, Any], dict[str, Any]]


def case(
    slices: list[tuple[bool, bool, float, str, str]], exam: tuple[bool, bool], kpa: tuple[float | None, float | None],
    *, vendor: str = "GE", refused: bool = False,
) -> Pair:  # fmt: skip
    """slices: truth, borderline, probability, true reason, found reason. exam: truth, answer. kpa: truth, answer."""
    truth = {
        "slices": [
            {"slice_position_mm": 10.0 * i, "diagnostic": good, "borderline": border, "reasons": [why] if why else []}
            for i, (good, border, _, why, _) in enumerate(slices)
        ],
        "exam_diagnostic": exam[0],
        "stiffness_kpa": kpa[0],
    }
    if refused:
        return truth, {"status": "refused", "reason": "nothing"}
    found = [
        {
            "slice_position_mm": 10.0 * i + 0.01, "diagnostic": p >= 0.5, "diagnostic_probability": p,
            "reasons": [why] if why else [], "network_probability": p,
        }
        for i, (_, _, p, _, why) in enumerate(slices)
    ]  # fmt: skip
    stiffness = None if kpa[1] is None else {"mean_kpa": kpa[1]}
    result = {
        "status": "done", "slices": found[::-1], "exam": {"diagnostic": exam[1]}, "stiffness": stiffness,
        "vendor": vendor, "sequence": "GRE",
    }  # fmt: skip
    return truth, result


CASES = [
    case([(True, False, 0.9, "", ""), (True, False, 0.8, "", "")], (True, True), (2.0, 2.1)),
    case([(True, False, 0.4, "", "BLUR"), (True, True, 0.1, "", "BLUR")], (True, False), (3.0, None)),
    case([(False, False, 0.1, "MOTION", "MOTION"), (False, False, 0.2, "MOTION", "BLUR")], (False, False), (None, None),
         vendor="Philips"),
    case([(False, False, 0.6, "BLUR", ""), (False, False, 0.3, "BLUR", "BLUR")], (False, False), (4.0, None)),
    case([(True, False, 0.9, "", ""), (True, False, 0.7, "", "")], (True, True), (4.0, 3.8), vendor="Philips"),
]  # fmt: skip


def test_measures_are_what_one_counts() -> None:
    evaluate, _ = EVALUATIONS["mre_qc"]()
    found = evaluate(CASES).measures
    assert found["slice accuracy"].value == pytest.approx(7 / 9)  # the borderline slice is left out
    assert found["slice accuracy"].count == 9
    assert found["slice sensitivity"].value == pytest.approx(4 / 5)
    assert found["slice specificity"].value == pytest.approx(3 / 4)
    assert found["slice AUROC"].value == pytest.approx(19 / 20)  # one of 20 pairs is in the wrong order
    assert found["reason agreement"].value == pytest.approx(2 / 3)
    assert found["exam accuracy"].value == pytest.approx(4 / 5)
    assert found["stiffness error %"].value == pytest.approx(0.0, abs=1e-6)
    assert found["stiffness error SD %"].value == pytest.approx(50**0.5)
    assert found["stiffness refused when insufficient"].value == 1.0
    assert found["stiffness stated when diagnostic"].value == pytest.approx(2 / 3)
    assert found["cases answered"].value == 1.0


def test_a_case_without_an_answer_counts_as_called_non_diagnostic() -> None:
    evaluate, _ = EVALUATIONS["mre_qc"]()
    silent = case([(True, False, 0.9, "", "")], (True, True), (2.0, 2.0), refused=True)
    report = evaluate([*CASES, silent])
    assert report.measures["slice sensitivity"].value == pytest.approx(4 / 6)
    assert report.measures["cases answered"].value == pytest.approx(5 / 6)
    assert report.reasons == ("nothing",)


def test_tables_by_vendor_and_reason_and_plots(tmp_path: Path) -> None:
    evaluate, plot = EVALUATIONS["mre_qc"]()
    report = evaluate(CASES)
    groups = {row["group"]: row for row in report.tables["group"]}
    assert groups["Philips GRE"]["exams"] == 2
    assert groups["Philips GRE"]["accuracy"] == 1.0
    by_reason = {row["reason"]: row for row in report.tables["reason"]}
    assert by_reason["MOTION"]["agreement"] == 0.5
    assert by_reason["BLUR"]["refused"] == 0.5
    rows = [row[0] for row in report.rows()]
    assert "accuracy, Philips GRE" in rows
    assert "agreement, MOTION" in rows
    assert report.as_dict()["cases"] == 5
    written = plot(report, tmp_path)
    assert sorted(path.name for path in written) == ["mre_qc_reasons.png", "mre_qc_roc.png", "mre_qc_stiffness.png"]
    assert all(path.stat().st_size > 3000 for path in written)
