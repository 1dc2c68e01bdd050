"""The node that a command speaks of: the one that runs here, or that of a data directory."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dicom_node.settings import Settings

if TYPE_CHECKING:
    from storage.database import Connection

DataDir = Annotated[
    Path | None, typer.Option("--data-dir", help="Data directory of the node; default: the one that runs here.")
]


def settings_of(data_dir: Path | None) -> Settings:
    """Its settings. Raises NodeError when there is no such node."""
    from dicom_node.running import settings_of_running_node
    from dicom_node.up import with_server_urls

    return with_server_urls(settings_of_running_node(Settings(), data_dir))


@contextmanager
def database_of(data_dir: Path | None) -> Iterator["Connection"]:
    """One transaction on its database."""
    from storage.database import connect

    with connect(str(settings_of(data_dir).database_url)) as connection:
        yield connection
