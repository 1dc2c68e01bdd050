"""Where the bytes lie: files named by their SHA-256, written aside, made durable, then moved into place."""

import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Protocol

_CHUNK_BYTES = 1 << 20
_ASIDE = ".aside"
_SYNCS_AT_ONCE = 16
_SLOW_S = 0.0005  # an fsync that has nothing to do takes a tenth of that


class FileStore(Protocol):
    """Keeps bytes under names that follow from their content. Relative paths are what the database keeps."""

    def put_file(self, source: Path, sha256: str, suffix: str = ".dcm") -> str:
        """Keep a file's bytes durably and return the relative path; the source stays where it is."""

    def put_files(self, sources: Sequence[tuple[Path, str]], suffix: str = ".dcm") -> list[str]:
        """Keep many files, given with their SHA-256, for less than one by one; relative paths in the same order."""

    def put_bytes(self, data: bytes, sha256: str, suffix: str = ".dcm") -> str:
        """Keep bytes durably and return the relative path."""

    def path(self, relative: str) -> Path:
        """Where a reader finds the file now. Raises ValueError for a path that leads out of the store."""

    def exists(self, relative: str) -> bool:
        """Whether the store has it."""


class FolderStore:
    """A FileStore in a folder: `ab/cd/<sha256><suffix>`; each file appears whole or not at all."""

    def __init__(self, root: Path) -> None:
        """root : made when absent; every process of the node may write to it at the same time."""
        self._root = root
        self._aside = root / _ASIDE
        self._aside.mkdir(parents=True, exist_ok=True)

    def put_file(self, source: Path, sha256: str, suffix: str = ".dcm") -> str:
        """Keep a file by a hard link to it, or by a copy where it lies on another file system.

        The source may be removed afterwards, but must never be written to again: it may be the same file.
        Idempotent. Raises OSError (ENOSPC and the like) with nothing changed in the store.
        """
        return self.put_files([(source, sha256)], suffix)[0]

    def put_files(self, sources: Sequence[tuple[Path, str]], suffix: str = ".dcm") -> list[str]:
        """Keep many files (path, SHA-256) as `put_file` does; all are durable on return.

        First the bytes of all of them (no work where the writer has seen to it), then their names, then the folders'
        entries, which a journaling file system commits together: one round for all.
        Raises OSError; files already in place then stay, and putting them again is no work.
        """
        relatives = [_relative(sha256, suffix) for _, sha256 in sources]
        missing: dict[str, Path] = {}  # target -> source
        root = str(self._root)
        for (source, _), relative in zip(sources, relatives, strict=True):
            target = f"{root}/{relative}"
            if target not in missing and not _is_there(target, os.stat(source).st_size):
                missing[target] = source
        _at_once(_sync_file, [str(source) for source in missing.values()])
        for target, source in missing.items():
            self._link(source, target)
        self._sync_folders(relatives)
        return relatives

    def _link(self, source: Path, target: str) -> None:
        """Give durable bytes their name in the store."""
        try:
            os.link(source, target)
        except FileNotFoundError:
            if not source.exists():
                raise
            os.makedirs(os.path.dirname(target), exist_ok=True)
            self._link(source, target)
        except OSError as error:
            if isinstance(error, FileExistsError) and _is_there(target, source.stat().st_size):
                return  # another process was faster
            self._copy(source, target)

    def _copy(self, source: Path, target: str) -> None:
        """For what cannot be linked: another file system, or one without hard links, or a damaged file in its place."""
        aside = self._aside / uuid.uuid4().hex
        try:
            shutil.copyfile(source, aside)
            _sync_file(str(aside))
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.replace(aside, target)
        finally:
            aside.unlink(missing_ok=True)

    def put_bytes(self, data: bytes, sha256: str, suffix: str = ".dcm") -> str:
        """Keep bytes; the same bytes again are no work. Raises OSError with nothing changed in the store."""
        relative = _relative(sha256, suffix)
        target = self._root / relative
        if _is_there(str(target), len(data)):
            self._sync_folders([relative])
            return relative
        aside = self._aside / uuid.uuid4().hex
        try:
            with aside.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            self._publish(aside, target)
        finally:
            aside.unlink(missing_ok=True)
        return relative

    def path(self, relative: str) -> Path:
        """Absolute path of a stored file. Raises ValueError for a path that leads out of the store."""
        pure = PurePosixPath(relative)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise ValueError(f"{relative!r} must be a path below the root of the file store")
        return self._root / pure

    def exists(self, relative: str) -> bool:
        """Whether the store has it."""
        return self.path(relative).is_file()

    def sweep(self, older_than_s: float = 3600.0) -> int:
        """Remove what killed processes left aside, if untouched for so long; returns how many files."""
        removed = 0
        for leftover in self._aside.iterdir():
            try:
                # ctime: a hard link keeps the source's mtime, its ctime is the time of the link
                if time.time() - leftover.stat().st_ctime > older_than_s:
                    leftover.unlink()
                    removed += 1
            except FileNotFoundError:  # another process was faster
                continue
        return removed

    def _publish(self, aside: Path, target: Path) -> None:
        if not target.parent.is_dir():
            target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(aside, target)
        self._sync_folders([target.relative_to(self._root).as_posix()])

    def _sync_folders(self, relatives: Sequence[str]) -> None:
        # All levels each time: another process may have made a folder and not have got as far as syncing its parent.
        folders = {relative[:5] for relative in relatives} | {relative[:2] for relative in relatives}
        if folders:
            _at_once(_sync_folder, [f"{self._root}/{folder}" for folder in sorted(folders)] + [str(self._root)])


def sha256_of(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _relative(sha256: str, suffix: str) -> str:
    if len(sha256) != 64 or not set(sha256) <= set("0123456789abcdef"):
        raise ValueError(f"{sha256!r} must be a SHA-256 in lower-case hexadecimal")
    if suffix and (not suffix.startswith(".") or "/" in suffix):
        raise ValueError(f"{suffix!r} must be a file name suffix such as .dcm")
    return f"{sha256[:2]}/{sha256[2:4]}/{sha256}{suffix}"


def _is_there(target: str, size_bytes: int) -> bool:
    """A file with the right name and size: it got its name only after its bytes were durable."""
    try:
        return os.stat(target).st_size == size_bytes
    except FileNotFoundError:
        return False


def _at_once(sync: Callable[[str], None], paths: Sequence[str]) -> None:
    """Call `sync` for all paths, several at a time if that is worth it. Raises the first OSError.

    Where bytes are durable already, or the commit of the first one has covered the others, an fsync is a quick system
    call and a thread would cost more.
    """
    slow = 0
    for number, path in enumerate(paths):
        started = time.perf_counter()
        sync(path)
        slow += time.perf_counter() - started > _SLOW_S
        if slow > 2 and len(paths) - number > 4:
            with ThreadPoolExecutor(_SYNCS_AT_ONCE) as threads:
                list(threads.map(sync, paths[number + 1 :]))
            return


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
