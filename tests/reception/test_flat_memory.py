"""Memory of the receiver does not grow with what peers send or hold open.

The full sizes: tests/benchmarks/hold_receiver.py.
"""

from collections.abc import Callable, Iterator

import pytest
from floods import EchoWatch, half_open, probe
from raw_scu import RawScu, echo_seconds
from receiver_process import ReceiverProcess, stored_datasets
from tiny_objects import dataset_bytes

REPEATED = bytes(range(256)) * 256
LARGE_MB = 200
ALLOWED_GROWTH = 1.10


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReceiverProcess]:
    with ReceiverProcess(tmp_path_factory.mktemp("receiver")) as running:
        with RawScu(running.port) as scu:  # what is imported and allocated once is no growth
            assert scu.associate().store(1, "2.25.1", dataset_bytes("2.25.1")).status == 0
            scu.release()
        yield running
        assert running.stop() == 0


def test_a_large_object_goes_straight_to_the_disk(receiver: ReceiverProcess) -> None:
    times = LARGE_MB * (1 << 20) // len(REPEATED)
    head = dataset_bytes("2.25.2")
    before_mb, _ = receiver.memory_mb()
    receiver.forget_peak()
    with RawScu(receiver.port, timeout_s=60) as scu:
        assert scu.associate().store_streamed(1, "2.25.2", head, REPEATED, times).status == 0
        scu.release()
    _, peak_mb = receiver.memory_mb()
    ((path, offset),) = stored_datasets(receiver.incoming)["2.25.2"]
    with path.open("rb") as file:
        file.seek(offset)
        assert file.read(len(head)) == head
        assert all(file.read(len(REPEATED)) == REPEATED for _ in range(times))
        assert file.read() == b""
    path.unlink()
    assert peak_mb - before_mb < 32, f"{before_mb:.0f} MB before, {peak_mb:.0f} MB at the peak"


def test_associations_leave_nothing_behind(receiver: ReceiverProcess) -> None:
    def one_after_the_other(count: int) -> None:
        for number in range(count):
            with RawScu(receiver.port) as scu:
                scu.associate()
                if number % 2:
                    scu.release()

    one_after_the_other(40)
    before_mb, _ = receiver.memory_mb()
    one_after_the_other(120)
    after_mb, _ = receiver.memory_mb()
    assert after_mb < before_mb * ALLOWED_GROWTH


def test_probes(receiver: ReceiverProcess) -> None:
    probe(receiver.port, 100)
    before_mb, _ = receiver.memory_mb()
    with EchoWatch(receiver.port) as watch:
        probe(receiver.port, 1500)
    echo_seconds(receiver.port)
    after_mb, _ = receiver.memory_mb()
    assert not watch.trouble
    assert watch.count > 0
    assert watch.worst_s < 1
    assert after_mb < before_mb * ALLOWED_GROWTH


def test_half_open_connections(receiver: ReceiverProcess, eventually: Callable[..., None]) -> None:
    before_mb, _ = receiver.memory_mb()
    with half_open(receiver.port, 160, associations=8), EchoWatch(receiver.port) as watch:
        eventually(lambda: watch.count >= 8, "eight C-ECHO beside them", timeout_s=20)
        held_mb, _ = receiver.memory_mb()
    assert not watch.trouble
    assert watch.worst_s < 1
    assert held_mb < before_mb * ALLOWED_GROWTH
    with RawScu(receiver.port) as scu:
        assert scu.associate().store(1, "2.25.3", dataset_bytes("2.25.3")).status == 0
        scu.release()
