"""A running node that speaks TLS only: who gets in, what the trail says, and what no log says."""

import subprocess
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from certificates import PASSWORD, Authority
from nodes import Pacs, RunningNode, wait_until
from programs import need
from tiny_objects import CT, dataset_bytes, new_uid, write_object

from dicom_node.dimse.scu import echo
from dicom_node.dimse.tls import TlsFiles, TlsPeer


def records(node: RunningNode) -> list[Any]:
    file = node.folder / "data" / "audit" / "audit.log"
    return [ElementTree.fromstring(line) for line in file.read_text("utf-8").splitlines()]


def kinds(node: RunningNode) -> list[tuple[str, str]]:
    """(event, name of the first participant) of every record."""
    return [(str(r.find("*/EventID").get("originalText")), str(r[1].get("UserID"))) for r in records(node)]


def test_a_node_behind_mutual_tls(tmp_path: Path, pacs: Pacs) -> None:
    need("openssl")
    storescu = need("storescu")
    hospital = Authority(tmp_path, "hospital")
    ours, ct = hospital.issue("node", password=PASSWORD), hospital.issue("ct")
    (tmp_path / "password").write_text(f"{PASSWORD}\n")
    environment = {
        "DICOM_NODE_DICOM_PORT_ENABLED": "false",
        "DICOM_NODE_TLS_PORT": "0",
        "DICOM_NODE_TLS_CERTIFICATE": str(ours.certificate),
        "DICOM_NODE_TLS_KEY": str(ours.key),
        "DICOM_NODE_TLS_KEY_PASSWORD_FILE": str(tmp_path / "password"),
        "DICOM_NODE_TLS_CA": str(hospital.pair.certificate),
        "DICOM_NODE_RECEIVERS": "2",
    }
    folder = tmp_path / "node"
    folder.mkdir()
    node = RunningNode(folder, pacs, environment).start()
    try:
        rules = tmp_path / "rules.yaml"
        rules.write_text(
            f"senders:\n  - {{ae_title: CT1, host: 127.0.0.1, sop_classes: [{CT}], max_associations: 2}}\n"
        )
        assert node.command("rules", "import", str(rules)).returncode == 0
        ca = hospital.pair.certificate
        known = TlsPeer(TlsFiles(ct.certificate, ct.key, ca))
        wait_until(
            lambda: "calling" in echo("127.0.0.1", node.port, "LIVERNODE", "SPY", tls=known).reason, 10, "senders"
        )
        assert echo("127.0.0.1", node.port, "LIVERNODE", "CT1", tls=TlsPeer(TlsFiles(ca=ca))).seconds is None
        assert echo("127.0.0.1", node.port, "LIVERNODE", "CT1").seconds is None

        uid, study = new_uid(), "2.25.20250101"
        file = write_object(tmp_path / "1.dcm", dataset_bytes(uid, study=study, PatientID="SECRET-7"), uid)
        command = [storescu, "-aet", "CT1", "-aec", "LIVERNODE", "+tls", ct.key, ct.certificate, "-pw", "+cf", ca]
        done = subprocess.run([str(part) for part in (*command, "127.0.0.1", node.port, file)], timeout=30)
        assert done.returncode == 0
        wait_until(lambda: ("DICOM Instances Transferred", "CT1") in kinds(node), 20, "the transfer in the trail")
    finally:
        node.stop()
    found = kinds(node)
    assert ("Security Alert", "SPY") not in found  # the reporting process comes first
    alerts = [r[2].get("UserID") for r in records(node) if r.find("*/EventTypeCode[@csd-code='110126']") is not None]
    assert {"SPY", "127.0.0.1"} <= set(alerts)
    activities = [
        r.find("*/EventTypeCode").get("originalText") for r in records(node) if r[0][0].get("csd-code") == "110100"
    ]
    assert (
        activities.count("Application Start") == activities.count("Application Stop") == 3
    )  # two receivers, scheduler
    assert any(r.find("*/EventTypeCode[@csd-code='110129']") is not None for r in records(node))
    transferred = next(r for r in records(node) if r[0][0].get("csd-code") == "110104")
    subjects = [thing.get("ParticipantObjectID") for thing in transferred.findall("ParticipantObjectIdentification")]
    assert subjects == [study, "SECRET-7"]
    log = node.log.read_text()
    assert "SECRET-7" not in log
    assert PASSWORD not in log
