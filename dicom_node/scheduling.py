"""The scheduler: index what arrived, have each study considered, ring the workers, sweep up after the dead.

One is active at a time (an advisory lock in PostgreSQL); a second one waits as a spare.
"""

import json
import os
import threading
import time
from contextlib import suppress

import psycopg
import structlog
from kombu.exceptions import OperationalError as BrokerAway

import storage.associations
import storage.configurations
import storage.deliveries
import storage.events
import storage.instances
import storage.jobs
import storage.outbox
import storage.studies
from dicom_node import commitment_requests, tasks
from dicom_node.audit import Trail
from dicom_node.audit.transfers import note_transfers
from dicom_node.commitment import Commitments
from dicom_node.disk import DiskWatermark, reserve_bytes
from dicom_node.indexing import index_incoming
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY
from dicom_node.study_desk import StudyDesk
from dicom_node.transactions import Transactions

log = structlog.get_logger()

POLL_S = 0.1
SWEEP_S = 1.0
FORGET_EVERY_S = 3600.0
RING_AGAIN_S = 20.0  # a waiting job whose message seems lost is announced again after so long
ADVISORY_LOCK = 7_240_111  # any number, the same in every version
#: who runs urgent jobs when there is no worker for them alone
STAND_INS = {storage.jobs.STAT: "gpu"}


class Scheduler:
    """The loop. `step` does everything once and is what the tests call."""

    def __init__(self, node: Node, trail: Trail | None = None) -> None:
        self.node = node
        self._trail = trail
        self._swept_at = self._forgot_at = 0.0
        self._commitments = Commitments(node)
        self._desk = StudyDesk(node)
        self._senders_version = -1
        self._disk: DiskWatermark | None = None
        self._disk_was_low = False

    def run(self, stop: threading.Event, on_ready: object = None) -> None:
        """Loop until `stop`; outlives the database and the broker."""
        holder: psycopg.Connection | None = None
        while not stop.is_set():
            try:
                if holder is None or holder.closed:
                    holder = self._become_active(stop)
                    if holder is None:
                        return
                    if callable(on_ready):
                        on_ready()
                holder.execute("SELECT 1")  # raises when the server, and with it our lock, is gone
                busy = self.step()
                stop.wait(0.0 if busy else POLL_S)
            except DATABASE_AWAY as error:
                log.warning("database away", error=type(error).__name__)
                holder = None
                stop.wait(0.3)
        if holder is not None:
            holder.close()

    def _become_active(self, stop: threading.Event) -> psycopg.Connection | None:
        connection = psycopg.connect(str(self.node.settings.database_url), autocommit=True)
        while not stop.is_set():
            row = connection.execute("SELECT pg_try_advisory_lock(%s)", (ADVISORY_LOCK,)).fetchone()
            if row and row[0]:
                return connection
            stop.wait(0.5)
        connection.close()
        return None

    def step(self) -> bool:
        """Everything once. True when there was something to do."""
        indexed = index_incoming(self.node.settings.incoming_dir, self.node.store, self.node.pool)
        judged = self._commitments.step()
        self._tell_receivers_the_senders()
        considered = self._desk.consider_due()
        if time.monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = time.monotonic()
            self._watch_disk()
            self._sweep()
        rung = self._relay_outbox()
        return bool(indexed or judged or considered or rung)

    def _relay_outbox(self) -> int:
        """Announced changes become messages. The row goes only after the broker has the message."""
        with self.node.pool.connection() as connection:
            rows = storage.outbox.take(connection, 100)
            if not rows:
                return 0
            try:
                for row in rows:
                    tasks.ring(row.task, row.argument, row.queue)
            except (BrokerAway, OSError) as error:
                connection.rollback()
                log.warning("broker away", error=type(error).__name__)
                return 0
            storage.outbox.delete(connection, [row.id for row in rows])
        return len(rows)

    def _watch_disk(self) -> None:
        """Tell when reception begins and ends to refuse objects for want of disk space."""
        settings = self.node.settings
        try:
            if self._disk is None:
                reserve = reserve_bytes(settings.data_dir, settings.disk_reserve_mb)
                self._disk = DiskWatermark(settings.data_dir, reserve)
            is_low = self._disk.is_low()
        except OSError as error:
            log.error("disk space cannot be read", error=error.strerror)
            return
        if is_low == self._disk_was_low:
            return
        reserve_mb = self._disk.reserve >> 20
        if is_low:
            text = f"disk nearly full: less than {reserve_mb} MiB free, objects are refused with A700; make room"
        else:
            text = "disk space is back: objects are taken again"
        with self.node.pool.connection() as connection:
            storage.events.add(connection, None, "disk", text, {"reserve_mb": reserve_mb})
        self._disk_was_low = is_low

    def _sweep(self) -> None:
        """Jobs of dead workers, messages that were lost, deliveries and answers that are due again."""
        settings = self.node.settings
        with self.node.pool.connection() as connection:
            for job in storage.jobs.overdue(connection, settings.job_attempts, RING_AGAIN_S, STAND_INS):
                storage.events.add(connection, job.study_instance_uid, "job", f"{job.pipeline}: {job.reason}", {})
                log.warning("job taken back", job=job.id, state=job.state, reason=job.reason)
        if self._trail is not None:
            note_transfers(self._trail, self.node.pool, self.node.store.path)
        with self.node.pool.connection() as connection:
            for destination in storage.deliveries.due_destinations(connection, RING_AGAIN_S):
                storage.outbox.add(connection, "cpu", "deliver", destination)
        for calling_ae_title in self._commitments.sweep():
            with self.node.pool.connection() as connection:
                storage.outbox.add(connection, "cpu", "report_commitments", calling_ae_title)
        for destination in commitment_requests.sweep(self.node):
            with self.node.pool.connection() as connection:
                storage.outbox.add(connection, "cpu", "ask_archive", destination)
        if time.monotonic() - self._forgot_at > FORGET_EVERY_S:
            self._forgot_at = time.monotonic()
            with suppress(OSError):
                Transactions(settings.asked_dir).sweep()

    def _tell_receivers_the_senders(self) -> None:
        """The receiver must know its senders while the database is away: a file tells it."""
        configuration = self.node.configuration()
        if self._senders_version == self.node.configuration_version:
            return
        target = self.node.settings.data_dir / "senders.json"
        aside = target.with_suffix(".tmp")
        known = [*configuration.senders, *commitment_requests.archives(configuration)]
        aside.write_text(json.dumps([sender.as_json() for sender in known]))
        os.replace(aside, target)
        self._senders_version = self.node.configuration_version
