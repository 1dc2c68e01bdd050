"""kill -9 of a receiver at random moments: what it acknowledged must be there, what is visible must be whole.

Used by the suite with a few kills and by `tests/benchmarks/kill_receiver.py` with hundreds. A process that is killed
leaves the page cache behind, so this proves the order of the steps (write aside, rename, answer), not that fsync
reached the platter; tests/reception/test_journal.py watches the calls of fsync.
"""

import random
import re
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from raw_scu import EndedError, RawScu
from receiver_process import ReceiverProcess, stored_datasets
from tiny_objects import dataset_bytes

_PLACEHOLDER = "2.25.9" + "9" * 30
_TEMPLATE = dataset_bytes(_PLACEHOLDER, PixelData=b"")[:-12]  # without the empty Pixel Data element
_NOISE = random.Random(1).randbytes(1 << 20)
_LARGEST_PIXELS = 700_000
_NAME = re.compile(r"\d{19}-(?P<association>[0-9a-f]{16})-\d{6,}\.dcm")


@dataclass(frozen=True)
class Sending:
    """One object on its way: what its stored Dataset must be."""

    sop_instance_uid: str
    start: int
    size: int

    def dataset(self) -> bytes:
        """Its encoded Dataset: a CT header and noise as pixels."""
        head = _TEMPLATE.replace(_PLACEHOLDER.encode(), self.sop_instance_uid.encode())
        pixels = _NOISE[self.start : self.start + self.size]
        return head + struct.pack("<HH2sxxI", 0x7FE0, 0x0010, b"OW", self.size) + pixels


@dataclass
class Verdict:
    """Sums over the kills; `problems` is empty when nothing acknowledged was lost and nothing visible was broken."""

    kills: int = 0
    acknowledged: int = 0
    stored_without_an_answer: int = 0  # the answer was cut off; the sender sends them again
    kills_in_mid_object: int = 0  # the receiver left an object half-written aside
    refused: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)


class _Senders:
    """Associations that send until the receiver is gone, noting every answer."""

    def __init__(self, port: int, associations: int, seed: int) -> None:
        self.begun: dict[str, Sending] = {}
        self.acknowledged: set[str] = set()
        self.refused: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send, args=(port, seed * 1000 + number), daemon=True)
            for number in range(associations)
        ]
        for thread in self._threads:
            thread.start()

    def _send(self, port: int, seed: int) -> None:
        chance = random.Random(seed)
        with suppress(OSError, EndedError), RawScu(port) as scu:
            scu.associate()
            message_id = 0
            while not self._stop.is_set():
                message_id = message_id % 65535 + 1
                size = 2 * int(_LARGEST_PIXELS / 2 * chance.random() ** 3)
                uid = f"2.25.1{chance.randrange(10**30):030d}"
                sending = Sending(uid, chance.randrange(len(_NOISE) - size), size)
                self.begun[uid] = sending
                answer = scu.store(message_id, uid, sending.dataset())
                if answer.message_id != message_id or answer.sop_instance_uid not in ("", uid):
                    self.refused["answer to another message"] += 1
                elif answer.status == 0:
                    self.acknowledged.add(uid)
                else:
                    self.refused[f"0x{answer.status:04X}"] += 1

    def join(self) -> None:
        """Wait for the end of all; those that still talk to somebody stop."""
        self._stop.set()
        for thread in self._threads:
            thread.join(15)


def kill_and_check(
    receivers: Sequence[ReceiverProcess],
    verdict: Verdict,
    chance: random.Random,
    longest_s: float,
    associations: int = 8,
) -> None:
    """Send to running receivers of one data directory, kill one of them, judge the journal, start the victim again.

    The kill comes between 0 and `longest_s` seconds after the first connection. What was checked is removed from the
    journal. Adds to `verdict`.
    """
    incoming = receivers[0].incoming
    senders = _Senders(receivers[0].port, associations, chance.randrange(1 << 30))
    time.sleep(longest_s * chance.random())  # the moment is the point of the test, not a wait
    victim = chance.choice(list(receivers))
    victim.kill()
    senders.join()
    verdict.kills += 1
    verdict.kills_in_mid_object += any(name.name.startswith(".") for name in incoming.iterdir())
    verdict.acknowledged += len(senders.acknowledged)
    verdict.refused += senders.refused
    verdict.problems += judge(incoming, senders.begun, senders.acknowledged, verdict)
    victim.start()
    if len(receivers) == 1:
        left = [path.name for path in incoming.iterdir() if path.name.startswith(".")]
        if left:
            verdict.problems.append(f"half-written files outlive the restart: {left[:3]}")


def judge(incoming: Path, begun: dict[str, Sending], acknowledged: set[str], verdict: Verdict) -> list[str]:
    """What is wrong with a journal, in words; its objects are removed."""
    try:
        stored = stored_datasets(incoming)
    except AssertionError as error:
        return [f"something half-written is visible: {error}"]
    opened = {path.name.split("-")[1].split(".")[0]: path.name for path in incoming.glob("*.opened.json")}
    problems = [f"acknowledged, but not there: {uid}" for uid in acknowledged - stored.keys()]
    for uid, files in stored.items():
        if len(files) > 1:
            problems.append(f"stored {len(files)} times, sent once: {uid}")
        for path, offset in files:
            if uid not in begun:
                problems.append(f"never sent: {uid}")
            elif path.read_bytes()[offset:] != begun[uid].dataset():
                problems.append(f"visible, but not what was sent: {uid} ({path.stat().st_size} bytes)")
            match = _NAME.fullmatch(path.name)
            if match is None or not opened.get(match["association"], "~") < path.name:
                problems.append(f"{path.name}: nothing before it says that its association opened")
            path.unlink()
    verdict.stored_without_an_answer += len(stored.keys() - acknowledged)
    return problems
