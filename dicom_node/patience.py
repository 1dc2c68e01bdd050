"""Outlasting a database that is away for a moment."""

import time
from collections.abc import Callable
from typing import TypeVar

import psycopg
import structlog
from psycopg_pool import PoolTimeout

log = structlog.get_logger()

Value = TypeVar("Value")

#: what psycopg raises when the server is away, starting or stopping
DATABASE_AWAY = (psycopg.OperationalError, PoolTimeout)


def until_database_answers(step: Callable[[], Value], give_up_after_s: float = 600.0) -> Value:
    """Repeat `step` (which must be one transaction) while the database is away; finished work is too dear to drop.

    Raises the last error after `give_up_after_s`.
    """
    deadline = time.monotonic() + give_up_after_s
    pause_s = 0.1
    while True:
        try:
            return step()
        except DATABASE_AWAY as error:
            if time.monotonic() > deadline:
                raise
            log.warning("database away, trying again", error=type(error).__name__)
            time.sleep(pause_s)
            pause_s = min(pause_s * 2, 2.0)
