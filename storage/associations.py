"""Associations with senders: which are open, and how the others ended."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime

from storage.database import Connection, every, load_queries, one, text
from storage.records import Association

QUERIES = load_queries("associations")


@dataclass(frozen=True)
class Brought:
    """What one association brought of one study."""

    study_instance_uid: str
    new: int  #: Instances that it was the first to bring
    conflicts: int  #: Instances that were there already with other bytes


def opened(connection: Connection, association: Association) -> None:
    """Remember an association; telling it again changes nothing. Must come before the first Instance it brought."""
    values = asdict(association)
    for name in ("receiver", "calling_ae_title", "called_ae_title", "peer_host"):
        values[name] = text(values[name])
    connection.execute(QUERIES["opened"], values)


def closed(
    connection: Connection, association_id: str, state: str, closed_at: datetime | None = None, stored: int = 0
) -> None:
    """Record how an association ended ("released", "aborted" or "lost") and wake the studies it brought.

    closed_at : None stands for the database's clock. stored : Instances acknowledged with Success.
    Raises psycopg.errors.CheckViolation for another state.
    """
    values = {"association_id": association_id, "state": state, "closed_at": closed_at, "stored": stored}
    connection.execute(QUERIES["closed"], values)


def mark_lost(connection: Connection, receiver: str) -> list[str]:
    """Set what this receiver had open to "lost", wake the studies concerned and return the association ids.

    For a receiver that starts: its associations of an earlier life died with the process.
    """
    return [row[0] for row in connection.execute(QUERIES["mark_lost"], {"receiver": receiver}).fetchall()]


def get(connection: Connection, association_id: str) -> Association | None:
    """One association, None when it is not known."""
    return one(connection, Association, QUERIES["get"], {"association_id": association_id})


def open_for_study(connection: Connection, study_instance_uid: str) -> list[Association]:
    """The associations still open that brought something of the study, oldest first."""
    return every(connection, Association, QUERIES["open_for_study"], {"study_instance_uid": study_instance_uid})


def for_study(connection: Connection, study_instance_uid: str) -> list[Association]:
    """All associations that brought something of the study, oldest first."""
    return every(connection, Association, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def that_brought_last(
    connection: Connection, study_instance_uid: str, sop_instance_uids: Sequence[str]
) -> Association | None:
    """The association that was the last to bring one of these Instances as the first; None: not known."""
    values = {"study_instance_uid": study_instance_uid, "sop_instance_uids": list(sop_instance_uids)}
    return one(connection, Association, QUERIES["that_brought_last"], values)


def brought(connection: Connection, association_id: str) -> list[Brought]:
    """What an association brought, study by study; a study of which everything was there already is in it with 0."""
    return every(connection, Brought, QUERIES["brought"], {"association_id": association_id})


@dataclass(frozen=True)
class Transferred:
    """Instances of one study and SOP Class that an association was the first to bring."""

    study_instance_uid: str
    sop_class_uid: str  #: empty: everything of the study was here before
    instances: int
    path: str | None  #: of one file of the study, in the file store


def transferred(connection: Connection, association_id: str) -> list[Transferred]:
    """What an association brought, by study and SOP Class."""
    return every(connection, Transferred, QUERIES["transferred"], {"association_id": association_id})


def not_audited(connection: Connection, limit: int) -> list[Association]:
    """Associations that have ended and are not in the audit trail yet."""
    return every(connection, Association, QUERIES["not_audited"], {"limit": limit})


def set_audited(connection: Connection, association_ids: list[str]) -> None:
    """Remember that they are in the audit trail."""
    connection.execute(QUERIES["set_audited"], {"association_ids": association_ids})
