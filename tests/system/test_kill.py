"""kill -9 of any part at a bad moment: every acknowledged image is kept, and the PACS gets one SR and one SEG."""

import threading
from pathlib import Path

import pytest
from nodes import RunningNode, all_files, clone, wait_until

from dicom_node.dimse.scu import SendResult, send_files
from storage.files import sha256_of


class Sender:
    """Sends until every file has had its Success, as a PACS does; remembers what was acknowledged."""

    def __init__(self, node: RunningNode, files: list[Path]) -> None:
        self.node, self.todo = node, list(files)
        self.acknowledged: list[Path] = []
        self.thread = threading.Thread(target=self._send, daemon=True)
        self.thread.start()

    def _send(self) -> None:
        while self.todo:
            outcomes = send_files(self.todo, "127.0.0.1", self.node.port, "LIVERNODE", "MODALITY",
                                  on_progress=self._progress)  # fmt: skip
            stored = {item.path for item in outcomes if item.is_stored}
            self.todo = [file for file in self.todo if file not in stored]
            if self.todo:
                threading.Event().wait(0.3)

    def _progress(self, outcome: SendResult) -> None:
        if outcome.is_stored and outcome.path not in self.acknowledged:
            self.acknowledged.append(outcome.path)

    def finish(self) -> None:
        self.thread.join(90)
        assert not self.todo, f"{len(self.todo)} images never got Success"


def assert_nothing_lost(node: RunningNode, study: str, files: list[Path]) -> None:
    with node.database() as connection:
        rows = connection.execute(
            "SELECT path, sha256 FROM instance WHERE study_instance_uid = %s AND NOT is_ours", (study,)
        ).fetchall()
    assert len(rows) == len(files)
    for path, sha256 in rows:
        assert sha256_of(node.folder / "data" / "store" / path) == sha256


def run_through(node: RunningNode, case: Path, folder: Path, tag: str) -> tuple[str, list[Path], Sender]:
    study, series = clone(case, folder / tag, tag)
    files = list(all_files(series))
    return study, files, Sender(node, files)


def test_worker_killed_in_mid_job(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    study, files, sender = run_through(node, phantom_case, tmp_path, "worker")
    sender.finish()
    wait_until(lambda: ("running", "") in node.jobs(study), 30, "a running job")
    node.kill("work gpu")
    node.wait_for_results(study, 120)
    assert_nothing_lost(node, study, files)
    assert [state for state, _ in node.jobs(study)] == ["done"]


def test_receiver_killed_in_mid_association(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    study, files, sender = run_through(node, phantom_case, tmp_path, "receiver")
    wait_until(lambda: len(sender.acknowledged) > len(files) // 3, 30, "a third of the images")
    node.kill("dicom_node receive")
    sender.finish()
    node.wait_for_results(study, 120)
    assert_nothing_lost(node, study, files)
    assert len(node.jobs(study)) == 1


@pytest.mark.parametrize("server", ["postgres", "valkey"])
def test_server_killed_while_a_study_arrives(
    node: RunningNode, phantom_case: Path, tmp_path: Path, server: str
) -> None:
    study, files, sender = run_through(node, phantom_case, tmp_path, server)
    wait_until(lambda: len(sender.acknowledged) > len(files) // 2, 30, "half of the images")
    node.kill(server)
    sender.finish()
    node.wait_for_results(study, 120)
    assert_nothing_lost(node, study, files)
    assert len(node.jobs(study)) == 1


def test_everything_killed_at_once(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    first, first_files, sender = run_through(node, phantom_case, tmp_path, "first")
    sender.finish()
    wait_until(lambda: ("running", "") in node.jobs(first), 30, "a running job")
    second, second_files, sender = run_through(node, phantom_case, tmp_path, "second")
    wait_until(lambda: len(sender.acknowledged) > len(second_files) // 2, 30, "half of the second study")
    node.kill_everything()
    node.start()
    sender.finish()
    for study, files in ((first, first_files), (second, second_files)):
        node.wait_for_results(study, 120)
        assert_nothing_lost(node, study, files)
        assert len(node.jobs(study)) == 1


def test_supervisor_killed_alone(node: RunningNode, phantom_case: Path, tmp_path: Path) -> None:
    """Its servers live on and are adopted; its parts die with it, so the ports are free."""
    assert node.process is not None
    node.process.kill()
    node.process.wait(10)
    node.start()
    study, files, sender = run_through(node, phantom_case, tmp_path, "adopted")
    sender.finish()
    node.wait_for_results(study)
    assert_nothing_lost(node, study, files)
