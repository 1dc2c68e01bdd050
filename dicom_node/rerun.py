"""Run pipelines once more on purpose: after a new version or new bundles, on all images that are there by now."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import storage.associations
import storage.events
import storage.instances
import storage.jobs
import storage.studies
from dicom_node.assembly import Ready, bind, decide
from dicom_node.errors import NodeError
from dicom_node.node import Node
from dicom_node.recognition.ct_pixels import Enhancement, measure_enhancement
from dicom_node.recognition.stacks import Stack
from dicom_node.recognition.study import recognise
from dicom_node.routing.matching import match
from pipelines.catalogue import PIPELINES
from storage.records import Job, Study


@dataclass(frozen=True)
class Rerun:
    """What was asked for one pipeline."""

    pipeline: str
    job: Job | None  # None: one that will do the same waits already
    reason: str  # on which images, and why


@dataclass(frozen=True)
class _Request:
    """A run as it would be asked for."""

    pipeline: str
    fingerprint: str
    rule: str
    inputs: Mapping[str, Any]
    send_to: Sequence[str]
    report_refusal: bool
    queue: str
    reason: str


def rerun(node: Node, study_instance_uid: str, pipeline: str | None = None) -> list[Rerun]:
    """Ask for one more run of a pipeline on a study; of every pipeline that a rule gives it, where none is named.

    The images are those that are bound now; where they are not complete, those of the last run. A worker whose version
    and bundles have answered these very images before ends the job without an answer.
    Raises NodeError when the study is not known, or when nothing can run on it.
    """
    with node.pool.connection() as connection:
        study = storage.studies.get(connection, study_instance_uid)
    if study is None:
        raise NodeError(f"study {study_instance_uid}: nothing was received")
    wanted = {request.pipeline: request for request in (*_repeated(node, study), *_by_rules(node, study))}
    asked = [request for name, request in wanted.items() if pipeline in (None, name)]
    if not asked:
        which = pipeline or "any pipeline"
        raise NodeError(f"study {study_instance_uid}: no rule gives it to {which}, and none has run on it")
    return [_ask(node, study, request) for request in asked]


def _by_rules(node: Node, study: Study) -> Iterator[_Request]:
    """What the rules in force would run on the images that are there."""
    uid = study.study_instance_uid
    with node.pool.connection() as connection:
        associations = storage.associations.for_study(connection, uid)
        instances = storage.instances.for_study(connection, uid)
        series = storage.instances.series_for_study(connection, uid)
    settings = node.settings

    def enhancement(stack: Stack) -> Enhancement | None:
        return measure_enhancement([node.store.path(instance.path) for instance in stack.instances])

    recognised = recognise(instances, pixels=enhancement)
    for rule_match in match(node.configuration(), series, recognised):
        rule = rule_match.rule
        if not rule_match.matched:
            continue
        binding = bind(PIPELINES[rule.run], recognised, rule.roles, series)
        verdict = decide(
            binding,
            associations,
            last_received_at=study.last_received_at,
            now=datetime.now(UTC),
            quiet_period_s=settings.quiet_period_s,
            overdue_s=settings.overdue_s,
            association_idle_s=settings.association_idle_s,
        )
        if isinstance(verdict, Ready):
            yield _Request(rule.run, verdict.fingerprint, rule.name, verdict.inputs, rule.send_to,
                           rule.report_refusal, rule.queue, f"rule {rule.name!r}: {verdict.evidence}")  # fmt: skip


def _repeated(node: Node, study: Study) -> Iterator[_Request]:
    """What has run before, on the same images, to where the rule of that name sends now."""
    rules = {rule.name: rule for rule in node.configuration().rules}
    with node.pool.connection() as connection:
        jobs = storage.jobs.for_study(connection, study.study_instance_uid)
    for job in jobs:  # oldest first: of one pipeline the last one counts
        if job.state != "superseded" and job.pipeline in PIPELINES and not job.partial:
            rule = rules.get(job.rule)
            send_to = rule.send_to if rule else job.send_to
            report_refusal = rule.report_refusal if rule else job.report_refusal
            queue = rule.queue if rule else job.queue
            yield _Request(job.pipeline, job.fingerprint, job.rule, job.inputs, send_to, report_refusal, queue,
                           f"the images of job {job.id}")  # fmt: skip


def _ask(node: Node, study: Study, request: _Request) -> Rerun:
    with node.pool.connection() as connection:
        job = storage.jobs.request(
            connection,
            study_instance_uid=study.study_instance_uid,
            pipeline=request.pipeline,
            fingerprint=request.fingerprint,
            rule=request.rule,
            inputs=request.inputs,
            send_to=list(request.send_to),
            queue=request.queue,
            report_refusal=request.report_refusal,
            again=True,
        )
        if job is not None:
            text = f"{request.pipeline} is to run again: {request.reason}"
            storage.events.add(connection, study.study_instance_uid, "job", text, {"job": job.id})
    return Rerun(request.pipeline, job, request.reason)
