"""What the node can say about a study: what it received, what it decided and why, what it sent where."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from psycopg import Connection

import storage.associations
import storage.commitment_requests
import storage.commitments
import storage.deliveries
import storage.destinations
import storage.events
import storage.instances
import storage.jobs
import storage.studies
from dicom_node.progress import delivery_words, results_words
from storage.commitment_requests import Progress
from storage.destinations import DestinationState
from storage.records import Study


def studies_table(connection: Connection, limit: int) -> Sequence[Study]:
    """The studies received last, newest first."""
    return storage.studies.recent(connection, limit)


def results_table(connection: Connection, studies: Sequence[Study]) -> Mapping[str, str]:
    """Study Instance UID -> where its results stand; studies without results are absent."""
    found: dict[str, list[Progress]] = {}
    for progress in storage.commitment_requests.progress(connection, [study.study_instance_uid for study in studies]):
        found.setdefault(progress.study_instance_uid, []).append(progress)
    return {uid: results_words(progresses) for uid, progresses in found.items()}


def standing(state: DestinationState | None) -> str:
    """Why nothing goes to a destination now; empty when something may."""
    if state is None:
        return ""
    if state.breaker != "closed" and state.probe_at is not None:
        again = "is being tried now" if state.breaker == "probing" else f"next attempt {_clock(state.probe_at)}"
        return f"away since {_clock(state.since)}: {state.reason}; {again}"
    return f"closed until {_clock(state.closed_until)}" if state.closed_until is not None else ""


def _clock(at: datetime) -> str:
    """Local time, as working hours are."""
    return f"{at.astimezone():%Y-%m-%d %H:%M:%S}"


def study_story(connection: Connection, study_instance_uid: str) -> str | None:
    """The whole story of one study as plain text; None when it was never received."""
    study = storage.studies.get(connection, study_instance_uid)
    if study is None:
        return None
    lines = [
        f"Study {study.study_instance_uid}",
        f"  {study.description or '(no description)'}",
        f"  state: {study.state} - {study.reason}",
    ]
    if study.look_again_at is not None:
        lines.append(f"  looked at again: {study.look_again_at:%Y-%m-%d %H:%M:%S %Z}")
    lines += ["", "Series"]
    counts: dict[str, int] = {}
    for instance in storage.instances.for_study(connection, study_instance_uid):
        counts[instance.series_instance_uid] = counts.get(instance.series_instance_uid, 0) + 1
    for series in storage.instances.series_for_study(connection, study_instance_uid):
        count = counts.get(series.series_instance_uid, 0)
        lines.append(
            f"  {series.series_instance_uid}: {count} images, {series.modality}, {series.kind or 'not looked at yet'}"
        )
        if series.reason:
            lines.append(f"    because {series.reason}")
    lines += ["", "Associations"]
    for association in storage.associations.for_study(connection, study_instance_uid):
        ended = f"{association.state} {association.closed_at:%H:%M:%S}" if association.closed_at else association.state
        lines.append(
            f"  {association.opened_at:%Y-%m-%d %H:%M:%S} {association.calling_ae_title} from {association.peer_host}: "
            f"{association.stored} objects, {ended}"
        )
    lines += ["", "Jobs"]
    for job in storage.jobs.for_study(connection, study_instance_uid):
        bound = ", ".join(f"{role}: {len(value['sop_instance_uids'])} images" for role, value in job.inputs.items())
        urgent = ", stat" if job.queue == storage.jobs.STAT else ""
        lines.append(f"  job {job.id} {job.pipeline} by rule {job.rule!r}{urgent} on {bound}: {job.state}")
        if job.partial:
            lines.append(f"    early answer: {job.partial}")
        follows = f", follows job {job.predecessor_id}" if job.predecessor_id is not None else ""
        lines.append(f"    requested {job.created_at:%H:%M:%S}, attempts {job.attempts}{follows}")
        if job.started_at and job.finished_at:
            lines.append(f"    started {job.started_at:%H:%M:%S}, ended {job.finished_at:%H:%M:%S}")
        if job.reason:
            lines.append(f"    {job.reason}")
    lines += ["", "Deliveries"]
    states = {state.name: state for state in storage.destinations.states(connection)}
    commitments = storage.commitment_requests.for_study(connection, study_instance_uid)
    for delivery in storage.deliveries.for_study(connection, study_instance_uid):
        words = delivery_words(delivery, commitments.get(delivery.id))
        lines.append(f"  {delivery.kind} {delivery.sop_instance_uid} to {delivery.destination}: {words}")
        if delivery.state == "waiting" and (text := standing(states.get(delivery.destination))):
            lines.append(f"    {text}")
    lines += ["", "Storage commitment asked of this node"]
    for transaction in storage.commitments.for_study(connection, study_instance_uid):
        asked = transaction.committed + transaction.failed
        answered = f" {transaction.answered_at:%H:%M:%S}" if transaction.answered_at else ""
        lines.append(
            f"  {transaction.asked_at:%Y-%m-%d %H:%M:%S} asked by {transaction.calling_ae_title}: "
            f"{transaction.committed} of {asked} objects safe; answer: {transaction.state}{answered}"
            f"{', ' + transaction.reason if transaction.reason else ''}"
        )
    lines += ["", "Events"]
    for event in storage.events.for_study(connection, study_instance_uid):
        lines.append(f"  {event.at:%Y-%m-%d %H:%M:%S} {event.kind}: {event.text}")
    return "\n".join(lines) + "\n"
