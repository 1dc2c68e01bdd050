"""Studies, and when the scheduler must look at them."""

from datetime import datetime

from storage.database import Connection, every, load_queries, one, text
from storage.records import Study

QUERIES = load_queries("studies")


def get(connection: Connection, study_instance_uid: str) -> Study | None:
    """One study, None when nothing of it was received."""
    return one(connection, Study, QUERIES["get"], {"study_instance_uid": study_instance_uid})


def recent(connection: Connection, limit: int) -> list[Study]:
    """The studies in which something arrived last, newest first."""
    return every(connection, Study, QUERIES["recent"], {"limit": limit})


def due(connection: Connection, limit: int) -> list[Study]:
    """Studies to look at now, oldest first, locked for this transaction; those another one holds are left out.

    The lock keeps the receiver from indexing more of these studies. Commit before work that takes long, and hand
    `study.look_again_at` to `set_state`: it keeps a wake-up that came in between.
    """
    return every(connection, Study, QUERIES["due"], {"limit": limit})


def set_state(
    connection: Connection,
    study_instance_uid: str,
    state: str,
    reason: str,
    look_again_at: datetime | None,
    seen: datetime | None,
) -> None:
    """Keep where a study stands and when to look again (None: only when something arrives).

    seen : `look_again_at` of the Study that the verdict rests on. If the row has another one by now, something arrived
    after it was read; then that wake-up stays (or the earlier of the two), so nothing is slept through.
    Raises psycopg.errors.CheckViolation for a state that is not one of `Study.state`.
    """
    values = {
        "study_instance_uid": study_instance_uid,
        "state": state,
        "reason": text(reason),
        "look_again_at": look_again_at,
        "seen": seen,
    }
    connection.execute(QUERIES["set_state"], values)


def touch(connection: Connection, study_instance_uid: str) -> None:
    """Make a study due now."""
    connection.execute(QUERIES["touch"], {"study_instance_uid": study_instance_uid})


def touch_all(connection: Connection, since: datetime) -> int:
    """Make every study due in which something arrived since then (the rules changed); returns how many."""
    return connection.execute(QUERIES["touch_all"], {"since": since}).rowcount


def next_due_in_s(connection: Connection) -> float | None:
    """Seconds until a study is due, 0 or less when one is due now, None when none is."""
    row = connection.execute(QUERIES["next_due_in"]).fetchone()
    return None if row is None or row[0] is None else float(row[0])
