"""mre_qc as a whole on simulated exams, with networks that know the truth; and its answer as DICOM objects."""

import json
from dataclasses import replace
from functools import lru_cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from mre_oracle import input_of, know
from pydicom import dcmread

from dicom_node.encoding.concepts import CONCEPTS
from dicom_node.folder import inputs_from_folder
from dicom_node.settings import Settings
from dicom_node.single import _answer
from models.phantoms.mre.cases import write_case
from models.phantoms.mre.exam import Exam, simulate_exam
from pipelines.catalogue import MRE_ANY_OF, MRE_ROLES
from pipelines.findings import UnsuitableInput
from pipelines.mre_qc import run
from pipelines.mre_qc.reasons import REASONS
from pipelines.mre_qc.thresholds import SHIPPED, VARIABLE, in_force
from pipelines.pipeline import Pipeline

GOOD, SILENT = 910005, 910028
ALL = ("magnitude", "phase", "elastogram", "confidence")
ALL_WRITTEN = ("magnitude", "phase", "stiffness", "confidence")  # as the phantoms name them
PIPELINE = Pipeline(
    name="mre_qc", version="0.1.0", title="AI MR elastography quality", modality="MR", roles=MRE_ROLES, bundles=(),
    queue="cpu", module="pipelines.mre_qc", any_of=MRE_ANY_OF, answers_per_slice=True, objects=("sc",),
)  # fmt: skip


@lru_cache(maxsize=4)
def exam(seed: int, fault: str = "") -> Exam:
    return simulate_exam(seed, fault=fault, matrix=128, slices=3)


def test_a_good_exam_is_diagnostic_with_a_stiffness_near_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    good = exam(GOOD)
    assert good.verdict == (True, False)
    know(monkeypatch, good)
    found = run(input_of(good, ALL), {})
    stiffness = found.summary["stiffness"]
    assert found.headline.startswith("DIAGNOSTIC: 3 of 3 slices; shear stiffness")
    assert found.summary["exam"]["diagnostic"] is True
    assert stiffness["source"] == "elastogram"
    assert stiffness["mean_kpa"] == pytest.approx(good.stiffness_kpa, rel=0.1)
    assert [s["slice_position_mm"] for s in found.summary["slices"]] == [round(s.z_mm, 3) for s in good.slices]
    assert [item.label for item in found.images] == ["Slice 1", "Slice 2", "Slice 3"]
    (region,), (shown,) = found.regions, found.maps
    inner = np.stack([s.acquired.truth.liver for s in good.slices])
    assert (region.mask <= inner).all()
    assert np.array_equal(np.isfinite(shown.values), region.mask)
    area = region.mask.sum() * good.protocol.pixel_mm**2
    assert stiffness["valid_area_mm2"] == pytest.approx(area, rel=0.1)
    json.dumps(found.summary)


def test_the_own_inversion_stands_in_for_the_elastogram(monkeypatch: pytest.MonkeyPatch) -> None:
    good = exam(GOOD)
    know(monkeypatch, good)
    found = run(input_of(good, ("magnitude", "phase")), {})
    assert found.summary["stiffness"]["source"] == "inversion"
    assert found.summary["stiffness"]["mean_kpa"] == pytest.approx(good.stiffness_kpa, rel=0.1)
    assert any("own inversion" in text for text in found.warnings)


def test_an_exam_without_waves_must_be_repeated_and_has_no_stiffness(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = exam(SILENT, "NO_DRIVER_WAVES")
    know(monkeypatch, silent)
    found = run(input_of(silent, ALL), {})
    assert found.headline.startswith("REPEAT: 0 of 3 slices diagnostic; no waves from the driver; check driver")
    assert (found.summary["stiffness"], found.regions, found.maps) == (None, (), ())
    assert found.summary["stiffness_refused"] == "the exam is not diagnostic"
    assert all(s["measures"]["readable_mm2"] == 0 for s in found.summary["slices"])
    qualities = [e.value for s in found.images for e in s.evaluations if e.concept == "quality"]
    assert qualities == ["non_diagnostic"] * 3


def test_networks_that_are_wrong_about_silence_are_not_believed_blindly(monkeypatch: pytest.MonkeyPatch) -> None:
    silent = exam(SILENT, "NO_DRIVER_WAVES")
    know(monkeypatch, silent, [0.75] * 3)
    assert run(input_of(silent, ALL), {}).summary["exam"]["diagnostic"] is False


@pytest.mark.parametrize("roles", [("magnitude",), ("phase",), ("elastogram", "confidence"), ("elastogram",)])
def test_any_of_the_inputs_is_enough_for_an_answer(monkeypatch: pytest.MonkeyPatch, roles: tuple[str, ...]) -> None:
    good = exam(GOOD)
    know(monkeypatch, good)
    found = run(input_of(good, roles), {})
    assert found.role == roles[0]
    assert found.summary["inputs_used"] == list(roles)
    assert found.summary["exam"]["diagnostic"] is True
    measured = found.summary["stiffness"]
    if roles in (("magnitude",), ("elastogram",)):
        assert measured is None
        assert found.summary["stiffness_refused"]
    else:
        assert measured["mean_kpa"] == pytest.approx(good.stiffness_kpa, rel=0.15)


def test_a_driver_at_another_frequency_than_the_sequence_is_never_diagnostic(monkeypatch: pytest.MonkeyPatch) -> None:
    good = exam(GOOD)
    know(monkeypatch, good)
    found = run(input_of(good, ALL, frequency_hz=60.0, driver_frequency_hz=50.0), {})
    assert found.summary["exam"]["reasons"] == ["WRONG_FREQUENCY"]
    assert "Driver 50 Hz, sequence 60 Hz." in found.warnings


def test_a_slice_that_lacks_the_usual_image_is_judged_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    good = exam(GOOD)
    know(monkeypatch, good)
    study = input_of(good, ALL)
    middle = study.slices[1]
    planes = {role: plane for role, plane in middle.planes.items() if role != "magnitude"}
    slices = (study.slices[0], replace(middle, magnitude=None, planes=planes), study.slices[2])
    found = run(replace(study, slices=slices), {})
    assert len(found.summary["slices"]) == 3
    assert found.role == "phase"  # the role that all of them have


def test_nothing_at_all_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, exam(GOOD))
    with pytest.raises(UnsuitableInput):
        run(replace(input_of(exam(GOOD)), slices=()), {})


