"""Leases on work in progress: renewed while the worker lives, so that a dead worker's work is soon taken over."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import structlog

from dicom_node.patience import DATABASE_AWAY

log = structlog.get_logger()

EXIT_STUCK = 70


@contextmanager
def kept(renew: Callable[[], object], lease_s: float, stuck_after_s: float | None = None) -> Iterator[None]:
    """Call `renew` from a thread, four times per lease, until the block ends.

    A database that is away is passed over: whether the lease was lost is decided when the work is written down.
    Work that goes on for longer than `stuck_after_s` is stuck in native code, where Python cannot interrupt it: the
    process ends, the supervisor starts another, and the attempt counts.
    """
    ended = threading.Event()
    started = time.monotonic()

    def beat() -> None:
        while not ended.wait(lease_s / 4):
            if stuck_after_s is not None and time.monotonic() - started > stuck_after_s:
                log.error("work is stuck, the worker ends", seconds=stuck_after_s)
                os._exit(EXIT_STUCK)
            try:
                renew()
            except DATABASE_AWAY:
                continue

    thread = threading.Thread(target=beat, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
