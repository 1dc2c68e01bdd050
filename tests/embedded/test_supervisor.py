"""The supervisor as a real process: restarts, order of the end, kill -9 of itself."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dicom_node.embedded import processes
from dicom_node.embedded.broker import EmbeddedBroker

PROGRAM = Path(__file__).with_name("supervised.py")
ROOT = PROGRAM.parents[2]
#: Lives until SIGTERM, and says so.
POLITE = "trap 'echo {0} stops; exit 0' TERM; echo {0} runs $$; while :; do sleep 0.02; done"
STUBBORN = "trap '' TERM; echo {0} runs $$; while :; do sleep 0.02; done"


class Node:
    """A supervised.py that runs."""

    def __init__(self, data_dir: Path, parts: dict[str, str], eventually: Callable[..., None]) -> None:
        self.output_path = data_dir / "output"
        self._eventually = eventually
        with self.output_path.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, str(PROGRAM), str(data_dir), *(f"{k}={v.format(k)}" for k, v in parts.items())],
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @property
    def output(self) -> str:
        return self.output_path.read_text()

    def says(self, pattern: str, times: int = 1) -> None:
        self._eventually(lambda: len(re.findall(pattern, self.output)) >= times, f"{pattern} {times} times", 20)

    def pid_of(self, part: str) -> int:
        """The process that the part's newest line names."""
        return int(re.findall(rf"{part} runs (\d+)", self.output)[-1])


@pytest.fixture
def start(server_dir, eventually) -> Iterator[Callable[[dict[str, str]], Node]]:
    nodes = []

    def start(parts: dict[str, str]) -> Node:
        nodes.append(Node(server_dir, parts, eventually))
        return nodes[-1]

    yield start
    for node in nodes:
        if node.process.poll() is None:
            node.process.kill()
            node.process.wait()
    EmbeddedBroker(server_dir).stop()


def test_starts_again_what_is_killed_and_stops_in_order(start, server_dir, eventually):
    node = start({"receiver": POLITE, "worker": POLITE})
    node.says("ready:")
    node.says(r"runs \d", 2)
    broker = EmbeddedBroker(server_dir)
    for part in ("worker", "receiver", "worker"):
        before = node.pid_of(part)
        runs = node.output.count(f"{part} runs")
        os.kill(before, signal.SIGKILL)
        node.says(f"{part} runs", runs + 1)
        assert node.pid_of(part) != before
    before_broker = broker.pid
    os.kill(before_broker, signal.SIGKILL)
    eventually(lambda: broker.pid not in {None, before_broker}, "the broker runs again")
    assert node.output.count("ready:") == 1
    started = time.monotonic()
    node.process.terminate()
    assert node.process.wait(10) == 0
    assert time.monotonic() - started < 5
    assert re.findall(r"(\w+) stops", node.output) == ["receiver", "worker"]
    assert not broker.is_running()
    assert not processes.is_alive(node.pid_of("receiver"))


def test_parts_that_do_not_stop_are_killed(start):
    node = start({"worker": STUBBORN})
    node.says("worker runs")
    node.says("ready:")
    node.process.send_signal(signal.SIGINT)
    assert node.process.wait(10) == 0
    assert "did not stop" in node.output
    assert not processes.is_alive(node.pid_of("worker"))


def test_killed_itself_its_parts_die_and_the_next_one_starts_at_once(start, server_dir, eventually):
    first = start({"receiver": STUBBORN, "worker": POLITE})
    first.says("ready:")
    first.says(r"runs \d", 2)
    orphans = [first.pid_of("receiver"), first.pid_of("worker")]
    broker = EmbeddedBroker(server_dir)
    broker_pid = broker.pid
    first.process.kill()
    first.process.wait()
    second = start({"receiver": POLITE})
    second.says("ready:")
    assert broker.pid == broker_pid  # adopted
    assert not any(map(processes.is_alive, orphans))
    second.process.terminate()
    assert second.process.wait(10) == 0
    assert not broker.is_running()


def test_two_nodes_on_one_data_directory_are_refused(start, server_dir):
    first = start({"receiver": POLITE})
    first.says("ready:")
    second = subprocess.run(
        [sys.executable, str(PROGRAM), str(server_dir)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert second.returncode == 1
    assert f"(process {first.process.pid})" in second.stdout
    assert EmbeddedBroker(server_dir).is_running()


def test_what_dies_at_once_is_started_ever_more_slowly(start):
    node = start({"worker": "echo worker runs $$; exit 3"})
    node.says("worker runs", 4)
    pauses = [float(pause) for pause in re.findall(r"again_in_s=([\d.]+)", node.output)]
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert "exit code 3" in node.output


def test_a_program_that_is_not_there_does_not_end_the_others(start):
    node = start({"receiver": POLITE, "worker": "exec /no/such/program"})
    node.says("receiver runs")
    node.says("part died", 2)
    node.process.terminate()
    assert node.process.wait(10) == 0


def test_what_a_part_leaves_behind_dies_with_it(start, eventually):
    node = start({"worker": "sleep 60 & echo child $!; echo worker runs $$; wait"})
    node.says(r"child \d+")
    child = int(re.findall(r"child (\d+)", node.output)[0])
    node.says("worker runs")
    os.kill(node.pid_of("worker"), signal.SIGKILL)
    eventually(lambda: not processes.is_alive(child), "the part's own child is gone")
