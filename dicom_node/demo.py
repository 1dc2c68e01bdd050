"""`dicom-node demo`: the main job with nothing else installed, and proof that it was done.

A node of its own is started with embedded servers, phantom studies are sent by C-STORE as a PACS would, and a stand-in
PACS waits for each one's SR and all that it refers to.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import pydicom
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from dicom_node.dimse.scu import send_files
from dicom_node.dimse.standin import KeptObject, StandInPacs
from dicom_node.encoding.capture import write_png
from dicom_node.encoding.concepts import concept
from dicom_node.encoding.package import SOP_CLASSES
from dicom_node.errors import NodeError
from models.phantoms import PHANTOMS
from pipelines.catalogue import PIPELINES

out = Console(highlight=False)

START_TIMEOUT_S = 120.0
RESULT_TIMEOUT_S = 240.0
SR = "1.2.840.10008.5.1.4.1.1.88.34"
#: SOP Class -> what the table calls it.
CLASS_NAMES = {SR: "SR"} | {SOP_CLASSES[kind]: kind.upper() for kind in ("seg", "pm", "sc")}


@dataclass(frozen=True)
class Example:
    """A phantom study that the demo sends."""

    seed: int
    must_have: frozenset[str]  # kinds without which it is not complete, whatever the report refers to
    name: str = ""  # where a pipeline has several
    options: Mapping[str, str] = field(default_factory=dict)  # of the phantom


EXAMPLES: Mapping[str, tuple[Example, ...]] = {
    "ct_lesion": (Example(11, frozenset({"SR", "SEG"})),),
    "mre_qc": (
        # of a maker whose colour pictures are no MR images of three samples, which validators reject
        Example(22, frozenset({"SR", "SC"}), "good", {"fault": "", "vendor": "Siemens"}),
        Example(13, frozenset({"SR", "SC"}), "driver off", {"fault": "NO_DRIVER_WAVES"}),
    ),
}


@dataclass(frozen=True)
class Shown:
    """What the demo did with one study."""

    title: str
    sent: int
    sent_s: float
    back: tuple[str, ...] = ()  # kinds of the objects at the stand-in PACS
    back_after_s: float | None = None  # after the last image
    answer: str = ""  # the report's first line
    missing: str = ""  # "" when all came


def run_demo(names: Sequence[str] | None, out_dir: Path) -> int:
    """Show the pipelines (default: all). Returns the exit status: 0, or 1 when anything is missing."""
    names = list(names or PIPELINES)
    out_dir.mkdir(parents=True, exist_ok=True)
    shown: list[Shown] = []
    count = TextColumn("{task.completed:.0f}/{task.total:.0f}")
    columns = (TextColumn("{task.description}"), BarColumn(), count, TimeElapsedColumn())
    with tempfile.TemporaryDirectory(prefix="dicom-node-demo-") as folder, Progress(*columns, console=out) as progress:
        Path(folder).chmod(0o711)  # the embedded PostgreSQL of a root user runs as another user
        for name in ("pacs", *names):
            shutil.rmtree(out_dir / name, ignore_errors=True)
        pacs = StandInPacs(out_dir / "pacs", ae_title="PACS")
        with pacs.running() as pacs_port, _running_node(Path(folder), pacs_port, names, progress) as port:
            for name in names:
                for example in EXAMPLES[name]:
                    shown.append(_show(name, example, port, pacs, out_dir, progress))
    _print(shown, out_dir)
    return 1 if any(item.missing for item in shown) else 0


def _show(name: str, example: Example, port: int, pacs: StandInPacs, out_dir: Path, progress: Progress) -> Shown:
    title = f"{name}, {example.name}" if example.name else name
    making = progress.add_task(f"{title}: simulate a phantom study", total=1)
    case = PHANTOMS[name](example.seed, out_dir / name, extras=True, **example.options)
    progress.advance(making)

    files = sorted((case / "dicom").glob("*.dcm"))
    sending = progress.add_task(f"{title}: send by C-STORE", total=len(files))
    started = time.monotonic()
    outcomes = send_files(
        files, "127.0.0.1", port, "LIVERNODE", "DEMO", on_progress=lambda *_: progress.advance(sending)
    )
    sent_s = time.monotonic() - started
    refused = [outcome for outcome in outcomes if not outcome.is_stored]
    if refused:
        return Shown(title, len(outcomes) - len(refused), sent_s, missing=f"not stored: {refused[0].reason}")

    study = str(pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["StudyInstanceUID"]).StudyInstanceUID)
    waiting = progress.add_task(f"{title}: wait for the report and what it refers to", total=1)
    last = time.monotonic()
    report, results, missing = _wait_for_answer(pacs, study, example, last + RESULT_TIMEOUT_S)
    back_after_s = time.monotonic() - last
    kinds = tuple(CLASS_NAMES[item.sop_class_uid] for item in results)
    if report is None or missing:
        text = f"no {' and no '.join(sorted(missing))} after {RESULT_TIMEOUT_S:.0f} s"
        return Shown(title, len(files), sent_s, kinds, missing=text)
    progress.advance(waiting)
    picture = out_dir / f"{title.replace(', ', '-').replace(' ', '-')}.png"
    _draw(files, report, {CLASS_NAMES[item.sop_class_uid]: item for item in results}, picture)
    return Shown(title, len(files), sent_s, kinds, back_after_s, _first_line(report))


def _wait_for_answer(
    pacs: StandInPacs, study: str, example: Example, deadline: float
) -> tuple[pydicom.Dataset | None, list[KeptObject], set[str]]:
    """The study's complete report, all results so far, and what is missing of what the report refers to."""
    seen = 0
    while True:
        kept = pacs.wait_for(seen + 1, max(0.0, deadline - time.monotonic()))
        of_study = [item for item in kept if item.study_instance_uid == study and item.sop_class_uid in CLASS_NAMES]
        reports = [pydicom.dcmread(BytesIO(item.file_bytes)) for item in of_study if item.sop_class_uid == SR]
        report = next((one for one in reversed(reports) if one.CompletionFlag == "COMPLETE"), None)
        wanted = set(example.must_have)
        if report is not None:
            named = _referenced(report)
            of_study = [item for item in of_study if item.sop_instance_uid in {*named, str(report.SOPInstanceUID)}]
            wanted |= {CLASS_NAMES[sop_class] for sop_class in named.values() if sop_class in CLASS_NAMES}
        missing = wanted - {CLASS_NAMES[item.sop_class_uid] for item in of_study}
        if len(kept) <= seen or (report is not None and not missing):  # nothing more came in time, or all is there
            return report, of_study, missing
        seen = len(kept)


