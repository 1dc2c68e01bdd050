"""A limit that holds over processes and that no killed process can use up: one locked byte per thing counted."""

import errno
import fcntl
import os
import threading
from pathlib import Path


class Slot:
    """One of the counted places, held by this process until `give_back`, or until the process ends in any way."""

    __slots__ = ("_file", "_number")

    def __init__(self, file: "_LockFile", number: int) -> None:
        self._file: _LockFile | None = file
        self._number = number

    def give_back(self) -> None:
        """Let another have it. A second call does nothing."""
        file, self._file = self._file, None
        if file is not None:
            file.unlock(self._number)


class Slots:
    """At most `limit` slots over all processes that use the same file. Thread-safe.

    Slot n is a lock on byte n of the file (fcntl, POSIX record lock): the kernel gives it back when its process ends,
    also after kill -9, so there is nothing to clean up. The file stays empty. Several `Slots` on one file in one
    process count together. After a lower limit, slots held above it are not counted: they run out by themselves.

    Make it after a fork, never before: locks are not inherited. Nothing else in the process may open the file, since
    closing any descriptor of it would give all slots back.
    """

    def __init__(self, path: Path, limit: int) -> None:
        """Open or make the file, and its folder. Raises OSError, and ValueError for a limit below 0."""
        if limit < 0:
            raise ValueError(f"limit must be 0 or more, got {limit}")
        self.limit = limit
        self._file = _opened(path)

    def take(self) -> Slot | None:
        """A free slot, or None: all are held. Never waits. Raises OSError where the system has no locks left."""
        number = self._file.lock_first(self.limit)
        return None if number is None else Slot(self._file, number)


class _LockFile:
    """The one descriptor of this process, and which bytes it has locked: the kernel would grant those twice."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        self._held: set[int] = set()
        self._lock = threading.Lock()

    def lock_first(self, limit: int) -> int | None:
        with self._lock:
            for number in range(limit):
                if number in self._held:
                    continue
                try:
                    fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, number)
                except OSError as error:
                    if error.errno in (errno.EACCES, errno.EAGAIN):  # another process has it
                        continue
                    raise
                self._held.add(number)
                return number
            return None

    def unlock(self, number: int) -> None:
        with self._lock:
            self._held.discard(number)
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, number)


_open_files: dict[Path, _LockFile] = {}  # kept for the life of the process: closing one would give its slots back
_open_files_lock = threading.Lock()


def _opened(path: Path) -> _LockFile:
    place = path.resolve()
    with _open_files_lock:
        if place not in _open_files:
            _open_files[place] = _LockFile(place)
        return _open_files[place]
