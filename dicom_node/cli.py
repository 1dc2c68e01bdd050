"""The command `dicom-node`: alone reads arguments, prints and exits. Imports late, so that it starts quickly."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.commands.deliveries import deliveries_app, destinations_app
from dicom_node.commands.running_node import DataDir
from dicom_node.errors import NodeError
from dicom_node.settings import Settings

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
rules_app = typer.Typer(no_args_is_help=True, help="Rules, destinations and senders as one YAML file.")
app.add_typer(rules_app, name="rules")
app.add_typer(deliveries_app, name="deliveries")
app.add_typer(destinations_app, name="destinations")

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

EXIT_ERROR = 1
#: new rules also decide about studies that arrived so recently; older ones stay as they are
RECONSIDERED = timedelta(hours=1)
EXIT_REFUSED = 3


def main() -> None:
    """Entry point: a NodeError ends with its text and status 1, never with a traceback."""
    try:
        app()
    except NodeError as error:
        err.print(f"dicom-node: {error}", style="bold red", markup=False)
        sys.exit(EXIT_ERROR)


def _progress() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    return Progress(*columns, console=err)


def _pipeline(name: str) -> Any:
    from pipelines.catalogue import PIPELINES

    if name not in PIPELINES:
        raise NodeError(f"no pipeline {name!r} in this version; there is: {', '.join(PIPELINES)}")
    return PIPELINES[name]


@contextmanager
def _node(settings: Settings, component: str, connections: int = 4) -> Iterator[Any]:
    """The process's view of a node whose servers run; closes its connections at the end."""
    from dicom_node.log import configure
    from dicom_node.node import Node
    from dicom_node.up import with_server_urls
    from storage.database import open_pool
    from storage.files import FolderStore

    configure(component, settings.log_format)
    settings = with_server_urls(settings)
    pool = open_pool(str(settings.database_url), min_size=1, max_size=connections)
    try:
        yield Node(settings, pool, FolderStore(settings.store_dir))
    finally:
        pool.close(timeout=1.0)


def _running(data_dir: Path | None) -> Settings:
    from dicom_node.running import settings_of_running_node

    return settings_of_running_node(Settings(), data_dir)


def _settings_help() -> str:
    lines = ["Settings from the environment:", ""]
    for name, field in Settings.model_fields.items():
        variable = str(field.validation_alias or f"DICOM_NODE_{name.upper()}")
        lines.append(f"{variable} [{field.default}]: {field.description}")
        lines.append("")
    return "\n".join(lines)


# ---- the node and its parts


@app.command(epilog=_settings_help())
def up(
    data_dir: Annotated[Path | None, typer.Option(help="Where images, results and the servers' data lie.")] = None,
    dicom_port: Annotated[int | None, typer.Option(help="Port of the receiver; 0: any free one.")] = None,
    console_port: Annotated[int | None, typer.Option(help="Port of the console; 0: any free one.")] = None,
) -> None:
    """Run the whole node; prints `ready: …` when all parts answer, stops on SIGTERM."""
    from dicom_node.log import configure
    from dicom_node.up import up as run_node

    given = {"data_dir": data_dir, "dicom_port": dicom_port, "console_port": console_port}
    settings = Settings().model_copy(update={name: value for name, value in given.items() if value is not None})
    configure("up", settings.log_format)
    run_node(settings)


@app.command()
def receive(
    number: Annotated[int, typer.Argument(help="Number of this receiver on this data directory.", min=1)] = 1,
) -> None:
    """A receiver alone: DICOM C-STORE and C-ECHO SCP. Several share one port."""
    from dicom_node import metrics
    from dicom_node.log import configure
    from dicom_node.reception import receive as run_receiver
    from dicom_node.up import ready_file

    settings = Settings()
    name = f"receive-{number}"
    configure(name, settings.log_format)
    metrics.start(settings.data_dir, name)
    run_receiver(settings, ready_file(settings, name), name)


@app.command()
def schedule() -> None:
    """The scheduler alone: index, recognise, route, announce, sweep."""
    import signal
    import threading

    from dicom_node import metrics, tasks
    from dicom_node.audit import open_trail
    from dicom_node.scheduling import Scheduler
    from dicom_node.up import ready_file

    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _node(Settings(), "schedule") as node:
        metrics.start(node.settings.data_dir, "schedule")
        tasks.configure(str(node.settings.broker_url))
        ready = ready_file(node.settings, "schedule")
        ready.parent.mkdir(parents=True, exist_ok=True)
        with open_trail(node.settings, "schedule") as trail:
            Scheduler(node, trail).run(stop, lambda: ready.write_text(str(os.getpid())))


