"""The receivers of the reception benchmark: ours, DCMTK's storescp, Orthanc, pynetdicom as it comes.

Each runs as processes of its own, keeps what it is sent below its own folder and is measured from outside.
"""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import psutil
from objects import SentSet
from pydicom import dcmread
from raw_scu import EndedError, echo_seconds
from receiver_process import ROOT, free_port

from dicom_node.dimse.part10 import NotPart10Error, read_file_head

HERE = Path(__file__).resolve().parent
_SAMPLE_S = 0.1


class Receiver:
    """A receiver under test. `start` and `stop` frame its life; `store` is where its objects lie."""

    called = "ANY-SCP"

    def __init__(self, name: str, folder: Path) -> None:
        self.name, self.folder, self.store = name, folder, folder / "store"
        self.port = free_port()
        self.processes: list[subprocess.Popen[bytes]] = []
        self.store.mkdir(parents=True)

    def start(self) -> None:
        """Start it and wait until it answers C-ECHO. Raises RuntimeError with its log."""
        raise NotImplementedError

    def clean(self, sent: SentSet) -> None:
        """Remove what the run left, so that the next one finds the same disk."""
        for path in self.store.rglob("*"):
            if path.is_file():
                path.unlink()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL, to what was started here."""
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            try:
                process.wait(15)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.send_signal(signal.SIGKILL)
                process.kill()
                process.wait()

    def _launch(self, command: list[str], environment: Mapping[str, str] | None = None, within_s: float = 60) -> None:
        with (self.folder / "log.txt").open("ab") as log:
            process = subprocess.Popen(
                command, env=os.environ | dict(environment or {}), stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.processes.append(process)
        deadline = time.monotonic() + within_s
        while True:
            with suppress(OSError, EndedError, AssertionError):
                echo_seconds(self.port, self.called)
                return
            if process.poll() is not None or time.monotonic() > deadline:
                said = (self.folder / "log.txt").read_text(errors="replace")[-2000:]
                raise RuntimeError(f"{self.name} does not answer: {said}")
            time.sleep(0.05)

    # ---- measured from outside

    def family(self) -> list[psutil.Process]:
        """Its processes now."""
        found = []
        for process in self.processes:
            with suppress(psutil.NoSuchProcess):
                root = psutil.Process(process.pid)
                found += [root, *root.children(recursive=True)]
        return found

    def cpu_s(self) -> float:
        """Processor time used so far, children that have ended included."""
        total = 0.0
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def resident_mb(self) -> float:
        """Resident memory of all its processes, in 2^20 bytes; pages that they share are counted in each."""
        total = 0
        for process in self.family():
            with suppress(psutil.NoSuchProcess):
                total += process.memory_info().rss
        return total / (1 << 20)

    # ---- what it kept

    def kept(self) -> dict[str, list[Path]]:
        """SOP Instance UID -> files."""
        found: dict[str, list[Path]] = {}
        for path in self.store.rglob("*"):
            if path.is_file() and not path.name.startswith("."):
                with suppress(NotPart10Error, FileNotFoundError):
                    found.setdefault(read_file_head(path).sop_instance_uid, []).append(path)
        return found

    def verify(self, sent: SentSet, within_s: float = 20.0) -> tuple[int, int, str]:
        """-> (missing, altered, how it was compared: "bytes", or "values" where a receiver rewrites Datasets)."""
        deadline = time.monotonic() + within_s
        while True:
            kept = self.kept()
            missing = [uid for uid in sent.datasets if uid not in kept]
            if not missing or time.monotonic() > deadline:
                break
            time.sleep(0.2)  # a node may be moving them from the journal to its store
        altered, how = 0, "bytes"
        for uid, (digest, _) in sent.datasets.items():
            if uid in kept and not any(_dataset_digest(path) == digest for path in kept[uid]):
                how = "values"
                altered += not any(dcmread(path) == dcmread(sent.files[uid]) for path in kept[uid])
        return len(missing), altered, how


def _dataset_digest(path: Path) -> str:
    with suppress(FileNotFoundError), path.open("rb") as file:
        file.seek(read_file_head(path).dataset_offset)
        return hashlib.file_digest(file, "sha256").hexdigest()
    return ""


class PeakMemory:
    """Samples the resident memory of a receiver while a run lasts."""

    def __init__(self, receiver: Receiver) -> None:
        self.peak_mb = receiver.resident_mb()
        self._receiver, self._done = receiver, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._done.wait(_SAMPLE_S):
            self.peak_mb = max(self.peak_mb, self._receiver.resident_mb())

    def __enter__(self) -> "PeakMemory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self.peak_mb = max(self.peak_mb, self._receiver.resident_mb())


class Storescp(Receiver):
    """DCMTK; without fsync. `nodelay`: TCP_NODELAY=1 in its environment, else as it comes."""

    def __init__(self, name: str, folder: Path, nodelay: bool) -> None:
        super().__init__(name, folder)
        self._environment = {"TCP_NODELAY": "1"} if nodelay else {}

    def start(self) -> None:
        """One process per association; +B: Datasets are written as they come."""
        self._launch(
            ["storescp", "--fork", "-q", "+xa", "+B", "-od", str(self.store), str(self.port)], self._environment
        )


class Orthanc(Receiver):
    """Orthanc with its defaults; `sync` False: SyncStorageArea off; `nodelay` as for DCMTK, whose code it uses."""

    def __init__(self, name: str, folder: Path, sync: bool, nodelay: bool) -> None:
        super().__init__(name, folder)
        self._http_port, self._sync = free_port(), sync
        self._environment = {"TCP_NODELAY": "1"} if nodelay else {}

    def start(self) -> None:
        """Debian's package, an empty store."""
        program = shutil.which("Orthanc", path=f"{os.environ['PATH']}:/usr/sbin") or "Orthanc"
        configuration = {
            "Name": "bench", "HttpPort": self._http_port, "DicomPort": self.port, "DicomAet": "ORTHANC",
            "DicomCheckCalledAet": False, "DicomAlwaysAllowStore": True, "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False, "StorageDirectory": str(self.store), "Plugins": [],
            "IndexDirectory": str(self.folder / "index"),
        }  # fmt: skip
        if not self._sync:
            configuration["SyncStorageArea"] = False
        file = self.folder / "orthanc.json"
        file.write_text(json.dumps(configuration))
        self._launch([program, str(file)], self._environment)

    def clean(self, sent: SentSet) -> None:
        """Through its REST interface, as its index must know."""
        url = f"http://127.0.0.1:{self._http_port}/studies"
        with urllib.request.urlopen(url, timeout=60) as answer:
            studies = json.load(answer)
        for study in studies:
            urllib.request.urlopen(urllib.request.Request(f"{url}/{study}", method="DELETE"), timeout=120).close()


