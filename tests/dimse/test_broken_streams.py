"""Streams that break PS3.8 or PS3.7, or just end: an abort, never half an object, and the port serves on."""

import struct
import threading
from collections.abc import Callable, Iterator

import pytest
from raw_scu import (
    CT,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    VERIFICATION,
    Context,
    EndedError,
    RawScu,
    cancel_rq,
    command_set,
    echo_seconds,
    p_data,
    pdu,
    pdv,
    store_rq,
    us,
)

from dicom_node.dimse.requests import InMemory, StoreRequest
from dicom_node.dimse.scp import running_scp

RLE = "1.2.840.10008.1.2.5"
CONTEXTS = (
    Context(1, CT, (EXPLICIT_LITTLE,)),
    Context(3, VERIFICATION, (IMPLICIT_LITTLE,)),
    Context(5, CT, (RLE,)),
    Context(7, "1.2.840.10008.5.1.4.31"),  # modality worklist: refused
)
UID = "2.25.1"
COMMAND = p_data(pdv(1, store_rq(1, UID), True, True))
DATA = b"\x08\0\x05\0" * 100


class Kept:
    """What was stored, whole, and how associations ended."""

    def __init__(self) -> None:
        self.datasets: dict[str, bytes] = {}
        self.ended: list[str] = []

    def keep(self, request: StoreRequest, dataset: bytes) -> None:
        self.datasets[request.sop_instance_uid] = dataset


@pytest.fixture
def kept() -> Kept:
    return Kept()


@pytest.fixture
def port(kept: Kept) -> Iterator[int]:
    with running_scp(
        "NODE", open_sink=InMemory(kept.keep), closed=lambda _facts, state: kept.ended.append(state)
    ) as bound:
        yield bound
        assert echo_seconds(bound, "NODE") < 5


def cut_short(length: int) -> bytes:
    """A PDU whose only PDV claims `length` bytes."""
    return pdu(4, struct.pack(">IBB", length, 1, 2) + DATA)


@pytest.mark.parametrize(
    "broken",
    [
        pytest.param(p_data(pdv(1, DATA, False, True)), id="Dataset without a command"),
        pytest.param(COMMAND + COMMAND, id="a command before the Dataset of the last one"),
        pytest.param(COMMAND + p_data(pdv(9, DATA, False, True)), id="a context never proposed"),
        pytest.param(p_data(pdv(7, store_rq(1, UID), True, True)), id="a context that was refused"),
        pytest.param(p_data(pdv(1, b"no command set at all", True, True)), id="noise for a command"),
        pytest.param(p_data(pdv(1, store_rq(1, UID)[:-3], True, True)), id="a command cut short"),
        pytest.param(
            p_data(pdv(1, command_set({0x0100: us(1), 0x0800: us(1), 0x1000: b"2.25.1"}), True, True)),
            id="a command without Message ID",
        ),
        pytest.param(
            p_data(pdv(3, command_set({0x0100: us(0x30), 0x0800: us(0x0101)}), True, True)),
            id="C-ECHO without Message ID",
        ),
        pytest.param(
            p_data(pdv(1, command_set({0x0100: us(0x8001), 0x0120: us(1), 0x0800: us(0x0101)}), True, True)),
            id="a response to nothing",
        ),
        pytest.param(COMMAND + cut_short(0), id="PDV of 0 bytes"),
        pytest.param(COMMAND + cut_short(1), id="PDV of 1 byte"),
        pytest.param(COMMAND + cut_short(len(DATA) + 3), id="PDV longer than its PDU"),
        pytest.param(COMMAND + cut_short(0xFFFFFFFF), id="PDV of 4 GB"),
        pytest.param(COMMAND + pdu(4, b"\0\0\0"), id="three bytes for a PDV"),
        pytest.param(COMMAND + pdu(4, DATA, 0xFFFFFFFF), id="PDU of 4 GB"),
        pytest.param(COMMAND + pdu(9, b"\0" * 4), id="a PDU type that there is not"),
        pytest.param(COMMAND + pdu(2, b"\0" * 200), id="A-ASSOCIATE-AC from a requestor"),
        pytest.param(COMMAND + pdu(1, b"\0" * 200), id="a second A-ASSOCIATE-RQ"),
    ],
)
def test_what_breaks_the_protocol_is_aborted(kept: Kept, port: int, broken: bytes) -> None:
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        assert 7 not in scu.accepted
        scu.send(broken)
        with pytest.raises(EndedError, match=r"^(aborted|closed)$"):
            scu.answer()
    assert kept.datasets == {}


