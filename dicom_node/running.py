"""Which nodes run on this machine, so that `dicom-node rules import` finds the one that `dicom-node up` started."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings


@dataclass(frozen=True)
class RunningNode:
    """A note that `up` leaves for the other commands."""

    pid: int
    data_dir: str
    dicom_port: int
    console_port: int
    network: str  # the network namespace it listens in: a node in another one is not reached by its ports


def _folder() -> Path:
    base = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(base) / "dicom-node"


def _network() -> str:
    return os.readlink("/proc/self/ns/net")


@contextmanager
def announced(settings: Settings) -> Iterator[None]:
    """Leave the note of this process while the block lasts."""
    data_dir = str(settings.data_dir.resolve())
    note = RunningNode(os.getpid(), data_dir, settings.dicom_port, settings.console_port, _network())
    folder = _folder()
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{hashlib.sha256(data_dir.encode()).hexdigest()[:16]}.json"
    aside = path.with_suffix(f".{os.getpid()}")
    aside.write_text(json.dumps(asdict(note)))
    os.replace(aside, path)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def running_nodes() -> list[RunningNode]:
    """Nodes whose process lives; notes of dead ones are removed."""
    found = []
    for path in sorted(_folder().glob("*.json")):
        try:
            note = RunningNode(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            continue
        if _is_a_node(note.pid):
            found.append(note)
        else:
            path.unlink(missing_ok=True)
    return found


def _is_a_node(pid: int) -> bool:
    try:
        return b"dicom" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def settings_of_running_node(settings: Settings, data_dir: Path | None) -> Settings:
    """The settings with the data directory that a command should use.

    --data-dir decides; else DICOM_NODE_DATA_DIR; else the one node that runs here (in this network namespace first);
    else the default. Raises ConfigurationError when several run and none is named.
    """
    if data_dir is not None:
        return settings.model_copy(update={"data_dir": data_dir})
    if "DICOM_NODE_DATA_DIR" in os.environ or settings.database_url:
        return settings
    nodes = running_nodes()
    candidates = [node for node in nodes if node.network == _network()] or nodes
    if len(candidates) > 1:
        names = ", ".join(node.data_dir for node in candidates)
        raise ConfigurationError(f"several nodes run on this machine ({names}); say which one with --data-dir")
    if not candidates:
        return settings
    return settings.model_copy(update={"data_dir": Path(candidates[0].data_dir)})