@app.command()
def work(
    queue: Annotated[
        str,
        typer.Argument(
            help="gpu (inference), cpu (deliveries), stat (inference that somebody waits for), or several with commas."
        ),
    ] = "gpu,cpu,stat",
    number: Annotated[int, typer.Argument(help="Number of this worker on this machine.")] = 1,
) -> None:
    """A worker alone: runs jobs and deliveries from the broker's queues."""
    # Before numpy is there: its small products of matrices gain nothing from threads, which wait for each other (mre_qc
    # takes half as long without). Networks have threads of their own.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from dicom_node import metrics
    from dicom_node.tasks import QUEUES
    from dicom_node.up import ready_file
    from dicom_node.worker import work as run_worker

    queues = queue.split(",")
    unknown = [name for name in queues if name not in QUEUES]
    if unknown:
        raise NodeError(f"no queue {unknown[0]!r}; there are: {', '.join(QUEUES)}")
    name = f"work-{queue}-{number}"
    with _node(Settings(), name, connections=8) as node:
        metrics.start(node.settings.data_dir, name)
        ready = ready_file(node.settings, name)
        ready.parent.mkdir(parents=True, exist_ok=True)
        run_worker(node, str(node.settings.broker_url), queues, ready)


@app.command()
def console() -> None:
    """The web console alone."""
    import uvicorn

    from dicom_node import metrics
    from dicom_node.console.app import console_app

    with _node(Settings(), "console") as node:
        metrics.start(node.settings.data_dir, "console")
        host, port = node.settings.console_host, node.settings.console_port
        uvicorn.run(console_app(node.pool, node.settings), host=host, port=port, log_level="warning")


@app.command()
def migrate() -> None:
    """Bring the database of DATABASE_URL to this version's schema; `up` does so by itself."""
    from dicom_node.up import with_server_urls
    from storage.database import migrate as apply_migrations

    applied = apply_migrations(str(with_server_urls(Settings()).database_url))
    out.print(f"applied: {', '.join(applied) or 'nothing, the schema is up to date'}")


# ---- the administrator


@rules_app.command("check")
def rules_check(file: Path) -> None:
    """Check a rules file; problems name their line."""
    from dicom_node.routing.configuration import load_configuration

    configuration = load_configuration(_text_of(file))
    out.print(
        f"{file}: {len(configuration.rules)} rules, {len(configuration.destinations)} destinations, "
        f"{len(configuration.senders)} senders: valid"
    )


@rules_app.command("import")
def rules_import(file: Path, data_dir: DataDir = None) -> None:
    """Check a rules file and put it in force. The version before is kept."""
    import getpass

    import storage.configurations
    import storage.events
    import storage.studies
    from dicom_node.audit import events, open_trail
    from dicom_node.routing.configuration import load_configuration
    from dicom_node.up import with_server_urls
    from storage.database import connect

    text = _text_of(file)
    configuration = load_configuration(text)
    settings = with_server_urls(_running(data_dir))
    try:
        author = getpass.getuser()
    except (KeyError, OSError):
        author = ""
    with connect(str(settings.database_url)) as connection:
        version = storage.configurations.add(connection, text, author).version
        storage.events.add(connection, None, "rules", f"version {version} imported", {"by": author})
        storage.studies.touch_all(connection, datetime.now(UTC) - RECONSIDERED)
    with open_trail(settings) as trail:
        trail.note(events.configuration_imported(settings.ae_title, author, version))
    out.print(f"version {version} in force: {len(configuration.rules)} rules (node data: {settings.data_dir})")


@rules_app.command("export")
def rules_export(file: Annotated[Path | None, typer.Argument()] = None, data_dir: DataDir = None) -> None:
    """Print the rules in force, or write them to FILE."""
    import storage.configurations
    from dicom_node.up import with_server_urls
    from storage.database import connect

    settings = with_server_urls(_running(data_dir))
    with connect(str(settings.database_url)) as connection:
        current = storage.configurations.current(connection)
    if current is None:
        raise NodeError("no rules were imported yet")
    if file is None:
        print(current.document, end="")
    else:
        file.write_text(current.document)
        out.print(f"version {current.version} written to {file}")


@rules_app.command("dry-run")
def rules_dry_run(
    file: Path, data_dir: DataDir = None, limit: Annotated[int, typer.Option(help="Studies received last.")] = 100
) -> None:
    """Try a rules file on the studies received last: what would start, what would stop starting, and why."""
    from dicom_node.dry_run import dry_run
    from dicom_node.routing.configuration import load_configuration

    draft = load_configuration(_text_of(file))
    with _node(_running(data_dir), "dry-run") as node:
        rows = list(dry_run(node, draft, limit))
    for row in rows:
        print(f"{row.study_instance_uid}  rule {row.rule!r}: now {row.now}, then {row.draft}: {row.reason}")


