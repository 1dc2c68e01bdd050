"""What the acceptor asks before it accepts an association, and of every object: may this one come in? No pynetdicom."""

from collections.abc import Callable, Mapping
from enum import Enum
from types import MappingProxyType
from typing import Protocol


class Reject(Enum):
    """Why an association is rejected: (result, source, reason) of A-ASSOCIATE-RJ, PS3.8 Table 9-21."""

    APPLICATION_CONTEXT = (1, 1, 2)  # rejected-permanent: application context name not supported
    CALLING_AE_TITLE = (1, 1, 3)  # rejected-permanent: calling AE title not recognised
    CALLED_AE_TITLE = (1, 1, 7)  # rejected-permanent: called AE title not recognised
    CONGESTION = (2, 3, 1)  # rejected-transient: temporary congestion
    LOCAL_LIMIT = (2, 3, 2)  # rejected-transient: local limit exceeded


#: (source, reason) of A-ASSOCIATE-RJ in words, PS3.8 Table 9-21
REJECT_REASONS: Mapping[tuple[int, int], str] = MappingProxyType(
    {
        (1, 1): "no reason given",
        (1, 2): "application context name not supported",
        (1, 3): "calling AE title not recognised",
        (1, 7): "called AE title not recognised",
        (2, 1): "no reason given",
        (2, 2): "protocol version not supported",
        (3, 1): "temporary congestion",
        (3, 2): "local limit exceeded",
    }
)

#: When our acceptor rejects so.
REJECTED_WHEN: Mapping[Reject, str] = MappingProxyType(
    {
        Reject.APPLICATION_CONTEXT: "another application context than that of DICOM is asked for",
        Reject.CALLING_AE_TITLE: "no entry of `senders` fits the calling AE title and the address",
        Reject.CALLED_AE_TITLE: "the called AE title is neither the node's nor one that the sender may call",
        Reject.CONGESTION: "the receiver is stopping, or cannot count associations at the moment",
        Reject.LOCAL_LIMIT: "the limit of associations, of the node or of this sender, is reached",
    }
)


class NotAdmittedError(Exception):
    """The association must be rejected; `reason` is for the log and the audit trail."""

    def __init__(self, reason: str, reject: Reject) -> None:
        super().__init__(reason)
        self.reason = reason
        self.reject = reject


class Admission(Protocol):
    """What an accepted association may do. Thread-safe."""

    def takes(self, sop_class_uid: str) -> bool:
        """Whether objects of this storage SOP Class are taken from this sender.

        Where not: the presentation context is rejected "abstract syntax not supported" (PS3.8 Table 9-18, 3), and a
        C-STORE-RQ that names the class all the same is answered 0x0124, not authorised (PS3.7 Annex C).
        """

    def pause_s(self, n_bytes: int) -> float:
        """Count one stored object of so many bytes; how long to leave the socket unread now, s. Nearly always 0.0."""

    def release(self) -> None:
        """The association is over; a second call does nothing."""


#: (calling AE title, called AE title, peer address) -> Admission; raises NotAdmittedError
Admit = Callable[[str, str, str], Admission]


class Unlimited:
    """An Admission that takes every storage SOP Class and never pauses."""

    def takes(self, sop_class_uid: str) -> bool:  # noqa: ARG002 - of the protocol
        """Always."""
        return True

    def pause_s(self, n_bytes: int) -> float:  # noqa: ARG002 - of the protocol
        """Never."""
        return 0.0

    def release(self) -> None:
        """Nothing is held."""


def anyone_calling(ae_title: str) -> Admit:
    """Let in whoever calls this AE title."""

    def admit(_calling: str, called: str, _peer_host: str) -> Admission:
        if called != ae_title:
            raise NotAdmittedError("called AE title is not ours", Reject.CALLED_AE_TITLE)
        return Unlimited()

    return admit
