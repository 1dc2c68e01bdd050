"""Which Storage Commitment transactions are ours, and who may report on them, for receivers without a database.

    asked/<Transaction UID>.json     worker: this was asked, and these peers may say what came of it

A Transaction UID is 122 random bits that only the archive was told, and AE title and address must be the archive's.
What is lost here is asked again when its time is over.
"""

import json
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from dicom_node.senders import is_at

KEPT_S = 14 * 86400.0  # an archive may take its time, and report twice


class Reporter(NamedTuple):
    """A peer that may report: AE title, and addresses, networks or names."""

    ae_title: str
    hosts: Sequence[str]


def new_transaction_uid() -> str:
    """A UID that nobody can guess (PS3.5 section B.2)."""
    return f"2.25.{uuid.uuid4().int}"


class Transactions:
    """The folder `asked`. Used by workers and receivers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def open(self, transaction_uid: str, reporters: Sequence[Reporter]) -> None:
        """Let these peers report on a transaction. Before the archive is asked. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        aside = self._folder / f".{transaction_uid}.{os.getpid()}"
        try:
            aside.write_text(json.dumps([[reporter.ae_title, list(reporter.hosts)] for reporter in reporters]))
            os.replace(aside, self._path(transaction_uid))
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise

    def may_report(self, transaction_uid: str, ae_title: str, peer_host: str) -> bool:
        """Whether this peer may say what became of a transaction. May ask the name service. Raises OSError."""
        try:
            reporters = json.loads(self._path(transaction_uid).read_text())
        except (FileNotFoundError, ValueError):
            return False
        return any(known == ae_title and any(is_at(peer_host, host) for host in hosts) for known, hosts in reporters)

    def sweep(self, kept_s: float = KEPT_S) -> None:
        """Forget what was asked long ago. Raises OSError."""
        before = time.time() - kept_s
        with suppress(FileNotFoundError), os.scandir(self._folder) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    if entry.stat().st_mtime < before:
                        os.unlink(entry.path)

    def _path(self, transaction_uid: str) -> Path:
        return self._folder / f"{transaction_uid}.json"
