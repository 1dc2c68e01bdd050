"""The scheduler: index what arrived, decide what each study needs, ring the workers, sweep up after the dead.

One is active at a time (an advisory lock in PostgreSQL); a second one waits as a spare.
"""

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

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
from dicom_node.assembly import Binding, Overdue, Ready, bind, decide
from dicom_node.audit import Trail
from dicom_node.audit.transfers import note_transfers
from dicom_node.commitment import Commitments
from dicom_node.disk import DiskWatermark, reserve_bytes
from dicom_node.early_answers import LOOK_AGAIN_S, Early, Later, early_answer
from dicom_node.indexing import index_incoming
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY
from dicom_node.recognition.ct_pixels import Enhancement, measure_enhancement
from dicom_node.recognition.stacks import Stack
from dicom_node.recognition.study import Recognised, recognise
from dicom_node.routing.matching import RuleMatch, match
from dicom_node.transactions import Transactions
from pipelines.catalogue import PIPELINES
from storage.records import Association, Instance, Job, Series, Study

log = structlog.get_logger()

POLL_S = 0.1
SWEEP_S = 1.0
FORGET_EVERY_S = 3600.0
RING_AGAIN_S = 20.0  # a waiting job whose message seems lost is announced again after so long
ADVISORY_LOCK = 7_240_111  # any number, the same in every version
REMEMBERED_ENHANCEMENTS = 256
REMEMBERED_STUDIES = 256
EARLY_LOOK_EVERY_S = 0.25
#: who runs urgent jobs when there is no worker for them alone
STAND_INS = {storage.jobs.STAT: "gpu"}

Pixels = dict[str, Enhancement | None]


