"""Delivery by C-STORE, one association per batch."""

from pathlib import Path
from typing import Any

from dicom_node.delivery import Batch, Fate, Outcome, ReadPath
from dicom_node.delivery.transcoding import implicit_file
from dicom_node.dimse.part10 import FileHead, NotPart10Error, read_file_head
from dicom_node.dimse.scu import AssociationRejected
from dicom_node.dimse.status import DUPLICATE_SOP_INSTANCE, SOP_CLASS_NOT_SUPPORTED, is_stored, is_transient
from dicom_node.dimse.storing import StoreAnswer, StoreSession, store_session
from dicom_node.dimse.tls import TlsFiles, TlsPeer
from dicom_node.errors import ConfigurationError, DestinationUnreachable
from dicom_node.settings import Settings

#: so many objects in a row refused for lack of resources, and the rest of the batch is not tried
BUSY_IN_A_ROW = 3


def send(destination: Any, batch: Batch, read_path: ReadPath, calling_ae_title: str) -> None:
    """Send the batch to `destination` (routing.destination.Destination of type dimse); see delivery.send.

    A warning status counts as delivered: the PACS has the object. An association that breaks in the middle leaves
    what was answered delivered, and the rest to be sent again, same bytes and UIDs, which a PACS takes as the same.
    """
    try:
        tls = tls_of(destination)
    except ConfigurationError as error:
        batch.end(Outcome(Fate.AWAY, None, str(error)))
        return
    heads: dict[int, tuple[Path, FileHead]] = {}
    for delivery in batch.deliveries:
        path = read_path(delivery.path)
        try:
            heads[delivery.id] = path, read_file_head(path)
        except NotPart10Error as error:
            batch.report(delivery, Outcome(Fate.REFUSED, None, str(error)))
        except OSError as error:
            batch.report(delivery, Outcome(Fate.BUSY, None, f"its file cannot be read: {error.strerror}"))
    if not heads:
        return
    try:
        with store_session(
            [head for _, head in heads.values()],
            destination.host,
            destination.port,
            destination.ae_title,
            calling_ae_title,
            syntaxes=destination.transfer_syntaxes,
            implicit_file=implicit_file,
            tls=tls,
        ) as session:
            _send_all(session, batch, heads)
    except AssociationRejected as error:
        batch.end(Outcome(Fate.AWAY if error.is_transient else Fate.REJECTED, None, str(error)))
    except DestinationUnreachable as error:
        batch.end(Outcome(Fate.AWAY, None, str(error)))


def _send_all(session: StoreSession, batch: Batch, heads: dict[int, tuple[Path, FileHead]]) -> None:
    busy = 0
    for delivery in batch:
        path, head = heads[delivery.id]
        if not session.is_proposed(head):
            return  # one of too many SOP Classes: in the next batch
        outcome = outcome_of(session.store(path, head))
        batch.report(delivery, outcome)
        busy = busy + 1 if outcome.fate is Fate.BUSY else 0
        if outcome.fate is Fate.UNANSWERED or busy == BUSY_IN_A_ROW:
            return


def outcome_of(answer: StoreAnswer) -> Outcome:
    """What must happen next with an object that was answered so."""
    status, reason = answer.status, answer.reason
    if not answer.is_taken or status == SOP_CLASS_NOT_SUPPORTED:
        return Outcome(Fate.NOT_TAKEN, status, reason)
    if not answer.is_sendable:
        return Outcome(Fate.REFUSED, status, reason)
    if status is None:
        return Outcome(Fate.UNANSWERED, None, reason)
    if is_stored(status) or status == DUPLICATE_SOP_INSTANCE:  # the answer to an earlier attempt was lost
        return Outcome(Fate.DELIVERED, status, reason)
    return Outcome(Fate.BUSY if is_transient(status) else Fate.REFUSED, status, reason)


def tls_of(destination: Any) -> TlsPeer | None:
    """TLS towards a destination of the configuration; None: without. The password of its key is the node's.

    Raises ConfigurationError when that password cannot be read.
    """
    tls = destination.tls
    if tls is None:
        return None
    certificate, key, ca = (Path(path) if path else None for path in (tls.certificate, tls.key, tls.ca))
    password = Settings().key_password() if key is not None else None
    return TlsPeer(TlsFiles(certificate, key, ca, password), tls.server_name)
