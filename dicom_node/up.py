"""`dicom-node up`: the whole node on one machine, every part a process of its own under a supervisor."""

import os
import socket
import sys
import urllib.request
from functools import partial
from pathlib import Path

from dicom_node.dimse.tls import tls_context
from dicom_node.embedded.broker import EmbeddedBroker
from dicom_node.embedded.postgres import EmbeddedPostgres
from dicom_node.embedded.supervisor import Part, Supervisor, held_data_dir
from dicom_node.errors import ConfigurationError
from dicom_node.metrics import forget_all
from dicom_node.running import announced
from dicom_node.settings import Settings
from storage.database import MigrationError, migrate


def database_server(settings: Settings) -> EmbeddedPostgres | None:
    """The embedded PostgreSQL of this data directory; None when DATABASE_URL names another."""
    if settings.database_url:
        return None
    return EmbeddedPostgres(settings.data_dir / "postgres", bin=settings.postgres_bin)


def broker_server(settings: Settings) -> EmbeddedBroker | None:
    """The embedded Valkey of this data directory; None when BROKER_URL names another."""
    if settings.broker_url:
        return None
    return EmbeddedBroker(settings.data_dir / "broker", bin=settings.valkey_bin)


def with_server_urls(settings: Settings) -> Settings:
    """Settings in which both URLs are filled in, from the environment or for the embedded servers."""
    database, broker = database_server(settings), broker_server(settings)
    return settings.model_copy(
        update={
            "database_url": settings.database_url or (database and database.url),
            "broker_url": settings.broker_url or (broker and broker.url),
        }
    )


def up(settings: Settings) -> None:
    """Run the node until SIGTERM or SIGINT. Prints the ready line when every part answers."""
    settings = settings.model_copy(
        update={
            "data_dir": settings.data_dir.resolve(),
            "dicom_port": settings.dicom_port or _free_port(),
            "tls_port": _free_port() if settings.tls_port == 0 else settings.tls_port,
            "console_port": settings.console_port or _free_port(),
        }
    )
    tls_context(settings)  # what is wrong is told now, not by receivers that start again and again
    for folder in (settings.data_dir, settings.store_dir, settings.incoming_dir, settings.run_dir):
        folder.mkdir(parents=True, exist_ok=True)
    servers = [server for server in (database_server(settings), broker_server(settings)) if server is not None]
    settings = with_server_urls(settings)

    def prepare() -> None:
        try:
            migrate(str(settings.database_url))
        except MigrationError as error:
            raise ConfigurationError(str(error)) from error
        for file in settings.run_dir.glob("*.ready"):
            file.unlink()
        forget_all(settings.data_dir)

    def say_ready() -> None:
        url = f"http://{settings.console_host}:{settings.console_port}"
        ports = [f"dicom {settings.dicom_port}"] if settings.dicom_port_enabled else []
        ports += [f"dicom-tls {settings.tls_port}"] if settings.tls_port is not None else []
        print(f"ready: {', '.join(ports)}, console {url}", flush=True)

    with held_data_dir(settings.data_dir), announced(settings):
        Supervisor(servers, _parts(settings), prepare=prepare, on_ready=say_ready).run()


def _parts(settings: Settings) -> list[Part]:
    """The parts; each name is also its command: "work-gpu-1" is `dicom-node work gpu 1`."""
    environment = os.environ | _environment(settings)
    receivers = [f"receive-{number}" for number in range(1, settings.receiver_count + 1)]
    workers = [f"work-gpu-{number}" for number in range(1, settings.workers + 1)]

    def part(name: str) -> Part:
        answers = partial(_answers_http, settings) if name == "console" else ready_file(settings, name).exists
        return Part(name, (sys.executable, "-m", "dicom_node", *name.split("-")), environment, is_ready=answers)

    return [part(name) for name in (*receivers, *workers, "work-stat-1", "work-cpu-1", "schedule", "console")]


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of the parts. They inherit the secret itself, which must not be written out."""
    values = settings.model_dump(mode="json", exclude_none=True, exclude={"tls_key_password"})
    urls = {"DATABASE_URL": values.pop("database_url"), "BROKER_URL": values.pop("broker_url")}
    return {f"DICOM_NODE_{name.upper()}": str(value) for name, value in values.items()} | urls


def ready_file(settings: Settings, part: str) -> Path:
    """A part writes its process id here when it works."""
    return settings.run_dir / f"{part}.ready"


def _answers_http(settings: Settings) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{settings.console_port}/health", timeout=1) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
