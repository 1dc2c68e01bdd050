"""One process's end of the audit trail: events go into a bounded queue, a thread writes them to the sinks."""

import queue
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from dicom_node.audit import events
from dicom_node.audit.message import Event, Outcome, as_xml
from dicom_node.audit.sinks import FolderSink, Sink, SyslogSink
from dicom_node.dimse.tls import TlsFiles, client_context
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings

log = structlog.get_logger()

_QUEUE = 10_000
_BATCH = 200
_RETRY_S = 1.0
_LAST_WRITES_S = 5.0


class Trail:
    """Takes events from any thread, at once and without ever raising; what cannot be kept is counted and said."""

    def __init__(self, sinks: list[Sink], ae_title: str, site: str = "", capacity: int = _QUEUE) -> None:
        """capacity : events that wait for each sink; beyond it new ones are dropped for that sink."""
        self.ae_title = ae_title
        self._site = site
        self._writers = [_Writer(sink, self._record, self._lost, capacity) for sink in sinks]

    def note(self, event: Event) -> None:
        """Record an event."""
        for writer in self._writers:
            writer.put(event)

    def close(self) -> None:
        """Write what waits, for a few seconds at most."""
        for writer in self._writers:
            writer.stop()
        deadline = time.monotonic() + _LAST_WRITES_S
        for writer in self._writers:
            writer.join(max(0.1, deadline - time.monotonic()))

    def _record(self, event: Event) -> tuple[str, bool]:
        return as_xml(event, self.ae_title, self._site), event.outcome is not Outcome.SUCCESS

    def _lost(self, count: int) -> Event:
        return events.records_lost(self.ae_title, count)


class _Writer(threading.Thread):
    """Feeds one sink, so that one that is away holds no other up."""

    def __init__(
        self,
        sink: Sink,
        record: Callable[[Event], tuple[str, bool]],
        lost: Callable[[int], Event],
        capacity: int,
    ) -> None:
        super().__init__(name="audit", daemon=True)
        self._sink = sink
        self._record = record
        self._lost = lost
        self._queue: queue.Queue[Event] = queue.Queue(capacity)
        self._dropped = 0
        self._lock = threading.Lock()
        self._stopping = threading.Event()
        self._wake = threading.Event()
        self.start()

    def put(self, event: Event) -> None:
        try:
            self._queue.put_nowait(event)
        except queue.Full:
            with self._lock:
                self._dropped += 1
                first = self._dropped == 1
            if first:
                log.error("audit records are dropped: they cannot be written as fast as they come")
        self._wake.set()

    def stop(self) -> None:
        self._stopping.set()
        self._wake.set()

    def run(self) -> None:
        waiting: list[tuple[str, bool]] = []
        was_away = False
        while True:
            if not waiting:
                waiting = self._next()
            if not waiting:
                if self._stopping.is_set():
                    break
                self._wake.wait()
                self._wake.clear()
                continue
            try:
                self._sink.write(waiting)
            except Exception as error:  # noqa: BLE001 - the trail goes on whatever happens to a sink
                if not was_away:
                    log.error("audit records cannot be written; they wait", reason=_reason(error))
                was_away = True
                if self._stopping.is_set():
                    log.error("audit records lost at the end", count=len(waiting) + self._queue.qsize())
                    break
                self._stopping.wait(_RETRY_S)
            else:
                if was_away:
                    log.info("audit records are written again")
                was_away = False
                waiting = []
        self._sink.close()

    def _next(self) -> list[tuple[str, bool]]:
        found: list[tuple[str, bool]] = []
        while len(found) < _BATCH:
            try:
                event = self._queue.get_nowait()
            except queue.Empty:
                break
            try:
                found.append(self._record(event))
            except Exception as error:  # noqa: BLE001 - the others are to be written all the same
                log.error("audit record could not be made", event_id=event.code.value, error=type(error).__name__)
        with self._lock:
            dropped, self._dropped = self._dropped, 0
        return [*found, self._record(self._lost(dropped))] if dropped else found


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error or type(error).__name__)


@contextmanager
def open_trail(settings: Settings, component: str = "") -> Iterator[Trail]:
    """The trail of one process. Raises ConfigurationError.

    component : the part of the node that starts and stops, which are events too; empty: a command that is no part.
    """
    sinks: list[Sink] = []
    if component or settings.data_dir.is_dir():  # a command may run far from the node's data
        sinks.append(FolderSink(settings.audit_dir, settings.audit_max_megabytes * 1_000_000))
    if settings.audit_syslog:
        files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.audit_syslog_ca, settings.key_password())
        if settings.audit_syslog.startswith("tls:"):
            client_context(files)  # what is wrong with the files is told now

        def context() -> ssl.SSLContext:
            try:
                return client_context(files)
            except ConfigurationError as error:
                raise OSError(str(error)) from error

        sinks.append(SyslogSink(settings.audit_syslog, context))
    trail = Trail(sinks, settings.ae_title, settings.audit_site)
    if component:
        trail.note(events.started(settings.ae_title, component))
    try:
        yield trail
    finally:
        if component:
            trail.note(events.stopped(settings.ae_title, component))
        trail.close()
