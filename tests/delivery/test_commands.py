"""What the administrator sees of deliveries, and the one command that tries them again."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from deliveries_lab import CLASSES, Lab
from typer.testing import CliRunner

import storage.instances
from dicom_node.cli import app
from dicom_node.dimse.admission import Reject
from dicom_node.dimse.standin import Faults, StandInPacs
from dicom_node.exposition import exposition
from dicom_node.story import study_story

STUDY = "2.25.4711"


@pytest.fixture
def lab(fresh_database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lab]:
    made = Lab(fresh_database_url, tmp_path)
    monkeypatch.setenv("DATABASE_URL", fresh_database_url)
    monkeypatch.setenv("DICOM_NODE_DATA_DIR", str(tmp_path))
    try:
        yield made
    finally:
        made.close()


def command(lab: Lab, *arguments: str) -> str:
    done = CliRunner().invoke(app, [*arguments, "--data-dir", str(lab.node.settings.data_dir)])
    return done.output if done.exception is None else f"{type(done.exception).__name__}: {done.exception}"


def test_a_parked_delivery_is_listed_with_its_reason_and_tried_again(lab: Lab) -> None:
    pacs = StandInPacs(faults=Faults(statuses={CLASSES["sr"]: 0xC123}))
    with pacs.running() as port:
        lab.rules(pacs=f"type: dimse, host: 127.0.0.1, port: {port}, ae_title: PACS", out="type: folder, path: /srv")
        lab.finish_job(STUDY, ["pacs"])
        assert "nothing is parked" in command(lab, "deliveries", "--parked")
        assert command(lab, "deliveries").count("waiting") == 2
        lab.deliver()
        (line,) = command(lab, "deliveries", "--parked").splitlines()
        for word in ("parked", "pacs", "sr", STUDY, "0xC123", "cannot be understood"):
            assert word in line
        told = command(lab, "destinations", "--echo")
        assert f"pacs: dimse PACS at 127.0.0.1:{port}" in told
        assert "in order" in told
        assert "waiting 0, parked 1, arrived 1" in told
        assert "C-ECHO: " in told
        assert " ms" in told
        assert "out: folder /srv" in told
        pacs.faults = Faults()
        assert "NodeError: name a destination" in command(lab, "deliveries", "retry")
        assert "NodeError: no destination pax; there is: out, pacs" in command(lab, "deliveries", "retry", "pax")
        assert "0 parked" in command(lab, "deliveries", "retry", "out")
        assert "1 parked deliveries to pacs are tried again" in command(lab, "deliveries", "retry", "pacs")
        lab.deliver()
    assert "everything has arrived" in command(lab, "deliveries")
    assert len(pacs.kept) == 2


def test_what_is_away_or_refused_is_said(lab: Lab) -> None:
    pacs = StandInPacs(faults=Faults(refuses=frozenset({CLASSES["seg"]})))
    with pacs.running() as port:
        lab.rules(pacs=f"type: dimse, host: 127.0.0.1, port: {port}, ae_title: PACS")
        lab.finish_job(STUDY, ["pacs"])
        lab.deliver()
        assert f"refuses {CLASSES['seg']}" in command(lab, "destinations")
        with lab.node.pool.connection() as connection:
            storage.instances.add(connection, storage.instances.for_study(connection, STUDY)[0])
            story = study_story(connection, STUDY)
        assert story is not None
        assert "sc goes instead" in story
        assert "1 refused SOP Classes forgotten" in command(lab, "destinations", "forget", "pacs")
        assert "refuses" not in command(lab, "destinations")
        pacs.faults = Faults(rejects=Reject.CALLING_AE_TITLE)
        lab.finish_job("2.25.2", ["pacs"])
        lab.deliver()
    assert "away since" in command(lab, "destinations")
    assert "calling AE title not recognised; next attempt" in command(lab, "deliveries")
    with lab.node.pool.connection() as connection:
        story = study_story(connection, "2.25.2")
    assert story is not None
    assert "away since" in story
    metrics = exposition(lab.node.settings, lab.node.pool).decode()
    assert 'dicom_node_destination_away{destination="pacs"} 1.0' in metrics
    assert 'dicom_node_deliveries{destination="pacs",state="replaced"} 1.0' in metrics
