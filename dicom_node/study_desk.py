"""What does each study need now: recognise it, match the rules, bind the roles, decide, and ask for the job.

A study comes to the desk when images of it have arrived or when it wanted to be looked at again; while it arrives only
rules with `stat` look at it, for what can be answered early.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import structlog

import storage.associations
import storage.events
import storage.instances
import storage.jobs
import storage.studies
from dicom_node.assembly import Binding, Overdue, Ready, bind, decide
from dicom_node.early_answers import LOOK_AGAIN_S, Early, Later, early_answer
from dicom_node.node import Node
from dicom_node.patience import DATABASE_AWAY
from dicom_node.recognition.ct_pixels import Enhancement, measure_enhancement
from dicom_node.recognition.stacks import Stack
from dicom_node.recognition.study import Recognised, recognise
from dicom_node.routing.configuration import Rule
from dicom_node.routing.matching import RuleMatch, match
from pipelines.catalogue import PIPELINES
from storage.records import Association, Job, Series, Study

log = structlog.get_logger()

DUE_AT_ONCE = 20
REMEMBERED_ENHANCEMENTS = 256
REMEMBERED_STUDIES = 256
EARLY_LOOK_EVERY_S = 0.25


class StudyDesk:
    """Considers studies one after the other; remembers what was read from their pixels."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self._enhancements: dict[str, Enhancement | None] = {}
        self._early_looks: dict[str, datetime] = {}  # study -> not before

    def consider_due(self) -> int:
        """Consider the studies whose time has come; how many. One that cannot be considered says so and is put by."""
        with self.node.pool.connection() as connection:
            due = storage.studies.due(connection, DUE_AT_ONCE)
        for study in due:
            try:
                self.consider(study)
            except DATABASE_AWAY:
                raise
            except Exception as error:
                log.exception("study could not be considered", study=study.study_instance_uid)
                reason = f"internal error while looking at this study: {type(error).__name__}: {error}"
                self._set_state(study, "overdue", reason, None)
        return len(due)

    def consider(self, study: Study) -> None:
        """Recognise, match, bind, decide: what does this study need now?"""
        now = datetime.now(UTC)
        uid = study.study_instance_uid
        looks_early = any(rule.stat and rule.enabled for rule in self.node.configuration().rules)
        with self.node.pool.connection() as connection:
            associations = storage.associations.for_study(connection, uid)
            busy_until = self._busy_until(study, associations, now)
            look_at = self._looks_early_at(uid) if looks_early else None
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
            if not _begun(of_pipeline) or self._late_policy(rule) == "rerun":
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
        rule = rule_match.rule
        earlier = _begun([job for job in jobs if job.pipeline == rule.run])
        if earlier and all(job.fingerprint != ready.fingerprint for job in earlier):
            why = f"images came after job {earlier[-1].id} had started"
            text = f"rule {rule.name!r}, {rule.run}: {why}"
            policy = self._late_policy(rule)
            if policy != "rerun":
                if policy == "alert":
                    self._say_once(study, "late", text + "; the result does not cover them (late: alert)")
                return why
            self._say_once(study, "late", text + "; the pipeline runs again on all images")
        self._request(rule_match, binding, ready, study)
        return ready.evidence

    def _late_policy(self, rule: Rule) -> str:
        return rule.late or self.node.settings.late_images

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
            paths = [self.node.store.path(instance.path) for instance in stack.instances]
            self._enhancements[key] = measure_enhancement(paths)
        return self._enhancements[key]


def _begun(jobs: Sequence[Job]) -> list[Job]:
    """Those on whole inputs that are running or have answered."""
    return [job for job in jobs if job.state in ("running", "done", "refused") and not job.partial]