@pytest.mark.parametrize("end", ["abort", "close", "reset", "release"])
def test_an_object_that_ends_in_the_middle_is_not_stored(
    kept: Kept, port: int, end: str, eventually: Callable[..., None]
) -> None:
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        assert scu.store(1, "2.25.7", DATA).status == 0
        scu.send(COMMAND, p_data(pdv(1, DATA, False, False)))
        if end == "abort":
            scu.abort()
        elif end == "release":
            scu.send(pdu(5, b"\0" * 4))
            with pytest.raises(EndedError):
                scu.answer()
        else:
            scu.close(reset=end == "reset")
    eventually(lambda: kept.ended, "the association ended")
    assert kept.datasets == {"2.25.7": DATA}


def test_a_cancel_of_a_store_is_passed_over(kept: Kept, port: int) -> None:
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        scu.send(p_data(pdv(1, cancel_rq(1), True, True)))  # PS3.7 section 9.3.2.3: for C-FIND, C-GET, C-MOVE only
        assert scu.store(2, UID, DATA).status == 0
        scu.send(p_data(pdv(1, cancel_rq(2), True, True)))
        assert scu.echo(3).status == 0
        scu.release()
    assert kept.datasets == {UID: DATA}


@pytest.mark.parametrize("context_id", [1, 3])
@pytest.mark.parametrize("field", [0x10, 0x20, 0x21, 0x100, 0x110, 0x120, 0x130, 0x140, 0x150, 0x7777])
def test_operations_that_there_are_not_are_answered(kept: Kept, port: int, context_id: int, field: int) -> None:
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        scu.send_message(context_id, store_rq(1, UID, other={0x0100: us(field)}), DATA)
        answer = scu.answer()
        assert (answer.field, answer.message_id, answer.status) == (field | 0x8000, 1, 0x0211)  # PS3.7 Annex C
        assert scu.store(2, UID, DATA).status == 0
        scu.release()
    assert kept.datasets == {UID: DATA}


def test_messages_interleaved_on_two_contexts_do_not_mix(kept: Kept, port: int) -> None:
    first, second = b"\x01\0" * 300, b"\x02\0" * 200
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        scu.send(
            p_data(pdv(1, store_rq(1, "2.25.1"), True, True)),
            p_data(pdv(5, store_rq(2, "2.25.2"), True, True)),
            p_data(pdv(1, first[:100], False, False), pdv(5, second[:50], False, False)),
            p_data(pdv(5, second[50:], False, True), pdv(1, first[100:], False, True)),
        )
        assert {scu.answer().message_id, scu.answer().message_id} == {1, 2}
        scu.release()
    assert kept.datasets == {"2.25.1": first, "2.25.2": second}


def test_requests_sent_ahead_are_answered_in_order(kept: Kept, port: int) -> None:
    sent = {f"2.25.{number}": DATA + bytes([number, 0]) for number in range(1, 21)}
    with RawScu(port) as scu:
        scu.associate(CONTEXTS, called="NODE")
        items = []
        for number, (uid, dataset) in enumerate(sent.items(), 1):
            items += [pdv(1, store_rq(number, uid), True, True), pdv(1, dataset, False, True)]
        scu.send(p_data(*items))  # a peer that does not wait for answers, and fills its PDUs
        assert [scu.answer().message_id for _ in sent] == list(range(1, 21))
        scu.release()
    assert kept.datasets == sent


def test_the_same_object_on_two_associations_at_once(kept: Kept, port: int) -> None:
    statuses: list[int | None] = []
    ready = threading.Barrier(2)

    def send() -> None:
        with RawScu(port) as scu:
            scu.associate(CONTEXTS, called="NODE")
            ready.wait(10)
            for number in range(1, 30):
                statuses.append(scu.store(number, UID, DATA * 50).status)
            scu.release()

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert statuses == [0] * 58
    assert kept.datasets == {UID: DATA * 50}


@pytest.mark.parametrize("talks_on", [True, False])
def test_an_aborted_peer_that_stays_does_not_keep_its_slot(talks_on: bool, eventually: Callable[..., None]) -> None:
    ended: list[str] = []
    with (
        running_scp(
            "NODE",
            open_sink=InMemory(lambda _request, _dataset: None),
            closed=lambda _facts, state: ended.append(state),
            max_associations=1,
        ) as port,
        RawScu(port) as scu,
    ):
        scu.associate(CONTEXTS, called="NODE")
        scu.send(pdu(4, DATA, 0xFFFFFFFF))
        for _ in range(8 if talks_on else 0):
            scu.send(bytes(1 << 20))
        eventually(lambda: ended == ["aborted"], "the slot is free", timeout_s=10)
        assert echo_seconds(port, "NODE") < 5
