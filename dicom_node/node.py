"""What every part of the node holds in its hands: settings, database, file store, models."""

import os
import socket
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from uuid import UUID

from psycopg_pool import ConnectionPool

import storage.configurations
import storage.node
from dicom_node.routing.configuration import Configuration, load_configuration
from dicom_node.settings import Settings
from pipelines.pipeline import Pipeline, Predictor
from storage.files import FolderStore
from storage.records import Job


@dataclass
class Node:
    """One process's view of the node. `owner` names the process in job leases."""

    settings: Settings
    pool: ConnectionPool
    store: FolderStore
    owner: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}")
    running_job: Job | None = None  # by the one thread that runs jobs in this process
    _bundles: dict[str, Predictor] = field(default_factory=dict)
    _opening: threading.Lock = field(default_factory=threading.Lock)
    _configuration: tuple[int, Configuration] = (0, Configuration())

    @cached_property
    def node_id(self) -> UUID:
        """Identity of this installation, made once with its database."""
        with self.pool.connection() as connection:
            return storage.node.node_id(connection)

    def configuration(self) -> Configuration:
        """The administrator's rules in force; parsed again only when a newer version was imported."""
        with self.pool.connection() as connection:
            current = storage.configurations.current(connection)
        if current is not None and current.version != self._configuration[0]:
            self._configuration = (current.version, load_configuration(current.document))
        return self._configuration[1]

    @property
    def configuration_version(self) -> int:
        """Version of what `configuration` returned last; 0: nothing imported yet."""
        return self._configuration[0]

    def bundles(self, pipeline: Pipeline) -> Mapping[str, Predictor]:
        """The pipeline's bundles, opened once per process and kept warm. Imports torch."""
        from dicom_node.inference import open_bundles

        with self._opening:
            missing = [name for name in pipeline.bundles if name not in self._bundles]
            if missing:
                self._bundles.update(open_bundles(missing, self.settings))
        return {name: self._bundles[name] for name in pipeline.bundles}
