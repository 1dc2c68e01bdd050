"""Migrations, queries, pool, and values that PostgreSQL cannot store."""

import os
import signal
from collections.abc import Callable

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg_pool import PoolTimeout
from storage_rows import at_once

from dicom_node.embedded.postgres import EmbeddedPostgres
from storage import database, node


@pytest.mark.parametrize("server", ["database_server", "oldest_database_server"])
def test_migrates_an_empty_database_once(server, request):
    server = request.getfixturevalue(server)
    url = server.create(template=None)
    done = at_once(4, lambda _number: database.migrate(url))
    assert sorted(map(len, done))[:3] == [0, 0, 0]
    assert max(done, key=len)[0] == "0001_node.sql"
    assert database.migrate(url) == []
    with database.connect(url) as connection:
        assert node.node_id(connection) == node.node_id(connection)


def test_refuses_a_changed_or_unknown_migration(database_server):
    url = database_server.create(template=None)
    assert database._migrate(url, {"0001_a.sql": "CREATE TABLE a (i int)"}) == ["0001_a.sql"]
    with pytest.raises(database.MigrationError, match=r"0001_a\.sql was changed"):
        database._migrate(url, {"0001_a.sql": "CREATE TABLE a (i bigint)"})
    with pytest.raises(database.MigrationError, match="newer version"):
        database._migrate(url, {})


def test_a_failing_migration_leaves_nothing(database_server):
    url = database_server.create(template=None)
    files = {"0001_a.sql": "CREATE TABLE a (i int)", "0002_b.sql": "CREATE TABLE b (i int); SELECT 1/0"}
    with pytest.raises(psycopg.errors.DivisionByZero):
        database._migrate(url, files)
    with database.connect(url) as connection:
        assert connection.execute("SELECT to_regclass('a'), to_regclass('b')").fetchone() == ("a", None)
    assert database._migrate(url, files | {"0002_b.sql": "CREATE TABLE b (i int)"}) == ["0002_b.sql"]


def test_every_query_has_a_purpose_and_is_used():
    from storage import associations, configurations, deliveries, events, instances, jobs, outbox, results, studies

    modules = [associations, configurations, deliveries, events, instances, jobs, node, outbox, results, studies]
    for module in modules:
        with open(module.__file__, encoding="utf-8") as file:
            source = file.read()
        for name in module.QUERIES:
            assert f'"{name}"' in source, f"{module.__name__}: query {name} is not used"


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text() | st.just("\x00\ud800"),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_value_becomes_storable_json(value):
    import json

    text = json.dumps(database._storable(value), allow_nan=False, ensure_ascii=False)
    text.encode()
    assert "\\u0000" not in text.replace("\\\\", "")


def test_the_pool_survives_a_restart_of_the_server(server_dir, eventually: Callable[..., None]):
    server = EmbeddedPostgres(server_dir)
    server.start()
    try:
        with database.open_pool(server.url) as pool:
            with pool.connection() as connection:
                connection.execute("CREATE TABLE t (i int)")
            os.kill(server.pid, signal.SIGKILL)
            eventually(lambda: not server.is_running(), "server killed")
            server.start()

            def asked() -> bool:
                try:
                    with pool.connection() as connection:
                        return connection.execute("SELECT count(*) FROM t").fetchone() == (0,)
                except (psycopg.OperationalError, PoolTimeout):
                    return False

            eventually(asked, "the pool serves again", 5)
    finally:
        server.stop()