@app.command()
def studies(data_dir: DataDir = None, limit: int = 50) -> None:
    """The studies received last."""
    from dicom_node.story import results_table, studies_table
    from dicom_node.up import with_server_urls
    from storage.database import connect

    settings = with_server_urls(_running(data_dir))
    with connect(str(settings.database_url)) as connection:
        rows = studies_table(connection, limit)
        results = results_table(connection, rows)
        for study in rows:
            words = results.get(study.study_instance_uid)
            print(
                f"{study.last_received_at:%Y-%m-%d %H:%M:%S}  {study.study_instance_uid}  "
                f"{study.instances:5d} images  {f'[{words}]  ' if words else ''}{study.state}: {study.reason}"
            )


@app.command()
def why(study_uid: str, data_dir: DataDir = None) -> None:
    """The whole story of one study: what was received, recognised, decided, run, sent, and why not."""
    from dicom_node.story import study_story
    from dicom_node.up import with_server_urls
    from storage.database import connect

    settings = with_server_urls(_running(data_dir))
    with connect(str(settings.database_url)) as connection:
        story = study_story(connection, study_uid)
    if story is None:
        raise NodeError(f"study {study_uid}: nothing was received")
    print(story, end="")


@app.command()
def rerun(
    study_uid: str,
    pipeline: Annotated[str | None, typer.Option(help="Only this one; default: all that the rules give it.")] = None,
    data_dir: DataDir = None,
) -> None:
    """Run a study again, after a new version or new bundles; the new results name the old ones as predecessors."""
    from dicom_node.rerun import rerun as ask_again

    name = _pipeline(pipeline).name if pipeline else None
    with _node(_running(data_dir), "rerun") as node:
        for asked in ask_again(node, study_uid, name):
            what = f"job {asked.job.id} requested" if asked.job else "a job for these images waits already"
            out.print(f"{asked.pipeline}: {what} ({asked.reason})", markup=False)


@app.command()
def conformance(
    form: Annotated[str, typer.Option("--format", help="markdown, or json: the data behind it.")] = "markdown",
) -> None:
    """Print the DICOM conformance statement of this version, made from the tables that the code works by."""
    from dicom_node.conformance import as_markdown, statement

    if form not in ("markdown", "json"):
        raise NodeError(f"--format {form!r}: markdown or json is needed")
    data = statement()
    print(as_markdown(data) if form == "markdown" else json.dumps(data, indent=1), end="")


@app.command()
def doctor(data_dir: DataDir = None) -> None:
    """Test this installation: database, broker, disk, device, destinations, models, one phantom end to end."""
    from dicom_node.doctor import examine

    sound = True
    for check in examine(_running(data_dir)):
        sound &= check.ok
        out.print(f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.text}", style=None if check.ok else "red")
    raise typer.Exit(0 if sound else EXIT_ERROR)


# ---- images


@app.command()
def demo(
    pipelines: Annotated[list[str] | None, typer.Argument(help="Pipelines to show; default: all.")] = None,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for the DICOM objects and pictures.")] = Path(
        "demo-output"
    ),
) -> None:
    """The main job on this machine: phantom study in by C-STORE, SR and SEG out by C-STORE, a table and pictures."""
    from dicom_node.demo import run_demo

    names = [_pipeline(name).name for name in pipelines] if pipelines else None
    raise typer.Exit(run_demo(names, out_dir))


@app.command()
def send(
    paths: list[Path],
    to: Annotated[str, typer.Option("--to", help="HOST:PORT")],
    aec: Annotated[str, typer.Option(help="Called AE title.")] = "LIVERNODE",
    aet: Annotated[str, typer.Option(help="Calling AE title.")] = "DICOM_NODE",
    tls: Annotated[bool, typer.Option("--tls", help="Send over TLS; the node's certificate is checked.")] = False,
    tls_ca: Annotated[Path | None, typer.Option(help="Whom to trust (PEM); default: the system's CAs.")] = None,
    tls_certificate: Annotated[Path | None, typer.Option(help="Our certificate (PEM), where one is wanted.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key (PEM).")] = None,
    tls_name: Annotated[str | None, typer.Option(help="Name in the node's certificate; default: HOST.")] = None,
) -> None:
    """C-STORE files and folders to a DICOM node."""
    from dicom_node.dimse.scu import send_files
    from dicom_node.dimse.tls import TlsFiles, TlsPeer

    host, _, port = to.rpartition(":")
    if not host or not port.isdigit():
        raise NodeError(f"--to {to!r}: HOST:PORT is needed")
    files = [file for path in paths for file in (sorted(path.rglob("*")) if path.is_dir() else [path])]
    files = [file for file in files if file.is_file() and _is_dicom(file)]
    if not files:
        raise NodeError("no DICOM file in the given paths")
    with _progress() as progress:
        task = progress.add_task("C-STORE", total=len(files))
        peer = None
        if tls or tls_ca or tls_certificate:
            peer = TlsPeer(TlsFiles(tls_certificate, tls_key, tls_ca, Settings().key_password()), tls_name)
        outcomes = send_files(files, host, int(port), aec, aet, lambda *_: progress.advance(task), tls=peer)
    failed = [outcome for outcome in outcomes if not outcome.is_stored]
    out.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} objects stored")
    for outcome in failed[:5]:
        err.print(f"{outcome.path}: {outcome.reason}", markup=False)
    raise typer.Exit(EXIT_ERROR if failed else 0)