class StockPynetdicom(Receiver):
    """pynetdicom as it comes, without fsync."""

    def start(self) -> None:
        """stock_pynetdicom.py."""
        self._launch([sys.executable, str(HERE / "stock_pynetdicom.py"), str(self.port), str(self.store)])


class OurReceiver(Receiver):
    """`dicom-node receive`, `processes` of them on one port, or under `wrapper` (a profiler's command line)."""

    called = "LIVERNODE"

    def __init__(
        self,
        name: str,
        folder: Path,
        durable_ack: str,
        processes: int = 1,
        wrapper: Callable[[int], list[str]] | None = None,
    ) -> None:
        super().__init__(name, folder)
        self._count, self._wrapper = processes, wrapper
        self._environment = {
            "PYTHONPATH": str(ROOT), "DICOM_NODE_DATA_DIR": str(folder), "DICOM_NODE_DICOM_HOST": "127.0.0.1",
            "DICOM_NODE_DICOM_PORT": str(self.port), "DICOM_NODE_DURABLE_ACK": durable_ack,
            "DICOM_NODE_RECEIVERS": str(processes),
            "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
        }  # fmt: skip
        self.store = folder / "incoming"

    def start(self) -> None:
        """All its processes."""
        (self.folder / "run").mkdir(exist_ok=True)
        for number in range(1, self._count + 1):
            command = self._wrapper(number) if self._wrapper else [sys.executable, "-m", "dicom_node"]
            self._launch([*command, "receive", *([str(number)] if self._count > 1 else [])], self._environment)

    def clean(self, sent: SentSet) -> None:
        """What the index does after it took an entry."""
        for path in [*self.store.glob("*.dcm"), *self.store.glob("*.opened.json"), *self.store.glob("*.closed.json")]:
            path.unlink(missing_ok=True)


class WholeNode(Receiver):
    """`dicom-node up`: reception, index, scheduler, worker and servers on the same two hands."""

    called = "LIVERNODE"

    def __init__(self, name: str, folder: Path, durable_ack: str) -> None:
        super().__init__(name, folder)
        self.store = folder / "data"
        self._environment = {
            "PYTHONPATH": str(ROOT), "DICOM_NODE_DICOM_HOST": "127.0.0.1", "DICOM_NODE_DURABLE_ACK": durable_ack,
            "XDG_STATE_HOME": str(folder / "state"),
        }  # fmt: skip

    def start(self) -> None:
        """Embedded servers; no rules, so that nothing is computed."""
        command = [sys.executable, "-m", "dicom_node", "up", "--data-dir", str(self.store)]
        command += ["--dicom-port", str(self.port), "--console-port", str(free_port())]
        self._launch(command, self._environment, within_s=120)

    def clean(self, sent: SentSet) -> None:
        """Nothing: the index knows them."""

    def kept(self) -> dict[str, list[Path]]:
        """Store, quarantine and journal; the embedded servers' files are none."""
        found: dict[str, list[Path]] = {}
        for part in ("store", "quarantine", "incoming"):
            for path in (self.store / part).rglob("*.dcm"):
                with suppress(NotPart10Error, FileNotFoundError):
                    found.setdefault(read_file_head(path).sop_instance_uid, []).append(path)
        return found
