"""Real servers for all tests: one PostgreSQL per session with a database per module, one Valkey per session."""

import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from dicom_node.embedded.broker import EmbeddedBroker
from dicom_node.embedded.postgres import EmbeddedPostgres
from storage.database import Connection, connect, migrate

_numbers = itertools.count(1)
#: Clusters are a thousand small files: in memory where there is plenty.
_MEMORY = Path("/dev/shm")
_PLACE = _MEMORY if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free > 2 << 30 else None


def pytest_configure() -> None:
    """One thread each for numpy and torch: two tests run at a time, and threads that wait for work spin."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ.setdefault(name, "1")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests of whole nodes, so that at the end no worker waits for the other."""
    items.sort(key=lambda item: "system" not in item.path.parts)


class DatabaseServer:
    """A PostgreSQL that makes migrated databases quickly, by copying one."""

    def __init__(self, server: EmbeddedPostgres) -> None:
        self.server = server
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute("ALTER SYSTEM SET fsync = off")  # what these tests try does not depend on the disk
            connection.execute("SELECT pg_reload_conf()")
        migrate(self.url_of("node"))

    def url_of(self, database: str) -> str:
        return self.server.url.replace("@/node?", f"@/{database}?")

    def create(self, template: str | None = "node") -> str:
        """Make a database (a copy of the migrated one, or an empty one) and return its URL."""
        name = f"test_{os.getpid()}_{next(_numbers)}"
        with psycopg.connect(self.url_of("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} TEMPLATE {template or 'template0'}".encode())
        return self.url_of(name)


def _running(bin: Path | None) -> Iterator[DatabaseServer]:
    with _server_dir() as folder:
        server = EmbeddedPostgres(folder, bin)
        server.start()
        try:
            yield DatabaseServer(server)
        finally:
            server.stop()


@pytest.fixture
def server_dir() -> Iterator[Path]:
    """A data directory for embedded servers of a test's own, closed to others as a home directory is."""
    with _server_dir() as folder:
        yield folder


@pytest.fixture(scope="module")
def module_server_dir() -> Iterator[Path]:
    """The same for a whole module."""
    with _server_dir() as folder:
        yield folder


@contextmanager
def _server_dir() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="node-test-", dir=_PLACE))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    """The PostgreSQL of the session, with the binaries that a node would use."""
    yield from _running(None)


@pytest.fixture(scope="session")
def oldest_database_server() -> Iterator[DatabaseServer]:
    """PostgreSQL 15, the oldest supported, where Debian has put it."""
    folder = Path("/usr/lib/postgresql/15/bin")
    if not folder.is_dir():
        if os.environ.get("CI") == "true":
            pytest.fail(f"{folder} must exist in CI")
        pytest.skip(f"no PostgreSQL 15 in {folder}")
    yield from _running(folder)


@pytest.fixture(scope="module")
def database_url(database_server: DatabaseServer) -> str:
    """A migrated database of this module's own."""
    return database_server.create()


@pytest.fixture
def fresh_database_url(database_server: DatabaseServer) -> str:
    """A migrated database of this test's own, for tests that commit and count."""
    return database_server.create()


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """A connection to the module's database; what the test does is rolled back."""
    opened = connect(database_url)
    try:
        yield opened
    finally:
        opened.rollback()
        opened.close()


@pytest.fixture(scope="session")
def broker_url() -> Iterator[str]:
    """A Valkey of the session."""
    with _server_dir() as folder:
        broker = EmbeddedBroker(folder)
        broker.start()
        try:
            yield broker.url
        finally:
            broker.stop()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Wait for a condition with a deadline: `eventually(lambda: ..., "what", timeout_s=10)`."""

    def wait(condition: Callable[[], object], what: str, timeout_s: float = 10.0) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
            time.sleep(0.01)

    return wait
