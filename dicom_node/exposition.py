"""The node's metrics in the text format of Prometheus: what the parts counted, and how things stand at this moment."""

import os
import re
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector
from psycopg_pool import ConnectionPool

import storage.commitment_requests
import storage.deliveries
import storage.destinations
import storage.jobs
from dicom_node.disk import reserve_bytes
from dicom_node.metrics import folder_of
from dicom_node.patience import DATABASE_AWAY
from dicom_node.settings import Settings
from storage.destinations import DestinationState

log = structlog.get_logger()

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_DATABASE_WITHIN_S = 2.0
_ENTRY_TIME = re.compile(r"(\d{19})-")


def exposition(settings: Settings, pool: ConnectionPool) -> bytes:
    """Everything, for one scrape. Does not raise while the database is away; those metrics are left out then."""
    registry = CollectorRegistry()
    folder = folder_of(settings.data_dir)
    if folder.is_dir():
        MultiProcessCollector(registry, str(folder))
    registry.register(_Now(settings, pool))
    return generate_latest(registry)


class _Now(Collector):
    """What is read when somebody asks."""

    def __init__(self, settings: Settings, pool: ConnectionPool) -> None:
        self._settings = settings
        self._pool = pool

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """All of it."""
        yield from _journal(self._settings.incoming_dir)
        yield from _disk(self._settings)
        yield from _parts(folder_of(self._settings.data_dir))
        try:
            found = list(self._from_database())
        except DATABASE_AWAY as error:
            log.warning("metrics without the database", error=type(error).__name__)
            found = []
        yield GaugeMetricFamily("dicom_node_database_up", "Whether the database answers", value=bool(found))
        yield from found

    def _from_database(self) -> Iterator[GaugeMetricFamily]:
        with self._pool.connection(timeout=_DATABASE_WITHIN_S) as connection:
            connection.execute("SET LOCAL statement_timeout = '5s'")
            jobs = storage.jobs.counts_by_pipeline(connection)
            deliveries = storage.deliveries.counts_by_destination(connection)
            commitments = storage.commitment_requests.counts(connection)
            destinations = storage.destinations.states(connection)
            silent_s = storage.jobs.longest_silence_s(connection, self._settings.job_lease_s)
        family = GaugeMetricFamily("dicom_node_jobs", "Jobs", labels=["pipeline", "state"])
        for (pipeline, state), count in jobs.items():
            family.add_metric([pipeline, state], count)
        yield family
        family = GaugeMetricFamily("dicom_node_deliveries", "Results on their way", labels=["destination", "state"])
        for (destination, state), count in deliveries.items():
            family.add_metric([destination, state], count)
        yield family
        text = "Results that their archive is to commit"
        family = GaugeMetricFamily("dicom_node_commitments", text, labels=["destination", "state"])
        for (destination, state), count in commitments.items():
            family.add_metric([destination, state], count)
        yield family
        yield from _breakers(destinations)
        yield GaugeMetricFamily(
            "dicom_node_job_heartbeat_age_seconds",
            "Since a running job was last heard of, the longest; 0 when none runs",
            value=silent_s,
        )


def _breakers(states: Sequence[DestinationState]) -> Iterator[GaugeMetricFamily]:
    """By name in the rules; of replies by one destination the worst counts."""
    away: dict[str, float] = {}
    oldest: dict[str, float] = {}
    now = time.time()
    for state in states:
        name = state.name.partition(":")[0]
        is_away = state.breaker != "closed"
        away[name] = max(away.get(name, 0.0), float(is_away))
        seconds = max(0.0, now - state.since.timestamp()) if is_away else 0.0
        oldest[name] = max(oldest.get(name, 0.0), seconds)
    for metric, text, values in (
        ("dicom_node_destination_away", "1: the circuit breaker is open, deliveries wait", away),
        ("dicom_node_destination_away_seconds", "For so long; 0: it is there", oldest),
    ):
        family = GaugeMetricFamily(metric, text, labels=["destination"])
        for name, value in values.items():
            family.add_metric([name], value)
        yield family


def _journal(folder: Path) -> Iterator[GaugeMetricFamily]:
    entries, oldest_s = index_lag(folder)
    yield GaugeMetricFamily("dicom_node_index_lag_entries", "Journal entries not indexed yet", value=entries)
    yield GaugeMetricFamily("dicom_node_index_lag_seconds", "Age of the oldest of them; 0: none", value=oldest_s)


def index_lag(folder: Path) -> tuple[int, float]:
    """How many journal entries wait for the index, and for how long the oldest has been waiting, s (0.0: none)."""
    try:
        times = [int(match[1]) for match in map(_ENTRY_TIME.match, os.listdir(folder)) if match]
    except OSError:
        return 0, 0.0
    return len(times), max(0.0, time.time() - min(times) / 1e9) if times else 0.0


def _disk(settings: Settings) -> Iterator[GaugeMetricFamily]:
    try:
        found = os.statvfs(settings.data_dir)
    except OSError:
        return
    yield GaugeMetricFamily(
        "dicom_node_disk_free_bytes", "Left for the data directory", value=found.f_bavail * found.f_frsize
    )
    yield GaugeMetricFamily("dicom_node_disk_size_bytes", "Of its file system", value=found.f_blocks * found.f_frsize)
    yield GaugeMetricFamily(
        "dicom_node_disk_reserve_bytes",
        "Objects are refused when less is free",
        value=reserve_bytes(settings.data_dir, settings.disk_reserve_mb),
    )


def _parts(folder: Path) -> Iterator[GaugeMetricFamily]:
    family = GaugeMetricFamily(
        "dicom_node_heartbeat_age_seconds", "Since a part of the node showed that it lives", labels=["host", "part"]
    )
    for file in sorted(folder.glob("*.alive")):
        try:
            part, _, host = file.stem.partition(".")
            family.add_metric([host, part], max(0.0, time.time() - file.stat().st_mtime))
        except FileNotFoundError:
            continue
    yield family
