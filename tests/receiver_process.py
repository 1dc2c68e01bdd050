"""`dicom-node receive` as a process of its own, to be measured and killed; and what it left in its journal."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import psutil

from dicom_node.dimse.part10 import NotPart10Error, read_file_head
from dicom_node.reception import ENTRY_NAME

ROOT = Path(__file__).resolve().parents[1]
_STATUS = re.compile(r"^(VmRSS|VmHWM):\s+(\d+) kB", re.MULTILINE)


def free_port() -> int:
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class ReceiverProcess:
    """A receiver on loopback; `environment` adds settings, `number` tells receivers of one port apart."""

    def __init__(
        self, data_dir: Path, environment: Mapping[str, str] | None = None, port: int = 0, number: int = 1
    ) -> None:
        self.data_dir, self.incoming = data_dir, data_dir / "incoming"
        self.port = port or free_port()
        self.log = data_dir / f"receiver-{number}.log"
        self._number = number
        (data_dir / "run").mkdir(parents=True, exist_ok=True)
        self.environment = os.environ | {
            "PYTHONPATH": str(ROOT), "DICOM_NODE_DATA_DIR": str(data_dir), "DICOM_NODE_DICOM_HOST": "127.0.0.1",
            "DICOM_NODE_DICOM_PORT": str(self.port), "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        } | dict(environment or {})  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None

    def start(self, within_s: float = 30.0) -> "ReceiverProcess":
        """Start it and wait until it says that it listens."""
        ready = self.data_dir / "run" / f"receive-{self._number}.ready"
        ready.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "dicom_node", "receive", str(self._number)],
                env=self.environment, stdout=log, stderr=subprocess.STDOUT, cwd=self.data_dir,
            )  # fmt: skip
        deadline = time.monotonic() + within_s
        while True:
            assert self.process.poll() is None, f"the receiver ended: {self.log.read_text()[-2000:]}"
            if ready.exists():
                return self
            assert time.monotonic() < deadline, f"no answer within {within_s} s: {self.log.read_text()[-2000:]}"
            time.sleep(0.02)

    def __enter__(self) -> "ReceiverProcess":
        return self if self.process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()

    @property
    def pids(self) -> list[int]:
        """The process and all below it."""
        assert self.process is not None
        family = [psutil.Process(self.process.pid)]
        family += family[0].children(recursive=True)
        return [process.pid for process in family]

    def kill(self) -> None:
        """kill -9 of the process and all below it."""
        assert self.process is not None
        for pid in reversed(self.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(10)

    def stop(self, within_s: float = 20.0) -> int:
        """SIGTERM; its exit status."""
        assert self.process is not None
        self.process.terminate()
        return self.process.wait(within_s)

    def memory_mb(self) -> tuple[float, float]:
        """(resident now, peak since the start or `forget_peak`) in MB of 2^20 bytes, over all its processes."""
        now = peak = 0.0
        for pid in self.pids:
            values = dict(_STATUS.findall(Path(f"/proc/{pid}/status").read_text()))
            now += int(values["VmRSS"]) / 1024
            peak += int(values["VmHWM"]) / 1024
        return now, peak

    def forget_peak(self) -> None:
        """Peak memory counts from now on (proc(5), clear_refs 5)."""
        for pid in self.pids:
            Path(f"/proc/{pid}/clear_refs").write_text("5")


def stored_datasets(incoming: Path) -> dict[str, list[tuple[Path, int]]]:
    """SOP Instance UID -> (file, offset of its Dataset) of every visible object in a journal.

    AssertionError when something visible is not whole: a name that is none of the journal's, a note that is no JSON,
    an object without File Meta Information.
    """
    found: dict[str, list[tuple[Path, int]]] = {}
    for name in sorted(os.listdir(incoming)):
        if name.startswith("."):
            continue
        match = ENTRY_NAME.fullmatch(name)
        assert match, f"{name} is no entry of a journal"
        path = incoming / name
        try:
            if match["kind"] == "dcm":
                head = read_file_head(path)
                found.setdefault(head.sop_instance_uid, []).append((path, head.dataset_offset))
            else:
                json.loads(path.read_text("utf-8"))
        except (NotPart10Error, ValueError) as error:
            raise AssertionError(f"{name}: {error}") from error
    return found
