"""Rates: what a sender may send in any stretch of time, over threads and processes."""

import subprocess
import sys
import tempfile
import threading
import time
from itertools import accumulate
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.pacing import BURST_S, LONGEST_PAUSE_S, Pace


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        return self.now


@given(
    rate=st.floats(0.5, 1000),
    gaps=st.lists(st.floats(0, 3), min_size=1, max_size=60),
    sizes=st.lists(st.integers(0, 3_000_000), min_size=60, max_size=60),
)
def test_no_more_than_rate_and_burst_in_any_stretch_of_time(rate: float, gaps: list[float], sizes: list[int]) -> None:
    """A sender that waits as told: between any two objects it has sent no more than the time allowed, and one burst."""
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        pace = Pace(Path(folder) / "x.rate", rate, 1e6, clock)
        at: list[float] = []
        for gap, size in zip(gaps, sizes, strict=False):
            clock.now += gap
            at.append(clock.now)
            clock.now += pace.spend(size)
    for costs in ([1 / rate] * len(at), [size / 1e6 for size in sizes[: len(at)]]):  # both limits hold, each by itself
        total = [0.0, *accumulate(costs)]
        for i in range(len(at)):
            for j in range(i + 1, len(at)):
                # each object waits for those before it, so the last one counts as on top
                assert total[j] - total[i] <= at[j] - at[i] + BURST_S + costs[j - 1] + 1e-3


@given(st.lists(st.floats(0.02, 1), min_size=1, max_size=50))
def test_a_sender_slower_than_its_rate_never_waits(gaps: list[float]) -> None:
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        pace = Pace(Path(folder) / "x.rate", 50, None, clock)
        for gap in gaps:
            clock.now += gap
            assert pace.spend(10**9) == 0.0


def test_a_pause_is_never_too_long_and_the_rest_is_owed(tmp_path: Path) -> None:
    clock = Clock()
    pace = Pace(tmp_path / "x.rate", None, 1e6, clock)
    waited = [pace.spend(21_000_000)]
    for _ in range(4):
        clock.now += waited[-1]
        waited.append(pace.spend(0))
    assert waited == pytest.approx([LONGEST_PAUSE_S] * 4 + [0.0], abs=1e-3)


def test_a_clock_that_was_set_back_does_not_stop_a_sender_for_ever(tmp_path: Path) -> None:
    clock = Clock()
    pace = Pace(tmp_path / "x.rate", 10, None, clock)
    pace.spend(0)
    clock.now -= 365 * 86400
    waited = 0.0
    while (pause := pace.spend(0)) > 0.11:  # 0.1: as fast as the rate allows
        waited += pause
        clock.now += pause
    assert waited < 660


def test_processes_and_threads_share_one_rate(tmp_path: Path) -> None:
    """Two processes and two threads here, 200 objects/s in all: a second's burst, then the rate."""
    path, seconds, rate = tmp_path / "x.rate", 1.0, 200.0
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom dicom_node.pacing import Pace\n"
        "pace, count = Pace(Path(sys.argv[1]), 200.0, None), 0\n"
        "print('ready', flush=True)\nsys.stdin.readline()\nend = time.monotonic() + float(sys.argv[2])\n"
        "while time.monotonic() < end:\n    time.sleep(pace.spend(0))\n    count += 1\n"
        "print(count)\n"
    )
    others = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(path), str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    counts = []

    def here() -> None:
        pace, count, end = Pace(path, rate, None), 0, time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(pace.spend(0))
            count += 1
        counts.append(count)

    threads = [threading.Thread(target=here) for _ in range(2)]
    for other in others:
        assert other.stdout is not None
        assert other.stdout.readline() == "ready\n"
    began = time.monotonic()
    for other in others:
        assert other.stdin is not None
        other.stdin.write("go\n")
        other.stdin.flush()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counts += [int(other.communicate(timeout=20)[0]) for other in others]
    took = time.monotonic() - began
    assert rate * BURST_S <= sum(counts) <= rate * (took + BURST_S) + 8
    assert all(count > 0 for count in counts)


def test_without_its_file_nothing_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pace = Pace(tmp_path / "x.rate", 1, None)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.pwrite", full)
    assert [pace.spend(0) for _ in range(20)] == [0.0] * 20
