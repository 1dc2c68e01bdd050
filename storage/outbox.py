"""The transactional outbox: rows written with a change of state, which become Celery messages afterwards."""

from collections.abc import Sequence
from dataclasses import dataclass

from storage.database import Connection, every, load_queries

QUERIES = load_queries("outbox")


@dataclass(frozen=True)
class Message:
    """A message that is still to be sent."""

    id: int
    queue: str  #: Celery queue
    task: str  #: "run_job", "deliver" or "report_commitments"
    argument: str  #: id of the job, name of the destination, AE title


def add(connection: Connection, queue: str, task: str, argument: str) -> None:
    """Announce something in the transaction that changes it."""
    connection.execute(QUERIES["add"], {"queue": queue, "task": task, "argument": argument})


def take(connection: Connection, limit: int) -> list[Message]:
    """The oldest messages, locked for this transaction. Send them, `delete` them, commit: dying in between sends twice,
    which the job's lease and the delivery's state make harmless."""
    return every(connection, Message, QUERIES["take"], {"limit": limit})


def delete(connection: Connection, ids: Sequence[int]) -> None:
    """Forget messages that the broker has."""
    connection.execute(QUERIES["delete"], {"ids": list(ids)})
