"""`dicom-node up`: the whole node on one machine, every part a process of its own under a supervisor."""

import os
import signal
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import structlog

from dicom_node import running
from dicom_node.dimse.scu import echo
from dicom_node.embedded.broker import EmbeddedBroker
from dicom_node.embedded.postgres import EmbeddedPostgres
from dicom_node.embedded.supervisor import Part, Supervisor
from dicom_node.errors import NodeError
from dicom_node.settings import Settings
from storage.database import migrate

log = structlog.get_logger()

READY_TIMEOUT_S = 90.0


def database_server(settings: Settings) -> EmbeddedPostgres | None:
    """The embedded PostgreSQL of this data directory; None when DATABASE_URL names another."""
    if settings.database_url:
        return None
    return EmbeddedPostgres(settings.data_dir / "postgres", bin_dir=settings.postgres_bin)


def broker_server(settings: Settings) -> EmbeddedBroker | None:
    """The embedded Valkey of this data directory; None when BROKER_URL names another."""
    if settings.broker_url:
        return None
    return EmbeddedBroker(settings.data_dir / "broker", binary=settings.valkey_bin)


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
            "console_port": settings.console_port or _free_port(),
        }
    )
    for folder in (settings.data_dir, settings.store_dir, settings.incoming_dir, _ready_dir(settings)):
        folder.mkdir(parents=True, exist_ok=True)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    servers = [server for server in (database_server(settings), broker_server(settings)) if server is not None]
    supervisor = Supervisor(settings.data_dir, servers=servers)
    with supervisor:  # takes the data directory's lock, starts or adopts the servers, stops everything at the end
        settings = with_server_urls(settings)
        migrate(str(settings.database_url))
        for file in _ready_dir(settings).iterdir():
            file.unlink()
        environment = os.environ | _environment(settings)
        for part in _parts(settings):
            supervisor.add(Part(part, [sys.executable, "-m", "dicom_node", *part.split("-")], environment))
        note = running.announce(settings, settings.dicom_port, settings.console_port)
        try:
            _wait_until_ready(settings, stopping, supervisor)
            if not stopping.is_set():
                url = f"http://{settings.console_host}:{settings.console_port}"
                print(f"ready: dicom {settings.dicom_port}, console {url}", flush=True)
            stopping.wait()
        finally:
            note.unlink(missing_ok=True)


def _parts(settings: Settings) -> list[str]:
    """Names of the parts; each is also its command: "work-gpu-1" is `dicom-node work gpu 1`."""
    workers = [f"work-gpu-{number}" for number in range(1, settings.workers + 1)]
    return ["receive", "schedule", *workers, "work-cpu-1", "console"]


def _environment(settings: Settings) -> dict[str, str]:
    """The settings as the environment of the parts."""
    values = settings.model_dump(mode="json", exclude_none=True)
    urls = {"DATABASE_URL": values.pop("database_url"), "BROKER_URL": values.pop("broker_url")}
    return {f"DICOM_NODE_{name.upper()}": str(value) for name, value in values.items()} | urls


def _ready_dir(settings: Settings) -> Path:
    return settings.data_dir / "run"


def ready_file(settings: Settings, part: str) -> Path:
    """A part writes its process id here when it works."""
    return _ready_dir(settings) / f"{part}.ready"


def _wait_until_ready(settings: Settings, stopping: threading.Event, supervisor: Supervisor) -> None:
    """Wait until every part answers. Raises NodeError naming the parts that do not."""

    def says_ready(part: str) -> Callable[[], bool]:
        return lambda: ready_file(settings, part).exists()

    waiting: dict[str, Callable[[], bool]] = {
        part: says_ready(part) for part in _parts(settings) if part not in ("receive", "console")
    }
    waiting["receive"] = lambda: _answers_echo(settings)
    waiting["console"] = lambda: _answers_http(settings)
    deadline = time.monotonic() + READY_TIMEOUT_S
    while waiting and not stopping.wait(0.1):
        waiting = {part: answers for part, answers in waiting.items() if not answers()}
        if time.monotonic() > deadline:
            raise NodeError(
                f"not ready after {READY_TIMEOUT_S:.0f} s: no answer from {', '.join(waiting)}; see their last lines above"
            )
    del supervisor


def _answers_echo(settings: Settings) -> bool:
    """The port takes connections; the association itself may be refused to us once senders are configured."""
    try:
        socket.create_connection(("127.0.0.1", settings.dicom_port), 0.5).close()
    except OSError:
        return False
    echo("127.0.0.1", settings.dicom_port, settings.ae_title, settings.ae_title)
    return ready_file(settings, "receive").exists()


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
