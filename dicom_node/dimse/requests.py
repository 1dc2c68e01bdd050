"""What the acceptor hands on: one association, one object to be stored. No pynetdicom in here."""

from dataclasses import dataclass


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
    dataset: memoryview  # encoded as sent
