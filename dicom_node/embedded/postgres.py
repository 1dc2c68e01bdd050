"""PostgreSQL as a child process that outlives its parent, survives kill -9 of anything, and is found again."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from enum import Enum
from pathlib import Path
from urllib.parse import quote

import psycopg

from dicom_node.embedded import EmbeddedServerError, processes
from dicom_node.embedded.accounts import Account, becoming, own_account, server_account
from dicom_node.embedded.places import postgres_bins, run_dir, tidy_run_dir

_ROLE = "node"
_DATABASE = "node"
_SMALL_SHM_BYTES = 256 << 20  # container engines give 64 MiB
#: A running server that says nothing for so long is replaced.
_SILENT_S = 10.0
_ENVIRONMENT = {"LC_ALL": "C.UTF-8", "LANG": "C.UTF-8", "TZ": "UTC", "PATH": "/usr/bin:/bin"}


class _Answer(Enum):
    """What the socket says."""

    YES = 1
    STARTING = 2
    NONE = 3


class EmbeddedPostgres:
    """One PostgreSQL cluster in `<data_dir>/postgres`, reachable only through a unix socket, only by our own account.

    The server runs in a session of its own and is not ended with this process; `start` adopts one that runs.
    """

    name = "database"

    def __init__(self, data_dir: Path, bin: Path | None = None) -> None:
        """data_dir : of the node. bin : folder with postgres and initdb; None: the wheel's, then Debian's."""
        self._data_dir = data_dir.resolve()
        self._cluster = self._data_dir / "postgres"
        self._log = self._data_dir / "postgres.log"
        self._bin_setting = bin
        self._child: subprocess.Popen[bytes] | None = None
        self._adopted: int | None = None
        # Part of every backend's title, so that backends whose postmaster was killed can be found.
        self._title = run_dir(self._data_dir).name

    @property
    def socket_dir(self) -> Path:
        """Folder of the unix socket: short, and closed to others."""
        return run_dir(self._data_dir) / "pg"

    @property
    def url(self) -> str:
        """The URL for `storage.database.connect`; stays the same over restarts."""
        return self._url(_DATABASE)

    def _url(self, database: str) -> str:
        return f"postgresql://{_ROLE}@/{database}?host={quote(str(self.socket_dir), safe='')}"

    @property
    def pid(self) -> int | None:
        """Process id of the running postmaster, also of one that another process started; None: not running."""
        if self._child is not None:
            if self._child.poll() is None:
                return self._child.pid
            self._child = None
        if self._adopted is not None and processes.is_alive_with(self._adopted, str(self._cluster)):
            return self._adopted
        self._adopted = self._pid_on_file()
        return self._adopted

    def is_running(self) -> bool:
        """Whether the postmaster runs (it may still be recovering)."""
        return self.pid is not None

    def start(self, timeout_s: float = 60.0) -> None:
        """Bring the server up, or adopt the one that runs; returns when it answers. Does nothing when it does.

        timeout_s covers the recovery after a crash. Raises EmbeddedServerError with the end of the server's log.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        with processes.exclusive(self._data_dir / "postgres.lock", timeout_s):
            account = server_account(self._cluster)
            if (pid := self.pid) is not None:
                if self._adopted_within(timeout_s):
                    return
                self._end(pid, timeout_s=10.0)
            folder = self._bin_for_cluster(account)
            deadline = time.monotonic() + timeout_s
            while not self._launch(folder, account, deadline):
                if time.monotonic() > deadline:
                    raise EmbeddedServerError(
                        f"PostgreSQL ({folder}) did not start on {self._cluster}; {self._log} ends:\n"
                        f"{processes.tail(self._log)}"
                    )

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop the server (fast mode), adopted or not, and wait until it is gone; open transactions are rolled back."""
        pid = self.pid
        if pid is not None:
            self._end(pid, timeout_s)
        tidy_run_dir(self._data_dir)

    def _end(self, pid: int, timeout_s: float) -> None:
        for number, patience_s in ((signal.SIGINT, timeout_s), (signal.SIGQUIT, 3.0), (signal.SIGKILL, 3.0)):
            processes.send(pid, number)
            if processes.wait_until(lambda: not processes.is_alive(pid), patience_s):
                break
        if self._child is not None and self._child.pid == pid:
            self._child.wait()
            self._child = None
        self._adopted = None

    def _pid_on_file(self) -> int | None:
        try:
            first = (self._cluster / "postmaster.pid").read_text(encoding="utf-8", errors="replace").split("\n", 1)[0]
            pid = int(first)
        except (OSError, ValueError):
            return None
        return pid if processes.is_alive_with(pid, str(self._cluster)) else None

    def _bin_for_cluster(self, account: Account) -> Path:
        """Binaries that fit the cluster, which is made when there is none."""
        folders = postgres_bins(self._bin_setting)
        version_file = self._cluster / "PG_VERSION"
        if not version_file.exists():
            self._initialise(folders[0], account)
            return folders[0]
        wanted = version_file.read_text(encoding="ascii").strip()
        majors = {folder: _major(folder) for folder in folders}
        for folder, major in majors.items():
            if major == wanted:
                return folder
        found = ", ".join(f"{major} in {folder}" for folder, major in majors.items())
        raise EmbeddedServerError(
            f"{self._cluster} was made by PostgreSQL {wanted}, and there is only {found}. Point "
            f"DICOM_NODE_POSTGRES_BIN to the binaries of PostgreSQL {wanted}; to change the version, dump with the "
            "old one (pg_dumpall) and restore into an empty --data-dir."
        )

    def _initialise(self, folder: Path, account: Account) -> None:
        """Make the cluster aside and move it into place, so that it exists whole or not at all."""
        aside = self._data_dir / "postgres.new"
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(mode=0o700)
        _give(aside, account)
        command = [
            str(folder / "initdb"),
            "-D",
            str(aside),
            "-U",
            _ROLE,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C.UTF-8",
        ]
        if sys.platform == "linux" and int(_major(folder)) >= 17:
            command.append("--sync-method=syncfs")  # one call instead of one per file: a third of the time
        done = subprocess.run(
            command,
            cwd="/",
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            preexec_fn=becoming(account, [aside, folder]),
            check=False,
        )
        if done.returncode:
            raise EmbeddedServerError(
                f"initdb ({folder}) could not make {self._cluster}:\n{done.stdout.decode(errors='replace')[-800:]}"
            )
        if self._cluster.is_dir() and not any(self._cluster.iterdir()):
            self._cluster.rmdir()
        aside.rename(self._cluster)

    def _launch(self, folder: Path, account: Account, deadline: float) -> bool:
        """One attempt to start; False when the server ended again."""
        self._clear_remains(account)
        self._write_access(account)
        socket_dir = self.socket_dir
        socket_dir.mkdir(mode=0o700, exist_ok=True)
        _give(socket_dir, account)
        socket_dir.chmod(0o700)
        options = {
            "listen_addresses": "",
            "unix_socket_directories": str(socket_dir),
            "cluster_name": self._title,
            "max_connections": "100",
            "shared_buffers": "64MB",
            "jit": "off",
            "hba_file": str(self._cluster / "node_hba.conf"),
            "ident_file": str(self._cluster / "node_ident.conf"),
            # Rows hold header values: the log gets neither the statement nor the row that an error is about.
            "log_error_verbosity": "terse",
            "log_min_error_statement": "panic",
            "logging_collector": "off",
        }
        if sys.platform == "linux":
            # Before recovery everything is synced: one call instead of one per file is seconds less on a busy disk.
            options["recovery_init_sync_method"] = "syncfs"
        if _shared_memory_is_small():
            options["dynamic_shared_memory_type"] = "mmap"
        command = [str(folder / "postgres"), "-D", str(self._cluster)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        log = processes.open_log(self._log)
        try:
            self._child = subprocess.Popen(
                command,
                cwd="/",
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # neither Ctrl-C nor our own end concerns it
                preexec_fn=becoming(account, [self._cluster, folder, socket_dir]),
            )
        except (subprocess.SubprocessError, OSError) as error:
            raise EmbeddedServerError(
                f"{folder / 'postgres'} cannot be run as `{account.name}` ({error}). Run as another user than root, "
                "or set DATABASE_URL."
            ) from error
        finally:
            os.close(log)
        child = self._child
        if not self._answers_within(deadline - time.monotonic(), lambda: child.poll() is None):
            if child.poll() is None:
                self._end(child.pid, timeout_s=5.0)
            self._child = None
            return False
        self._make_database()
        return True

    def _clear_remains(self, account: Account) -> None:
        """Remove what a killed server left; called only when no postmaster of this cluster lives.

        Its lock files name a pid that may be a zombie or somebody else by now, and PostgreSQL believes them. Its
        backends hold the shared memory until they notice; they are asked to hurry.
        """
        backends = processes.with_title(f"postgres: {self._title}:")
        for pid in backends:
            processes.send(pid, signal.SIGQUIT)
        if not processes.wait_until(lambda: not any(map(processes.is_alive, backends)), 1.0):
            for pid in backends:
                processes.send(pid, signal.SIGKILL)
            processes.wait_until(lambda: not any(map(processes.is_alive, backends)), 2.0)
        for path in (self._cluster / "postmaster.pid", self.socket_dir / ".s.PGSQL.5432.lock"):
            path.unlink(missing_ok=True)
        if os.geteuid() == 0 and self._cluster.stat().st_uid != account.uid:  # made as root by hand
            for path in (self._cluster, *self._cluster.rglob("*")):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)

    def _write_access(self, account: Account) -> None:
        """Only this account (and root) may connect, by what the kernel says about the other end of the socket."""
        names = sorted({own_account().name, "root"})
        files = {
            "node_hba.conf": "local all all peer map=node\n",
            "node_ident.conf": "".join(f'node "{name}" {_ROLE}\n' for name in names),
        }
        for name, content in files.items():
            path = self._cluster / name
            if not path.exists() or path.read_text(encoding="utf-8") != content:
                path.write_text(content, encoding="utf-8")
                _give(path, account)

    def _adopted_within(self, timeout_s: float) -> bool:
        """Wait for the running server. One that is silent cannot be reached through our socket (another mount
        namespace, an emptied /tmp) and is given up; one that says it is recovering is waited for."""
        deadline = time.monotonic() + timeout_s
        heard_at = time.monotonic()
        while self.is_running() and time.monotonic() < deadline:
            answer = self._answer()
            if answer is _Answer.YES:
                return True
            if answer is _Answer.STARTING:
                heard_at = time.monotonic()
            elif time.monotonic() - heard_at > _SILENT_S:
                return False
            time.sleep(0.02)
        return False

    def _answers_within(self, timeout_s: float, still_there: processes.Condition) -> bool:
        def asked() -> bool:
            return not still_there() or self._answer() is _Answer.YES

        return processes.wait_until(asked, timeout_s) and still_there()

    def _answer(self) -> _Answer:
        try:
            with psycopg.connect(self._url("postgres"), connect_timeout=3) as connection:
                connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            # connection errors carry no SQLSTATE; the server speaks English (LC_ALL)
            return _Answer.STARTING if "the database system is" in str(error) else _Answer.NONE
        return _Answer.YES

    def _make_database(self) -> None:
        with psycopg.connect(self._url("postgres"), autocommit=True, connect_timeout=3) as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = %s", (_DATABASE,)).fetchall():
                connection.execute(f"CREATE DATABASE {_DATABASE}".encode())


def _major(folder: Path) -> str:
    """Major version of the binaries, such as "18"."""
    text = subprocess.run(
        [str(folder / "postgres"), "--version"], env=_ENVIRONMENT, capture_output=True, text=True, check=False
    ).stdout
    found = re.search(r"\b(\d+)(?:\.\d+|beta|rc|devel)", text)
    return found.group(1) if found else "0"


def _give(path: Path, account: Account) -> None:
    if os.geteuid() == 0:
        os.chown(path, account.uid, account.gid)


def _shared_memory_is_small() -> bool:
    try:
        return shutil.disk_usage("/dev/shm").total < _SMALL_SHM_BYTES  # noqa: S108 - only its size
    except OSError:
        return True
