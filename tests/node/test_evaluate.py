"""`dicom-node evaluate`: measures of a pipeline over case folders, from all roles or from some."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from dicom_node.cli import app
from models.phantoms import PHANTOMS


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cases")
    for seed, fault in ((3, ""), (4, "NO_DRIVER_WAVES")):
        PHANTOMS["mre_qc"](seed, folder, vendor="GE", matrix=128, slices=2, fault=fault)
    return folder


@pytest.mark.parametrize("roles", [(), ("magnitude", "phase")])
def test_measures_over_cases(cases: Path, tmp_path: Path, roles: tuple[str, ...]) -> None:
    only = [part for role in roles for part in ("--only", role)]
    said = CliRunner().invoke(
        app, ["evaluate", "mre_qc", str(cases), "--json", str(tmp_path / "m.json"), "--plots", str(tmp_path), *only]
    )
    assert said.exit_code == 0, said.output
    measures = json.loads((tmp_path / "m.json").read_text())["measures"]
    assert measures["slice accuracy"]["n"] >= 2
    assert (tmp_path / "mre_qc_roc.png").stat().st_size > 1000


def test_a_role_that_is_none_is_named(cases: Path) -> None:
    said = CliRunner().invoke(app, ["evaluate", "mre_qc", str(cases), "--only", "loudness"])
    assert said.exit_code != 0
    assert "loudness" in said.output + str(said.exception)
    assert "magnitude" in said.output + str(said.exception)
