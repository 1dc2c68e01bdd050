"""Runs the parts of a node on one machine: starts them, starts again what dies, stops them in order.

Built for kill -9 of anything at any moment, this process included:
- parts die with the supervisor (the kernel sends them SIGKILL), so the next one finds their ports free;
- servers (database, broker) live on and are adopted by the next supervisor;
- the lock of the data directory is freed by the kernel.
"""

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import structlog

from dicom_node.embedded import processes
from dicom_node.errors import NodeError

_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 10.0
#: A part that lived so long was well: its next death is followed by the shortest pause again.
_WELL_AFTER_S = 10.0
_TICK_S = 0.25
#: All parts together have so long to stop; those at the end of the line still get a moment.
_STOPPED_WITHIN_S = 10.0
_LEAST_PATIENCE_S = 0.5
_PR_SET_PDEATHSIG = 1
_STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Server(Protocol):
    """A server that outlives us and is adopted: EmbeddedPostgres, EmbeddedBroker."""

    @property
    def name(self) -> str:
        """For the log."""

    def is_running(self) -> bool:
        """Quick; asked several times per second."""

    def start(self) -> None:
        """Start or adopt; raises NodeError."""

    def stop(self) -> None:
        """Stop and wait."""


@dataclass(frozen=True)
class Part:
    """A child process that is to run all the time. It inherits stdout and stderr and puts its own name into its lines:
    a pipe to the supervisor would block or kill it when the supervisor dies."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] | None = None  #: the whole environment; None: ours
    stop_timeout_s: float = 4.0  #: from SIGTERM to SIGKILL
    is_ready: Callable[[], bool] | None = None  #: quick; whether it answers; None: ready when it runs


class _Running:
    """One part and how it is doing."""

    def __init__(self, part: Part) -> None:
        self.part = part
        self.child: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.start_at = 0.0
        self.pause_s = _FIRST_PAUSE_S


class Supervisor:
    """`Supervisor(servers, parts, ...).run()` in the main thread gives the exit code after SIGTERM or SIGINT."""

    def __init__(
        self,
        servers: Sequence[Server],
        parts: Sequence[Part],
        *,
        prepare: Callable[[], None] | None = None,
        on_ready: Callable[[], None] | None = None,
        on_tick: Callable[[], bool] | None = None,
    ) -> None:
        """servers : started in this order before everything else, stopped last in reverse order.
        parts : started together, stopped one after the other in this order.
        prepare : runs between the two (migrations); its NodeError ends `run`, which raises it after stopping.
        on_ready : called once, when every server runs and every part says it is ready.
        on_tick : called a few times per second while running; True ends `run` like SIGTERM.
        """
        self._servers = list(servers)
        self._parts = [_Running(part) for part in parts]
        self._prepare = prepare
        self._on_ready = on_ready
        self._on_tick = on_tick
        self._stop_signal: signal.Signals | None = None
        self._server_start_at = {server.name: 0.0 for server in servers}
        self._server_pause_s = {server.name: _FIRST_PAUSE_S for server in servers}
        self._log = structlog.get_logger("supervisor")

    def run(self) -> int:
        """Run until SIGTERM, SIGINT or SIGHUP; then stop everything in order and return 0.

        Must be called in the main thread: signals arrive there, and parts live as long as the thread that made them.
        Raises NodeError when a server cannot be started at first, or what `prepare` raises.
        """
        with _signals(self._on_signal) as wake_up:
            try:
                for server in self._servers:
                    server.start()
                    self._log.info("server runs", server=server.name)
                if self._prepare is not None and self._stop_signal is None:
                    self._prepare()
                ready = False
                while self._stop_signal is None:
                    self._look_after_servers()
                    self._look_after_parts()
                    if not ready and self._is_ready():
                        ready = True
                        if self._on_ready is not None:
                            self._on_ready()
                    if self._on_tick is not None and self._on_tick():
                        break
                    _drain(wake_up, self._wait_s())
            finally:
                self._stop_all()
        return 0

    def pids(self) -> dict[str, int]:
        """Process ids of the parts that run now."""
        return {running.part.name: running.child.pid for running in self._parts if running.child is not None}

    def _on_signal(self, number: int, _frame: object) -> None:
        if number in _STOPPING:
            self._stop_signal = signal.Signals(number)

    def _wait_s(self) -> float:
        now = time.monotonic()
        waiting = [running.start_at - now for running in self._parts if running.child is None]
        return max(0.0, min([_TICK_S, *waiting]))

    def _is_ready(self) -> bool:
        if any(running.child is None for running in self._parts):
            return False
        return all(running.part.is_ready is None or running.part.is_ready() for running in self._parts)

    def _look_after_servers(self) -> None:
        for server in self._servers:
            now = time.monotonic()
            if server.is_running() or now < self._server_start_at[server.name]:
                continue
            self._log.warning("server died, starting it again", server=server.name)
            try:
                server.start()
            except NodeError as error:
                pause_s = self._server_pause_s[server.name]
                self._log.error("server does not start", server=server.name, error=str(error), again_in_s=pause_s)
                self._server_start_at[server.name] = time.monotonic() + pause_s
                self._server_pause_s[server.name] = min(2 * pause_s, _LONGEST_PAUSE_S)
            else:
                self._server_pause_s[server.name] = _FIRST_PAUSE_S
                self._log.info("server runs again", server=server.name, seconds=round(time.monotonic() - now, 2))

    def _look_after_parts(self) -> None:
        for running in self._parts:
            if running.child is not None and (code := running.child.poll()) is not None:
                self._bury(running, code)
            if running.child is None and time.monotonic() >= running.start_at and self._stop_signal is None:
                self._start_part(running)
        _reap_strangers({running.child.pid for running in self._parts if running.child is not None})

    def _bury(self, running: _Running, code: int) -> None:
        now = time.monotonic()
        lived_s = now - running.started_at
        if running.child is not None:
            _kill_group(running.child.pid)  # what it left behind must not hold its port or its job
        running.child = None
        if lived_s >= _WELL_AFTER_S:
            running.pause_s = _FIRST_PAUSE_S
        running.start_at = now + running.pause_s
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._log.warning(
            "part died", part=running.part.name, how=how, lived_s=round(lived_s, 1), again_in_s=running.pause_s
        )
        running.pause_s = min(2 * running.pause_s, _LONGEST_PAUSE_S)

    def _start_part(self, running: _Running) -> None:
        part = running.part
        running.started_at = time.monotonic()
        try:
            running.child = subprocess.Popen(
                part.argv,
                env=None if part.env is None else dict(part.env),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C reaches us alone, and we stop the parts in order
                preexec_fn=_dying_with(os.getpid()),
            )
        except (OSError, subprocess.SubprocessError) as error:
            self._log.error("part does not start", part=part.name, error=str(error), again_in_s=running.pause_s)
            running.start_at = time.monotonic() + running.pause_s
            running.pause_s = min(2 * running.pause_s, _LONGEST_PAUSE_S)
            return
        self._log.info("part started", part=part.name, pid=running.child.pid)

    def _stop_all(self) -> None:
        why = self._stop_signal.name if self._stop_signal is not None else "end"
        self._log.info("stopping", why=why)
        deadline = time.monotonic() + _STOPPED_WITHIN_S
        for running in self._parts:
            if running.child is not None:
                patience_s = min(running.part.stop_timeout_s, max(_LEAST_PATIENCE_S, deadline - time.monotonic()))
                self._stop_part(running, running.child, patience_s)
        for server in reversed(self._servers):
            try:
                server.stop()
            except NodeError as error:
                self._log.error("server does not stop", server=server.name, error=str(error))
        self._log.info("stopped")

    def _stop_part(self, running: _Running, child: subprocess.Popen[bytes], patience_s: float) -> None:
        child.terminate()
        processes.send(child.pid, signal.SIGCONT)  # a stopped process would not hear it
        try:
            child.wait(patience_s)
        except subprocess.TimeoutExpired:
            self._log.warning("part did not stop, killing it", part=running.part.name)
            child.kill()
        _kill_group(child.pid)
        child.wait()
        running.child = None


@contextmanager
def held_data_dir(data_dir: Path) -> Iterator[None]:
    """Hold a data directory for one node; the kernel lets go when this process ends, however it ends.

    Raises NodeError when another process holds it.
    """
    data_dir.mkdir(parents=True, exist_ok=True)
    # Python opens it close-on-exec: children must not hold it on when we are killed.
    descriptor = os.open(data_dir / "up.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "unknown"
            raise NodeError(
                f"a node is running on {data_dir} already (process {holder}). Stop it, or use another --data-dir."
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _dying_with(parent: int) -> Callable[[], None]:
    """What a child does before exec, so that the kernel kills it when its parent dies (Linux; elsewhere nothing)."""
    libc = ctypes.CDLL(None)
    prctl = getattr(libc, "prctl", None)

    def arrange() -> None:
        # A signal handler of ours, or a blocked signal, must not be handed on.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if prctl is not None:
            prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
            if os.getppid() != parent:  # it died before the line above
                os.kill(os.getpid(), signal.SIGKILL)

    return arrange


def _kill_group(group: int) -> None:
    """Kill what is left of a part's session."""
    try:
        os.killpg(group, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        return


def _reap_strangers(ours: set[int]) -> None:
    """As process 1 of a container: collect orphans that died, or they stay zombies for ever."""
    if os.getpid() != 1:
        return
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        if found is None or found.si_pid in ours:
            return
        # Servers are children too, but they count a zombie as gone and do not need its exit code.
        os.waitpid(found.si_pid, os.WNOHANG)


@contextmanager
def _signals(handler: Callable[[int, object], None]) -> Iterator[int]:
    """Catch the signals that end us or tell of a dead child; gives a descriptor that becomes readable with each."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    os.set_blocking(write, False)
    caught = (*_STOPPING, signal.SIGCHLD)
    before = {number: signal.signal(number, handler) for number in caught}
    before_fd = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    try:
        yield read
    finally:
        signal.set_wakeup_fd(before_fd)
        for number, action in before.items():
            signal.signal(number, action)
        os.close(read)
        os.close(write)


def _drain(descriptor: int, timeout_s: float) -> None:
    """Wait for a signal at most timeout_s seconds, and forget it."""
    if select.select([descriptor], [], [], timeout_s)[0]:
        os.read(descriptor, 4096)
