"""Answers of Storage Commitment on their way from the scheduler to associations that are still open.

The receiver knows the associations, the scheduler knows the answers, and only files lie between them:

    incoming/<time>-<association>.commit.json     receiver: this was asked, and the association waits for the answer
    answers/<request>.json                        scheduler: the answer; a receiver takes it by renaming it
    incoming/<time>-<association>.reported.json   receiver: the peer has it, or the association can no longer take it

The other way round, where archives report on what we asked them (transactions.py):

    incoming/<time>-<association>.answer.json     receiver: an archive says what became of a transaction of ours

A receiver that says nothing any more (killed, full disk) is waited for only so long; then the answer goes out on a new
association. So an answer may come twice, and comes at least once.
"""

import json
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from dicom_node.dimse.requests import (
    AssociationFacts,
    CommitmentAnswer,
    CommitmentReport,
    CommitmentRequest,
    Reference,
)
from dicom_node.dimse.status import INVALID_ARGUMENT_VALUE, RefusedError
from dicom_node.transactions import Transactions

log = structlog.get_logger()

_NAME = re.compile(r"(?P<request>[0-9a-f]{16})\.json(\.taken)?")

#: writes a note into the journal: subject, kind, facts; raises OSError
Note = Callable[[str, str, Mapping[str, Any]], None]


class Answers:
    """The folder `answers`. Used by the one active scheduler and by all receivers."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def offer(self, answer: CommitmentAnswer) -> None:
        """Lay an answer out. Need not be durable: after a crash the scheduler does it again. Raises OSError."""
        self._folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps(
            {
                "transaction_uid": answer.transaction_uid,
                "committed": answer.committed,
                "failed": [[*reference, failure_reason] for reference, failure_reason in answer.failed],
            }
        )
        aside = self._folder / f".{answer.request_id}"
        try:
            aside.write_text(text)
            os.replace(aside, self._folder / f"{answer.request_id}.json")
        except OSError:
            with suppress(OSError):
                aside.unlink(missing_ok=True)
            raise

    def claim(self, request_id: str) -> CommitmentAnswer | None:
        """Take an answer; of several who try one gets it. None: it is not there. Raises OSError, ValueError."""
        taken = self._folder / f"{request_id}.json.taken"
        try:
            os.rename(self._folder / f"{request_id}.json", taken)
        except FileNotFoundError:
            return None
        facts = json.loads(taken.read_text())
        taken.unlink(missing_ok=True)
        return CommitmentAnswer(
            request_id,
            facts["transaction_uid"],
            tuple(Reference(*pair) for pair in facts["committed"]),
            tuple((Reference(sop_class, uid), int(reason)) for sop_class, uid, reason in facts["failed"]),
        )

    def sweep(self, wanted: Collection[str]) -> None:
        """Remove the answers to all requests but these."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return
        for name in names:
            match = _NAME.fullmatch(name)
            if match and match["request"] not in wanted:
                (self._folder / name).unlink(missing_ok=True)


class Desk:
    """The receiver's side: dimse.commitment.CommitmentDesk over the journal and the folder of answers."""

    def __init__(
        self, note: Note, answers: Answers, transactions: Transactions, receiver: str, answer_within_s: float
    ) -> None:
        self.answer_within_s = answer_within_s
        self._note = note
        self._answers = answers
        self._transactions = transactions
        self._receiver = receiver

    def ask(self, request: CommitmentRequest) -> None:
        """Note the request in the journal, behind everything that was acknowledged before. Raises OSError."""
        self._note(
            request.association.association_id,
            "commit",
            {
                "request_id": request.request_id,
                "receiver": self._receiver,
                "calling_ae_title": request.association.calling_ae_title,
                "called_ae_title": request.association.called_ae_title,
                "peer_host": request.association.peer_host,
                "transaction_uid": request.transaction_uid,
                "references": request.references,
            },
        )

    def claim(self, request: CommitmentRequest) -> CommitmentAnswer | None:
        """The answer, if it is there; one that cannot be read is left to go out on a new association."""
        try:
            return self._answers.claim(request.request_id)
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.error("answer cannot be read", request=request.request_id, error=repr(error))
            return None

    def reported(self, request: CommitmentRequest, status: int | None, reason: str) -> None:
        """Note in the journal what came of it; where that fails the scheduler finds out by itself, later."""
        facts = {"request_id": request.request_id, "status": status, "reason": reason}
        try:
            self._note(request.association.association_id, "reported", facts)
        except OSError as error:
            log.warning("end of a request not noted", request=request.request_id, error=error.strerror)

    def told(self, report: CommitmentReport, by: AssociationFacts) -> None:
        """Note in the journal what an archive says. Raises OSError, RefusedError unless it is the one that was asked.

        A stranger learns no more than that: the answer is the same as for a transaction that never was.
        """
        if not self._transactions.may_report(report.transaction_uid, by.calling_ae_title, by.peer_host):
            raise RefusedError(INVALID_ARGUMENT_VALUE, "Transaction UID is not one that this peer was asked")
        facts = {
            "calling_ae_title": by.calling_ae_title,
            "peer_host": by.peer_host,
            "transaction_uid": report.transaction_uid,
            "committed": report.committed,
            "failed": [[*reference, failure_reason] for reference, failure_reason in report.failed],
        }
        self._note(by.association_id, "answer", facts)
