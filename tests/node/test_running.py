"""Which running node a command speaks to."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicom_node.errors import ConfigurationError
from dicom_node.running import announced, running_nodes, settings_of_running_node
from dicom_node.settings import Settings


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    for name in ("DICOM_NODE_DATA_DIR", "DATABASE_URL"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "state" / "dicom-node"


@pytest.fixture
def other_node(state_folder: Path) -> Iterator[Path]:
    """The note of another process that lives and is a node by its command line."""
    command = [sys.executable, "-c", "print('up', flush=True); input()", "dicom_node"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()  # its command line is its own only after exec
    state_folder.mkdir(parents=True, exist_ok=True)
    note = {"pid": child.pid, "data_dir": "/srv/other", "dicom_port": 1, "console_port": 2}
    (state_folder / "other.json").write_text(json.dumps(note | {"network": os.readlink("/proc/self/ns/net")}))
    yield Path("/srv/other")
    child.kill()
    child.wait()


def test_no_node_leaves_the_default() -> None:
    assert settings_of_running_node(Settings(), None).data_dir == Settings().data_dir


def test_the_one_that_runs_is_found_and_forgotten_when_dead(other_node: Path, state_folder: Path) -> None:
    assert settings_of_running_node(Settings(), None).data_dir == other_node
    note = json.loads((state_folder / "other.json").read_text())
    (state_folder / "other.json").write_text(json.dumps(note | {"pid": 2**22 - 1}))
    assert running_nodes() == []
    assert not (state_folder / "other.json").exists()


def test_two_nodes_need_a_name(other_node: Path, state_folder: Path) -> None:
    note = json.loads((state_folder / "other.json").read_text())
    (state_folder / "third.json").write_text(json.dumps(note | {"data_dir": "/srv/third"}))
    with pytest.raises(ConfigurationError, match="--data-dir") as raised:
        settings_of_running_node(Settings(), None)
    assert str(other_node) in str(raised.value)
    assert settings_of_running_node(Settings(), other_node).data_dir == other_node


def test_a_node_in_another_network_is_the_second_choice(other_node: Path, state_folder: Path) -> None:
    note = json.loads((state_folder / "other.json").read_text())
    elsewhere = note | {"data_dir": "/srv/elsewhere", "network": "net:[1]"}
    (state_folder / "elsewhere.json").write_text(json.dumps(elsewhere))
    assert settings_of_running_node(Settings(), None).data_dir == other_node


def test_the_note_goes_with_the_node(tmp_path: Path, state_folder: Path) -> None:
    with announced(Settings(data_dir=tmp_path / "mine", dicom_port=11112)):
        (note,) = [json.loads(path.read_text()) for path in state_folder.glob("*.json")]
        assert note["data_dir"] == str(tmp_path / "mine")
        assert note["dicom_port"] == 11112
    assert list(state_folder.glob("*.json")) == []


def test_a_note_that_cannot_be_read_is_passed_over(state_folder: Path) -> None:
    state_folder.mkdir(parents=True)
    (state_folder / "broken.json").write_text("{")
    assert running_nodes() == []
