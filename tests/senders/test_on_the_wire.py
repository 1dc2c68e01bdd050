"""Senders at a real acceptor: what a peer sees when its SOP Class, its number or its rate is not allowed."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID
from pynetdicom import AE
from tiny_objects import new_uid

from dicom_node.dimse.requests import InMemory
from dicom_node.dimse.scp import running_scp
from dicom_node.dimse.scu import RequestorAssociation, echo
from dicom_node.senders import Senders

CT, MR = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4"
IMPLICIT = "1.2.840.10008.1.2"


def tiny_object(sop_class: str, extra_bytes: int = 32) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = UID(IMPLICIT)
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, new_uid()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "2.25.1", "2.25.2"
    dataset.EncapsulatedDocument = bytes(extra_bytes)
    return dataset


@contextmanager
def node(tmp_path: Path, kept: list[int], **limits: Any) -> Iterator[int]:
    (tmp_path / "senders.json").write_text(json.dumps([{"ae_title": "CT1", "host": "127.0.0.1", **limits}]))
    senders = Senders(tmp_path / "senders.json", "NODE", tmp_path / "run")
    sinks = InMemory(lambda _request, dataset: kept.append(len(dataset)))
    with running_scp("NODE", open_sink=sinks, admit=senders.admit) as port:
        yield port


def association(port: int, *sop_classes: str) -> Any:
    ae = AE("CT1")
    for sop_class in sop_classes:
        ae.add_requested_context(sop_class, IMPLICIT)
    made: Any = ae.associate("127.0.0.1", port, ae_title="NODE")
    made.__class__ = RequestorAssociation  # the library's own may lose an answer that comes at once
    return made


def test_a_sop_class_that_is_not_taken(tmp_path: Path) -> None:
    kept: list[int] = []
    with node(tmp_path, kept, sop_classes=[CT]) as port:
        made = association(port, CT, MR)
        assert [(c.abstract_syntax, c.result) for c in made.accepted_contexts + made.rejected_contexts] == [
            (CT, 0x00),
            (MR, 0x03),  # abstract syntax not supported
        ]
        assert made.send_c_store(tiny_object(CT)).Status == 0
        context = made.accepted_contexts[0]
        context._abstract_syntax = UID(MR)  # a peer that says MR on the context that was accepted for CT
        assert made.send_c_store(tiny_object(MR)).Status == 0x0124  # not authorised
        made.release()
    assert len(kept) == 1


def test_associations_of_one_sender(tmp_path: Path, eventually: Callable[..., None]) -> None:
    with node(tmp_path, [], max_associations=1) as port:
        first = association(port, CT)
        assert "local limit exceeded" in echo("127.0.0.1", port, "NODE", "CT1").reason
        assert "calling AE title" in echo("127.0.0.1", port, "NODE", "CT2").reason
        first.release()
        eventually(lambda: echo("127.0.0.1", port, "NODE", "CT1").seconds is not None, "the slot is free again")


@pytest.mark.parametrize("limits", [{"max_objects_per_second": 20}, {"max_megabytes_per_second": 0.2}])
def test_a_sender_with_a_rate_is_slowed_down_and_nothing_fails(tmp_path: Path, limits: dict[str, float]) -> None:
    kept: list[int] = []
    objects = [tiny_object(CT, extra_bytes=10_000) for _ in range(40)]
    with node(tmp_path, kept, **limits) as port:
        made = association(port, CT)
        began = time.monotonic()
        assert [made.send_c_store(o).Status for o in objects] == [0] * 40
        seconds = time.monotonic() - began
        made.release()
    assert len(kept) == 40
    assert 0.8 < seconds < 4  # objects for 2 s, of which 1 s is the burst