def test_every_reason_and_quality_has_a_code() -> None:
    assert set(REASONS) <= set(CONCEPTS)
    assert {"quality", "quality_finding", "study_quality", "shear_stiffness", "readable_area"} <= set(CONCEPTS)


def test_a_case_folder_becomes_report_segmentation_and_map(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seed, facts = 910009, {"matrix": 128, "slices": 2, "fault": ""}
    case = write_case(seed, tmp_path, vendor="Siemens XA", others=False, roles=ALL_WRITTEN, **facts)
    truth = json.loads((case / "truth.json").read_text())
    know(monkeypatch, simulate_exam(seed, vendor="Siemens", **facts))
    answer = _answer(PIPELINE, inputs_from_folder(case / "dicom", PIPELINE), {})
    assert answer.status == "done"
    result = answer.result
    assert [s["slice_position_mm"] for s in result["slices"]] == pytest.approx(
        [s["slice_position_mm"] for s in truth["slices"]], abs=0.01
    )
    assert [s["diagnostic"] for s in result["slices"]] == [s["diagnostic"] for s in truth["slices"]]
    # no map: a viewer cannot lay it over a Series that has several phase offsets of each slice
    assert {item.kind for item in answer.objects} == ({"sr", "seg", "sc"} if result["stiffness"] else {"sr", "sc"})
    report = dcmread(BytesIO(next(item.data for item in answer.objects if item.kind == "sr")))
    assert report.SeriesDescription.startswith(f"RESEARCH {'DIAGNOSTIC' if result['exam']['diagnostic'] else 'REPEAT'}")
    listed = {
        str(instance.ReferencedSOPInstanceUID)
        for series in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    sent = {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID) for path in (case / "dicom").glob("*.dcm")}
    assert sent <= listed
    groups = next(item for item in report.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue == "126010")
    exam_first = groups.ContentSequence[0]
    texts = [item.TextValue for item in exam_first.ContentSequence if item.ValueType == "TEXT"]
    assert "Liver" in texts
    assert any(text.startswith(("DIAGNOSTIC: ", "REPEAT: ")) for text in texts)
    codes = {item.ConceptCodeSequence[0].CodeValue for item in exam_first.ContentSequence if item.ValueType == "CODE"}
    assert codes >= {"RID12" if result["exam"]["diagnostic"] else "RID14", "MRE"}


def test_every_input_image_is_evidence_whatever_offset_it_is_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seed, facts = 910009, {"matrix": 64, "slices": 2, "fault": "NO_DRIVER_WAVES"}
    case = write_case(seed, tmp_path, vendor="GE", others=False, roles=("magnitude", "phase"), **facts)
    know(monkeypatch, simulate_exam(seed, vendor="GE", **facts), [0.02] * 2)
    answer = _answer(PIPELINE, inputs_from_folder(case / "dicom", PIPELINE), {})
    assert {item.kind for item in answer.objects} == {"sr", "sc"}  # a verdict without stiffness is an answer too
    assert answer.result["stiffness"] is None
    report = dcmread(BytesIO(answer.objects[-1].data))
    (series,) = (
        item
        for item in report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
        if len(item.ReferencedSOPSequence) > 1
    )
    assert len(series.ReferencedSOPSequence) == len(list((case / "dicom").glob("*.dcm")))
    assert b"RID14" in answer.objects[-1].data


def test_the_table_in_force_is_part_of_what_answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    shipped = PIPELINE.configuration()
    own = tmp_path / "own.yaml"
    own.write_text(SHIPPED.read_text().replace("diagnostic_mm2: 2800.0", "diagnostic_mm2: 3500.0"))
    monkeypatch.setenv(VARIABLE, str(own))
    ours = PIPELINE.configuration()
    assert (shipped["thresholds"].split()[0], ours["thresholds"].split()[0]) == ("shipped", "own")
    own.write_text(own.read_text().replace("3500.0", "3600.0"))
    assert PIPELINE.configuration() != ours
    assert in_force().exam.diagnostic_mm2 == 3600.0
    own.write_text("slice: [")
    with pytest.raises(ValueError, match=r"own\.yaml"):
        PIPELINE.configuration()
    assert Settings().mre_qc_thresholds == own
