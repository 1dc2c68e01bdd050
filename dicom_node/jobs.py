"""One job from start to end: the story a newcomer reads first.

An image that arrives goes   dimse/scp.py -> reception.py -> indexing.py   into the index,
`study_desk.py` recognises it (recognition/), waits for what is missing (assembly.py), asks the rules (routing/) and
writes a job row; a Celery message with the row's id brings a worker here. What the worker makes goes to the
destinations by delivering.py. PostgreSQL holds the truth: a message lost or doubled changes nothing.
"""

import hashlib
from typing import Literal

import structlog

import storage.events
import storage.jobs
import storage.results
from dicom_node.addressing import order, packages_for, place_of
from dicom_node.analysis import Answer, analyse
from dicom_node.encoding.concepts import UnknownConcept
from dicom_node.encoding.package import Package
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.sources import InvalidResult
from dicom_node.lease import kept
from dicom_node.node import Node
from dicom_node.patience import until_database_answers
from dicom_node.succession import before
from pipelines.catalogue import PIPELINES
from storage.records import Job

log = structlog.get_logger()


class Outdone(Exception):
    """The job answers a part of an exam, and a job with all of it waits already."""


class NothingNew(Exception):
    """These images have been answered by this very version of the pipeline and its bundles."""


def run_job(node: Node, job_id: int) -> None:
    """Claim the job, run its pipeline, keep the results, order their delivery; nothing if it is not ours to run."""
    with node.pool.connection() as connection:
        job = storage.jobs.claim(connection, job_id, node.owner, node.settings.job_lease_s)
    if job is None:
        return  # another worker has it, or it is over: the message came twice
    log.info("job started", job=job.id, pipeline=job.pipeline, study=job.study_instance_uid, attempt=job.attempts)
    settings = node.settings

    def renew() -> None:
        with node.pool.connection() as connection:
            storage.jobs.heartbeat(connection, job.id, node.owner, settings.job_lease_s)

    node.running_job = job
    with kept(renew, settings.job_lease_s, settings.job_timeout_s):
        try:
            answer = _work(node, job)
        except (NothingNew, Outdone) as nothing:
            text = str(nothing)
            until_database_answers(lambda: _end(node, job, "superseded", text))
            return
        except (InvalidResult, UnknownConcept) as error:  # another attempt would give the same bytes
            withheld = f"answer withheld: {error}"
            until_database_answers(lambda: _end(node, job, "failed", withheld))
            return
        except Exception as error:
            log.exception("job broke", job=job.id)
            reason = f"{type(error).__name__}: {error}"
            until_database_answers(lambda: _give_back(node, job, reason))
            return
        finally:
            node.running_job = None
        try:
            until_database_answers(lambda: _keep(node, job, answer))
        except storage.results.ResultConflictError as conflict:  # another attempt would give the same
            text = f"parked: {conflict}"
            until_database_answers(lambda: _end(node, job, "failed", text))


def _work(node: Node, job: Job) -> Answer:
    pipeline = PIPELINES[job.pipeline]
    bundles = node.bundles(pipeline)
    earlier = before(node, job)
    provenance = Provenance.of(
        node_id=str(node.node_id),
        study_instance_uid=job.study_instance_uid,
        pipeline=pipeline,
        bundles=bundles,
        fingerprint=job.fingerprint,
        configuration=pipeline.configuration(),
        created_at=job.created_at,  # not "now": a second attempt must give the same bytes
        predecessors=earlier.reports,
        partial=job.partial,
    )
    with node.pool.connection() as connection:
        if not storage.jobs.note_edition(connection, job.id, node.owner, provenance.edition):
            raise NothingNew(f"these images were answered by {pipeline.name} {pipeline.version} with the same bundles")
    inputs = {role: [node.store.path(path) for path in bound["paths"]] for role, bound in job.inputs.items()}
    packages = list(dict.fromkeys(packages_for(node.configuration(), job).values()))
    return analyse(
        pipeline,
        inputs,
        bundles,
        provenance,
        report_refusal=job.report_refusal,
        earlier=earlier.findings,
        packages=packages or [Package().with_kinds(pipeline.objects)],
        between_steps=lambda: _check_wanted(node, job),
    )


def _check_wanted(node: Node, job: Job) -> None:
    """Raise Outdone if the job answers a part of an exam of which all is there by now: that answer must not wait."""
    if job.partial:
        with node.pool.connection() as connection:
            if storage.jobs.is_outdone(connection, job.id):
                raise Outdone("the whole exam is there by now, its answer replaces this one")


def leave(node: Node) -> None:
    """The worker is asked to stop: hand a running job back at once, as an attempt that does not count."""
    job = node.running_job
    if job is not None:
        with node.pool.connection(timeout=1.0) as connection:
            storage.jobs.release(connection, job.id, node.owner, "the worker was stopped", count_attempt=False)


def _keep(node: Node, job: Job, answer: Answer) -> None:
    """Results, the job's end and the order to deliver, in one transaction: all or nothing."""
    digests = [hashlib.sha256(item.data).hexdigest() for item in answer.objects]
    paths = [node.store.put_bytes(item.data, digest) for item, digest in zip(answer.objects, digests, strict=True)]
    configuration = node.configuration()
    with node.pool.connection() as connection:
        if not storage.jobs.finish(connection, job.id, node.owner, answer.status, answer.reason or "", answer.result):
            log.warning("job was taken over, result dropped", job=job.id)
            return
        results = [
            storage.results.add(
                connection,
                job_id=job.id,
                study_instance_uid=job.study_instance_uid,
                sop_instance_uid=item.sop_instance_uid,
                sop_class_uid=item.sop_class_uid,
                transfer_syntax_uid=item.transfer_syntax_uid,
                path=path,
                sha256=digest,
                size_bytes=len(item.data),
                kind=item.kind,
                place=place_of(item.kind),
            )
            for item, path, digest in zip(answer.objects, paths, digests, strict=True)
        ]
        order(connection, configuration, job, answer, results)
        text = f"{job.pipeline}: {answer.status}" + (f", {answer.reason}" if answer.reason else "")
        storage.events.add(connection, job.study_instance_uid, "job", text, {"job": job.id, "results": len(results)})
    log.info(
        "job ended",
        job=job.id,
        status=answer.status,
        reason=answer.reason,
        results=len(results),
        seconds=answer.result["seconds"],
    )


def _end(node: Node, job: Job, state: Literal["failed", "superseded"], reason: str) -> None:
    """End the job without an answer."""
    with node.pool.connection() as connection:
        if storage.jobs.finish(connection, job.id, node.owner, state, reason, None):
            text = f"{job.pipeline}: {state}: {reason}"
            storage.events.add(connection, job.study_instance_uid, "job", text, {"job": job.id})
    log.info("job ended", job=job.id, status=state, reason=reason)


def _give_back(node: Node, job: Job, reason: str) -> None:
    with node.pool.connection() as connection:
        if job.attempts >= node.settings.job_attempts:
            reason = f"parked after {job.attempts} attempts: {reason}"
            storage.jobs.finish(connection, job.id, node.owner, "failed", reason, None)
        else:  # not announced at once: the sweeper does so after a pause
            storage.jobs.release(connection, job.id, node.owner, reason, ring=False)
        storage.events.add(connection, job.study_instance_uid, "job", f"{job.pipeline}: attempt failed: {reason}", {})
