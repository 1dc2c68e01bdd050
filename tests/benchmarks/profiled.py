"""Our receiver under a profiler, while one set is sent to it.

As a program (`python profiled.py PROFILE receive`) it is `dicom-node receive` with cProfile in every thread.
"""

import cProfile
import pstats
import shutil
import signal
import subprocess
import sys
import threading
from io import StringIO
from pathlib import Path
from typing import Any

_LINES = 32


def profile(title: str, sent: Any, folder: Path, nodelay: bool) -> str:
    """Send a set to our receiver and say where its time goes.

    With py-spy on the PATH: samples of the threads that are not idle, summed by line; a system call is the line that
    makes it. Else cProfile in every thread, which makes each Python call dearer than it is.
    """
    from receivers import OurReceiver
    from senders import send

    report = []
    for durable_ack in ("page-cache", "fsync"):
        place = folder / f"{durable_ack}-{title.replace(' ', '')}"
        place.mkdir(parents=True)
        result = place / "profile"
        program = [sys.executable, str(Path(__file__).resolve()), str(result)]
        sampler = shutil.which("py-spy")

        def wrapper(_number: int, program: list[str] = program, sampled: bool = sampler is not None) -> list[str]:
            return [sys.executable, "-m", "dicom_node"] if sampled else program

        receiver = OurReceiver("node", place, durable_ack, wrapper=wrapper)
        receiver.start()
        sampling = None
        if sampler:
            pid = str(receiver.processes[0].pid)
            sampling = subprocess.Popen(
                [sampler, "record", "--nonblocking", "-r", "400", "-f", "raw", "-o", str(result), "-p", pid],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
        before_s = receiver.cpu_s()
        seconds, trouble = send(sent.folders, receiver.port, receiver.called, nodelay)
        cpu_s = receiver.cpu_s() - before_s
        if sampling is not None:  # before the receiver's own end, which is not what is asked
            sampling.send_signal(signal.SIGINT)
            sampling.wait(30)
        receiver.stop()
        head = (
            f"== {title}, {durable_ack}: {len(sent.datasets) / seconds:.0f} objects/s under the profiler, "
            f"{1000 * cpu_s / len(sent.datasets):.2f} ms CPU per object {trouble}\n"
        )
        report.append(head + (_sampled(result) if sampler else _traced(result)))
    return "\n".join(report)


def _sampled(result: Path) -> str:
    """Functions by the samples in which they were on top, from collapsed stacks."""
    own: dict[str, int] = {}
    for line in result.read_text().splitlines():
        stack, _, count = line.rpartition(" ")
        top = stack.rsplit(";", 1)[-1]
        own[top] = own.get(top, 0) + int(count)
    total = sum(own.values()) or 1
    ranked = sorted(own.items(), key=lambda item: -item[1])[:_LINES]
    return "\n".join(f"{100 * count / total:5.1f} %  {name}" for name, count in ranked)


def _traced(result: Path) -> str:
    out = StringIO()
    statistics = pstats.Stats(str(result), stream=out)
    statistics.sort_stats("tottime").print_stats(_LINES)
    return "\n".join(line for line in out.getvalue().splitlines() if line.strip())


def main() -> None:
    """`dicom-node receive`, every thread traced; the sum is written to the first argument at the end."""
    result = sys.argv.pop(1)
    profiles: list[cProfile.Profile] = []

    def begin(*_: object) -> None:
        # called at the first event of every new thread: the C profiler takes this hook's place there
        made = cProfile.Profile()
        profiles.append(made)
        made.enable()

    threading.setprofile(begin)
    from dicom_node.cli import main as command

    try:
        command()
    finally:
        threading.setprofile(None)
        total = pstats.Stats()
        for made in profiles:
            made.create_stats()
            if made.stats:  # type: ignore[attr-defined]
                total.add(pstats.Stats(made))
        total.dump_stats(result)


if __name__ == "__main__":
    main()
