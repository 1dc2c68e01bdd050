"""A rate that holds over processes: each object sent books time of its own, and who is ahead of the clock waits."""

import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

log = structlog.get_logger()

BURST_S = 1.0  # so far ahead of the rate a sender may be: small groups of objects are not slowed down
LONGEST_PAUSE_S = 5.0  # most senders wait 10 s or longer for an answer
_LONGEST_DEBT_S = 600.0
_TIMES = struct.Struct("=dd")


class Pace:
    """A limit of objects/s and of bytes/s, common to all processes that use the same file. Thread-safe.

    The file holds, for each of the two, the time until which it is used up (seconds since the epoch; the "virtual
    scheduling" form of the leaky bucket, ITU-T I.371 Annex A). It is read and written under a POSIX record lock,
    which a killed process gives back.
    """

    def __init__(
        self,
        path: Path,
        objects_per_s: float | None,
        bytes_per_s: float | None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Open or make the file, and its folder. Raises OSError."""
        self._object_s = 1.0 / objects_per_s if objects_per_s else 0.0
        self._byte_s = 1.0 / bytes_per_s if bytes_per_s else 0.0
        self._clock = clock
        self._file = _opened(path)

    def spend(self, n_bytes: int) -> float:
        """Book one object of so many bytes; returns how long to wait before the next is read, s.

        At most LONGEST_PAUSE_S, so that the sender does not give up: what is owed beyond that is waited for after the
        next objects. A debt above ten minutes (an object much too large for its rate, or a clock that was set back)
        is let go. Does not raise: where the file cannot be used, nothing is limited, and the log says so.
        """
        now = self._clock()
        try:
            used_up = self._file.book(now, self._object_s, n_bytes * self._byte_s)
        except OSError as error:
            log.warning("rate of a sender cannot be limited", error=error.strerror)
            return 0.0
        return min(max(used_up - now - BURST_S, 0.0), LONGEST_PAUSE_S)


class _File:
    """The one descriptor of this process: closing any other one would drop its lock."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._lock = threading.Lock()

    def book(self, now: float, *seconds: float) -> float:
        """Add to both times; returns the later one."""
        with self._lock:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX)
            try:
                found = os.pread(self._descriptor, _TIMES.size, 0)
                before = _TIMES.unpack(found) if len(found) == _TIMES.size else (0.0, 0.0)
                times = [min(max(t, now) + s, now + _LONGEST_DEBT_S) for t, s in zip(before, seconds, strict=True)]
                os.pwrite(self._descriptor, _TIMES.pack(*times), 0)
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN)
        return max(times)


_open_files: dict[Path, _File] = {}
_open_files_lock = threading.Lock()


def _opened(path: Path) -> _File:
    place = path.resolve()
    with _open_files_lock:
        if place not in _open_files:
            _open_files[place] = _File(place)
        return _open_files[place]