def _first_line(report: pydicom.Dataset) -> str:
    """The headline: the first comment with the lines that continue it; "" if there is none."""
    comments = [str(item.TextValue) for item in _items(report) if _named(item, "comment")]
    line = comments[:1]
    for text in comments[1:]:
        if not text.startswith(" "):
            break
        line.append(text.strip())
    return " ".join(line)


def _items(item: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    for below in item.get("ContentSequence") or ():
        yield below
        yield from _items(below)


def _named(item: pydicom.Dataset, key: str) -> bool:
    name = item.get("ConceptNameCodeSequence")
    return bool(name) and name[0].CodeValue == concept(key).value


def _referenced(report: pydicom.Dataset) -> dict[str, str]:
    """SOP Instance UID -> SOP Class UID of everything that the report lists as evidence."""
    return {
        str(item.ReferencedSOPInstanceUID): str(item.ReferencedSOPClassUID)
        for series in _evidence(report)
        for item in series.ReferencedSOPSequence
    }


def _evidence(report: pydicom.Dataset) -> Iterator[pydicom.Dataset]:
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword) or []:
            yield from study.ReferencedSeriesSequence


def _draw(files: Sequence[Path], report: pydicom.Dataset, results: Mapping[str, KeptObject], target: Path) -> None:
    """The page that came with the report; without one, slices of the study with the segmented lesions."""
    if "SC" in results:
        write_png(results["SC"].file_bytes, target)
        return
    from dicom_node.pictures import draw_ct_lesions

    segmentation = pydicom.dcmread(BytesIO(results["SEG"].file_bytes))
    by_series: dict[str, list[pydicom.Dataset]] = {}
    for file in files:
        dataset = pydicom.dcmread(file)
        by_series.setdefault(str(dataset.SeriesInstanceUID), []).append(dataset)
    source = str(segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID)
    used = {str(series.SeriesInstanceUID) for series in _evidence(report)}
    others = [uid for uid in by_series if uid in used and uid != source]
    phases = {by_series[uid][0].SeriesDescription: by_series[uid] for uid in (*others, source)}
    title = "Phantom study. Research use; trained on simulated data. Not for diagnosis."
    draw_ct_lesions(phases, segmentation, title, target)


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
    table = Table("study", "sent", "sending", "back at the PACS", "after the last image", "outcome", box=None)
    for item in shown:
        back = "-" if item.back_after_s is None else f"{item.back_after_s:.1f} s"
        table.add_row(
            item.title, f"{item.sent} images", f"{item.sent_s:.1f} s", " + ".join(item.back) or "-", back,
            item.missing or "complete",
        )  # fmt: skip
    out.print(table)
    for item in shown:
        if item.answer:
            out.print(f"{item.title}: {item.answer}", soft_wrap=True)
    out.print(f"DICOM objects and pictures: {out_dir.resolve()}", soft_wrap=True)
