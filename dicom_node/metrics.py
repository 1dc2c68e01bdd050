"""What this process counts for Prometheus. Every part of the node counts into a file of its own; the console adds up.

The functions below cost well under a microsecond: they note what happened, and a thread counts it a moment later.
Before `start` (tests, commands of the administrator) they do nothing. Labels are AE titles of configured senders, names
of destinations, statuses and our own words: never what an unknown peer or a Dataset says; a scan of the network would
fill the memory.
"""

import atexit
import json
import os
import re
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger()

COUNT_EVERY_S = 0.5
_ALIVE_EVERY_S = 5.0
_DEAD_AFTER_S = 86400.0
_FILE_BYTES = 1 << 20  # room for about 4000 series; see _reserve
_MOST_NOTES = 200_000
_MOST_SENDERS, _MOST_REASONS = 200, 64
OTHER = "other"
SECONDS_BUCKETS = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
DELIVERY_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0, 43200.0)

_notes: "deque[tuple[Any, ...]]" = deque(maxlen=_MOST_NOTES)
_counting: "_Counting | None" = None


def folder_of(data_dir: Path) -> Path:
    """Where the parts of a node count."""
    return data_dir / "run" / "metrics"


def start(data_dir: Path, part: str) -> None:
    """Count from now on, as the part of this name ("receive-1") on this machine; a second call changes nothing.

    A part that starts again goes on where the one before it stopped; what a machine has left behind that was not heard
    of for a day is removed. Does not raise: without metrics a node still works.
    """
    global _counting
    if _counting is not None:
        return
    try:
        folder = folder_of(data_dir)
        _forget_the_dead(folder)
        name = re.sub(r"[^0-9A-Za-z.-]", "-", f"{part}.{socket.gethostname()}")  # data_dir may be shared by machines
        _counting = _Counting(folder, name, data_dir / "senders.json")
    except Exception as error:  # noqa: BLE001 - a full disk, a damaged file
        log.error("no metrics from this part", error=repr(error))


def forget_all(data_dir: Path) -> None:
    """Remove what the parts of an earlier life counted; nobody may be counting."""
    folder = folder_of(data_dir)
    if folder.is_dir():
        for file in folder.iterdir():
            file.unlink(missing_ok=True)


def _forget_the_dead(folder: Path) -> None:
    now = time.time()
    for alive in folder.glob("*.alive"):
        try:
            if now - alive.stat().st_mtime > _DEAD_AFTER_S:
                for file in (*folder.glob(f"*_{alive.stem}.db"), alive):
                    file.unlink(missing_ok=True)
        except FileNotFoundError:
            continue  # another part was faster


def count_now() -> None:
    """Count what was noted so far; the thread does so twice a second, and at the end of the process."""
    if _counting is not None:
        _counting.count()


def object_stored(sender: str, n_bytes: int, seconds: float) -> None:
    """A C-STORE was answered with Success. sender : calling AE title; seconds : from the command to the answer."""
    if _counting is not None:
        _notes.append(("stored", sender, n_bytes, seconds))


def object_refused(sender: str, status: int) -> None:
    """A C-STORE was answered with a failure status."""
    if _counting is not None:
        _notes.append(("refused", sender, status))


def association_opened(sender: str) -> None:
    """An association was accepted."""
    if _counting is not None:
        _notes.append(("opened", sender))


def association_closed(sender: str, state: str) -> None:
    """An accepted association ended: "released" or "aborted"."""
    if _counting is not None:
        _notes.append(("closed", sender, state))


def association_refused(reason: str) -> None:
    """An association request was rejected; `reason` is one of our own phrases."""
    if _counting is not None:
        _notes.append(("rejected", reason))


def rate_limited(sender: str, seconds: float) -> None:
    """A sender was made to wait, because it sends more than its limit allows."""
    if _counting is not None:
        _notes.append(("paused", sender, seconds))


def quarantined() -> None:
    """The index set an entry aside."""
    if _counting is not None:
        _notes.append(("quarantined",))


def conflict() -> None:
    """An Instance came again with other bytes."""
    if _counting is not None:
        _notes.append(("conflict",))


def indexed(n_objects: int, seconds: float) -> None:
    """The index took so many objects out of the journal."""
    if _counting is not None:
        _notes.append(("indexed", n_objects, seconds))


def delivered(destination: str, outcome: str, seconds: float | None) -> None:
    """An object was sent, or could have been. destination : name in the rules; outcome : a Fate's word.

    seconds : since it was to be delivered, for one that has arrived.
    """
    if _counting is not None:
        _notes.append(("delivered", destination, outcome, seconds))


