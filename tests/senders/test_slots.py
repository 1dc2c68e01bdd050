"""Slots are never given out twice, over threads and processes, and come back from a killed process."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicom_node.slots import Slot, Slots

HOLDER = """
import sys
from pathlib import Path
from dicom_node.slots import Slots
slots, held = Slots(Path(sys.argv[1]), int(sys.argv[2])), []
for line in sys.stdin:
    if line == "take\\n":
        slot = slots.take()
        held += [slot] if slot else []
        print("held" if slot else "none", flush=True)
    else:
        held.pop().give_back()
        print("given back", flush=True)
"""


class Holder:
    """Another process that takes slots when told."""

    def __init__(self, path: Path, limit: int) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path), str(limit)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )

    def does(self, order: str) -> str:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{order}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()


@contextmanager
def holder(path: Path, limit: int) -> Iterator[Holder]:
    """Killed and waited for at the end."""
    other = Holder(path, limit)
    with other.process:
        try:
            yield other
        finally:
            other.process.kill()


@given(st.integers(0, 6), st.lists(st.tuples(st.booleans(), st.booleans()), max_size=40))
def test_never_more_than_the_limit_in_one_process(limit: int, steps: list[tuple[bool, bool]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run" / "x.slots"
        both = (Slots(path, limit), Slots(path, limit))
        held: list[Slot] = []
        for takes, first in steps:
            if takes:
                slot = both[first].take()
                assert (slot is not None) == (len(held) < limit)
                held += [slot] if slot else []
            elif held:
                slot = held.pop(0)
                slot.give_back()
                slot.give_back()  # once more is nothing


def test_a_killed_process_gives_its_slots_back(tmp_path: Path) -> None:
    path = tmp_path / "x.slots"
    mine = Slots(path, 3)
    with holder(path, 3) as other:
        assert [other.does("take") for _ in range(2)] == ["held", "held"]
        last = mine.take()
        assert last is not None
        assert mine.take() is None
        assert other.does("take") == "none"
        last.give_back()
        assert other.does("take") == "held"
        assert mine.take() is None
        assert other.does("give") == "given back"
        last = mine.take()
        assert last is not None
        assert mine.take() is None
        os.kill(other.process.pid, signal.SIGKILL)
        other.process.wait(10)
        assert [mine.take() is not None for _ in range(3)] == [True, True, False]


def test_opening_the_file_again_does_not_give_slots_back(tmp_path: Path) -> None:
    path = tmp_path / "x.slots"
    first = Slots(path, 1)
    assert first.take() is not None
    with holder(path, 1) as other:
        again = Slots(tmp_path / "." / "x.slots", 1)
        assert again.take() is None
        del again
        assert other.does("take") == "none"


def test_a_lower_and_a_higher_limit_on_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "x.slots"
    held = [Slots(path, 3).take() for _ in range(3)]
    lower = Slots(path, 2)
    assert lower.take() is None
    assert held[0] is not None
    held[0].give_back()
    assert lower.take() is not None
    assert lower.take() is None
    assert Slots(path, 4).take() is not None


def test_threads_of_one_process_never_share_a_slot(tmp_path: Path) -> None:
    slots, limit = Slots(tmp_path / "x.slots", 4), 4
    now, most, wrong = 0, 0, 0
    count = threading.Lock()
    until = time.monotonic() + 0.5

    def work() -> None:
        nonlocal now, most, wrong
        while time.monotonic() < until:
            slot = slots.take()
            if slot is None:
                continue
            with count:
                now += 1
                most, wrong = max(most, now), wrong + (now > limit)
            time.sleep(0.001)  # held for a while, so that others are in between
            with count:
                now -= 1
            slot.give_back()

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == 0
    assert most > 1


def test_a_limit_below_zero_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Slots(tmp_path / "x.slots", -1)
