"""Who is told what happens at the acceptor: metrics, the audit trail."""

from collections.abc import Callable

import structlog

from dicom_node.dimse.requests import AssociationFacts, StoreRequest

log = structlog.get_logger()


class Observer:
    """Is told what happens at the acceptor, in its threads; this one does nothing. Must not raise."""

    def opened(self, association: AssociationFacts) -> None:
        """An association was accepted."""

    def closed(self, association: AssociationFacts, state: str) -> None:
        """It has ended: "released" or "aborted"."""

    def rejected(self, calling_ae_title: str, called_ae_title: str, peer_host: str, reason: str) -> None:
        """An association request was answered with A-ASSOCIATE-RJ."""

    def handshake_failed(self, peer_host: str, reason: str) -> None:
        """A TLS connection was not made; told in the lobby's thread."""

    def stored(self, association: AssociationFacts, n_bytes: int, seconds: float) -> None:
        """A C-STORE request was answered with Success; `seconds` from the end of the command to the answer."""

    def refused(self, request: StoreRequest, status: int) -> None:
        """A C-STORE request was answered with a failure."""

    def paused(self, association: AssociationFacts, seconds: float) -> None:
        """The sender is not read for so long, because it sends more than its limit allows."""


class Observers(Observer):
    """Tells several. One that fails is logged and stops neither the others nor the association."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def opened(self, association: AssociationFacts) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.opened(association))

    def closed(self, association: AssociationFacts, state: str) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.closed(association, state))

    def rejected(self, calling_ae_title: str, called_ae_title: str, peer_host: str, reason: str) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.rejected(calling_ae_title, called_ae_title, peer_host, reason))

    def handshake_failed(self, peer_host: str, reason: str) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.handshake_failed(peer_host, reason))

    def stored(self, association: AssociationFacts, n_bytes: int, seconds: float) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.stored(association, n_bytes, seconds))

    def refused(self, request: StoreRequest, status: int) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.refused(request, status))

    def paused(self, association: AssociationFacts, seconds: float) -> None:
        """Tell all."""
        self._tell(lambda observer: observer.paused(association, seconds))

    def _tell(self, tell: Callable[[Observer], None]) -> None:
        for observer in self._observers:
            try:
                tell(observer)
            except Exception as error:  # noqa: BLE001 - reception goes on
                log.error("observer failed", observer=type(observer).__name__, error=repr(error))
