"""Leases are renewed while work goes on, and a stuck worker ends."""

import subprocess
import sys
import threading
from collections.abc import Callable

import psycopg
import pytest

from dicom_node.lease import EXIT_STUCK, kept
from dicom_node.patience import until_database_answers


def test_renewed_until_the_block_ends(eventually: Callable[..., None]) -> None:
    beats: list[int] = []
    with kept(lambda: beats.append(1), lease_s=0.04):
        eventually(lambda: len(beats) >= 3, "three renewals")
    after = len(beats)
    assert not [thread for thread in threading.enumerate() if thread.name == "lease"]
    assert len(beats) == after


def test_a_database_that_is_away_does_not_end_it(eventually: Callable[..., None]) -> None:
    tries: list[int] = []

    def renew() -> None:
        tries.append(1)
        raise psycopg.OperationalError("the server is gone")

    with kept(renew, lease_s=0.04):
        eventually(lambda: len(tries) >= 3, "three attempts")


def test_stuck_work_ends_the_process() -> None:
    code = (
        "import threading; from dicom_node.lease import kept\n"
        "with kept(lambda: None, 0.04, stuck_after_s=0.1): threading.Event().wait(30)"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=20, check=False).returncode == EXIT_STUCK


def test_patience_repeats_until_it_works_and_gives_up_in_the_end() -> None:
    answers = [psycopg.OperationalError("away"), psycopg.OperationalError("away"), "kept"]

    def step() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert until_database_answers(step) == "kept"

    def never() -> None:
        raise psycopg.OperationalError("away")

    with pytest.raises(psycopg.OperationalError):
        until_database_answers(never, give_up_after_s=0.2)


def test_a_bug_is_not_taken_for_an_absent_database() -> None:
    def wrong() -> None:
        raise psycopg.errors.UndefinedTable("no such table")

    with pytest.raises(psycopg.errors.UndefinedTable):
        until_database_answers(wrong)
