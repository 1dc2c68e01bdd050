"""`dicom-node doctor`: does this installation work? One line per part, with what to do when it does not."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

from dicom_node.disk import DiskWatermark, reserve_bytes
from dicom_node.errors import NodeError
from dicom_node.settings import Settings
from dicom_node.up import with_server_urls
from pipelines.catalogue import PIPELINES

LOW_DISK_GB = 20.0


@dataclass(frozen=True)
class Check:
    """Outcome of one examination."""

    name: str
    ok: bool
    text: str


def examine(settings: Settings) -> Iterator[Check]:
    """Run every check in turn; none stops the others."""
    settings = with_server_urls(settings)
    checks: list[tuple[str, Callable[[], str]]] = [
        ("database", lambda: _database(settings)),
        ("broker", lambda: _broker(settings)),
        ("disk", lambda: _disk(settings)),
        ("device", lambda: _device(settings)),
        ("models", lambda: _models(settings)),
        ("site's settings of pipelines", _pipeline_settings),
    ]
    for name, check in checks:
        yield _examined(name, check)
    yield from _destinations(settings)
    for name in PIPELINES:
        yield _examined(f"phantom {name}", lambda name=name: _phantom(name, settings))  # type: ignore[misc]


def _examined(name: str, check: Callable[[], str]) -> Check:
    try:
        return Check(name, True, check())
    except Exception as error:  # noqa: BLE001 - whatever is wrong is the finding
        return Check(name, False, f"{type(error).__name__}: {error}".strip())


def _database(settings: Settings) -> str:
    with psycopg.connect(str(settings.database_url), connect_timeout=5) as connection:
        row = connection.execute("SELECT current_setting('server_version'), count(*) FROM study").fetchone()
    assert row is not None  # noqa: S101 - an aggregate always gives a row
    return f"PostgreSQL {row[0]}, {row[1]} studies"


def _broker(settings: Settings) -> str:
    from dicom_node import tasks

    app = tasks.configure(str(settings.broker_url))
    with app.connection_for_write() as connection:
        connection.ensure_connection(max_retries=1, timeout=5)
        return f"{connection.transport.driver_type} answers"


def _disk(settings: Settings) -> str:
    folder = settings.data_dir if settings.data_dir.exists() else Path()
    free_gb = shutil.disk_usage(folder).free / 1e9
    reserve_mb = reserve_bytes(folder, settings.disk_reserve_mb) >> 20
    if DiskWatermark(folder, reserve_mb << 20).is_low():
        raise NodeError(
            f"{free_gb:.1f} GB free in {folder}, less than the reserve of {reserve_mb} MiB: images are refused (A700) "
            "until there is more; make room or move the data"
        )
    if free_gb < LOW_DISK_GB:
        raise NodeError(f"{free_gb:.0f} GB free in {folder}, {LOW_DISK_GB:.0f} GB wanted; make room or move the data")
    return f"{free_gb:.0f} GB free, {reserve_mb} MiB of them kept in reserve"


def _device(settings: Settings) -> str:
    import torch

    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise NodeError(f"DICOM_NODE_DEVICE={settings.device}, but torch {torch.__version__} sees no GPU")
    name = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "CPU"
    return f"{name} (torch {torch.__version__})"


def _models(settings: Settings) -> str:
    from dicom_node.inference import open_bundles

    names = sorted({name for pipeline in PIPELINES.values() for name in pipeline.bundles})
    bundles = open_bundles(names, settings)
    return ", ".join(f"{name} {bundle.version} sha256 {bundle.sha256[:12]}" for name, bundle in bundles.items())


def _pipeline_settings() -> str:
    """Tables that a site may edit can be used: a wrong one fails every job of its pipeline."""
    found = [
        f"{name} {key} {value[:27]}"
        for name, pipeline in PIPELINES.items()
        for key, value in pipeline.configuration().items()
    ]
    return "; ".join(found) or "there are none"


def _destinations(settings: Settings) -> Iterator[Check]:
    import storage.configurations
    from dicom_node.delivery.dimse import tls_of
    from dicom_node.dimse.scu import echo
    from dicom_node.routing.configuration import load_configuration
    from storage.database import connect

    try:
        with connect(str(settings.database_url)) as connection:
            current = storage.configurations.current(connection)
    except psycopg.Error:
        return  # the database's own check says so
    if current is None:
        yield Check("rules", False, "none imported yet: dicom-node rules import FILE.yaml")
        return
    for name, destination in load_configuration(current.document).destinations.items():
        if destination.type != "dimse":
            continue

        def answers(destination=destination) -> str:  # type: ignore[no-untyped-def]
            called, tls = destination.ae_title, tls_of(destination)
            answer = echo(destination.host, destination.port, called, settings.ae_title, tls=tls)
            if answer.seconds is None:
                raise NodeError(answer.reason)
            return f"C-ECHO answered in {answer.seconds * 1000:.0f} ms"

        yield _examined(f"destination {name}", answers)


def _phantom(name: str, settings: Settings) -> str:
    from dicom_node.single import run_on_folder
    from models.phantoms import PHANTOMS

    with tempfile.TemporaryDirectory() as folder:
        case = PHANTOMS[name](1, Path(folder))
        answer = run_on_folder(PIPELINES[name], case / "dicom", Path(folder) / "out", settings)
        if answer.status != "done":
            raise NodeError(f"refused: {answer.reason}")
        kinds = " + ".join(item.kind.upper() for item in answer.objects)
        return f"{kinds} in {sum(answer.result['seconds'].values()):.1f} s"
