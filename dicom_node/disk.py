"""A reserve of disk space that images may not take: the database and the broker on the same disk need it to live.

Below it objects are answered with A700, Out of Resources (PS3.4 Table B.2-1): the sender keeps them and sends again.
"""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from dicom_node.dimse.status import OUT_OF_RESOURCES, RefusedError

log = structlog.get_logger()

DEFAULT_RESERVE_BYTES = 2048 << 20
_DEFAULT_SHARE = 20  # of a small disk no more than a twentieth
_LOOK_EVERY_S = 0.2
_LOOK_EVERY_S_WHEN_NEAR = 0.02
_RETURN_SHARE = 10  # a tenth more than the reserve must be free before objects are taken again

StatVfs = Callable[[Path], os.statvfs_result]


def reserve_bytes(folder: Path, setting_mb: int | None) -> int:
    """The reserve of the file system of `folder`: what is set, else 2 GiB, but at most 5 % of it. Raises OSError."""
    if setting_mb is not None:
        return setting_mb << 20
    found = os.statvfs(folder)
    return min(DEFAULT_RESERVE_BYTES, found.f_blocks * found.f_frsize // _DEFAULT_SHARE)


class DiskWatermark:
    """Says when the disk is as full as it may become. Thread-safe; a call costs well under a microsecond."""

    def __init__(
        self,
        folder: Path,
        reserve_bytes: int,
        *,
        statvfs: StatVfs = os.statvfs,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """folder : on the file system that is watched; it need not exist before the first `check`."""
        self._folder = folder
        self._reserve = reserve_bytes
        self._statvfs = statvfs
        self._clock = clock
        self._lock = threading.Lock()
        self._look_at = float("-inf")  # when to ask the file system again
        self._headroom = 0  # bytes above the reserve when it was asked last, less what was taken since
        self._is_low = False

    @property
    def reserve(self) -> int:
        """Bytes that must stay free."""
        return self._reserve

    def check(self, n_bytes: int = 0) -> None:
        """Note that n_bytes are, or are about to be, written. Raises RefusedError (A700) where they may not; OSError.

        Objects are refused from the moment when less than the reserve is free until a tenth more than it is. In
        between the file system is asked five times per second, and more often where the reserve is near.
        """
        self._headroom -= n_bytes  # a lost update by another thread is made good when the file system is asked
        if self._clock() >= self._look_at or (self._headroom < 0 and not self._is_low):
            self._look(n_bytes)
        if self._is_low or self._headroom < 0:
            raise RefusedError(OUT_OF_RESOURCES, "the disk is nearly full")

    def is_low(self) -> bool:
        """The same without an object. Raises OSError."""
        try:
            self.check()
        except RefusedError:
            return True
        return False

    def _look(self, n_bytes: int) -> None:
        with self._lock:
            found = self._statvfs(self._folder)
            free = found.f_bavail * found.f_frsize
            self._headroom = free - self._reserve - n_bytes
            was_low = self._is_low
            self._is_low = free < self._reserve * (_RETURN_SHARE + was_low) // _RETURN_SHARE
            near = free < 2 * self._reserve
            self._look_at = self._clock() + (_LOOK_EVERY_S_WHEN_NEAR if near else _LOOK_EVERY_S)
        if self._is_low != was_low:
            told = log.info if was_low else log.error
            told(
                "disk space is back, objects are taken again" if was_low else "disk nearly full, objects are refused",
                free_mb=free >> 20,
                reserve_mb=self._reserve >> 20,
            )
