"""However a message is cut into PDVs, PDUs and TCP segments, the same bytes are handed on (PS3.8 section 9.3.5)."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from raw_scu import (
    CT,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    STORE_AND_ECHO,
    VERIFICATION,
    Context,
    EndedError,
    RawScu,
    echo_rq,
    fragments,
    p_data,
    pdv,
    store_rq,
)
from tiny_objects import dataset_bytes

from dicom_node.dimse.part10 import file_head
from dicom_node.dimse.requests import StoreRequest
from dicom_node.dimse.scp import running_scp
from dicom_node.reception import Incoming

MR, RLE = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.1.2.5"
CONTEXTS = (
    Context(1, CT, (EXPLICIT_LITTLE,)),
    Context(3, VERIFICATION, (IMPLICIT_LITTLE,)),
    Context(5, CT, (RLE,)),
    Context(255, MR, (IMPLICIT_LITTLE,)),
)
STORAGE = {1: (CT, EXPLICIT_LITTLE), 5: (CT, RLE), 255: (MR, IMPLICIT_LITTLE)}


class Sink:
    """What one object was written as, in memory."""

    def __init__(self, kept: "Kept", request: StoreRequest) -> None:
        self.request, self.parts, self._kept = request, bytearray(), kept

    def write(self, parts: Sequence[memoryview]) -> None:
        for part in parts:
            self.parts += part

    def commit(self) -> None:
        self._kept.committed.append((self.request, bytes(self.parts)))

    def discard(self) -> None:
        self._kept.discarded += 1


class Kept:
    """Remembers what the acceptor hands on."""

    def __init__(self) -> None:
        self.committed: list[tuple[StoreRequest, bytes]] = []
        self.discarded = 0

    def open_sink(self, request: StoreRequest) -> Sink:
        return Sink(self, request)


@dataclass(frozen=True)
class Message:
    """A C-STORE of `size` random bytes on a context, or a C-ECHO (`size` 0), and how it is cut."""

    context_id: int
    size: int
    command_cuts: list[int] = field(default_factory=list)  # sizes of the PDVs of the command but the last
    dataset_cuts: list[int] = field(default_factory=list)  # the same for the Dataset
    pdvs_per_pdu: list[int] = field(default_factory=list)  # of the PDUs but the last
    segments: list[int] = field(default_factory=list)  # sizes of the writes to the socket but the last


def cuts(largest: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.one_of(st.just(0), st.integers(1, 12), st.integers(0, largest)), max_size=8)


def message(context_ids: Sequence[int], sizes: st.SearchStrategy[int]) -> st.SearchStrategy[Message]:
    return st.builds(
        Message, st.sampled_from(context_ids), sizes, cuts(150), cuts(4000), st.lists(st.integers(1, 6), max_size=8),
        cuts(2000),
    )  # fmt: skip


MESSAGES = st.lists(
    st.one_of(message(list(STORAGE), st.integers(1, 9000)), message([3], st.just(0))), min_size=1, max_size=5
)


def wire(message: Message, command: bytes, dataset: bytes) -> bytes:
    """The message as P-DATA-TF PDUs."""
    items = [pdv(message.context_id, *_pdv(piece, True)) for piece in fragments(command, message.command_cuts)]
    if dataset:
        items += [pdv(message.context_id, *_pdv(piece, False)) for piece in fragments(dataset, message.dataset_cuts)]
    pdus = b""
    for count in message.pdvs_per_pdu:
        if items:
            pdus += p_data(*items[:count])
            del items[:count]
    return pdus + (p_data(*items) if items else b"")


def _pdv(piece: tuple[bytes, bool], is_command: bool) -> tuple[bytes, bool, bool]:
    return piece[0], is_command, piece[1]


@pytest.fixture(scope="module")
def kept() -> Kept:
    return Kept()


@pytest.fixture(scope="module")
def port(kept: Kept) -> Iterator[int]:
    with running_scp("NODE", open_sink=kept.open_sink) as bound:
        yield bound


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(messages=MESSAGES, seed=st.integers(0, 1 << 32))
@example(messages=[Message(1, 9000, [0, 0, 1], [0, 0, 1, 0], [1] * 8, [1] * 60)], seed=1)  # byte by byte
@example(messages=[Message(1, 9000, [], [8999], [], []), Message(3, 0), Message(255, 1)], seed=2)  # all in one PDU
@example(messages=[Message(1, 100, [0] * 8, [0] * 8, [], [])], seed=3)
@example(messages=[Message(1, 100, [200], [100], [], [])], seed=4)  # the last PDVs are empty
@example(messages=[Message(5, 3, [50], [2], [2], []), Message(1, 3, [50], [2], [2], [])], seed=5)
def test_any_cut_stores_the_same_bytes(kept: Kept, port: int, messages: list[Message], seed: int) -> None:
    chance = random.Random(seed)
    kept.committed.clear()
    expected = []
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        assert set(scu.accepted) == {1, 3, 5, 255}
        for number, sent in enumerate(messages):
            message_id = chance.randrange(1 << 16)
            dataset = chance.randbytes(sent.size)
            if sent.size:
                uid = f"2.25.{chance.randrange(1, 1 << 100)}"
                sop_class, syntax = STORAGE[sent.context_id]
                command = store_rq(message_id, uid, sop_class)
                expected.append((uid, sop_class, syntax, dataset))
            else:
                uid, command = "", echo_rq(message_id)
            for segment, _ in fragments(wire(sent, command, dataset), sent.segments):
                scu.send(segment)
            answer = scu.answer()
            assert (answer.message_id, answer.status) == (message_id, 0), f"message {number}"
            assert answer.context_id == sent.context_id
            assert answer.sop_instance_uid == uid
        scu.release()
    found = [
        (request.sop_instance_uid, request.sop_class_uid, request.transfer_syntax_uid, stored)
        for request, stored in kept.committed
    ]
    assert found == expected
    assert kept.discarded == 0


def test_associations_beside_each_other_do_not_mix(kept: Kept, port: int) -> None:
    chance = random.Random(7)
    kept.committed.clear()
    sent = {f"2.25.{number}": chance.randbytes(30_001) for number in range(1, 9)}
    scus = [RawScu(port).associate(STORE_AND_ECHO, called="NODE") for _ in sent]
    rests = []
    for uid, dataset in sent.items():
        whole = p_data(pdv(1, store_rq(9, uid), True, True)) + b"".join(
            p_data(pdv(1, piece, False, is_last)) for piece, is_last in fragments(dataset, [1000] * 20)
        )
        rests.append(memoryview(whole))
    while any(rests):
        for number, scu in enumerate(scus):
            size = chance.randrange(1, 4000)
            scu.send(rests[number][:size])
            rests[number] = rests[number][size:]
    for scu in scus:
        assert scu.answer().status == 0
        scu.release()
        scu.close()
    assert {request.sop_instance_uid: stored for request, stored in kept.committed} == sent


@pytest.mark.parametrize("size", [1, 2, 3])
def test_thousands_of_tiny_fragments_reach_the_disk(tmp_path: Path, size: int) -> None:
    dataset = dataset_bytes("2.25.1", PixelData=random.Random(size).randbytes(24_000))
    items = [
        pdv(1, dataset[start : start + size], False, start + size >= len(dataset))
        for start in range(0, len(dataset), size)
    ]
    incoming = Incoming(tmp_path, "receiver")
    with running_scp("NODE", open_sink=incoming.open_sink) as port, RawScu(port) as scu:
        scu.associate(called="NODE")
        scu.send(p_data(pdv(1, store_rq(9, "2.25.1"), True, True)), p_data(*items))
        assert scu.answer().status == 0
        scu.release()
    (path,) = tmp_path.glob("*.dcm")
    assert path.read_bytes() == file_head(CT, "2.25.1", EXPLICIT_LITTLE) + dataset


def test_a_sender_with_nagles_algorithm_does_not_wait_for_acknowledgements(kept: Kept, port: int) -> None:
    kept.committed.clear()
    dataset, count = bytes(33_000), 50  # smaller than a segment of loopback: all of it waits for the header's ACK
    with RawScu(port, nodelay=False) as scu:
        scu.associate(CONTEXTS, called="NODE")
        started = time.monotonic()
        for number in range(1, count + 1):
            command = p_data(pdv(1, store_rq(number, f"2.25.{number}"), True, True))
            data = p_data(pdv(1, dataset, False, True))
            for written in (command[:12], command[12:], data[:12], data[12:]):  # as DCMTK writes
                scu.send(written)
            assert scu.answer().status == 0
        seconds = time.monotonic() - started
        scu.release()
    assert len(kept.committed) == count
    assert seconds < count * 0.020  # a delayed ACK takes 0.040 s


def test_a_slow_peer_is_kept_and_a_silent_one_is_not(kept: Kept) -> None:
    kept.committed.clear()
    dataset = bytes(range(256)) * 40
    whole = p_data(pdv(1, store_rq(9, "2.25.1"), True, True)) + p_data(pdv(1, dataset, False, True))
    ended: list[str] = []
    with (
        running_scp(
            "NODE", open_sink=kept.open_sink, closed=lambda _facts, state: ended.append(state), network_timeout_s=1.0
        ) as port,
        RawScu(port) as slow,
        RawScu(port) as silent,
    ):
        slow.associate(called="NODE")
        silent.associate(called="NODE")
        silent.send(whole[: len(whole) // 2])
        started = time.monotonic()
        for number in range(30):  # 3 s for a message, never silent for long
            slow.send(whole[number * 350 : (number + 1) * 350])
            time.sleep(0.1)
        assert slow.answer().status == 0
        assert time.monotonic() - started > 2.5
        with pytest.raises(EndedError, match=r"aborted|closed"):
            silent.answer()
        slow.release()
    assert [dataset] == [stored for _, stored in kept.committed]
    assert sorted(ended) == ["aborted", "released"]
    assert kept.discarded == 1
    kept.discarded = 0