class Scheduler:
    """The loop. `step` does everything once and is what the tests call."""

    def __init__(self, node: Node, trail: Trail | None = None) -> None:
        self.node = node
        self._trail = trail
        self._swept_at = self._forgot_at = 0.0
        self._commitments = Commitments(node)
        self._senders_version = -1
        self._enhancements: Pixels = {}
        self._early_looks: dict[str, datetime] = {}  # study -> not before
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
        considered = self._consider_due_studies()
        if time.monotonic() - self._swept_at > SWEEP_S:
            self._swept_at = time.monotonic()
            self._watch_disk()
            self._sweep()
        rung = self._relay_outbox()
        return bool(indexed or judged or considered or rung)

    # ---- studies

    def _consider_due_studies(self) -> int:
        with self.node.pool.connection() as connection:
            due = storage.studies.due(connection, 20)
        for study in due:
            try:
                self._consider(study)
            except DATABASE_AWAY:
                raise
            except Exception as error:
                log.exception("study could not be considered", study=study.study_instance_uid)
                reason = f"internal error while looking at this study: {type(error).__name__}: {error}"
                self._set_state(study, "overdue", reason, None)
        return len(due)

    def _consider(self, study: Study) -> None:
        """Recognise, match, bind, decide: what does this study need now?"""
        now = datetime.now(UTC)
        uid = study.study_instance_uid
        stat_rules = {rule.name for rule in self.node.configuration().rules if rule.stat and rule.enabled}
        with self.node.pool.connection() as connection:
            associations = storage.associations.for_study(connection, uid)
            busy_until = self._busy_until(study, associations, now)
            look_at = self._looks_early_at(uid) if stat_rules else None
            if busy_until and (look_at is None or look_at > now):
                self._collect(connection, study, busy_until, look_at)
                return
            instances = storage.instances.for_study(connection, uid)
            series = storage.instances.series_for_study(connection, uid)
            jobs = storage.jobs.for_study(connection, uid)
        begun = time.monotonic()
        recognised = recognise(instances, pixels=None if busy_until else self._enhancement)
        matches = match(self.node.configuration(), series, recognised)
        if busy_until:
            look_at = self._answer_early(study, matches, recognised, series, jobs, now, begun)
            with self.node.pool.connection() as connection:
                self._collect(connection, study, busy_until, look_at)
            return
        self._keep_verdicts(uid, recognised)
        verdicts = [
            self._decide(rule_match, recognised, series, study, associations, jobs, now)
            for rule_match in matches
            if rule_match.matched
        ]
        self._conclude(study, matches, verdicts)

    def _collect(
        self, connection: psycopg.Connection, study: Study, busy_until: datetime, look_at: datetime | None
    ) -> None:
        text = "images are arriving: an association with the sender is open"
        wake_at = min(busy_until, look_at) if look_at else busy_until
        storage.studies.set_state(
            connection, study.study_instance_uid, "collecting", text, wake_at, study.look_again_at
        )

    def _busy_until(self, study: Study, associations: Sequence[Association], now: datetime) -> datetime | None:
        """While a sender's association is open and lively there is nothing to decide yet."""
        idle_at = study.last_received_at + timedelta(seconds=self.node.settings.association_idle_s)
        return idle_at if idle_at > now and any(a.state == "open" for a in associations) else None

    # ---- early answers

    def _looks_early_at(self, uid: str) -> datetime:
        """When a study that is still arriving may be looked at: not again for ten times as long as a look took."""
        return self._early_looks.get(uid, datetime.fromtimestamp(0, UTC))

    def _answer_early(
        self,
        study: Study,
        matches: Sequence[RuleMatch],
        recognised: Recognised,
        series: Sequence[Series],
        jobs: Sequence[Job],
        now: datetime,
        begun: float,
    ) -> datetime | None:
        """Ask for what can be answered of a study that is arriving; when to look again (None: when it has ended)."""
        wake: list[datetime] = []
        for rule_match in matches:
            if rule_match.matched and rule_match.rule.stat:
                pipeline = PIPELINES[rule_match.rule.run]
                binding = bind(pipeline, recognised, rule_match.rule.roles, series)
                early = self._early(rule_match, binding, study, jobs, now)
                if isinstance(early, Ready):
                    self._start(rule_match, binding, early, study, jobs)
                elif early is not None:
                    wake.append(early)
        while len(self._early_looks) >= REMEMBERED_STUDIES:
            self._early_looks.pop(next(iter(self._early_looks)))
        rest_s = max(EARLY_LOOK_EVERY_S, 10 * (time.monotonic() - begun))
        self._early_looks.pop(study.study_instance_uid, None)
        self._early_looks[study.study_instance_uid] = now + timedelta(seconds=rest_s)
        return max(min(wake), now + timedelta(seconds=rest_s)) if wake else None

    def _early(
        self, rule_match: RuleMatch, binding: Binding, study: Study, jobs: Sequence[Job], now: datetime
    ) -> Ready | datetime | None:
        """A whole exam to answer, or when to look again; an answer to a part of it is asked for here."""
        rule = rule_match.rule
        of_pipeline = [job for job in jobs if job.pipeline == rule.run]
        found = early_answer(binding, of_pipeline, now)
        if isinstance(found, Early):
            late = any(job.state in ("running", "done", "refused") and not job.partial for job in of_pipeline)
            if not late or (rule.late or self.node.settings.late_images) == "rerun":
                self._request(rule_match, binding, Ready(found.fingerprint, found.inputs, found.evidence), study,
                              found.partial)  # fmt: skip
            return now + timedelta(seconds=LOOK_AGAIN_S)
        return found.at if isinstance(found, Later) else found

    # ---- whole studies

    def _decide(
        self,
        rule_match: RuleMatch,
        recognised: Recognised,
        series: Sequence[Series],
        study: Study,
        associations: Sequence[Association],
        jobs: Sequence[Job],
        now: datetime,
    ) -> tuple[str, str, datetime | None]:
        """-> (state of the study as far as this rule goes, reason, when to look again)."""
        rule = rule_match.rule
        pipeline = PIPELINES[rule.run]
        binding = bind(pipeline, recognised, rule.roles, series)
        settings = self.node.settings
        verdict = decide(
            binding,
            associations,
            last_received_at=study.last_received_at,
            now=now,
            quiet_period_s=settings.quiet_period_s,
            overdue_s=settings.overdue_s,
            association_idle_s=settings.association_idle_s,
        )
        wake = None
        if rule.stat and not isinstance(verdict, Ready):
            early = self._early(rule_match, binding, study, jobs, now)
            if isinstance(early, Ready):
                verdict = early
            else:
                wake = early
        prefix = f"rule {rule.name!r}, {pipeline.name}: "
        if isinstance(verdict, Overdue):
            return "overdue", prefix + verdict.reason, wake
        if not isinstance(verdict, Ready):
            return "waiting", prefix + verdict.reason, min(verdict.until, wake) if wake else verdict.until
        return "ready", prefix + self._start(rule_match, binding, verdict, study, jobs), None

    def _start(self, rule_match: RuleMatch, binding: Binding, ready: Ready, study: Study, jobs: Sequence[Job]) -> str:
        """Ask for the run, unless it is one on late images that the rule does not want; says why."""
        rule, earlier = (
            rule_match.rule,
            [
                job
                for job in jobs
                if job.pipeline == rule_match.rule.run
                and job.state in ("running", "done", "refused")
                and not job.partial
            ],
        )
        if earlier and all(job.fingerprint != ready.fingerprint for job in earlier):
            text = f"rule {rule.name!r}, {rule.run}: images came after job {earlier[-1].id} had started"
            policy = rule.late or self.node.settings.late_images
            if policy != "rerun":
                if policy == "alert":
                    self._say_once(study, "late", text + "; the result does not cover them (late: alert)")
                return f"images came after job {earlier[-1].id} had started"
            self._say_once(study, "late", text + "; the pipeline runs again on all images")
        self._request(rule_match, binding, ready, study)
        return ready.evidence

    def _request(self, rule_match: RuleMatch, binding: Binding, ready: Ready, study: Study, partial: str = "") -> None:
        rule = rule_match.rule
        pipeline = PIPELINES[rule.run]
        with self.node.pool.connection() as connection:
            job = storage.jobs.request(
                connection,
                study_instance_uid=study.study_instance_uid,
                pipeline=pipeline.name,
                fingerprint=ready.fingerprint,
                rule=rule.name,
                inputs=ready.inputs,
                send_to=list(rule.send_to),
                queue=rule.queue,
                # of a part that cannot be read nobody must think that the exam cannot
                report_refusal=rule.report_refusal and not partial,
                partial=partial,
            )
            if job is not None:
                text = f"rule {rule.name!r} starts {pipeline.name}: {ready.evidence}"
                details = {"job": job.id, "bound": binding.reasons}
                storage.events.add(connection, study.study_instance_uid, "job", text, details)
                log.info("job requested", job=job.id, pipeline=pipeline.name, study=study.study_instance_uid)

    def _conclude(
        self,
        study: Study,
        matches: Sequence[RuleMatch],
        verdicts: Sequence[tuple[str, str, datetime | None]],
    ) -> None:
        if not verdicts:
            why = "; ".join(f"rule {m.rule.name!r}: {m.reason}" for m in matches) or "no rules are configured"
            self._set_state(study, "unrouted", why, None)
            return
        order = ("overdue", "waiting", "ready")  # the most pressing one names the study's state
        state = min((verdict[0] for verdict in verdicts), key=order.index)
        wake = [verdict[2] for verdict in verdicts if verdict[2] is not None]
        self._set_state(study, state, "; ".join(verdict[1] for verdict in verdicts), min(wake) if wake else None)

    def _set_state(self, study: Study, state: str, reason: str, look_again_at: datetime | None) -> None:
        with self.node.pool.connection() as connection:
            storage.studies.set_state(
                connection, study.study_instance_uid, state, reason, look_again_at, study.look_again_at
            )
            if (state, reason) != (study.state, study.reason):
                storage.events.add(connection, study.study_instance_uid, state, reason, {})

    def _say_once(self, study: Study, kind: str, text: str) -> None:
        with self.node.pool.connection() as connection:
            known = storage.events.for_study(connection, study.study_instance_uid)
            if not any(event.kind == kind and event.text == text for event in known):
                storage.events.add(connection, study.study_instance_uid, kind, text, {})

    def _keep_verdicts(self, uid: str, recognised: Recognised) -> None:
        with self.node.pool.connection() as connection:
            for verdict in recognised.series:
                storage.instances.set_series_kind(
                    connection, uid, verdict.series_instance_uid, verdict.kind, verdict.reason
                )

    def _enhancement(self, stack: Stack) -> Enhancement | None:
        """What the pixels say, read once per stack and number of images."""
        key = f"{stack.stack_id} {len(stack.instances)}"
        if key not in self._enhancements:
            while len(self._enhancements) >= REMEMBERED_ENHANCEMENTS:
                self._enhancements.pop(next(iter(self._enhancements)))
            self._enhancements[key] = measure_enhancement(self._paths(stack.instances))
        return self._enhancements[key]

    def _paths(self, instances: Sequence[Instance]) -> list[Path]:
        return [self.node.store.path(instance.path) for instance in instances]

    # ---- workers

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
