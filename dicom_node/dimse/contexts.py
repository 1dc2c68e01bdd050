"""Which SOP Classes and Transfer Syntaxes are accepted and proposed, and why.

The conformance statement is printed from these tables.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from pydicom.uid import UID_dictionary  # type: ignore[attr-defined]  # its table, not in its stubs
from pynetdicom import AllStoragePresentationContexts, build_role, sop_class
from pynetdicom.pdu_primitives import SCP_SCU_RoleSelectionNegotiation
from pynetdicom.presentation import PresentationContext, build_context

VERIFICATION = "1.2.840.10008.1.1"
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"  # Push Model SOP Class, PS3.4 Annex J
STORAGE_COMMITMENT_INSTANCE = "1.2.840.10008.1.20.1.1"  # the well-known SOP Instance, PS3.4 section J.3.5

EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
IMPLICIT_LITTLE = "1.2.840.10008.1.2"

#: Transfer Syntaxes taken, as the sender has them: nothing is transcoded at receipt, so that what is stored is what
#: was sent. Every one of them can be decoded here later (MPEG and JPEG XL cannot, and are not taken).
TRANSFER_SYNTAXES: dict[str, str] = {
    EXPLICIT_LITTLE: "Explicit VR Little Endian: keeps the VR of private elements",
    IMPLICIT_LITTLE: "Implicit VR Little Endian: the one that every DICOM application must speak (PS3.5 section 10.1)",
    "1.2.840.10008.1.2.2": "Explicit VR Big Endian (retired; old workstations still send it)",
    "1.2.840.10008.1.2.1.99": "Deflated Explicit VR Little Endian: structured reports and segmentations",
    "1.2.840.10008.1.2.5": "RLE Lossless: ultrasound",
    "1.2.840.10008.1.2.4.50": "JPEG Baseline (8 bit): ultrasound, secondary captures",
    "1.2.840.10008.1.2.4.51": "JPEG Extended (12 bit)",
    "1.2.840.10008.1.2.4.57": "JPEG Lossless, process 14",
    "1.2.840.10008.1.2.4.70": "JPEG Lossless, first-order prediction: the usual one of PACS archives",
    "1.2.840.10008.1.2.4.80": "JPEG-LS Lossless",
    "1.2.840.10008.1.2.4.81": "JPEG-LS Near-lossless",
    "1.2.840.10008.1.2.4.90": "JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.91": "JPEG 2000",
    "1.2.840.10008.1.2.4.201": "High-Throughput JPEG 2000 Lossless",
    "1.2.840.10008.1.2.4.202": "High-Throughput JPEG 2000 Lossless with RPCL options",
    "1.2.840.10008.1.2.4.203": "High-Throughput JPEG 2000",
}

#: Transfer Syntaxes of the services that are no storage; their messages hold no pixels.
SERVICE_SYNTAXES: tuple[str, ...] = (IMPLICIT_LITTLE, EXPLICIT_LITTLE, "1.2.840.10008.1.2.2")

#: Root of every composite storage SOP Class of the standard, retired ones and later ones included (PS3.6 Table A-1).
_STANDARD_STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
_STANDARD_ROOT = "1.2.840.10008."
_STORAGE_CLASSES = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
#: Under that root, but services of their own: query and retrieve of protocols and inventories.
_NOT_STORAGE = frozenset(
    uid
    for uid, (name, kind, _, _, _) in UID_dictionary.items()
    if kind == "SOP Class" and uid.startswith(_STANDARD_STORAGE_ROOT) and name and "Storage" not in name
)
_UID = re.compile(r"[0-9]+(\.[0-9]+)+")

MAX_CONTEXTS = 128  # of one association: odd numbers below 256 (PS3.8 section 9.3.2.2)


def is_uid(text: str) -> bool:
    """Digits and dots, at most 64 characters (PS3.5 section 9.1); leading zeros, which some write, are let pass."""
    return len(text) <= 64 and _UID.fullmatch(text) is not None


@lru_cache(maxsize=1024)
def is_storage_class(abstract_syntax: str) -> bool:
    """Whether objects of this SOP Class are taken by C-STORE.

    All storage SOP Classes of the standard, and every private one: makers keep raw data (ultrasound RF among it)
    in SOP Classes of their own, and a node that refuses what it does not know loses them. Other services of the
    standard (C-FIND, MPPS, printing) are no storage and are refused (abstract syntax not supported, PS3.8 9.3.3.2).
    """
    if not is_uid(abstract_syntax):
        return False
    if abstract_syntax.startswith(_STANDARD_ROOT):
        is_below_root = abstract_syntax.startswith(_STANDARD_STORAGE_ROOT) and abstract_syntax not in _NOT_STORAGE
        return is_below_root or abstract_syntax in _STORAGE_CLASSES
    return True


def standard_storage_classes() -> dict[str, str]:
    """UID -> name of every SOP Class of the standard that is taken by C-STORE.

    As pydicom and pynetdicom carry PS3.6 Table A-1, of which a few retired ones have lost their names.
    """
    named = {str(uid): name for uid, (name, kind, _, _, _) in UID_dictionary.items() if kind == "SOP Class"}
    named = {str(uid): keyword for keyword, uid in sop_class._STORAGE_CLASSES.items()} | named
    return {uid: name or "(retired)" for uid, name in sorted(named.items()) if is_storage_class(uid)}


def supported_contexts(
    proposed: Iterable[PresentationContext],
    takes: Callable[[str], bool] = lambda _sop_class_uid: True,
    *,
    storage_commitment: bool = False,
) -> list[PresentationContext]:
    """What this node supports of what a requestor proposes, for negotiation as acceptor (PS3.8 section 7.1.1.13).

    takes : whether a storage SOP Class is taken from this requestor; the others are left out, and the library then
        answers them with "abstract syntax not supported" (PS3.8 Table 9-18).
    storage_commitment : whether this acceptor serves it; the requestor is its SCU, its SCP (an archive that reports on
        an association of its own) or both.

    The requestor's own order of Transfer Syntaxes decides, because it stands for what its files have; only Explicit
    VR Little Endian goes before Implicit where both are offered, because Implicit loses the VR of private elements.
    """
    offers = tuple((str(context.abstract_syntax), tuple(map(str, context.transfer_syntax))) for context in proposed)
    found = ((str(context.abstract_syntax), context) for context in _supported(offers, storage_commitment))
    return [context for uid, context in found if not is_storage_class(uid) or takes(uid)]


@lru_cache(maxsize=64)  # a sender proposes the same every time, often 128 contexts; the library only reads the answer
def _supported(
    offers: tuple[tuple[str, tuple[str, ...]], ...], storage_commitment: bool
) -> tuple[PresentationContext, ...]:
    wanted: dict[str, list[str]] = {}
    for abstract_syntax, offered in offers:
        if abstract_syntax == VERIFICATION or (storage_commitment and abstract_syntax == STORAGE_COMMITMENT):
            known = [s for s in offered if s in SERVICE_SYNTAXES]
        elif is_storage_class(abstract_syntax):
            known = [s for s in offered if s in TRANSFER_SYNTAXES]
        else:
            continue
        syntaxes = wanted.setdefault(abstract_syntax, [])
        syntaxes += [syntax for syntax in known if syntax not in syntaxes]
    for syntaxes in wanted.values():
        if EXPLICIT_LITTLE in syntaxes and IMPLICIT_LITTLE in syntaxes:
            explicit, implicit = syntaxes.index(EXPLICIT_LITTLE), syntaxes.index(IMPLICIT_LITTLE)
            if implicit < explicit:
                syntaxes[implicit], syntaxes[explicit] = EXPLICIT_LITTLE, IMPLICIT_LITTLE
    # a context without any known syntax is answered "transfer syntaxes not supported", which names the trouble
    contexts = [
        build_context(abstract_syntax, syntaxes or [EXPLICIT_LITTLE]) for abstract_syntax, syntaxes in wanted.items()
    ]
    for context in contexts:
        if context.abstract_syntax == STORAGE_COMMITMENT:
            # what the requestor may be, if it asks (PS3.7 D.3.3.4): it asks us, or reports on what we asked it
            context.scu_role, context.scp_role = True, True
    return tuple(contexts)


def commitment_request_context() -> PresentationContext:
    """What is proposed to an archive that is asked: we, the requestor, are the SCU, as without role selection."""
    return build_context(STORAGE_COMMITMENT, [EXPLICIT_LITTLE, IMPLICIT_LITTLE])


def verification_context() -> PresentationContext:
    """What is proposed for C-ECHO."""
    return build_context(VERIFICATION)


def commitment_report_context() -> tuple[PresentationContext, SCP_SCU_RoleSelectionNegotiation]:
    """What is proposed on an association that is opened to report: we, the requestor, are the SCP (PS3.4 J.3.3)."""
    role = build_role(STORAGE_COMMITMENT, scu_role=False, scp_role=True)
    return build_context(STORAGE_COMMITMENT, [EXPLICIT_LITTLE, IMPLICIT_LITTLE]), role


def proposed_contexts(pairs: Sequence[tuple[str, str]]) -> list[list[PresentationContext]]:
    """Presentation contexts for exactly these (SOP Class, Transfer Syntax) pairs, one list per association.

    One context per pair: a peer that takes a SOP Class in another Transfer Syntax only must say so, it must not
    accept a syntax that the files do not have. At most 128 per association.
    """
    distinct = list(dict.fromkeys(pairs))
    contexts = [build_context(sop_class, syntax) for sop_class, syntax in distinct]
    return [contexts[start : start + MAX_CONTEXTS] for start in range(0, len(contexts), MAX_CONTEXTS)]
