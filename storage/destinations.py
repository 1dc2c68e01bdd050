"""How destinations are: away or not (a circuit breaker that all workers share), closed for now, what they refuse."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from storage.database import Connection, every, load_queries, text

QUERIES = load_queries("destinations")


@dataclass(frozen=True)
class DestinationState:
    """One destination that something was sent to, or tried to be."""

    name: str
    #: closed (all is well) | open (away: nothing is tried before probe_at) | probing (one delivery is being tried)
    breaker: str
    failures: int  #: attempts in a row of which nothing came
    reason: str  #: of the last one
    since: datetime  #: of the breaker's state
    probe_at: datetime | None  #: next attempt; while probing: when the one who tries is given up
    closed_until: datetime | None  #: outside of its working hours
    answered_at: datetime | None  #: last answer of any kind


@dataclass(frozen=True)
class Refusal:
    """A SOP Class that a destination was seen to refuse."""

    destination: str
    sop_class_uid: str
    reason: str
    noticed_at: datetime


class Entrance(Enum):
    """Leave to send to a destination."""

    NONE = "none"  #: it is away or closed
    PROBE = "probe"  #: it was away: one delivery may try whether it is back
    FREE = "free"


def enter(connection: Connection, name: str) -> Entrance:
    """Leave to send there; until the end of this transaction nobody else gets an answer."""
    connection.execute(QUERIES["meet"], {"name": name})
    row = connection.execute(QUERIES["enter"], {"name": name}).fetchone()
    if row is None:
        return Entrance.NONE
    return Entrance.FREE if row[0] == "closed" else Entrance.PROBE


def begin_probe(connection: Connection, name: str, lease_s: float) -> None:
    """Somebody tries whether it is back; nobody else does within lease_s seconds."""
    connection.execute(QUERIES["probe"], {"name": name, "lease_s": float(lease_s)})


def answered(connection: Connection, name: str) -> bool:
    """It gave an answer, whatever it was: the breaker closes. Returns whether it was away before."""
    row = connection.execute(QUERIES["answered"], {"name": name}).fetchone()
    return row is not None and bool(row[0])


@dataclass(frozen=True)
class Setback:
    """What became of the breaker."""

    pause_s: float | None  #: nothing is tried for so long; None: once more at once
    is_new: bool  #: it was closed before


def failed(connection: Connection, name: str, reason: str, pause: Callable[[int], float | None]) -> Setback:
    """Nothing came of an attempt. pause : number of failures in a row -> how long nothing is tried there, s.

    None: once more at once.
    """
    connection.execute(QUERIES["meet"], {"name": name})
    row = connection.execute(QUERIES["lock"], {"name": name}).fetchone()
    assert row is not None  # noqa: S101 - just met
    setback = Setback(pause(int(row[1]) + 1), row[0] == "closed")
    connection.execute(QUERIES["failed"], {"name": name, "reason": text(reason), "pause_s": setback.pause_s})
    return setback


def extend_probe(connection: Connection, name: str, lease_s: float) -> None:
    """The one who tries whether it is back is alive for another lease_s seconds."""
    connection.execute(QUERIES["extend_probe"], {"name": name, "lease_s": float(lease_s)})


def close_until(connection: Connection, name: str, until: datetime) -> None:
    """Nothing is sent there before this time."""
    connection.execute(QUERIES["close_until"], {"name": name, "until": until})


def try_now(connection: Connection, name: str | None = None) -> None:
    """Forget pauses and working hours, of one destination (replies by it: all) or of all."""
    connection.execute(QUERIES["try_now"], {"name": name})


def refuse(connection: Connection, name: str, sop_class_uid: str, reason: str) -> None:
    """Remember that it does not take a SOP Class."""
    connection.execute(QUERIES["refuse"], {"name": name, "sop_class_uid": sop_class_uid, "reason": text(reason)})


def refusals(connection: Connection, name: str | None, max_age_s: float) -> list[Refusal]:
    """What was seen to be refused within the last max_age_s seconds, by one destination or by all."""
    return every(connection, Refusal, QUERIES["refusals"], {"name": name, "max_age_s": float(max_age_s)})


def forget(connection: Connection, name: str | None = None) -> int:
    """Forget refusals, of one destination (replies by it: all) or of all; returns how many."""
    return connection.execute(QUERIES["forget"], {"name": name}).rowcount


def states(connection: Connection) -> list[DestinationState]:
    """Every destination that something was sent to, or tried to be, by name."""
    return every(connection, DestinationState, QUERIES["all"], {})
