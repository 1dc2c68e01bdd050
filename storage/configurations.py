"""Versions of the administrator's YAML file: rules, destinations, senders."""

from storage import destinations
from storage.database import Connection, every, load_queries, one
from storage.records import Configuration

QUERIES = load_queries("configurations")


def add(connection: Connection, document: str, imported_by: str) -> Configuration:
    """Keep a (checked) document as the newest version; from the commit on it is in force.

    What was seen of destinations under the last one is forgotten: pauses, working hours, what they refuse.
    """
    added = one(connection, Configuration, QUERIES["add"], {"document": document, "imported_by": imported_by})
    assert added is not None  # noqa: S101 - INSERT .. RETURNING
    destinations.try_now(connection)
    destinations.forget(connection)
    return added


def current(connection: Connection) -> Configuration | None:
    """The version in force, None before the first import."""
    return one(connection, Configuration, QUERIES["current"], {})


def history(connection: Connection) -> list[Configuration]:
    """All versions, newest first."""
    return every(connection, Configuration, QUERIES["history"], {})
