"""PostgreSQL and Valkey as child processes, and the supervisor of the whole node on one machine."""

from dicom_node.errors import NodeError


class EmbeddedServerError(NodeError):
    """An embedded server cannot be started; the text says why and what to do."""
