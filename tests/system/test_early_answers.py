"""The verdict on an elastography while its study still arrives: over open associations, once, and superseded."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from nodes import SR, Pacs, RunningNode, all_files, clone, wait_until
from pydicom import Dataset

from dicom_node.dimse.scu import SendResult, send_files
from models.phantoms import PHANTOMS

RULES = """
senders: [{{ae_title: MODALITY, host: 127.0.0.0/8}}]
destinations: {{pacs: {{type: dimse, host: 127.0.0.1, port: {port}, ae_title: PACS}}}}
rules:
  - {{name: elastography, when: {{attribute: Modality, equals: MR}}, run: mre_qc, stat: true, send_to: [pacs]}}
"""
SLICES, WHOLE = 3, 2


@pytest.fixture(scope="module")
def exam(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Philips exam, whose header states the phase offsets but not the number of slices."""
    return PHANTOMS["mre_qc"](
        7, tmp_path_factory.mktemp("exam"), vendor="Philips", slices=SLICES, matrix=96, others=False,
        roles=("magnitude", "phase", "confidence"),
    )  # fmt: skip


@pytest.fixture(scope="module")
def stat_node(tmp_path_factory: pytest.TempPathFactory, pacs: Pacs) -> Iterator[RunningNode]:
    node = RunningNode(tmp_path_factory.mktemp("stat"), pacs, {"DICOM_NODE_JOB_LEASE_S": "2"}).start()
    rules = node.folder / "rules.yaml"
    rules.write_text(RULES.format(port=pacs.port))
    assert node.command("rules", "import", str(rules)).returncode == 0
    yield node
    node.stop()


class Scanner(threading.Thread):
    """Sends an exam slice by slice over one association; rests when `WHOLE` slices are there, until told to go on."""

    def __init__(self, node: RunningNode, exam: Path, folder: Path, tag: str) -> None:
        super().__init__(daemon=True)
        self.node = node
        self.study, series = clone(exam, folder / tag, tag)
        placed = []
        for file in all_files(series):
            header = pydicom.dcmread(file, stop_before_pixels=True)
            placed.append(("confidence" in str(header.SeriesDescription).lower(), _place(header), file))
        self.files = [file for *_, file in sorted(placed)]
        raw = [place for is_map, place, _ in placed if not is_map]
        self.rest_after = sum(place in sorted(set(raw))[:WHOLE] for place in raw) + 1  # and one of the next slice
        self.goes_on = threading.Event()
        self.sent: list[SendResult] = []
        self.start()

    def run(self) -> None:
        send_files(self.files, "127.0.0.1", self.node.port, "LIVERNODE", "MODALITY", on_progress=self._progress)

    def _progress(self, result: SendResult) -> None:
        self.sent.append(result)
        if len(self.sent) == self.rest_after:
            self.goes_on.wait(90)

    def finish(self) -> None:
        self.goes_on.set()
        self.join(60)
        assert len(self.sent) == len(self.files)
        assert all(result.is_stored for result in self.sent)

    def reports(self) -> list[Dataset]:
        return [pydicom.dcmread(k.path) for k in self.node.pacs.of_study(self.study) if k.sop_class_uid == SR]


def _place(header: Dataset) -> float:
    return round(float(header.ImagePositionPatient[2]), 1)


def tracked(item: Dataset) -> Iterator[tuple[str, str]]:
    content = item.get("ContentSequence") or []
    values = {str(c.ConceptNameCodeSequence[0].CodeValue): c for c in content if "ConceptNameCodeSequence" in c}
    if "112040" in values:
        yield str(values["112039"].TextValue), str(values["112040"].UID)
    for child in content:
        yield from tracked(child)


def test_two_exams_are_answered_before_they_are_complete(stat_node: RunningNode, exam: Path, tmp_path: Path) -> None:
    scanners = [Scanner(stat_node, exam, tmp_path, tag) for tag in ("one", "two")]
    for scanner in scanners:
        wait_until(scanner.reports, 60, f"an early report of {scanner.study}")
        assert scanner.is_alive(), "the association must still be open"
        (early,) = scanner.reports()
        assert early.CompletionFlag == "PARTIAL"
        assert early.CompletionFlagDescription == f"{WHOLE} slices of {SLICES} so far, more may come"
        assert early.SeriesDescription.startswith("PRELIMINARY")
        assert [k.sop_class_uid for k in stat_node.pacs.of_study(scanner.study)] == [SR]  # nothing but the report
    for scanner in scanners:
        scanner.finish()
    for scanner in scanners:
        wait_until(lambda scanner=scanner: len(scanner.reports()) == 2, 60, "the final report")  # type: ignore[misc]
        early, final = scanner.reports()
        assert final.CompletionFlag == "COMPLETE"
        (before,) = final.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert before.ReferencedSOPInstanceUID == early.SOPInstanceUID
        names, then = dict(tracked(early)), dict(tracked(final))
        assert {"Liver", *(f"Slice {n + 1}" for n in range(WHOLE))} <= names.keys()
        assert names.items() <= then.items()
        assert len(then) == len(names) + SLICES - WHOLE
        assert [state for state, _ in stat_node.jobs(scanner.study)] == ["done", "done"]
        story = stat_node.command("why", scanner.study).stdout
        assert f"early answer: {WHOLE} slices of {SLICES}" in story
        assert "by rule 'elastography', stat on" in story


def test_a_worker_killed_over_an_early_answer(stat_node: RunningNode, exam: Path, tmp_path: Path) -> None:
    scanner = Scanner(stat_node, exam, tmp_path, "killed")
    wait_until(lambda: ("running", "") in stat_node.jobs(scanner.study), 60, "an early job")
    stat_node.kill("work stat")
    wait_until(scanner.reports, 60, "the early report all the same")
    scanner.finish()
    wait_until(lambda: len(scanner.reports()) == 2, 60, "the final report")
    assert [report.CompletionFlag for report in scanner.reports()] == ["PARTIAL", "COMPLETE"]
    assert len({report.SOPInstanceUID for report in scanner.reports()}) == 2
    assert [state for state, _ in stat_node.jobs(scanner.study)] == ["done", "done"]


def test_an_exam_that_comes_at_once_has_one_report(stat_node: RunningNode, exam: Path, tmp_path: Path) -> None:
    scanner = Scanner(stat_node, exam, tmp_path, "at once")
    scanner.finish()
    wait_until(scanner.reports, 60, "the report")
    dry = stat_node.command("rules", "dry-run", str(stat_node.folder / "rules.yaml")).stdout
    assert "runs mre_qc (stat)" in dry
    assert [report.CompletionFlag for report in scanner.reports()] == ["COMPLETE"]
    assert "PredecessorDocumentsSequence" not in scanner.reports()[0]
