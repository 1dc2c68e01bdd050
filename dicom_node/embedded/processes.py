"""Is it alive, whose is it, how does it end: processes that need not be our children.

A killed orphan may stay a zombie for as long as process 1 likes (for ever in a container without an init), so signal 0
and plain pid files say "alive" about the dead. Everything here counts a zombie as gone.
"""

import fcntl
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

#: A question that is asked again and again.
Condition = Callable[[], bool]

_PROC = Path("/proc")


def is_alive(pid: int) -> bool:
    """Whether a process with this id runs; a zombie does not."""
    if pid <= 0:
        return False
    try:
        stat = (_PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        if _PROC.joinpath("self").exists():
            return False
        return _answers_signal_zero(pid)
    # the command name in parentheses may hold anything, also parentheses
    return stat[stat.rindex(")") + 2] not in "ZXx"


def _answers_signal_zero(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_line(pid: int) -> str:
    """The arguments of a process joined by spaces; empty when it is gone or a zombie."""
    try:
        return (_PROC / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def is_alive_with(pid: int, mark: str) -> bool:
    """Whether this process runs and its command line holds `mark`: pids are used again, command lines are not."""
    return is_alive(pid) and mark in command_line(pid)


def with_title(mark: str) -> list[int]:
    """The ids of all living processes whose command line holds `mark`, this one excepted."""
    pids = (int(entry.name) for entry in _PROC.iterdir() if entry.name.isdigit())
    return [pid for pid in pids if pid != os.getpid() and mark in command_line(pid) and is_alive(pid)]


def wait_until(condition: Condition, timeout_s: float, pause_s: float = 0.01) -> bool:
    """Ask until the condition holds; False when it did not within timeout_s seconds."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause_s)
    return True


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; a process that is gone already is no error."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock file; it frees itself when its holder dies. Raises TimeoutError after timeout_s seconds."""
    with path.open("a") as file:
        if not wait_until(lambda: _locked(file.fileno()), timeout_s, 0.02):
            raise TimeoutError(f"{path} is locked by another process")
        yield


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def tail(path: Path, lines: int = 6) -> str:
    """The last lines of a log file, for an error message."""
    try:
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - 4096))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.strip().splitlines()[-lines:])


def open_log(path: Path, limit_bytes: int = 8 << 20) -> int:
    """A descriptor for appending to a log file, which starts anew when it has grown over limit_bytes."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
    if path.exists() and path.stat().st_size > limit_bytes:
        flags |= os.O_TRUNC
    return os.open(path, flags, 0o640)
