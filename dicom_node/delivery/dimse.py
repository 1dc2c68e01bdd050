"""Delivery by C-STORE, one association per batch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dicom_node.delivery import Outcome, ReadPath, Report
from dicom_node.dimse.scu import SendResult, send_files
from dicom_node.dimse.status import is_transient
from dicom_node.dimse.tls import TlsFiles, TlsPeer
from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings
from storage.records import Delivery


def send(
    destination: Any, deliveries: Sequence[Delivery], read_path: ReadPath, calling_ae_title: str, report: Report
) -> None:
    """Send the batch to `destination` (host, port, ae_title); see delivery.send.

    A warning status counts as delivered: the PACS has the object. An association that breaks in the middle leaves
    what was answered delivered, and the rest to be sent again, same bytes and UIDs, which a PACS takes as the same.
    """
    try:
        tls = tls_of(destination)
    except ConfigurationError as error:
        for delivery in deliveries:
            report(delivery, Outcome.unreachable(str(error)))
        return
    waiting: dict[Path, list[Delivery]] = {}
    for delivery in deliveries:
        waiting.setdefault(read_path(delivery.path), []).append(delivery)

    def note(result: SendResult) -> None:
        for delivery in waiting.pop(result.path):
            report(delivery, _outcome(result))

    send_files(
        list(waiting),
        destination.host,
        destination.port,
        destination.ae_title,
        calling_ae_title,
        on_progress=note,
        tls=tls,
    )


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


def _outcome(result: SendResult) -> Outcome:
    if result.is_stored and result.status is not None:
        return Outcome.done(result.status, result.reason)
    if result.is_refused:
        retry_soon = result.status is not None and is_transient(result.status)
        return Outcome.refused(result.status, result.reason, retry_soon)
    return Outcome.unreachable(result.reason)
