"""C-STORE with an eye to what the peer takes: per object an answer by what must happen next (PS3.4 Annex B)."""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.uid import UID
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node.dimse.contexts import EXPLICIT_LITTLE, IMPLICIT_LITTLE, MAX_CONTEXTS
from dicom_node.dimse.part10 import FileHead
from dicom_node.dimse.scu import NothingTaken, associated
from dicom_node.dimse.status import describe
from dicom_node.dimse.tls import TlsPeer

#: Result of a proposed presentation context, PS3.8 Table 9-18
_CONTEXT_RESULTS = {
    1: "refused by the user",
    2: "refused without a reason",
    3: "the SOP Class is not supported",
    4: "none of the transfer syntaxes is supported",
}
#: syntaxes that can be written from one another without loss
_PLAIN = (EXPLICIT_LITTLE, IMPLICIT_LITTLE)


@dataclass(frozen=True)
class StoreAnswer:
    """What the peer made of one object."""

    status: int | None  # of the C-STORE response
    reason: str  # empty with status Success
    is_taken: bool = True  # False: its SOP Class was refused at negotiation
    is_sendable: bool = True  # False: our file is at fault


@dataclass
class StoreSession:
    """An association, and what was agreed for each SOP Class. Not thread-safe."""

    peer: str
    accepted: Mapping[str, frozenset[str]]  # SOP Class -> Transfer Syntaxes
    not_taken: Mapping[str, str]  # SOP Class of which nothing was accepted -> why
    _association: Any  # None: the peer took nothing of what was proposed
    _syntaxes: Sequence[str]
    _implicit_file: Callable[[Path], bytes]
    _sent: int = field(default=0)

    @property
    def is_open(self) -> bool:
        """Whether something can still be sent."""
        return self._association is not None and bool(self._association.is_established)

    def is_proposed(self, head: FileHead) -> bool:
        """Whether this association can say anything about the object."""
        return head.sop_class_uid in self.accepted or head.sop_class_uid in self.not_taken

    def store(self, path: Path, head: FileHead) -> StoreAnswer:
        """Send one object. Status None, taken and sendable: no answer; it may have arrived or not."""
        syntaxes = self.accepted.get(head.sop_class_uid, frozenset())
        offers = _offers(head.transfer_syntax_uid, self._syntaxes)
        syntax = next((syntax for syntax in offers if syntax in syntaxes), None)
        if syntax is None:
            why = self.not_taken.get(head.sop_class_uid, _CONTEXT_RESULTS[4])
            return StoreAnswer(None, f"{self.peer} does not take {_named(head.sop_class_uid)}: {why}", is_taken=False)
        if syntax == head.transfer_syntax_uid:
            return self._store(path)
        with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
            try:
                file.write(self._implicit_file(path))
                file.flush()
            except Exception as error:  # noqa: BLE001 - whatever a file can be
                return StoreAnswer(None, f"cannot be written in {UID(syntax).name}: {error}", is_sendable=False)
            return self._store(Path(file.name))

    def _store(self, path: Path) -> StoreAnswer:
        if not self.is_open:
            return StoreAnswer(None, f"{self.peer} ended the association")
        self._sent += 1
        try:
            status = self._association.send_c_store(path, msg_id=self._sent % 65536).get("Status")
        except (OSError, ValueError, AttributeError, RuntimeError) as error:
            if self.is_open:
                return StoreAnswer(None, f"cannot be sent: {error}", is_sendable=False)
            return StoreAnswer(None, f"{self.peer} ended the association")
        if status is None:
            return StoreAnswer(None, f"{self.peer} gave no answer or cut the connection")
        return StoreAnswer(int(status), describe(status) if status else "")


@contextmanager
def store_session(
    heads: Iterable[FileHead],
    host: str,
    port: int,
    called_ae_title: str,
    calling_ae_title: str,
    *,
    syntaxes: Sequence[str],
    implicit_file: Callable[[Path], bytes],
    timeout_s: float = 60.0,
    tls: TlsPeer | None = None,
) -> Iterator[StoreSession]:
    """An association on which exactly the SOP Classes of `heads` are proposed, each in a context of its own per syntax.

    syntaxes : in which objects that are not compressed are offered; compressed ones are in their own only.
    implicit_file : gives the bytes of a file in Implicit VR, where the peer accepted that and the file is not.
    More than an association can hold are left out: `is_proposed` tells.
    Raises AssociationRejected, DestinationUnreachable.
    """
    contexts = store_contexts(heads, syntaxes)
    peer = f"{host}:{port}"
    try:
        with associated(host, port, called_ae_title, calling_ae_title, contexts, timeout_s, tls=tls) as association:
            agreed = _agreed(association.accepted_contexts, association.rejected_contexts)
            yield StoreSession(peer, *agreed, association, syntaxes, implicit_file)
    except NothingTaken as error:
        yield StoreSession(peer, *_agreed([], error.contexts), None, syntaxes, implicit_file)


def _offers(transfer_syntax_uid: str, syntaxes: Sequence[str]) -> Sequence[str]:
    return syntaxes if transfer_syntax_uid in _PLAIN else (transfer_syntax_uid,)


def store_contexts(heads: Iterable[FileHead], syntaxes: Sequence[str]) -> list[PresentationContext]:
    """What is proposed for these objects; see `store_session`."""
    contexts: dict[tuple[str, str], PresentationContext] = {}
    for head in heads:
        pairs = [(head.sop_class_uid, syntax) for syntax in _offers(head.transfer_syntax_uid, syntaxes)]
        missing = [pair for pair in pairs if pair not in contexts]
        if len(contexts) + len(missing) > MAX_CONTEXTS:
            break
        contexts.update((pair, build_context(*pair)) for pair in missing)
    return list(contexts.values())


def _agreed(
    accepted: Iterable[PresentationContext], rejected: Iterable[PresentationContext]
) -> tuple[dict[str, frozenset[str]], dict[str, str]]:
    taken: dict[str, frozenset[str]] = {}
    for context in accepted:
        uid = str(context.abstract_syntax)
        taken[uid] = taken.get(uid, frozenset()) | {str(context.transfer_syntax[0])}
    not_taken: dict[str, str] = {}
    for context in rejected:
        uid = str(context.abstract_syntax)
        if uid not in taken:
            not_taken.setdefault(uid, _CONTEXT_RESULTS.get(context.result or 2, "refused"))
    return taken, not_taken


def _named(sop_class_uid: str) -> str:
    name = UID(sop_class_uid).name
    return f"{name} ({sop_class_uid})" if name != sop_class_uid else sop_class_uid
