"""The main job on a running node: images in by C-STORE, SR and SEG out by C-STORE, and the story told."""

import subprocess
import urllib.request
from pathlib import Path

import pydicom
from nodes import SR, RunningNode, all_files, clone, wait_until
from programs import need

from dicom_node.dimse.scu import send_files


def send(node: RunningNode, files: list[Path], calling: str = "MODALITY") -> list[bool]:
    return [item.is_stored for item in send_files(files, "127.0.0.1", node.port, "LIVERNODE", calling)]


def test_two_associations_give_one_job_and_one_set_of_results(
    node: RunningNode, phantom_case: Path, tmp_path: Path
) -> None:
    study, series = clone(phantom_case, tmp_path, "main job")
    arterial, portal = series.values()
    assert all(send(node, portal))
    wait_until(lambda: "portal_venous" in node.command("why", study).stdout or True, 5, "the story")
    assert node.jobs(study) == []
    assert all(send(node, arterial))
    node.wait_for_results(study)
    assert [state for state, _ in node.jobs(study)] == ["done"]

    report = next(item for item in node.pacs.of_study(study) if item.sop_class_uid == SR)
    dataset = pydicom.dcmread(report.path)
    evidence = {
        str(instance.ReferencedSOPInstanceUID)
        for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence")
        for item in dataset.get(keyword) or []
        for group in item.ReferencedSeriesSequence
        for instance in group.ReferencedSOPSequence
    }
    sent = {str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID) for file in all_files(series)}
    assert sent <= evidence
    assert dataset.VerificationFlag == "UNVERIFIED"

    story = node.command("why", study).stdout
    for word in ("ct arterial", "ct portal_venous", "liver CT", "done", "pacs took"):
        assert word in story, f"{word!r} is missing in:\n{story}"
    assert "PHANTOM" not in story.upper().replace("PHANTOM STUDY", ""), "a patient's name in the story"
    assert study in node.command("studies").stdout
    with urllib.request.urlopen(f"http://127.0.0.1:{node.console_port}/studies/{study}") as page:
        assert "ct arterial" in page.read().decode()


def test_sending_again_gives_nothing_new(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    study, series = clone(phantom_case, tmp_path, "again")
    assert all(send(node, list(all_files(series))))
    node.wait_for_results(study)
    before = len(node.pacs.stand_in.kept)
    assert all(send(node, list(all_files(series))))
    other, other_series = clone(phantom_case, tmp_path / "other", "after again")
    assert all(send(node, list(all_files(other_series))))
    node.wait_for_results(other)  # by now a second run of the first would have come
    assert len(node.pacs.stand_in.kept) == before + 2
    assert len(node.jobs(study)) == 1


def test_one_phase_waits_and_says_for_what(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    study, series = clone(phantom_case, tmp_path, "one phase")
    assert all(send(node, next(iter(series.values()))))
    wait_until(lambda: "portal_venous" in node.command("why", study).stdout, 20, "a story that names the missing role")
    assert node.jobs(study) == []


def test_unknown_sender_is_refused(node: RunningNode, phantom_case: Path) -> None:
    file = next((phantom_case / "dicom").glob("*.dcm"))
    assert send(node, [file], calling="STRANGER") == [False]


def test_results_that_come_back_start_nothing(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    study, series = clone(phantom_case, tmp_path, "loop")
    assert all(send(node, list(all_files(series))))
    node.wait_for_results(study)
    results = [item.path for item in node.pacs.of_study(study) if item.path is not None]
    assert all(send(node, results))
    wait_until(
        lambda: node.command("why", study).stdout.count("made by this node") >= 1, 20, "our own objects recognised"
    )
    assert len(node.jobs(study)) == 1


def test_patient_identity_is_in_no_log_line(node: RunningNode, phantom_case: Path) -> None:
    dataset = pydicom.dcmread(next((phantom_case / "dicom").glob("*.dcm")), stop_before_pixels=True)
    log = node.log.read_text(errors="replace")
    assert "job ended" in log
    assert str(dataset.PatientName) not in log
    assert str(dataset.PatientID) not in log


def test_rules_travel_out_and_in(node: RunningNode, tmp_path: Path) -> None:
    exported = node.command("rules", "export").stdout
    file = tmp_path / "exported.yaml"
    file.write_text(exported)
    assert node.command("rules", "check", str(file)).returncode == 0
    file.write_text(exported.replace("Modality", "Modalty"))
    checked = node.command("rules", "check", str(file))
    assert checked.returncode == 1
    assert "Modality" in checked.stderr
    assert "line" in checked.stderr
    dry = node.command("rules", "dry-run", str(node.folder / "rules.yaml"))
    assert "runs ct_lesion" in dry.stdout


def test_dcmtk_sends(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    storescu = need("storescu")
    study, series = clone(phantom_case, tmp_path, "dcmtk")
    files = [str(file) for file in all_files(series)]
    subprocess.run(
        [storescu, "-aet", "MODALITY", "-aec", "LIVERNODE", "127.0.0.1", str(node.port), *files], check=True, timeout=60
    )
    node.wait_for_results(study)
