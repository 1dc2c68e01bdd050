"""Jobs: requested once, claimed by one worker at a time, finished by the one that still holds the lease."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from storage.database import Connection, every_made, jsonb, load_queries, text
from storage.records import Job

QUERIES = load_queries("jobs")

STATES = ("waiting", "running", "done", "refused", "failed", "superseded")
#: Celery queue of jobs for which somebody waits.
STAT = "stat"
#: How many waiting jobs of each queue `overdue` announces once more.
_RUNG_AGAIN_PER_QUEUE = 16


def _job(**columns: Any) -> Job:
    return Job(**{**columns, "send_to": tuple(columns["send_to"])})


def _jobs(connection: Connection, query: str, values: Mapping[str, Any]) -> list[Job]:
    return every_made(connection, _job, QUERIES[query], values)


def request(
    connection: Connection,
    study_instance_uid: str,
    pipeline: str,
    fingerprint: str,
    rule: str,
    inputs: Mapping[str, Any],
    send_to: Sequence[str],
    queue: str,
    report_refusal: bool = False,
    *,
    again: bool = False,
    partial: str = "",
) -> Job | None:
    """Ask for one run of a pipeline on these inputs; None when there is a job for this fingerprint already.

    again : ask on purpose, whatever was answered before; None then only when such a job waits already.
    partial : in words, what of an exam these inputs are; None then also while another job of the study and pipeline
        waits or runs. Empty: all that is there.
    With the row goes its message (outbox "run_job"). Jobs of the same study and pipeline that still wait with other
    inputs are superseded. Raises psycopg.errors.ForeignKeyViolation for an unknown study.
    """
    values = {
        "study_instance_uid": study_instance_uid,
        "pipeline": pipeline,
        "fingerprint": fingerprint,
        "rule": text(rule),
        "inputs": jsonb(inputs),
        "send_to": list(send_to),
        "queue": queue,
        "report_refusal": report_refusal,
        "again": again,
        "partial": text(partial),
    }
    connection.execute(QUERIES["lock_study"], values)
    made = _jobs(connection, "request", values)
    if not made:
        return None
    reason = f"job {made[0].id} has newer inputs"
    connection.execute(QUERIES["supersede"], {**values, "id": made[0].id, "reason": reason})
    connection.execute(QUERIES["ring"], {"id": made[0].id})
    return made[0]


def claim(connection: Connection, job_id: int, owner: str, lease_s: float) -> Job | None:
    """Mark a waiting job running for this owner and count the attempt; None when it is not waiting (any more).

    Of one study and pipeline one job runs at a time: None also while another does, whose end announces this one.

    owner : unique per process and attempt (host, pid, random part): it is what `finish` is checked against.
    lease_s : seconds within which the first heartbeat must come. Commit before the work starts.
    """
    connection.execute(QUERIES["lock_study_of"], {"id": job_id})
    connection.execute(QUERIES["yield_to_newer"], {"id": job_id})
    claimed = _jobs(connection, "claim", {"id": job_id, "owner": owner, "lease_s": float(lease_s)})
    return claimed[0] if claimed else None


def note_edition(connection: Connection, job_id: int, owner: str, edition: str) -> bool:
    """Note what answers this owner's job; False: another job has these inputs answered by it (or the lease is lost).

    edition : digest of pipeline version and bundles, not empty.
    """
    values = {"id": job_id, "owner": owner, "edition": edition}
    return connection.execute(QUERIES["note_edition"], values).rowcount == 1


def heartbeat(connection: Connection, job_id: int, owner: str, lease_s: float) -> bool:
    """Move the lease on by lease_s seconds from now; False: the job is not this owner's any more, stop working."""
    values = {"id": job_id, "owner": owner, "lease_s": float(lease_s)}
    return connection.execute(QUERIES["heartbeat"], values).rowcount == 1


