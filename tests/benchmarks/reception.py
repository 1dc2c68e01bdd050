"""Reception beside its peers: `python tests/benchmarks/reception.py [--quick] [--markdown] [--json FILE]`.

Interleaved rounds in one run: every round sends one set of objects with new UIDs to every receiver, in an order that
rotates, each run after a sync of the disk. Only sending is timed, from the start of the `storescu` processes to the
end of the last one. Afterwards every object is looked for and compared with what was sent, Dataset byte for byte;
where a receiver writes Datasets anew their values are compared, and the table says so. Ratios are medians of the
ratios within a round, so that what else the machine does mostly cancels; they compare with DCMTK and Orthanc that have
TCP_NODELAY=1 in their environment where the sender has it, and with them as they come beside a Nagle sender.

`--profile` runs our receiver alone, under py-spy where it is installed, else under cProfile, and prints where the
time goes.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from objects import KINDS, Maker
from profiled import profile
from receivers import Orthanc, OurReceiver, PeakMemory, Receiver, StockPynetdicom, Storescp, WholeNode
from results import Cell, Run, markdown, summarise
from senders import send

FULL = [
    Cell("ct", 300, 1, True), Cell("ct", 300, 4, True), Cell("ct", 300, 8, True), Cell("ct", 100, 1, False),
    Cell("ct", 200, 8, False), Cell("mr", 500, 1, True), Cell("mr", 500, 4, True), Cell("mr", 500, 8, True),
    Cell("mr", 100, 1, False), Cell("us", 1, 1, True), Cell("us", 4, 4, True),
]  # fmt: skip
QUICK = [Cell("ct", 100, 1, True), Cell("ct", 200, 8, True), Cell("ct", 40, 1, False), Cell("us", 1, 1, True)]

#: name -> (name, folder, acceptor processes of ours) -> receiver; "as it comes": without TCP_NODELAY=1 for DCMTK's code
RECEIVERS: dict[str, Callable[[str, Path, int], Receiver]] = {
    "dcmtk": lambda name, folder, _: Storescp(name, folder, nodelay=True),
    "dcmtk-as-it-comes": lambda name, folder, _: Storescp(name, folder, nodelay=False),
    "orthanc": lambda name, folder, _: Orthanc(name, folder, sync=True, nodelay=True),
    "orthanc-as-it-comes": lambda name, folder, _: Orthanc(name, folder, sync=True, nodelay=False),
    "orthanc-no-sync": lambda name, folder, _: Orthanc(name, folder, sync=False, nodelay=True),
    "pynetdicom": lambda name, folder, _: StockPynetdicom(name, folder),
    "node fsync": lambda name, folder, count: OurReceiver(name, folder, "fsync", count),
    "node page-cache": lambda name, folder, count: OurReceiver(name, folder, "page-cache", count),
    "up fsync": lambda name, folder, _: WholeNode(name, folder, "fsync"),
    "up page-cache": lambda name, folder, _: WholeNode(name, folder, "page-cache"),
}


def run_rounds(receivers: list[Receiver], cells: list[Cell], rounds: int, data_dir: Path) -> Iterable[Run]:
    """All rounds; yields each run as it is done."""
    makers = {(cell.kind, cell.count): Maker(KINDS[cell.kind], cell.count) for cell in cells}
    warm_up = Maker(KINDS["mr"], 8).make(data_dir / "sent", 1)
    for receiver in receivers:
        _, trouble = send(warm_up.folders, receiver.port, receiver.called, nodelay=True)
        if trouble:
            raise RuntimeError(f"{receiver.name} does not take the first objects: {trouble}")
        receiver.verify(warm_up)
        receiver.clean(warm_up)
    for number in range(rounds):
        for place, cell in enumerate(cells):
            sent = makers[cell.kind, cell.count].make(data_dir / "sent", cell.associations)
            turn = (number + place) % len(receivers)
            for receiver in receivers[turn:] + receivers[:turn]:
                os.sync()
                before_s = receiver.cpu_s()
                with PeakMemory(receiver) as memory:
                    seconds, trouble = send(sent.folders, receiver.port, receiver.called, cell.nodelay)
                cpu_s = receiver.cpu_s() - before_s
                missing, altered, compared = receiver.verify(sent)
                receiver.clean(sent)
                yield Run(
                    cell, receiver.name, number, seconds, cell.count / seconds, sent.bytes / seconds / 1e6,
                    1000 * cpu_s / cell.count, memory.peak_mb, missing, altered, compared, trouble,
                )  # fmt: skip


def file_system(path: Path) -> str:
    """Type and device of the file system on which a folder lies."""
    done = subprocess.run(
        ["findmnt", "-no", "FSTYPE,SOURCE", "-T", str(path)], capture_output=True, text=True, check=False
    )
    return (done.stdout.splitlines() or ["unknown"])[-1].strip()


def _data_dir(needed_bytes: float) -> Path:
    memory = Path("/dev/shm")
    if memory.is_dir() and shutil.disk_usage(memory).free > 2 * needed_bytes:
        return Path(tempfile.mkdtemp(prefix="bench-sent-", dir=memory))
    return Path(tempfile.mkdtemp(prefix="bench-sent-"))


def main() -> int:
    """Measure and print; 1 when an object was lost or altered."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few cells, three rounds")
    parser.add_argument("--rounds", type=int, default=0, help="default 5, quick 3")
    parser.add_argument("--receivers", default="", help="comma list; default: all but the whole node")
    parser.add_argument("--whole-node", action="store_true", help="`dicom-node up` too")
    parser.add_argument("--processes", type=int, default=min(2, os.cpu_count() or 1), help="acceptor processes of ours")
    parser.add_argument("--only", default="", help="comma list of kinds: ct, mr, us")
    parser.add_argument("--work", type=Path, help="folder of the receivers; default: a temporary one")
    parser.add_argument("--markdown", action="store_true", help="only the table")
    parser.add_argument("--json", type=Path, help="write rows and runs here")
    parser.add_argument("--profile", action="store_true", help="profile our receiver instead")
    arguments = parser.parse_args()
    cells = [cell for cell in (QUICK if arguments.quick else FULL) if cell.kind in (arguments.only or "ct,mr,us")]
    rounds = arguments.rounds or (3 if arguments.quick else 5)
    names = [name for name in arguments.receivers.split(",") if name] or [
        name for name in RECEIVERS if arguments.whole_node or not name.startswith("up ")
    ]
    work = Path(tempfile.mkdtemp(prefix="bench-receivers-", dir=arguments.work))
    data_dir = _data_dir(max(cell.count * KINDS[cell.kind].megabytes * 1e6 for cell in cells))
    receivers: list[Receiver] = []
    runs: list[Run] = []
    started = time.monotonic()
    try:
        if arguments.profile:
            for cell in cells:
                print(
                    profile(
                        cell.title,
                        Maker(KINDS[cell.kind], cell.count).make(data_dir / "sent", cell.associations),
                        work,
                        cell.nodelay,
                    )
                )
            return 0
        for name in names:
            folder = work / name.replace(" ", "-")
            folder.mkdir()
            receivers.append(RECEIVERS[name](name, folder, arguments.processes))
            receivers[-1].start()
        for run in run_rounds(receivers, cells, rounds, data_dir):
            runs.append(run)
            if run.missing or run.altered or run.trouble or not arguments.markdown:
                print(
                    f"round {run.round} {run.cell.title:34} {run.receiver:18} {run.objects_per_s:8.1f} objects/s "
                    f"{run.missing or ''}{' missing' if run.missing else ''}{run.altered or ''}"
                    f"{' altered' if run.altered else ''} {run.trouble}",
                    file=sys.stderr,
                )
    finally:
        for receiver in receivers:
            receiver.stop()
        where = f"sent from {file_system(data_dir)}, received on {file_system(work)}"
        shutil.rmtree(data_dir, ignore_errors=True)
        shutil.rmtree(work, ignore_errors=True)
    rows = summarise(runs)
    print(markdown(rows))
    print(
        f"\n{rounds} rounds in {time.monotonic() - started:.0f} s; {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f}; {where}; "
        f"{arguments.processes} acceptor processes of ours"
    )
    if arguments.json:
        arguments.json.write_text(
            json.dumps({"rows": [asdict(row) for row in rows], "runs": [asdict(run) for run in runs]}, indent=1)
        )
    return int(any(row.lost_or_altered for row in rows))


if __name__ == "__main__":
    sys.exit(main())
