"""Storage Commitment at a running node: with Orthanc as the one who asks, and with parts of the node killed."""

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
from modality import Modality, ask, store
from nodes import RunningNode, wait_until
from programs import need
from servers import debian_orthanc
from tiny_objects import CT, dataset_bytes, new_uid, write_object

from dicom_node.dimse.requests import Reference


def import_senders(node: RunningNode, *senders: str) -> None:
    rules = node.folder / "senders.yaml"
    rules.write_text("senders:\n" + "".join(f"  - {{{sender}}}\n" for sender in senders))
    done = node.command("rules", "import", str(rules))
    assert done.returncode == 0, done.stderr


def test_orthanc_sends_and_asks(node: RunningNode, tmp_path: Path) -> None:
    need("Orthanc")
    study = new_uid()
    files = {}
    for number in range(3):
        uid = new_uid()
        dataset = dataset_bytes(uid, study=study, series=f"{study}.1", InstanceNumber=number)
        files[uid] = write_object(tmp_path / f"{number}.dcm", dataset, uid)
    with debian_orthanc(tmp_path, DicomModalities={"node": ["LIVERNODE", "127.0.0.1", node.port]}) as orthanc:
        import_senders(node, f"ae_title: ORTHANC, host: 127.0.0.1, port: {orthanc.port}")
        kept = [orthanc.post("/instances", path.read_bytes())["ID"] for path in files.values()]

        def outcome(transaction: str) -> Any:
            found = orthanc.rest(f"/storage-commitment/{transaction}")
            return found if found["Status"] != "Pending" else None

        order = {"Resources": kept, "StorageCommitment": True, "Synchronous": True}
        sent = orthanc.post("/modalities/node/store", json.dumps(order).encode())
        good = wait_until(lambda: outcome(sent["StorageCommitmentTransactionUID"]), 30, f"a report; {node.log}")
        assert good["Status"] == "Success"
        assert {item["SOPInstanceUID"] for item in good["Success"]} == files.keys()

        references = [[CT, uid] for uid in files] + [[CT, f"{study}.99"]]
        asked = orthanc.post("/modalities/node/storage-commitment", json.dumps({"DicomInstances": references}).encode())
        mixed = wait_until(lambda: outcome(asked["ID"]), 30, f"a report; {node.log}")
        assert mixed["Status"] == "Failure"
        assert {item["SOPInstanceUID"] for item in mixed["Success"]} == files.keys()
        assert [item["SOPInstanceUID"] for item in mixed["Failures"]] == [f"{study}.99"]
        assert "0x0112" in str(mixed["Failures"][0]) or "274" in str(mixed["Failures"][0])
    assert "asked by ORTHANC: 3 of 3 objects safe; answer: done" in node.command("why", study).stdout


@pytest.mark.parametrize("part", ["schedule", "receive", "work cpu"])
def test_a_part_killed_between_request_and_report(node: RunningNode, part: str) -> None:
    modality = Modality()
    study = new_uid()
    references = [Reference(CT, new_uid()) for _ in range(5)]
    with modality.listening() as own_port:
        import_senders(node, f"ae_title: MODALITY, host: 127.0.0.1, port: {own_port}")
        with modality.association(node.port, "LIVERNODE") as association:
            for reference in references:
                assert store(association, reference.sop_instance_uid, study=study) == 0
            assert ask(association, f"{study}.9", references) == 0
            node.kill(f"dicom_node {part}")
        reported = modality.wait_for(1, 60)
    assert reported[0].transaction_uid == f"{study}.9"
    assert reported[0].committed == tuple(references)
    with node.database() as connection:
        rows = connection.execute("SELECT path FROM instance WHERE study_instance_uid = %s", (study,)).fetchall()
    for (path,) in rows:
        assert pydicom.dcmread(node.folder / "data" / "store" / path).StudyInstanceUID == study
    assert len(rows) == len(references)