class _Counting:
    """The counters of this process, and the thread that moves them."""

    def __init__(self, folder: Path, part: str, senders_file: Path) -> None:
        """Raises OSError."""
        folder.mkdir(parents=True, exist_ok=True)
        for kind in ("counter", "histogram", "gauge_livesum"):
            _reserve(folder / f"{kind}_{part}.db")
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(folder)
        from prometheus_client import CollectorRegistry, Gauge, Histogram, values
        from prometheus_client import Counter as Count

        # by the part's name, not by process id: ids repeat in containers, and a restart would leave files behind
        values.ValueClass = values.MultiProcessValue(process_identifier=lambda: part)
        registry = CollectorRegistry()  # the console reads the files; nothing reads this

        def counter(name: str, text: str, *labels: str) -> Any:
            return Count(f"dicom_node_{name}", text, labels, registry=registry)

        self._stored = counter("objects_stored", "Objects answered with Success", "sender")
        self._bytes = counter("object_bytes", "Bytes of their Datasets", "sender")
        self._refused = counter("objects_refused", "Objects answered with a failure status", "sender", "status")
        self._accepted = counter("associations_accepted", "Associations accepted", "sender")
        self._ended = counter("associations_ended", "Accepted associations that ended", "sender", "state")
        self._rejected = counter("associations_rejected", "Association requests rejected", "reason")
        self._pauses = counter("rate_limit_pauses", "Pauses because of a rate limit", "sender")
        self._paused = counter("rate_limit_pause_seconds", "Their duration", "sender")
        self._quarantined = counter("quarantined", "Journal entries set aside")
        self._conflicts = counter("conflicts", "Instances that came again with other bytes")
        self._indexed = counter("objects_indexed", "Objects taken from the journal into the index")
        self._indexing = counter("indexing_seconds", "Time spent on that")
        self._seconds = Histogram(
            "dicom_node_object_seconds",
            "From a C-STORE request to its answer",
            registry=registry,
            buckets=SECONDS_BUCKETS,
        )
        self._deliveries = counter("delivery_attempts", "Results sent to destinations", "destination", "outcome")
        self._waited = Histogram(
            "dicom_node_delivery_seconds",
            "From a result's order to its arrival",
            ["destination"],
            registry=registry,
            buckets=DELIVERY_BUCKETS,
        )
        self._open = Gauge(
            "dicom_node_associations_open", "Associations now", registry=registry, multiprocess_mode="livesum"
        )
        self._open.set(0)
        self._senders = _Senders(senders_file)
        self._reasons: set[str] = set()
        self._alive = folder / f"{part}.alive"
        self._touched_at = 0.0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="metrics", daemon=True)
        self._thread.start()
        atexit.register(self.count)

    def _run(self) -> None:
        while True:
            time.sleep(COUNT_EVERY_S)
            try:
                self.count()
            except Exception as error:  # noqa: BLE001 - counting goes on with what comes next
                log.error("metrics were not counted", error=repr(error))

    def count(self) -> None:
        """Count what was noted, and show that this process lives."""
        with self._lock:
            if time.monotonic() - self._touched_at > _ALIVE_EVERY_S:
                self._touched_at = time.monotonic()
                with suppress(OSError):
                    self._alive.touch()
            if _notes:
                self._senders.read_again_if_changed()
                self._count([_notes.popleft() for _ in range(len(_notes))])

    def _count(self, notes: list[tuple[Any, ...]]) -> None:
        stored: Counter[str] = Counter()
        n_bytes: Counter[str] = Counter()
        label = self._senders.label
        for note in notes:
            match note:
                case ("stored", sender, size, seconds):
                    stored[sender] += 1
                    n_bytes[sender] += size
                    self._seconds.observe(seconds)
                case ("refused", sender, status):
                    self._refused.labels(label(sender), f"{status:04X}").inc()
                case ("opened", sender):
                    self._accepted.labels(label(sender)).inc()
                    self._open.inc()
                case ("closed", sender, state):
                    self._ended.labels(label(sender), state).inc()
                    self._open.dec()
                case ("rejected", reason):
                    self._rejected.labels(self._reason(reason)).inc()
                case ("paused", sender, seconds):
                    self._pauses.labels(label(sender)).inc()
                    self._paused.labels(label(sender)).inc(seconds)
                case ("quarantined",):
                    self._quarantined.inc()
                case ("conflict",):
                    self._conflicts.inc()
                case ("delivered", destination, outcome, seconds):
                    self._deliveries.labels(destination, outcome).inc()
                    if seconds is not None:
                        self._waited.labels(destination).observe(seconds)
                case ("indexed", n_objects, seconds):
                    self._indexed.inc(n_objects)
                    self._indexing.inc(seconds)
        for sender, count in stored.items():
            self._stored.labels(label(sender)).inc(count)
            self._bytes.labels(label(sender)).inc(n_bytes[sender])

    def _reason(self, reason: str) -> str:
        if reason not in self._reasons and len(self._reasons) >= _MOST_REASONS:
            return OTHER
        self._reasons.add(reason)
        return reason


class _Senders:
    """The AE titles that are labels: those of the configured senders."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._titles: frozenset[str] = frozenset()

    def read_again_if_changed(self) -> None:
        try:
            found = self._file.stat()
            if (found.st_mtime_ns, found.st_ino) == self._stamp:
                return
            self._titles = _ae_titles(json.loads(self._file.read_text("utf-8")))
            self._stamp = found.st_mtime_ns, found.st_ino
        except (OSError, ValueError, AttributeError, TypeError):
            return  # not written yet, or being told about by the receiver: what was known stays true

    def label(self, ae_title: str) -> str:
        return ae_title if ae_title in self._titles else OTHER


def _ae_titles(entries: Any) -> frozenset[str]:
    """The AE titles in a list of senders, each under "ae_title"; those that stand for any are none."""
    listed: Iterable[Any] = entries["senders"] if isinstance(entries, dict) else entries
    titles = sorted({str(entry.get("ae_title") or "") for entry in listed} - {"", "*"})
    return frozenset(titles[:_MOST_SENDERS])


def _reserve(file: Path) -> None:
    """Give a file of counters its blocks now. Raises OSError.

    The library writes to it through memory; on a full disk the kernel would end a process that writes to a hole.
    """
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o640)
    try:
        if os.fstat(descriptor).st_size < _FILE_BYTES:
            try:
                os.posix_fallocate(descriptor, 0, _FILE_BYTES)
            except OSError:
                file.unlink()
                raise
    finally:
        os.close(descriptor)
