"""STOW-RS to Orthanc's DICOMweb plugin, which is not ours."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from programs import need_file
from servers import debian_orthanc
from tiny_objects import CT, dataset_bytes, new_uid, write_object

from dicom_node.delivery import Fate, Outcome, send
from dicom_node.routing.destination import Destination
from storage.records import Delivery


def delivery(number: int, study: str, uid: str, path: str) -> Delivery:
    return Delivery(number, number, 1, study, "web", "sending", 1, datetime.now(UTC), None, "", None, uid, CT, "", path)


def test_orthanc_stores_what_we_post(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = need_file("/usr/share/orthanc/plugins/libOrthancDicomWeb.so", "orthanc-dicomweb")
    studies = [new_uid(), new_uid()]
    deliveries = []
    for number in range(1, 5):
        uid, study = new_uid(), studies[number % 2]
        dataset = dataset_bytes(uid, study=study, series=f"{study}.1", InstanceNumber=number)
        write_object(tmp_path / f"{number}.dcm", dataset, uid)
        deliveries.append(delivery(number, study, uid, f"{number}.dcm"))
    (tmp_path / "5.dcm").write_bytes(b"no DICOM at all" * 50)
    broken = delivery(5, "2.25.5", new_uid(), "5.dcm")
    monkeypatch.setenv("ARCHIVE_PASSWORD", "s3cret")
    options: dict[str, Any] = {
        "Plugins": [plugin], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
        "AuthenticationEnabled": True, "RegisteredUsers": {"node": "s3cret"},
    }  # fmt: skip
    with debian_orthanc(tmp_path, user="node:s3cret", **options) as orthanc:
        url = f"http://127.0.0.1:{orthanc.http_port}/dicom-web"
        known = Destination("web", "stow", url=url, user="node", password_env="ARCHIVE_PASSWORD")

        def post(destination: Destination, what: list[Delivery]) -> dict[int, Outcome]:
            outcomes: dict[int, Outcome] = {}
            send(
                destination, what, read_path=lambda relative: tmp_path / relative, calling_ae_title="NODE",
                report=lambda sent, outcome: outcomes.update({sent.id: outcome}),
            )  # fmt: skip
            return outcomes

        strange = post(Destination("web", "stow", url=url), deliveries)
        assert {(o.fate, "HTTP 401" in o.reason) for o in strange.values()} == {(Fate.REJECTED, True)}
        nowhere = post(
            Destination("web", "stow", url=url + "/no", user="node", password_env="ARCHIVE_PASSWORD"), deliveries
        )
        assert {o.fate for o in nowhere.values()} == {Fate.REJECTED}
        first = post(known, deliveries)
        assert {(o.fate, o.status) for o in first.values()} == {(Fate.DELIVERED, 0)}
        again = post(known, deliveries)  # an answer was lost
        assert {o.fate for o in again.values()} == {Fate.DELIVERED}
        mixed = post(known, [deliveries[0], broken, deliveries[1]])
        assert [mixed[n].fate for n in (1, 2)] == [Fate.DELIVERED] * 2
        assert not mixed[5].delivered
        kept = orthanc.rest("/instances")
        assert len(kept) == len(deliveries)
        digests = {hashlib.sha256(orthanc.raw(f"/instances/{name}/file")).hexdigest() for name in kept}
    assert digests == {hashlib.sha256((tmp_path / d.path).read_bytes()).hexdigest() for d in deliveries}
