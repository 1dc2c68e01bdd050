"""One job from start to end: the story a newcomer reads first.

An image that arrives goes   dimse/scp.py -> reception.py -> indexing.py   into the index,
`scheduling.py` recognises it (recognition/), waits for what is missing (assembly.py), asks the rules (routing/) and
writes a job row; a Celery message with the row's id brings a worker here. What the worker makes goes to the
destinations by `deliver`. PostgreSQL holds the truth: a message lost or doubled changes nothing.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pydicom
import structlog
from psycopg import Connection
from pydicom.uid import Comprehensive3DSRStorage

import storage.deliveries
import storage.events
import storage.jobs
import storage.results
from dicom_node.analysis import Answer, analyse
from dicom_node.delivery import Outcome, pause_s, send
from dicom_node.encoding.concepts import UnknownConcept
from dicom_node.encoding.provenance import Predecessor, Provenance
from dicom_node.encoding.sources import InvalidResult
from dicom_node.lease import kept
from dicom_node.node import Node
from dicom_node.patience import until_database_answers
from pipelines.catalogue import PIPELINES
from storage.records import Delivery, Job

log = structlog.get_logger()

DELIVERY_LEASE_S = 15.0
DELIVERY_BATCH = 50


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
        except (InvalidResult, UnknownConcept) as error:
            log.error("answer withheld", job=job.id, reason=str(error))
            withheld = str(error)
            until_database_answers(lambda: _withhold(node, job, withheld))
            return
        except Exception as error:
            log.exception("job broke", job=job.id)
            reason = f"{type(error).__name__}: {error}"
            until_database_answers(lambda: _give_back(node, job, reason))
            return
        finally:
            node.running_job = None
        until_database_answers(lambda: _keep(node, job, answer))


def _work(node: Node, job: Job) -> Answer:
    pipeline = PIPELINES[job.pipeline]
    bundles = node.bundles(pipeline)
    provenance = Provenance.of(
        node_id=str(node.node_id),
        study_instance_uid=job.study_instance_uid,
        pipeline=pipeline,
        bundles=bundles,
        fingerprint=job.fingerprint,
        created_at=job.created_at,  # not "now": a second attempt must give the same bytes
        predecessor=_predecessor(node, job),
    )
    inputs = {role: [node.store.path(path) for path in bound["paths"]] for role, bound in job.inputs.items()}
    return analyse(pipeline, inputs, bundles, provenance, report_refusal=job.report_refusal)


def _predecessor(node: Node, job: Job) -> Predecessor | None:
    """The report of an earlier run of this pipeline on this study, which the new one replaces (late images)."""
    with node.pool.connection() as connection:
        earlier = [
            result
            for result in storage.results.for_study(connection, job.study_instance_uid)
            if result.job_id < job.id and result.sop_class_uid == Comprehensive3DSRStorage
        ]
        pipelines = {other.id: other.pipeline for other in storage.jobs.for_study(connection, job.study_instance_uid)}
    reports = [result for result in earlier if pipelines[result.job_id] == job.pipeline]
    if not reports:
        return None
    header = pydicom.dcmread(node.store.path(reports[-1].path), specific_tags=["SeriesInstanceUID"])
    return Predecessor(
        job.study_instance_uid, str(header.SeriesInstanceUID), reports[-1].sop_instance_uid, reports[-1].sop_class_uid
    )


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
            )
            for item, path, digest in zip(answer.objects, paths, digests, strict=True)
        ]
        storage.deliveries.create(connection, [result.id for result in results], list(job.send_to), "cpu")
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


def _withhold(node: Node, job: Job, reason: str) -> None:
    """Park at once a job whose answer is not what it should be: another attempt would give the same bytes."""
    reason = f"answer withheld: {reason}"
    with node.pool.connection() as connection:
        if storage.jobs.finish(connection, job.id, node.owner, "failed", reason, None):
            storage.events.add(connection, job.study_instance_uid, "job", f"{job.pipeline}: {reason}", {"job": job.id})


def _give_back(node: Node, job: Job, reason: str) -> None:
    with node.pool.connection() as connection:
        if job.attempts >= node.settings.job_attempts:
            reason = f"parked after {job.attempts} attempts: {reason}"
            storage.jobs.finish(connection, job.id, node.owner, "failed", reason, None)
        else:  # not announced at once: the sweeper does so after a pause
            storage.jobs.release(connection, job.id, node.owner, reason, ring=False)
        storage.events.add(connection, job.study_instance_uid, "job", f"{job.pipeline}: attempt failed: {reason}", {})


def deliver(node: Node, destination_name: str) -> None:
    """Send what waits for one destination, oldest first, over one association per batch."""
    while True:
        with node.pool.connection() as connection:
            batch = storage.deliveries.claim_batch(connection, destination_name, DELIVERY_BATCH, DELIVERY_LEASE_S)
        if not batch:
            return
        destination = node.configuration().destination(destination_name)
        if destination is None:
            _note_all(node, batch, Outcome.refused(None, f"destination {destination_name} is not in the rules"))
            continue
        left = {delivery.id for delivery in batch}

        def renew(left: set[int] = left) -> None:
            with node.pool.connection() as connection:
                storage.deliveries.extend(connection, sorted(left), DELIVERY_LEASE_S)

        def report(delivery: Delivery, outcome: Outcome, left: set[int] = left) -> None:
            until_database_answers(lambda: _note(node, delivery, outcome))
            left.discard(delivery.id)

        with kept(renew, DELIVERY_LEASE_S):
            send(
                destination,
                batch,
                read_path=node.store.path,
                calling_ae_title=node.settings.ae_title,
                report=report,
            )


def _note_all(node: Node, batch: Sequence[Delivery], outcome: Outcome) -> None:
    for delivery in batch:
        _note(node, delivery, outcome)


def _note(node: Node, delivery: Delivery, outcome: Outcome) -> None:
    """Write one object's outcome at once, so that a crash right after it sends nothing twice."""
    with node.pool.connection() as connection:
        if outcome.delivered:
            storage.deliveries.delivered(connection, delivery.id, outcome.status or 0)
            text = f"{delivery.destination} took {delivery.sop_instance_uid}"
        elif delivery.attempts >= node.settings.delivery_attempts:
            storage.deliveries.park(connection, delivery.id, outcome.status, outcome.reason)
            text = f"{delivery.destination}: given up after {delivery.attempts} attempts: {outcome.reason}"
        else:
            pause = timedelta(seconds=pause_s(delivery.attempts, node.settings.delivery_backoff_max_s, delivery.id))
            again_at = datetime.now(UTC) + pause
            storage.deliveries.retry_later(connection, delivery.id, outcome.status, outcome.reason, again_at)
            text = f"{delivery.destination}: {outcome.reason}; next attempt in {pause.total_seconds():.0f} s"
        _tell_once(connection, delivery, text, outcome)
    log.info("delivery", delivery=delivery.id, destination=delivery.destination, delivered=outcome.delivered,
             status=outcome.status, reason=outcome.reason)  # fmt: skip


def _tell_once(connection: Connection, delivery: Delivery, text: str, outcome: Outcome) -> None:
    """An unreachable PACS over a long night is one line in the study's story, not one per attempt."""
    if outcome.delivered or outcome.reason != delivery.reason:
        storage.events.add(connection, delivery.study_instance_uid, "delivery", text, {"status": outcome.status})
