"""A running job's lease: renewed while its worker lives, so that a dead worker's job is soon taken over."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import structlog
from psycopg_pool import PoolTimeout

import storage.jobs
from dicom_node.node import Node
from storage.records import Job

log = structlog.get_logger()

EXIT_STUCK = 70


@contextmanager
def keep_lease(node: Node, job: Job) -> Iterator[None]:
    """Renew the lease from a thread until the block ends.

    A job that runs longer than `job_timeout_s` is stuck in native code, where Python cannot interrupt it: the process
    ends, the supervisor starts another, and the job's attempt counts.
    """
    ended = threading.Event()
    started = time.monotonic()

    def beat() -> None:
        while not ended.wait(node.settings.job_lease_s / 4):
            if time.monotonic() - started > node.settings.job_timeout_s:
                log.error("job stuck, worker ends", job=job.id, seconds=node.settings.job_timeout_s)
                os._exit(EXIT_STUCK)
            try:
                with node.pool.connection(timeout=node.settings.job_lease_s / 2) as connection:
                    storage.jobs.heartbeat(connection, job.id, node.owner, node.settings.job_lease_s)
            except (psycopg.OperationalError, PoolTimeout):
                continue  # the database is away; whether the lease was lost is decided at the end

    thread = threading.Thread(target=beat, name=f"lease-{job.id}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
