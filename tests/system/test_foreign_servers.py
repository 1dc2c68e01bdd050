"""The same node on Debian's PostgreSQL and RabbitMQ, with Orthanc as the PACS that commits what it was sent."""

import subprocess
from pathlib import Path

import pytest
from nodes import Pacs, RunningNode, all_files, clone, wait_until
from programs import need
from servers import debian_orthanc, debian_postgres, debian_rabbitmq


@pytest.mark.timeout(480)  # RabbitMQ alone may take two minutes to start on a busy machine
def test_postgresql_rabbitmq_and_orthanc(phantom_case: Path, tmp_path: Path, pacs: Pacs) -> None:
    for tool in ("postgres", "rabbitmq-server", "Orthanc", "storescu"):
        need(tool)
    tmp_path.chmod(0o755)
    with (
        debian_postgres(tmp_path) as database_url,
        debian_rabbitmq(tmp_path) as broker_url,
        debian_orthanc(tmp_path) as orthanc,
    ):
        environment = {"DATABASE_URL": database_url, "BROKER_URL": broker_url}
        node = RunningNode(tmp_path, pacs, environment).start()
        try:
            node.import_rules()
            rules = (tmp_path / "rules.yaml").read_text().replace(str(pacs.port), str(orthanc.port))
            (tmp_path / "rules.yaml").write_text(rules.replace("ae_title: PACS", "ae_title: ORTHANC, commitment: true"))
            orthanc.knows("node", "LIVERNODE", node.port)
            assert node.command("rules", "import", str(tmp_path / "rules.yaml")).returncode == 0
            study, series = clone(phantom_case, tmp_path / "study", "orthanc")
            files = [str(file) for file in all_files(series)]
            subprocess.run(
                [need("storescu"), "-aet", "MODALITY", "-aec", "LIVERNODE", "127.0.0.1", str(node.port), *files],
                check=True, timeout=60,
            )  # fmt: skip
            wait_until(lambda: orthanc.modalities(study) == ["SEG", "SR"], 90, f"SR and SEG at Orthanc; {node.log}")
            wait_until(lambda: "[pacs: committed]" in node.command("studies").stdout, 60, f"commitment; {node.log}")
            story = node.command("why", study).stdout
            assert "objects (by ORTHANC on a new association)" in story
            assert story.count("to pacs: committed ") == 2
            assert story.index("pacs took") < story.index("pacs has committed")
            assert not node.processes("valkey")
            node.kill("work gpu")  # the broker gives nothing back: the database's lease does
            other, other_series = clone(phantom_case, tmp_path / "other", "after the kill")
            subprocess.run(
                [need("storescu"), "-aet", "MODALITY", "-aec", "LIVERNODE", "127.0.0.1", str(node.port),
                 *(str(file) for file in all_files(other_series))],
                check=True, timeout=60,
            )  # fmt: skip
            wait_until(lambda: orthanc.modalities(other) == ["SEG", "SR"], 120, f"results after the kill; {node.log}")
        finally:
            node.stop()
