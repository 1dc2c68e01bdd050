"""What the receiver's memory does under a 2 GB object, 10 000 TCP probes and 500 half-open connections.

`python tests/benchmarks/hold_receiver.py [--gigabytes 2] [--probes 10000] [--half-open 500]`; exit 0: below 200 MB at
the peak, within 10 % of the start, every C-ECHO beside it below a second.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from floods import EchoWatch, half_open, probe
from raw_scu import RawScu
from receiver_process import ReceiverProcess, stored_datasets
from tiny_objects import dataset_bytes

MOST_MB = 200.0
ALLOWED_GROWTH = 1.10
ECHO_WITHIN_S = 1.0
_REPEATED = random.Random(3).randbytes(1 << 16)


def large_object(receiver: ReceiverProcess, gigabytes: float) -> tuple[bool, str]:
    """Send it from a small buffer, compare what was stored."""
    head, times = dataset_bytes("2.25.2"), int(gigabytes * 1e9) // len(_REPEATED)
    receiver.forget_peak()
    started = time.perf_counter()
    with RawScu(receiver.port, timeout_s=300) as scu, EchoWatch(receiver.port) as watch:
        answer = scu.associate().store_streamed(1, "2.25.2", head, _REPEATED, times)
        seconds = time.perf_counter() - started
        scu.release()
    _, peak_mb = receiver.memory_mb()
    ((path, offset),) = stored_datasets(receiver.incoming)["2.25.2"]
    with path.open("rb") as file:
        file.seek(offset)
        is_same = file.read(len(head)) == head and all(file.read(len(_REPEATED)) == _REPEATED for _ in range(times))
        is_same = is_same and not file.read(1)
    path.unlink()
    size = (len(head) + times * len(_REPEATED)) / 1e6
    is_good = answer.status == 0 and is_same and peak_mb < MOST_MB and watch.worst_s < ECHO_WITHIN_S
    return is_good, (
        f"{size:.0f} MB in {seconds:.1f} s ({size / seconds:.0f} MB/s), peak {peak_mb:.0f} MB, "
        f"{'the same bytes' if is_same else 'OTHER BYTES'}, {_said(watch)}"
    )


def probes(receiver: ReceiverProcess, count: int) -> tuple[bool, str]:
    """TCP probes, with C-ECHO beside them."""
    before_mb, _ = receiver.memory_mb()
    with EchoWatch(receiver.port) as watch:
        probe(receiver.port, count)
    after_mb, _ = receiver.memory_mb()
    is_good = after_mb < before_mb * ALLOWED_GROWTH and watch.worst_s < ECHO_WITHIN_S
    return is_good, f"{count} probes: {before_mb:.1f} -> {after_mb:.1f} MB, {_said(watch)}"


def half_open_connections(receiver: ReceiverProcess, count: int, held_s: float) -> tuple[bool, str]:
    """Connections that stop half-way, and accepted associations in the middle of a PDU."""
    before_mb, _ = receiver.memory_mb()
    associations = min(20, count)
    with EchoWatch(receiver.port) as watch, half_open(receiver.port, count - associations, associations):
        time.sleep(held_s)
        held_mb, _ = receiver.memory_mb()
    after_mb, _ = receiver.memory_mb()
    is_good = max(held_mb, after_mb) < before_mb * ALLOWED_GROWTH and watch.worst_s < ECHO_WITHIN_S
    return is_good, f"{count} half-open: {before_mb:.1f} -> {held_mb:.1f} held -> {after_mb:.1f} MB, {_said(watch)}"


def _said(watch: EchoWatch) -> str:
    trouble = f", {len(watch.trouble)} without an answer: {watch.trouble[0]}" if watch.trouble else ""
    return f"slowest of {watch.count} C-ECHO {watch.worst_s:.2f} s{trouble}"


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--probes", type=int, default=10_000)
    parser.add_argument("--half-open", type=int, default=500)
    parser.add_argument("--held", type=float, default=10.0, help="seconds for which half-open connections are held")
    arguments = parser.parse_args()
    all_good = True
    with tempfile.TemporaryDirectory() as name, ReceiverProcess(Path(name)) as receiver:
        with RawScu(receiver.port) as scu:
            scu.associate().store(1, "2.25.1", dataset_bytes("2.25.1"))
            scu.release()
        probe(receiver.port, 50)
        start_mb, _ = receiver.memory_mb()
        print(f"at the start {start_mb:.1f} MB")
        for is_good, said in (
            probes(receiver, arguments.probes),
            half_open_connections(receiver, arguments.half_open, arguments.held),
            large_object(receiver, arguments.gigabytes),
        ):
            print(f"{'good ' if is_good else 'WRONG'} {said}", flush=True)
            all_good &= is_good
    return int(not all_good)


if __name__ == "__main__":
    sys.exit(main())
