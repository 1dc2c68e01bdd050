"""What the node answers to files of strangers: malformed ones, all character sets, all encodings; and what it keeps.

The table below is the documentation of these answers. Statuses are those of PS3.4 Table B.2-1: 0xA900, the Dataset is
not the object that the command names; 0xC000, it cannot be understood. Nothing obliges an SCP to look into a Dataset
before Success, so what is merely unusual is stored as sent, and judged when its header is read: "indexed", or
"quarantined" with a reason, never lost and never routed.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg_pool import ConnectionPool
from raw_scu import CT, EXPLICIT_LITTLE, VERIFICATION, Context, RawScu, echo_seconds
from receiver_process import ReceiverProcess, stored_datasets
from tiny_objects import dataset_bytes

from dicom_node.dimse.part10 import NotPart10Error, file_head, read_file_head
from dicom_node.indexing import index_incoming
from storage.database import open_pool
from storage.files import FolderStore

SHARED = Path(__file__).parents[2].parent / "shared" / "data"
FOLDERS = ("malformed", "charsets", "codecs")
DEFLATED = "1.2.840.10008.1.2.1.99"

NOT_A_DATASET, OTHER_OBJECT = "0xC000", "0xA900"
INDEXED, QUARANTINED = "0x0000, indexed", "0x0000, quarantined"
NO_SYNTAX = "context refused: transfer syntaxes not supported"  # result 4 of PS3.8 Table 9-18

#: By the end of the path: the answer, and why. Every other file: stored as sent, indexed.
ANSWERS: dict[str, tuple[str, str]] = {
    "chrJapMulti.dcm": (OTHER_OBJECT, "File Meta Information names another SOP Instance than the Dataset"),
    "chrJapMultiExplicitIR6.dcm": (OTHER_OBJECT, "the same"),
    "chrSQEncoding.dcm": (QUARANTINED, "a Dataset without Study Instance UID belongs to no study"),
    "chrSQEncoding1.dcm": (QUARANTINED, "the same"),
    "JPEGProcess10_12TransferSyntax_1.2.840.10008.1.2.4.55.dcm": (NO_SYNTAX, "retired JPEG process: no decoder"),
    "JPEGProcess6_8TransferSyntax_1.2.840.10008.1.2.4.53.dcm": (NO_SYNTAX, "the same"),
    "TC0231_sopinstanceuid_UI_as_LO.dcm": (OTHER_OBJECT, "the Dataset's SOP Instance UID is no UID"),
    "TC0233_rows_US_as_UL.dcm": (NOT_A_DATASET, "nothing after the preamble: an empty Dataset"),
    "TC0235_bitsallocated_US_as_SS.dcm": (NOT_A_DATASET, "the same"),
    "TC0267_depth_500_raw.dcm": (NOT_A_DATASET, "the same"),
    "TC0345_deflate_corrupt.dcm": (NOT_A_DATASET, "a zlib header is not what PS3.5 section A.5 deflates to"),
    "TC0347_deflate_truncated.dcm": (NOT_A_DATASET, "the same"),
    "TC0377_no_preamble.dcm": (OTHER_OBJECT, "sent as it is, File Meta Information included, under another UID"),
    "TC0381_preamble_127.dcm": (NOT_A_DATASET, "sent as it is: zeros of a preamble are no elements"),
    "TC0383_no_dicm.dcm": (NOT_A_DATASET, "the same"),
}


@dataclass(frozen=True)
class AsSent:
    """One file as a sender would put it on the wire."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset: bytes


def as_sent(path: Path) -> AsSent:
    """By File Meta Information; a file without it is sent as the Dataset of a CT with a made-up UID."""
    content = path.read_bytes()
    made_up = f"2.25.{int.from_bytes(hashlib.sha256(content).digest()[:12], 'big') + 1}"
    try:
        head = read_file_head(path)
    except NotPart10Error:
        syntax = DEFLATED if "deflate" in path.name else EXPLICIT_LITTLE
        return AsSent(CT, made_up, syntax, content[132:] if content[128:132] == b"DICM" else content)
    return AsSent(head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid, content[head.dataset_offset :])


def foreign_files() -> list[Path]:
    return [
        path
        for folder in FOLDERS
        for path in sorted((SHARED / folder).rglob("*"))
        if path.is_file() and path.suffix not in (".json", ".md", ".txt") and path.name != "LICENSE"
    ]


@pytest.fixture(scope="module")
def pool(database_url: str) -> Iterator["ConnectionPool"]:
    opened = open_pool(database_url, min_size=1, max_size=2)
    yield opened
    opened.close()


def test_every_foreign_file_has_its_documented_answer(tmp_path: Path, pool: ConnectionPool) -> None:
    files = foreign_files()
    if not files:
        pytest.skip(f"no test data in {SHARED}")
    store = FolderStore(tmp_path / "store")
    answers: dict[Path, str] = {}
    with ReceiverProcess(tmp_path) as receiver:
        for path in files:
            answers[path] = _sent(receiver, store, pool, as_sent(path))
            assert echo_seconds(receiver.port) < 1, f"after {path.name}"
        good = AsSent(CT, "2.25.4711", EXPLICIT_LITTLE, dataset_bytes("2.25.4711"))
        assert _sent(receiver, store, pool, good) == INDEXED
        assert receiver.stop() == 0
    documented = {path: _documented(path) for path in files}
    wrong = {
        path.name: f"{answers[path]}, documented: {documented[path]}"
        for path in files
        if answers[path] != documented[path]
    }
    assert wrong == {}
    assert all(any(path.name.endswith(end) for path in files) for end in ANSWERS), "an answer for no file"


def _documented(path: Path) -> str:
    return next((answer for end, (answer, _) in ANSWERS.items() if path.name.endswith(end)), INDEXED)


def _sent(receiver: ReceiverProcess, store: FolderStore, pool: ConnectionPool, sent: AsSent) -> str:
    """Send one object, index what was stored, and say how it went. AssertionError when it is not kept as sent."""
    with RawScu(receiver.port) as scu:
        scu.associate((Context(1, sent.sop_class_uid, (sent.transfer_syntax_uid,)), Context(3, VERIFICATION)))
        if 1 not in scu.accepted:
            assert scu.results[1] == 4
            return NO_SYNTAX
        answer = scu.store(1, sent.sop_instance_uid, sent.dataset, sop_class_uid=sent.sop_class_uid)
        assert scu.echo(2).status == 0  # the association goes on
        scu.release()
    stored = [item for items in stored_datasets(receiver.incoming).values() for item in items]
    if answer.status != 0:
        assert stored == [], "refused, but stored"
        return f"0x{answer.status:04X}"
    ((path, _),) = stored
    content = path.read_bytes()
    head = file_head(sent.sop_class_uid, sent.sop_instance_uid, sent.transfer_syntax_uid)
    assert content == head + sent.dataset
    while index_incoming(receiver.incoming, store, pool):
        pass
    aside = receiver.incoming.parent / "quarantine" / path.name
    if aside.exists():
        assert aside.read_bytes() == content
        assert aside.with_name(f"{path.name}.reason.json").exists()
        return QUARANTINED
    digest = hashlib.sha256(content).hexdigest()
    assert store.path(f"{digest[:2]}/{digest[2:4]}/{digest}.dcm").read_bytes() == content
    return INDEXED
