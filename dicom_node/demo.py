"""`dicom-node demo`: the main job with nothing else installed, and proof that it was done.

A node of its own is started with embedded servers, a phantom study is sent by C-STORE as a PACS would, and a stand-in
PACS waits for SR and SEG.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.dimse.scu import send_files
from dicom_node.dimse.standin import KeptObject, StandInPacs
from dicom_node.errors import NodeError
from models.phantoms import PHANTOMS
from pipelines.catalogue import PIPELINES

out = Console(highlight=False)

START_TIMEOUT_S = 120.0
RESULT_TIMEOUT_S = 240.0
DEMO_SEEDS = {"ct_lesion": 11}
CLASS_NAMES = {"1.2.840.10008.5.1.4.1.1.88.34": "SR", "1.2.840.10008.5.1.4.1.1.66.4": "SEG"}


@dataclass(frozen=True)
class Shown:
    """What the demo did for one pipeline."""

    pipeline: str
    sent: int
    sent_s: float
    back: tuple[str, ...]  # kinds of the objects at the stand-in PACS
    back_after_s: float | None  # after the last image
    missing: str  # "" when all came


def run_demo(names: Sequence[str] | None, out_dir: Path) -> int:
    """Show the pipelines (default: all). Returns the exit status: 0, or 1 when anything is missing."""
    names = list(names or PIPELINES)
    out_dir.mkdir(parents=True, exist_ok=True)
    shown: list[Shown] = []
    count = TextColumn("{task.completed:.0f}/{task.total:.0f}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="dicom-node-demo-") as folder, Progress(*columns, console=out) as progress:
        Path(folder).chmod(0o711)  # the embedded PostgreSQL of a root user runs as another user
        shutil.rmtree(out_dir / "pacs", ignore_errors=True)
        pacs = StandInPacs(out_dir / "pacs", ae_title="PACS")
        with pacs.running() as pacs_port, _running_node(Path(folder), pacs_port, names, progress) as port:
            for name in names:
                shown.append(_show(name, port, pacs, out_dir, progress))
    _print(shown, out_dir)
    return 1 if any(item.missing for item in shown) else 0


def _show(name: str, port: int, pacs: StandInPacs, out_dir: Path, progress: Progress) -> Shown:
    making = progress.add_task(f"{name}: simulate a phantom study", total=1)
    shutil.rmtree(out_dir / name, ignore_errors=True)
    case = PHANTOMS[name](DEMO_SEEDS[name], out_dir / name, extras=True)
    progress.advance(making)

    files = sorted((case / "dicom").glob("*.dcm"))
    sending = progress.add_task(f"{name}: send by C-STORE", total=len(files))
    started = time.monotonic()
    outcomes = send_files(
        files, "127.0.0.1", port, "LIVERNODE", "DEMO", on_progress=lambda *_: progress.advance(sending)
    )
    sent_s = time.monotonic() - started
    refused = [outcome for outcome in outcomes if not outcome.is_stored]
    if refused:
        return Shown(name, len(outcomes) - len(refused), sent_s, (), None, f"not stored: {refused[0].reason}")

    study = str(pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    waiting = progress.add_task(f"{name}: wait for SR and SEG", total=2)
    last = time.monotonic()
    before = len([item for item in pacs.kept if item.study_instance_uid != study])
    results = _results(pacs.wait_for(before + 2, RESULT_TIMEOUT_S), study)
    progress.update(waiting, completed=len(results))
    back_after_s = time.monotonic() - last
    kinds = tuple(sorted(CLASS_NAMES[item.sop_class_uid] for item in results))
    if len(results) < 2:
        return Shown(name, len(files), sent_s, kinds, None, f"only {kinds or 'nothing'} after {RESULT_TIMEOUT_S:.0f} s")
    _draw(name, files, [item.path for item in results if item.path is not None], out_dir)
    return Shown(name, len(files), sent_s, kinds, back_after_s, "")


def _results(objects: Sequence[KeptObject], study: str) -> list[KeptObject]:
    return [item for item in objects if item.study_instance_uid == study and item.sop_class_uid in CLASS_NAMES]


def _draw(name: str, files: Sequence[Path], results: Sequence[Path], out_dir: Path) -> None:
    from dicom_node.pictures import draw_ct_lesions

    read = [pydicom.dcmread(path) for path in results]
    segmentation = next((dataset for dataset in read if dataset.Modality == "SEG"), None)
    by_series: dict[str, list[pydicom.Dataset]] = {}
    for file in files:
        dataset = pydicom.dcmread(file)
        by_series.setdefault(str(dataset.SeriesInstanceUID), []).append(dataset)
    source = str(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID) if segmentation else None
    report = next(dataset for dataset in read if dataset.Modality == "SR")
    used = _referenced_series(report)
    others = [uid for uid in by_series if uid in used and uid != source]
    phases = {by_series[uid][0].SeriesDescription: by_series[uid] for uid in [*others, *([source] if source else [])]}
    title = "Phantom study. Research use; trained on simulated data. Not for diagnosis."
    draw_ct_lesions(phases, segmentation, title, out_dir / f"{name}.png")


def _referenced_series(report: pydicom.Dataset) -> set[str]:
    found = set()
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword) or []:
            found |= {str(series.SeriesInstanceUID) for series in study.ReferencedSeriesSequence}
    return found


@contextmanager
def _running_node(folder: Path, pacs_port: int, names: Sequence[str], progress: Progress) -> Iterator[int]:
    """A node with its rules in force; yields its DICOM port."""
    starting = progress.add_task("start PostgreSQL, Valkey, receiver, scheduler, workers", total=1)
    ports = ["--dicom-port", "0", "--console-port", "0"]
    command = [sys.executable, "-m", "dicom_node", "up", "--data-dir", str(folder / "node"), *ports]
    log_file = folder / "node.log"
    environment = {k: v for k, v in os.environ.items() if k not in ("DATABASE_URL", "BROKER_URL")}
    with log_file.open("wb") as stream:
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, env=environment)
    try:
        port = _wait_ready(process, log_file)
        rules = folder / "rules.yaml"
        rules.write_text(_rules(names, pacs_port))
        subprocess.run(
            [sys.executable, "-m", "dicom_node", "rules", "import", str(rules), "--data-dir", str(folder / "node")],
            check=True,
            stdout=subprocess.DEVNULL,
            env=environment,
        )
        progress.advance(starting)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()


def _wait_ready(process: subprocess.Popen[bytes], log_file: Path) -> int:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        text = log_file.read_text(errors="replace")
        for line in text.splitlines():
            if line.startswith("ready: dicom "):
                return int(line.split()[2].rstrip(","))
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise NodeError(f"the node did not start; its log ends:\n{log_file.read_text(errors='replace')[-2000:]}")


def _rules(names: Sequence[str], pacs_port: int) -> str:
    lines = ["senders:", "  - {ae_title: DEMO, host: 127.0.0.0/8}", "destinations:"]
    lines.append(f"  pacs: {{type: dimse, host: 127.0.0.1, port: {pacs_port}, ae_title: PACS}}")
    lines.append("rules:")
    for name in names:
        condition = f"{{attribute: Modality, equals: {PIPELINES[name].modality}}}"
        lines += [f"  - name: demo {name}", f"    when: {condition}", f"    run: {name}", "    send_to: [pacs]"]
    return "\n".join(lines) + "\n"


def _print(shown: Sequence[Shown], out_dir: Path) -> None:
    table = Table("pipeline", "sent", "sending", "back at the PACS", "after the last image", "outcome", box=None)
    for item in shown:
        back = "-" if item.back_after_s is None else f"{item.back_after_s:.1f} s"
        table.add_row(
            item.pipeline, f"{item.sent} images", f"{item.sent_s:.1f} s", " + ".join(item.back) or "-", back,
            item.missing or "complete",
        )  # fmt: skip
    out.print(table)
    out.print(f"DICOM objects and pictures: {out_dir.resolve()}", soft_wrap=True)
