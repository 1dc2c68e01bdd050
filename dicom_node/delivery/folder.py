"""Delivery into a folder: `<path>/<StudyInstanceUID>/<SOPInstanceUID>.dcm`, for importers that watch one.

A file appears under its name when it is complete and on disk, never before. Names hold UIDs, no patient data.
"""

import errno
import filecmp
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

from dicom_node.delivery import Batch, Fate, Outcome, ReadPath
from dicom_node.dimse.contexts import is_uid
from storage.records import Delivery

_PIECE_BYTES = 1 << 20


def send(destination: Any, batch: Batch, read_path: ReadPath, _calling_ae_title: str) -> None:
    """Write the batch into the folder `destination.path`, which must exist; see delivery.send.

    The same object again is no work; other bytes under its name are left alone, and the delivery is refused. What is
    wrong with the folder (full, read-only, not mounted) is tried again: it is never made here, as it would be made in
    the place where it was to be mounted.
    """
    folder = Path(destination.path)
    for delivery in batch:
        outcome = _put(folder, delivery, read_path(delivery.path))
        if outcome.fate is Fate.AWAY:
            batch.end(outcome)
            return
        batch.report(delivery, outcome)


def _put(folder: Path, delivery: Delivery, source: Path) -> Outcome:
    names = (delivery.study_instance_uid, delivery.sop_instance_uid)
    if not all(map(is_uid, names)):
        return Outcome(Fate.REFUSED, None, "its UIDs are none, and make no file name")
    target = folder / names[0] / f"{names[1]}.dcm"
    try:
        content = source.open("rb")
    except OSError as error:
        return Outcome(Fate.BUSY, None, f"its file cannot be read: {error.strerror}")
    with content:
        try:
            if not folder.is_dir():
                return Outcome(Fate.AWAY, None, f"folder {folder} is not there, or not mounted")
            if target.exists():
                if filecmp.cmp(source, target, shallow=False):
                    return Outcome(Fate.DELIVERED, 0, "it was there already")
                return Outcome(Fate.REFUSED, None, f"{target} is there with other bytes, and stays as it is")
            _write(content, target)
        except OSError as error:
            what = "is full" if error.errno in (errno.ENOSPC, errno.EDQUOT) else f"cannot be written: {error.strerror}"
            return Outcome(Fate.AWAY, None, f"folder {folder} {what}")
    return Outcome(Fate.DELIVERED, 0)


def _write(content: Any, target: Path) -> None:
    """Aside, to the disk, and only then under its name. Raises OSError, and leaves nothing behind then."""
    if not target.parent.is_dir():
        with suppress(FileExistsError):
            target.parent.mkdir()
        _sync(target.parent.parent)
    aside = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with aside.open("wb") as file:
            shutil.copyfileobj(content, file, _PIECE_BYTES)
            file.flush()
            os.fsync(file.fileno())
        os.rename(aside, target)
        for left_over in target.parent.glob(f".{target.name}.*.part"):  # by a process that was killed
            left_over.unlink(missing_ok=True)
        _sync(target.parent)
    except BaseException:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # shares that have no such thing (CIFS)
            raise
    finally:
        os.close(descriptor)
