"""Threads that talk to other systems, so that who waits for a slow one keeps neither a job nor anybody else waiting."""

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import structlog

from dicom_node.patience import DATABASE_AWAY

log = structlog.get_logger()

#: In one process. One that waits for a hanging peer costs little more than its stack.
THREADS = 32
#: To one peer; PostgreSQL says how many of them find something to do.
TO_ONE_PEER = 8


class Couriers:
    """Runs errands to peers, each on a thread of its own. Thread-safe.

    A message of the broker is over when it is handed on here: what is lost with the process is rung again by the
    scheduler, since PostgreSQL knows what was not done.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="courier")
        self._active: Counter[str] = Counter()
        self._lock = threading.Lock()

    def send(self, peer: str, errand: Callable[[], None]) -> None:
        """Run an errand soon; nothing if enough are on their way to this peer already."""
        with self._lock:
            if self._active[peer] >= TO_ONE_PEER:
                return
            self._active[peer] += 1
        self._pool.submit(self._run, peer, errand)

    def _run(self, peer: str, errand: Callable[[], None]) -> None:
        try:
            errand()
        except DATABASE_AWAY as error:
            log.warning("database away, it is tried again later", peer=peer, error=type(error).__name__)
        except Exception:
            log.exception("errand broke", peer=peer)
        finally:
            with self._lock:
                self._active[peer] -= 1
                if not self._active[peer]:
                    del self._active[peer]
