"""Everything that happens, with its time: what `why` tells. No patient names or IDs in here."""

from collections.abc import Mapping
from typing import Any

from storage.database import Connection, every, jsonb, load_queries
from storage.database import text as storable
from storage.records import Event

QUERIES = load_queries("events")


def add(
    connection: Connection,
    study_instance_uid: str | None,
    kind: str,
    text: str,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Record that something happened, in the same transaction as the change itself."""
    values = {
        "study_instance_uid": study_instance_uid,
        "kind": kind,
        "text": storable(text),
        "details": jsonb(details or {}),
    }
    connection.execute(QUERIES["add"], values)


def for_study(connection: Connection, study_instance_uid: str) -> list[Event]:
    """The story of one study, in order."""
    return every(connection, Event, QUERIES["for_study"], {"study_instance_uid": study_instance_uid})


def recent(connection: Connection, limit: int) -> list[Event]:
    """What happened last, newest first."""
    return every(connection, Event, QUERIES["recent"], {"limit": limit})
