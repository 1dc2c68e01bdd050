"""What is proposed to a PACS, what it takes, and an object in the encoding that it can read."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pynetdicom import AE, AllStoragePresentationContexts, evt
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes, new_uid, write_object

from dicom_node.delivery.transcoding import implicit_file
from dicom_node.dimse.part10 import read_file_head
from dicom_node.dimse.scu import AssociationRejected
from dicom_node.dimse.standin import Faults, StandInPacs
from dicom_node.dimse.storing import store_session
from dicom_node.routing.destination import IMPLICIT_LITTLE

JPEG_LOSSLESS = "1.2.840.10008.1.2.4.70"
SC = "1.2.840.10008.5.1.4.1.1.7"


@contextmanager
def old_pacs(syntax: str) -> Iterator[tuple[int, list[tuple[str, bytes]], list[list[tuple[str, str]]]]]:
    """A PACS of one transfer syntax: port, (syntax, Dataset) of what it took, contexts that were proposed."""
    ae = AE("PACS")
    for context in AllStoragePresentationContexts:
        ae.add_supported_context(context.abstract_syntax, syntax)
    taken, proposed = [], []

    def store(event: evt.Event) -> int:
        taken.append((str(event.context.transfer_syntax), event.encoded_dataset(include_meta=False)))
        return 0

    def requested(event: evt.Event) -> None:
        contexts = event.assoc.requestor.primitive.presentation_context_definition_list
        proposed.append([(str(c.abstract_syntax), str(s)) for c in contexts for s in c.transfer_syntax])

    handlers = [(evt.EVT_C_STORE, store), (evt.EVT_REQUESTED, requested)]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    try:
        yield server.socket.getsockname()[1], taken, proposed
    finally:
        server.shutdown()


def session(port: int, *paths: Path, syntaxes: tuple[str, ...] = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)):  # type: ignore[no-untyped-def]
    heads = [read_file_head(path) for path in paths]
    return store_session(
        heads, "127.0.0.1", port, "PACS", "NODE", syntaxes=syntaxes, implicit_file=implicit_file, timeout_s=10
    )


@pytest.fixture
def plain(tmp_path: Path) -> Path:
    uid = new_uid()
    return write_object(tmp_path / "plain.dcm", dataset_bytes(uid), uid)


@pytest.fixture
def compressed(tmp_path: Path) -> Path:
    uid = new_uid()
    return write_object(tmp_path / "jpeg.dcm", dataset_bytes(uid), uid, SC, JPEG_LOSSLESS)


def test_a_pacs_of_implicit_vr_gets_it_in_implicit_vr(plain: Path) -> None:
    head = read_file_head(plain)
    with old_pacs(IMPLICIT_LITTLE) as (port, taken, proposed):
        for _ in range(2):
            with session(port, plain) as opened:
                assert opened.store(plain, head).status == 0
    assert proposed[0] == [(CT, EXPLICIT_LITTLE), (CT, IMPLICIT_LITTLE)]
    assert taken[0] == taken[1]
    assert taken[0][0] == IMPLICIT_LITTLE
    assert implicit_file(plain).endswith(taken[0][1])


def test_who_takes_explicit_vr_gets_the_bytes_of_the_file(plain: Path) -> None:
    with old_pacs(EXPLICIT_LITTLE) as (port, taken, _), session(port, plain) as opened:
        assert opened.store(plain, read_file_head(plain)).status == 0
    assert plain.read_bytes().endswith(taken[0][1])


def test_what_is_compressed_goes_as_it_is_or_not_at_all(plain: Path, compressed: Path) -> None:
    with old_pacs(IMPLICIT_LITTLE) as (port, _, proposed), session(port, plain, compressed) as opened:
        answer = opened.store(compressed, read_file_head(compressed))
        assert (answer.is_taken, answer.status) == (False, None)
        assert "Secondary Capture" in answer.reason
        assert "none of the transfer syntaxes" in answer.reason
        assert opened.store(plain, read_file_head(plain)).status == 0
    assert proposed[0][2:] == [(SC, JPEG_LOSSLESS)]


def test_only_what_the_rules_allow_is_offered(plain: Path) -> None:
    with old_pacs(IMPLICIT_LITTLE) as (port, taken, _), session(port, plain, syntaxes=(EXPLICIT_LITTLE,)) as opened:
        assert not opened.is_open
        assert not opened.store(plain, read_file_head(plain)).is_taken
    assert taken == []


def test_nothing_is_taken(plain: Path) -> None:
    pacs = StandInPacs(faults=Faults(refuses=frozenset({CT})))
    with pacs.running() as port, session(port, plain) as opened:
        answer = opened.store(plain, read_file_head(plain))
    assert (answer.is_taken, answer.is_sendable) == (False, True)
    assert "the SOP Class is not supported" in answer.reason


def test_a_file_that_cannot_be_read_is_not_the_pacs_fault(plain: Path, tmp_path: Path) -> None:
    head = read_file_head(plain)
    broken = write_object(tmp_path / "broken.dcm", dataset_bytes("2.25.1")[:-7] + b"\xff" * 3, "2.25.1")
    with old_pacs(IMPLICIT_LITTLE) as (port, _, _), session(port, plain, broken) as opened:
        (tmp_path / "plain.dcm").unlink()
        answer = opened.store(plain, head)
        assert (answer.is_sendable, answer.is_taken) == (False, True)


def test_more_sop_classes_than_an_association_holds(tmp_path: Path) -> None:
    uids = [new_uid() for _ in range(70)]
    paths = [
        write_object(tmp_path / f"{number}.dcm", dataset_bytes(uid), uid, sop_class=f"1.2.3.{number}")
        for number, uid in enumerate(uids)
    ]
    with StandInPacs().running() as port, session(port, *paths) as opened:
        told = [opened.is_proposed(read_file_head(path)) for path in paths]
        assert opened.store(paths[0], read_file_head(paths[0])).status == 0
    assert told == [True] * 64 + [False] * 6


def test_a_called_title_that_is_wrong(plain: Path) -> None:
    with StandInPacs(ae_title="OTHER").running() as port:  # noqa: SIM117
        with pytest.raises(AssociationRejected, match="called AE title"), session(port, plain):
            pass
