"""The acceptor's events as metrics."""

from dicom_node import metrics
from dicom_node.dimse.observer import Observer
from dicom_node.dimse.requests import AssociationFacts, StoreRequest


class Metered(Observer):
    """An Observer that counts (metrics.py)."""

    def opened(self, association: AssociationFacts) -> None:
        """An association was accepted."""
        metrics.association_opened(association.calling_ae_title)

    def closed(self, association: AssociationFacts, state: str) -> None:
        """It has ended: "released" or "aborted"."""
        metrics.association_closed(association.calling_ae_title, state)

    def rejected(self, calling_ae_title: str, called_ae_title: str, peer_host: str, reason: str) -> None:  # noqa: ARG002
        """An association request was answered with A-ASSOCIATE-RJ."""
        metrics.association_refused(reason)

    def stored(self, association: AssociationFacts, n_bytes: int, seconds: float) -> None:
        """A C-STORE request was answered with Success."""
        metrics.object_stored(association.calling_ae_title, n_bytes, seconds)

    def refused(self, request: StoreRequest, status: int) -> None:
        """A C-STORE request was answered with a failure."""
        metrics.object_refused(request.association.calling_ae_title, status)

    def paused(self, association: AssociationFacts, seconds: float) -> None:
        """The sender is not read for so long, because of its limit."""
        metrics.rate_limited(association.calling_ae_title, seconds)
