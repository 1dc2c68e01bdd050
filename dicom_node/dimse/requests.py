"""What the acceptor hands on: one association, one object to be stored, one request for commitment. No pynetdicom."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol


@dataclass(frozen=True)
class AssociationFacts:
    """Who opened an association, from where and when."""

    association_id: str  # 16 hexadecimal digits, ours
    calling_ae_title: str
    called_ae_title: str
    peer_host: str  # address, not a name
    opened_at_ns: int  # since the epoch


@dataclass(frozen=True)
class StoreRequest:
    """One C-STORE request whose UIDs are well formed."""

    association: AssociationFacts
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class ObjectSink(Protocol):
    """Takes the encoded Dataset of one object as it comes off the network. Used by one thread."""

    def write(self, parts: Sequence[memoryview]) -> None:
        """Take the next bytes; they are valid during the call only. Raises what status.py turns into a status."""

    def commit(self) -> None:
        """All bytes are there. When this returns the object is answered with Success, so it must be safe by then."""

    def discard(self) -> None:
        """Forget it: cut off, refused or failed. Does not raise; also called after a `commit` that raised."""


OpenSink = Callable[[StoreRequest], ObjectSink]


class InMemory:
    """Sinks for objects of a size that memory holds: `keep(request, dataset)` is called with each whole object."""

    def __init__(self, keep: Callable[[StoreRequest, bytes], None]) -> None:
        self._keep = keep

    def __call__(self, request: StoreRequest) -> ObjectSink:
        """An OpenSink."""
        return _Collected(request, self._keep)


class _Collected:
    def __init__(self, request: StoreRequest, keep: Callable[[StoreRequest, bytes], None]) -> None:
        self._request = request
        self._keep = keep
        self._dataset = bytearray()

    def write(self, parts: Sequence[memoryview]) -> None:
        for part in parts:
            self._dataset += part

    def commit(self) -> None:
        self._keep(self._request, bytes(self._dataset))

    def discard(self) -> None:
        self._dataset.clear()


class Reference(NamedTuple):
    """One object that somebody else speaks of."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True)
class CommitmentRequest:
    """One N-ACTION request for storage commitment (PS3.4 section J.3.2) that is in order."""

    association: AssociationFacts
    request_id: str  # 16 hexadecimal digits, ours; a transaction that is asked again has another one
    transaction_uid: str
    references: tuple[Reference, ...]


@dataclass(frozen=True)
class CommitmentAnswer:
    """What an N-EVENT-REPORT says (PS3.4 section J.3.3); each part in the order of the request."""

    request_id: str
    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]  # with Failure Reason (0008,1197)

    @property
    def event_type(self) -> int:
        """1: all are committed; 2: some or all are not."""
        return 2 if self.failed else 1


@dataclass(frozen=True)
class CommitmentReport:
    """What an archive says of the objects of one transaction of ours (PS3.4 section J.3.3)."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[tuple[Reference, int], ...]  # with Failure Reason (0008,1197)
