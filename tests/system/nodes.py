"""A real node for the system tests: `dicom-node up` as a process, a stand-in PACS, phantoms, and ways to kill."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pydicom
from pydicom.uid import UID

from dicom_node.dimse.standin import KeptObject, StandInPacs
from dicom_node.settings import Settings
from dicom_node.up import with_server_urls

SR = "1.2.840.10008.5.1.4.1.1.88.34"
SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def _command_line(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:  # a helper of the node that has just ended
        return ""


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> object:
    """The condition's first true value; AssertionError naming `what` after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"not within {seconds:.0f} s: {what}")


@dataclass(frozen=True)
class Pacs:
    """The stand-in PACS and its port."""

    stand_in: StandInPacs
    port: int

    def of_study(self, study: str) -> list[KeptObject]:
        """What arrived for a study, in order; an object sent twice is there twice."""
        return [item for item in self.stand_in.kept if item.study_instance_uid == study]


class RunningNode:
    """`dicom-node up` on free ports with a rule that sends every CT's results to the stand-in PACS."""

    def __init__(self, folder: Path, pacs: Pacs, environment: dict[str, str] | None = None) -> None:
        self.folder, self.pacs = folder, pacs
        self.log = folder / "node.log"
        self.environment = os.environ | {"XDG_STATE_HOME": str(folder / "state")} | (environment or {})
        self.process: subprocess.Popen[bytes] | None = None
        self.port = self.console_port = 0

    def start(self) -> "RunningNode":
        """Start it and wait for the ready line."""
        with self.log.open("ab") as stream:
            offset = stream.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dicom_node", "up", "--data-dir", str(self.folder / "data"),
                 "--dicom-port", str(self.port), "--console-port", str(self.console_port)],
                stdout=stream, stderr=subprocess.STDOUT, env=self.environment, cwd=self.folder,
            )  # fmt: skip
        line = str(wait_until(lambda: self._ready_line(offset), 60, "the ready line; log: " + str(self.log)))
        self.port = int(line.split()[2].rstrip(","))
        self.console_port = int(line.rsplit(":", 1)[1])
        return self

    def _ready_line(self, offset: int) -> str | None:
        assert self.process is not None
        text = self.log.read_bytes()[offset:].decode(errors="replace")
        assert self.process.poll() is None, f"the node ended: {text[-3000:]}"
        return next((line for line in text.splitlines() if line.startswith("ready: ")), None)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A `dicom-node` command against this node."""
        return subprocess.run(
            [sys.executable, "-m", "dicom_node", *arguments],
            capture_output=True, text=True, env=self.environment, cwd=self.folder, timeout=120,
        )  # fmt: skip

    def import_rules(self, extra: str = "") -> None:
        """One rule for every CT, senders MODALITY and DEMO from loopback."""
        rules = self.folder / "rules.yaml"
        rules.write_text(
            "senders:\n  - {ae_title: MODALITY, host: 127.0.0.0/8}\n"
            f"destinations:\n  pacs: {{type: dimse, host: 127.0.0.1, port: {self.pacs.port}, ae_title: PACS}}\n"
            "rules:\n  - name: liver CT\n    when: {attribute: Modality, equals: CT}\n"
            f"    run: ct_lesion\n    send_to: [pacs]\n{extra}"
        )
        done = self.command("rules", "import", str(rules))
        assert done.returncode == 0, done.stderr

    def database(self) -> psycopg.Connection:
        """A connection to the node's database."""
        known = {k: v for k, v in self.environment.items() if k in ("DATABASE_URL", "BROKER_URL")}
        settings = Settings(data_dir=(self.folder / "data").resolve(), **known)
        return psycopg.connect(str(with_server_urls(settings).database_url), autocommit=True)

    def jobs(self, study: str) -> list[tuple[str, str]]:
        """(state, reason) of the study's jobs."""
        with self.database() as connection:
            query = "SELECT state, reason FROM job WHERE study_instance_uid = %s ORDER BY id"
            return list(connection.execute(query, (study,)).fetchall())

    def results_at_pacs(self, study: str) -> list[str]:
        """SOP Class UIDs of the study's distinct results at the PACS."""
        found = {item.sop_instance_uid: item.sop_class_uid for item in self.pacs.of_study(study)}
        return sorted(found.values())

    def wait_for_results(self, study: str, seconds: float = 90) -> None:
        """Until exactly one SR and one SEG are there."""
        wait_until(lambda: len(self.results_at_pacs(study)) >= 2, seconds, f"results of {study}: {self._story(study)}")
        assert self.results_at_pacs(study) == sorted([SR, SEG])

    def _story(self, study: str) -> str:
        return f"see {self.log} and dicom-node why {study}"

    def processes(self, pattern: str) -> list[psutil.Process]:
        """Processes of this node whose command line holds `pattern`."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        return [process for process in family if pattern in _command_line(process)]

    def kill(self, pattern: str) -> None:
        """kill -9."""
        victims = self.processes(pattern)
        assert victims, f"no process matches {pattern!r}"
        for victim in victims:
            victim.send_signal(signal.SIGKILL)

    def kill_everything(self) -> None:
        """kill -9 of the supervisor and all below it at once."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        for process in family:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue
        self.process.wait(10)
        psutil.wait_procs(family, timeout=10)

    def stop(self) -> None:
        """SIGTERM; the node must go within 30 s and leave nothing."""
        assert self.process is not None
        family = psutil.Process(self.process.pid).children(recursive=True)
        self.process.terminate()
        self.process.wait(30)
        _, alive = psutil.wait_procs(family, timeout=5)
        assert not alive, f"left over: {alive}"


def clone(case: Path, folder: Path, tag: str) -> tuple[str, dict[str, list[Path]]]:
    """The case under fresh UIDs -> (StudyInstanceUID, series description -> files in instance order)."""
    folder.mkdir(parents=True, exist_ok=True)
    fresh: dict[str, UID] = {}

    def new(uid: str) -> UID:
        return fresh.setdefault(uid, UID(pydicom.uid.generate_uid(entropy_srcs=[tag, uid])))

    series: dict[str, list[tuple[int, Path]]] = {}
    study = ""
    for file in sorted((case / "dicom").glob("*.dcm")):
        dataset = pydicom.dcmread(file)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "FrameOfReferenceUID"):
            setattr(dataset, keyword, new(str(dataset.get(keyword))))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        target = folder / file.name
        dataset.save_as(target, enforce_file_format=True)
        study = str(dataset.StudyInstanceUID)
        series.setdefault(str(dataset.SeriesInstanceUID), []).append((int(dataset.InstanceNumber), target))
    return study, {uid: [path for _, path in sorted(files)] for uid, files in series.items()}


def all_files(series: dict[str, list[Path]]) -> Sequence[Path]:
    """Every file of a cloned case."""
    return [file for files in series.values() for file in files]
