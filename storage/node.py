"""The node's own identity."""

from uuid import UUID

from storage.database import Connection, load_queries

QUERIES = load_queries("node")


def node_id(connection: Connection) -> UUID:
    """The identity of this node: made with the schema, the same for its whole life."""
    row = connection.execute(QUERIES["node_id"]).fetchone()
    assert row is not None, "the first migration inserts the row"  # noqa: S101
    identity = row[0]
    assert isinstance(identity, UUID)  # noqa: S101
    return identity