@app.command()
def run(
    pipeline: str,
    folder: Path,
    out_dir: Annotated[Path, typer.Option("--out", help="Folder for result.json and the DICOM objects.")],
    clinical: Annotated[Path | None, typer.Option(help="clinical.json (used by pipelines that take it).")] = None,
) -> None:
    """One pipeline on a folder of DICOM files, without node, database or broker. Exit 0 done, 3 refused, 1 error."""
    from dicom_node.single import run_on_folder

    if clinical is not None and not clinical.is_file():
        raise NodeError(f"{clinical}: no such file")
    answer = run_on_folder(_pipeline(pipeline), folder, out_dir, Settings())
    if answer.status == "refused":
        err.print(f"refused: {answer.reason}", markup=False)
        raise typer.Exit(EXIT_REFUSED)
    out.print(f"done: {', '.join(item.kind.upper() for item in answer.objects)} and result.json in {out_dir}")


@app.command()
def phantom(
    pipeline: str,
    count: Annotated[int, typer.Option(min=1)] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    out_dir: Annotated[Path, typer.Option("--out")] = Path("phantoms"),
    extras: Annotated[bool, typer.Option(help="Also scout, plain, delayed, bone kernel and MPR series.")] = False,
) -> None:
    """Simulated cases with known truth (case folders)."""
    from models.phantoms import PHANTOMS

    if pipeline not in PHANTOMS:
        raise NodeError(f"no phantoms for {pipeline!r} in this version; there are: {', '.join(PHANTOMS)}")
    write_case = PHANTOMS[pipeline]
    with _progress() as progress:
        for number in progress.track(range(seed, seed + count), description="phantoms"):
            write_case(number, out_dir, extras=extras)
    out.print(f"{count} cases in {out_dir}")


@app.command()
def evaluate(
    pipeline: str,
    folder: Path,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the measures as JSON.")] = None,
    plots: Annotated[Path | None, typer.Option(help="Folder for the plots; default: beside the cases.")] = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Use this role alone, as if no other was sent; may be repeated.")
    ] = None,
) -> None:
    """Run a pipeline over case folders and print its outcome measures with 95 % intervals."""
    from dicom_node.single import evaluate_cases

    with _progress() as progress:
        report = evaluate_cases(
            _pipeline(pipeline), folder, plots or folder / "evaluation", Settings(), progress.track, only or ()
        )
    table = Table("measure", "value", "95 % interval", "n", box=None)
    for row in report.rows():
        table.add_row(*row)
    out.print(table)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_dict(), indent=1))


@app.command()
def train(
    bundle: str,
    data: Annotated[Path | None, typer.Option(help="Case folders of a site; default: phantoms.")] = None,
    device: str = "auto",
    minutes: Annotated[float, typer.Option(help="Length of the training.")] = 60.0,
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Bundle folder to write; default: below ./bundles.")
    ] = None,
) -> None:
    """Train a bundle from phantoms or from a site's own cases."""
    from dicom_node.single import read_ct_phases
    from models.training import train as train_bundle
    from pipelines.ct_lesion.lesions import proposals
    from pipelines.mre_qc import channels

    target = out_dir or Path("bundles") / bundle
    if bundle == "mre_qc":
        if data is not None:
            raise NodeError("mre_qc learns from simulated slices only: leave --data out")
        train_bundle(bundle, measure=channels, device=device, minutes=minutes, out_dir=target)
    else:
        train_bundle(
            bundle,
            data_dir=data,
            read_phases=read_ct_phases,
            propose=proposals,
            device=device,
            minutes=minutes,
            out_dir=target,
        )
    out.print(f"bundle written to {target}; set DICOM_NODE_BUNDLES_DIR={target.parent} to use it")


def _text_of(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise NodeError(f"{file}: {error}") from error


def _is_dicom(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


__all__ = ["app", "main"]
