"""Connections, migrations and named queries: everything about PostgreSQL that is not one of our nouns."""

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any, TypeVar

import psycopg
from psycopg.rows import class_row, kwargs_row
from psycopg.types.json import Jsonb
from psycopg_pool import ConnectionPool

Connection = psycopg.Connection[Any]
T = TypeVar("T")

#: Any constant of our own: one migration at a time in one database.
_MIGRATION_LOCK = 7_233_101_511
_HEADING = re.compile(r"^-- (\w+) --$", re.MULTILINE)
#: Text that PostgreSQL cannot store: NUL, and halves of surrogate pairs left by a wrong character set.
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")

_CREATE_LEDGER = """
CREATE TABLE IF NOT EXISTS schema_migration (
    name text PRIMARY KEY,
    sha256 text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


class MigrationError(Exception):
    """The schema in the database and the migration files do not belong together; the text says which and what to do."""


def open_pool(url: str, min_size: int = 1, max_size: int = 4) -> ConnectionPool[Connection]:
    """Open a pool of checked connections, not in autocommit mode; does not wait for the server.

    A connection is checked before it is lent, so a restart of the server costs the caller nothing but time. While the
    server is away, `pool.connection()` raises psycopg_pool.PoolTimeout after 6 s: call again. The reconnect limit is
    short on purpose: the pool doubles its pauses, and a fresh attempt starts again without one.
    """
    return ConnectionPool(
        url,
        min_size=min_size,
        max_size=max_size,
        open=True,
        timeout=6.0,
        reconnect_timeout=5.0,
        check=ConnectionPool.check_connection,
        kwargs={"autocommit": False, "connect_timeout": 5},
    )


def connect(url: str) -> Connection:
    """Open one connection, not in autocommit mode. Raises psycopg.OperationalError when the server is not there."""
    return psycopg.connect(url, autocommit=False, connect_timeout=5)


def migrate(url: str) -> list[str]:
    """Apply the migrations that the database does not have yet, in order of their names; return those applied now.

    Forward only, each file in a transaction of its own, one process at a time (advisory lock). Raises MigrationError
    when an applied file was changed afterwards or is not known here (the database is newer than this program).
    """
    files = {
        entry.name: entry.read_text(encoding="utf-8")
        for entry in resources.files("storage").joinpath("migrations").iterdir()
        if entry.name.endswith(".sql")
    }
    return _migrate(url, files)


def _migrate(url: str, files: Mapping[str, str]) -> list[str]:
    with psycopg.connect(url, autocommit=True, connect_timeout=5) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", (_MIGRATION_LOCK,))  # released with the connection
        connection.execute(_CREATE_LEDGER)
        applied: dict[str, str] = dict(connection.execute("SELECT name, sha256 FROM schema_migration").fetchall())
        unknown = sorted(applied.keys() - files.keys())
        if unknown:
            raise MigrationError(
                f"the database has migration {unknown[-1]}, which this version of the node does not know; "
                "it was opened by a newer version. Install that version again."
            )
        done = []
        for name in sorted(files):
            sha256 = hashlib.sha256(files[name].encode()).hexdigest()
            if name in applied:
                if applied[name] != sha256:
                    raise MigrationError(
                        f"migration {name} was changed after it had been applied ({applied[name][:12]} in the "
                        f"database, {sha256[:12]} here). Restore the file and put the change into a new one."
                    )
                continue
            with connection.transaction():
                connection.execute(files[name].encode())
                connection.execute("INSERT INTO schema_migration (name, sha256) VALUES (%s, %s)", (name, sha256))
            done.append(name)
        return done


def load_queries(name: str) -> Mapping[str, bytes]:
    """The queries of `storage/queries/<name>.sql` by name.

    Each begins with a line `-- name --` and a sentence of purpose. Raises ValueError when one has no purpose or the
    same name twice.
    """
    text = resources.files("storage").joinpath("queries", f"{name}.sql").read_text(encoding="utf-8")
    parts = _HEADING.split(text)
    queries: dict[str, bytes] = {}
    for query_name, body in zip(parts[1::2], parts[2::2], strict=True):
        if query_name in queries or not body.strip().startswith("-- "):
            raise ValueError(f"queries/{name}.sql: {query_name} must be there once, with a sentence of purpose")
        queries[query_name] = body.strip().encode()
    return queries


def one(connection: Connection, record: type[T], query: bytes, values: Mapping[str, Any]) -> T | None:
    """The first row as a record whose fields carry the columns' names; None without a row."""
    with connection.cursor(row_factory=class_row(record)) as cursor:
        return cursor.execute(query, values).fetchone()


def every(connection: Connection, record: type[T], query: bytes, values: Mapping[str, Any]) -> list[T]:
    """All rows as records whose fields carry the columns' names."""
    with connection.cursor(row_factory=class_row(record)) as cursor:
        return cursor.execute(query, values).fetchall()


def every_made(connection: Connection, make: Callable[..., T], query: bytes, values: Mapping[str, Any]) -> list[T]:
    """All rows, each made by a function that takes the columns as keyword arguments."""
    with connection.cursor(row_factory=kwargs_row(make)) as cursor:
        return cursor.execute(query, values).fetchall()


def text(value: str) -> str:
    """The text without what PostgreSQL cannot store (NUL, lone surrogates): such a header must not stop an Instance."""
    return _UNSTORABLE.sub("", value)


def jsonb(value: object) -> Jsonb:
    """A JSON value for a jsonb column; NaN and infinities become null, unstorable characters are left out."""
    return Jsonb(_storable(value))


def json_text(value: object) -> str:
    """The same as text, for a column of arrays that becomes jsonb in the query."""
    try:
        plain = json.dumps(value, allow_nan=False)
    except ValueError:  # NaN
        return json.dumps(_storable(value))
    # as ASCII: what cannot be stored shows as an escape (and so do pairs of surrogates, which can)
    return json.dumps(_storable(value)) if "\\u0000" in plain or "\\ud" in plain else plain


def _storable(value: object) -> object:
    match value:
        case str():
            return text(value)
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {text(str(key)): _storable(item) for key, item in value.items()}
        case list() | tuple():
            return [_storable(item) for item in value]
        case _:
            return value
