"""File Meta Information: written as others read it, read as others write it."""

from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from tiny_objects import CT, EXPLICIT_LITTLE, dataset_bytes

from dicom_node.dimse.part10 import NotPart10Error, file_head, read_file_head

uids = st.from_regex(r"[1-9][0-9]{0,7}(\.[1-9][0-9]{0,7}){1,5}", fullmatch=True)


@settings(max_examples=40, deadline=None)
@given(sop_class=uids, instance=uids, ae_title=st.from_regex(r"[A-Z0-9_]{0,16}", fullmatch=True))
def test_pydicom_reads_what_is_written(sop_class: str, instance: str, ae_title: str) -> None:
    dataset = dataset_bytes("2.25.5")
    written = dcmread(BytesIO(file_head(sop_class, instance, EXPLICIT_LITTLE, ae_title) + dataset))
    assert written.file_meta.MediaStorageSOPClassUID == sop_class
    assert written.file_meta.MediaStorageSOPInstanceUID == instance
    assert written.file_meta.TransferSyntaxUID == EXPLICIT_LITTLE
    assert written.file_meta.get("SourceApplicationEntityTitle", "") == ae_title
    assert written.SOPInstanceUID == "2.25.5"


def test_reads_what_pydicom_writes(tmp_path: Path) -> None:
    dataset = dataset_bytes("2.25.5")
    written = dcmread(BytesIO(file_head(CT, "2.25.5", EXPLICIT_LITTLE) + dataset))
    written.file_meta.PrivateInformationCreatorUID = "1.2.3"
    written.file_meta.PrivateInformation = b"\1\2\3\4"
    written.save_as(tmp_path / "a.dcm")
    head = read_file_head(tmp_path / "a.dcm")
    assert (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid) == (CT, "2.25.5", EXPLICIT_LITTLE)
    assert (tmp_path / "a.dcm").read_bytes()[head.dataset_offset :] == dataset


def test_group_0002_in_a_dataset_is_not_believed(tmp_path: Path) -> None:
    pretended = file_head("1.2.3", "2.25.6", "1.2.840.10008.1.2")[132:]
    dataset = pretended + dataset_bytes("2.25.5")
    (tmp_path / "a.dcm").write_bytes(file_head(CT, "2.25.5", EXPLICIT_LITTLE) + dataset)
    head = read_file_head(tmp_path / "a.dcm")
    assert (head.sop_class_uid, head.sop_instance_uid, head.transfer_syntax_uid) == (CT, "2.25.5", EXPLICIT_LITTLE)
    assert (tmp_path / "a.dcm").read_bytes()[head.dataset_offset :] == dataset


def test_a_group_length_that_is_too_small_is_not_believed(tmp_path: Path) -> None:
    head = bytearray(file_head(CT, "2.25.5", EXPLICIT_LITTLE))
    head[140:144] = (10).to_bytes(4, "little")
    (tmp_path / "a.dcm").write_bytes(bytes(head) + dataset_bytes("2.25.5"))
    assert read_file_head(tmp_path / "a.dcm").transfer_syntax_uid == EXPLICIT_LITTLE


@pytest.mark.parametrize("content", [b"", b"\0" * 200, b"DICM" * 50, file_head("", "", "")[:140]])
def test_other_files_are_named_as_such(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.dcm").write_bytes(content)
    with pytest.raises(NotPart10Error, match=r"a\.dcm"):
        read_file_head(tmp_path / "a.dcm")