def is_outdone(connection: Connection, job_id: int) -> bool:
    """Whether a job answers a part of an exam of which all waits to be answered by now."""
    row = connection.execute(QUERIES["is_outdone"], {"id": job_id}).fetchone()
    return bool(row and row[0])


def finish(
    connection: Connection,
    job_id: int,
    owner: str,
    state: Literal["done", "refused", "failed", "superseded"],
    reason: str,
    result: Mapping[str, Any] | None,
) -> bool:
    """End a job; False when the lease was lost: nothing is changed, and the caller must roll back what goes with it.

    A later job of the same study and pipeline that waits for this end is announced.
    """
    values = {
        "id": job_id,
        "owner": owner,
        "state": state,
        "reason": text(reason),
        "result": None if result is None else jsonb(result),
    }
    finished = connection.execute(QUERIES["finish"], values).rowcount == 1
    if finished:
        connection.execute(QUERIES["ring_next"], {"id": job_id})
    return finished


def release(
    connection: Connection, job_id: int, owner: str, reason: str, *, count_attempt: bool = True, ring: bool = True
) -> bool:
    """Give a job back to waiting; False when the lease was lost.

    count_attempt : False when the attempt says nothing about the job, such as a worker that is being stopped.
    ring : announce it at once; False leaves that to `overdue`, which is a pause before the next attempt.
    """
    values = {"id": job_id, "owner": owner, "reason": text(reason), "count_attempt": count_attempt}
    released = connection.execute(QUERIES["release"], values).rowcount == 1
    if released and ring:
        connection.execute(QUERIES["ring"], {"id": job_id})
    return released


def overdue(
    connection: Connection,
    max_attempts: int,
    ring_again_s: float = 30.0,
    stand_ins: Mapping[str, str] | None = None,
) -> list[Job]:
    """Take jobs from workers that fell silent, and announce again what has been waiting in silence.

    A running job whose lease has expired goes back to waiting (with a message), or becomes failed with a reason that
    starts with "parked" when it had max_attempts; these are returned. Besides, the oldest waiting jobs of each queue
    whose last message is older than ring_again_s seconds are announced again. Safe from several schedulers at once.

    stand_ins : queue -> another one that is told too when it comes to that, for queues that nobody may listen on.
    """
    changed = _jobs(connection, "overdue", {"max_attempts": max_attempts})
    stand_ins = stand_ins or {}
    values = {
        "ring_again_s": float(ring_again_s),
        "per_queue": _RUNG_AGAIN_PER_QUEUE,
        "queues": list(stand_ins),
        "listeners": list(stand_ins.values()),
    }
    connection.execute(QUERIES["ring_again"], values)
    return changed


def get(connection: Connection, job_id: int) -> Job | None:
    """One job, None when there is none with this id."""
    found = _jobs(connection, "get", {"id": job_id})
    return found[0] if found else None


def for_study(connection: Connection, study_instance_uid: str) -> list[Job]:
    """The jobs of a study, oldest first."""
    return _jobs(connection, "for_study", {"study_instance_uid": study_instance_uid})


def counts(connection: Connection) -> dict[str, int]:
    """How many jobs there are in each state; every state is there."""
    return dict.fromkeys(STATES, 0) | dict(connection.execute(QUERIES["counts"]).fetchall())


def counts_by_pipeline(connection: Connection) -> dict[tuple[str, str], int]:
    """How many jobs there are by (pipeline, state)."""
    rows = connection.execute(QUERIES["counts_by_pipeline"]).fetchall()
    return {(pipeline, state): count for pipeline, state, count in rows}


def longest_silence_s(connection: Connection, lease_s: float) -> float:
    """Seconds since the last heartbeat of the running job that was heard of least; 0.0 when none runs.

    lease_s : what the workers give to `claim` and `heartbeat`.
    """
    row = connection.execute(QUERIES["longest_silence"], {"lease_s": float(lease_s)}).fetchone()
    return float(row[0]) if row else 0.0
