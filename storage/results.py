"""Result objects: made once, kept as bytes, sent as often as needed."""

from storage.database import Connection, every, load_queries, one
from storage.records import Result

QUERIES = load_queries("results")


class ResultConflictError(Exception):
    """A result with this SOP Instance UID exists with other bytes: one UID must never stand for two objects."""


def add(
    connection: Connection,
    job_id: int,
    study_instance_uid: str,
    sop_instance_uid: str,
    sop_class_uid: str,
    transfer_syntax_uid: str,
    path: str,
    sha256: str,
    size_bytes: int,
    kind: str = "",
    place: int = 0,
) -> Result:
    """Keep a result object of a job, in the transaction that finishes the job.

    path : relative to the root of the file store; sha256 : of the bytes there. kind : "seg", "sr", …; place : in the
    order in which the objects of one job are sent, equal ones in the order they are added.
    Raises ResultConflictError when the SOP Instance UID is taken by other bytes.
    """
    values = {
        "job_id": job_id,
        "study_instance_uid": study_instance_uid,
        "sop_instance_uid": sop_instance_uid,
        "sop_class_uid": sop_class_uid,
        "transfer_syntax_uid": transfer_syntax_uid,
        "path": path,
        "sha256": sha256,
        "size_bytes": size_bytes,
        "kind": kind,
        "place": place,
    }
    added = one(connection, Result, QUERIES["add"], values)
    if added is None:
        raise ResultConflictError(
            f"result {sop_instance_uid} of job {job_id}: kept already with other bytes than {sha256[:12]}; "
            "its UID must be derived from everything that shapes it"
        )
    return added


def for_job(connection: Connection, job_id: int) -> list[Result]:
    """The results of one job, in the order they were added."""
    return every(connection, Result, QUERIES["for_job"], {"job_id": job_id})


def for_study(connection: Connection, study_instance_uid: str) -> list[Result]:
    """The results of one study, in the order they were added."""
    return every(connection, Result, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def by_sop_uid(connection: Connection, sop_instance_uid: str) -> Result | None:
    """The result with this SOP Instance UID, None when it is not one of ours."""
    return one(connection, Result, QUERIES["by_sop_uid"], {"sop_instance_uid": sop_instance_uid})
