"""Status codes and what they mean for the one who must act (PS3.4 Table B.2-1, PS3.7 Annex C)."""

import errno
from collections.abc import Mapping
from types import MappingProxyType

SUCCESS = 0x0000
INVALID_SOP_INSTANCE = 0x0117  # the UID breaks the rules for UIDs (PS3.7 C.5.20)
DUPLICATE_SOP_INSTANCE = 0x0111
SOP_CLASS_NOT_SUPPORTED = 0x0122
NOT_AUTHORISED = 0x0124
PROCESSING_FAILURE = 0x0110
UNRECOGNISED_OPERATION = 0x0211
# of N-ACTION (PS3.7 section 10.1.4.1.10); three of them are Failure Reasons of Storage Commitment as well
NO_SUCH_SOP_INSTANCE = 0x0112
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
NO_SUCH_SOP_CLASS = 0x0118
CLASS_INSTANCE_CONFLICT = 0x0119
NO_SUCH_ACTION = 0x0123
RESOURCE_LIMITATION = 0x0213
OUT_OF_RESOURCES = 0xA700
DATASET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000

_TEXTS = {
    0x0000: "success",
    0x0105: "no such attribute",
    0x0110: "processing failure",
    0x0111: "duplicate SOP Instance",
    0x0112: "no such SOP Instance",
    0x0113: "no such event type",
    0x0114: "no such argument",
    0x0115: "invalid argument value",
    0x0117: "invalid SOP Instance UID",
    0x0118: "no such SOP Class",
    0x0119: "class-instance conflict",
    0x0122: "SOP Class not supported",
    0x0123: "no such action",
    0x0124: "not authorised",
    0x0131: "duplicate Transaction UID",
    0x0210: "duplicate invocation",
    0x0211: "unrecognised operation",
    0x0212: "mistyped argument",
    0x0213: "resource limitation",
    0xB000: "stored, data elements coerced",
    0xB006: "stored, elements discarded",
    0xB007: "stored, Dataset does not match its SOP Class",
}


#: Every status that our SCP answers C-STORE with (PS3.4 Table B.2-1, PS3.7 section 9.1.1.1.9), and when.
STORE_STATUSES: Mapping[int, str] = MappingProxyType(
    {
        SUCCESS: "the object is kept; also when the same bytes are here already",
        OUT_OF_RESOURCES: "the object cannot be written, or the disk is nearly full: to be sent again later",
        DATASET_MISMATCH: "SOP Class UID or SOP Instance UID in the Dataset is not that of the command",
        CANNOT_UNDERSTAND: "the Dataset is missing, empty or none in this Transfer Syntax, or names no SOP Instance",
        PROCESSING_FAILURE: "an error inside this node",
        INVALID_SOP_INSTANCE: "Affected SOP Instance UID breaks the rules for UIDs (PS3.5 section 9.1)",
        SOP_CLASS_NOT_SUPPORTED: "Affected SOP Class UID is not one of storage",
        NOT_AUTHORISED: "objects of this SOP Class are not taken from this sender (configuration)",
        UNRECOGNISED_OPERATION: "an operation other than C-STORE and C-ECHO on a storage or Verification context",
    }
)

#: Every status that our SCP answers N-ACTION of Storage Commitment with (PS3.7 section 10.1.4.1.10), and when.
ACTION_STATUSES: Mapping[int, str] = MappingProxyType(
    {
        SUCCESS: "the request is kept on disk; its answer will come as N-EVENT-REPORT",
        PROCESSING_FAILURE: "an error inside this node",
        NO_SUCH_SOP_INSTANCE: "Requested SOP Instance UID is not the well-known one (PS3.4 section J.3.5)",
        INVALID_ARGUMENT_VALUE: "Transaction UID or references are missing, no UIDs or cannot be read",
        NO_SUCH_SOP_CLASS: "Requested SOP Class UID is not Storage Commitment Push Model",
        CLASS_INSTANCE_CONFLICT: "the well-known SOP Instance was asked for under another SOP Class",
        NO_SUCH_ACTION: "Action Type ID is not 1",
        RESOURCE_LIMITATION: "the request cannot be kept, or too many references or requests at a time",
    }
)

#: Every status that our SCU of Storage Commitment answers N-EVENT-REPORT with (PS3.7 section 10.1.1.1.8), and when.
EVENT_STATUSES: Mapping[int, str] = MappingProxyType(
    {
        SUCCESS: "the report is kept",
        PROCESSING_FAILURE: "an error inside this node, or the report cannot be kept now",
        NO_SUCH_SOP_INSTANCE: "Affected SOP Instance UID is not the well-known one (PS3.4 section J.3.5)",
        NO_SUCH_EVENT_TYPE: "Event Type ID is neither 1 nor 2",
        INVALID_ARGUMENT_VALUE: "not a transaction that this archive was asked, or it cannot be read",
        NO_SUCH_SOP_CLASS: "Affected SOP Class UID is not Storage Commitment Push Model",
        CLASS_INSTANCE_CONFLICT: "the well-known SOP Instance was named under another SOP Class",
        RESOURCE_LIMITATION: "the report cannot be kept",
    }
)


class RefusedError(Exception):
    """The object is answered with this failure status; `comment` becomes Error Comment (0000,0902)."""

    def __init__(self, status: int, comment: str) -> None:
        super().__init__(comment)
        self.status = status
        self.comment = comment


class AbortAssociationError(Exception):
    """Instead of an answer the association is aborted."""


def status_of(error: Exception) -> tuple[int, str]:
    """C-STORE status and Error Comment for what went wrong while an object was taken in.

    Everything that the operating system reports is a lack of resources: the object is in order, and the sender
    should send it again.
    """
    if isinstance(error, RefusedError):
        return error.status, error.comment
    if isinstance(error, OSError):
        name = errno.errorcode.get(error.errno or 0, type(error).__name__)
        return OUT_OF_RESOURCES, f"cannot be written: {name}"
    if isinstance(error, MemoryError):
        return OUT_OF_RESOURCES, "out of memory"
    return PROCESSING_FAILURE, f"internal error: {type(error).__name__}"


def is_success_or_warning(status: int) -> bool:
    """The peer has done what it was asked. 0xB000-0xBFFF and 0x0001 are warnings (PS3.7 Annex C.3)."""
    return status in (SUCCESS, 0x0001, 0x0107, 0x0116) or 0xB000 <= status <= 0xBFFF


def is_stored(status: int) -> bool:
    """Success or warning: the peer has the object."""
    return is_success_or_warning(status)


def is_transient(status: int) -> bool:
    """Whether the same object may well be taken later.

    The peer is out of resources (A7xx, 0213), or something went wrong over there that it blames on nothing in the
    object (0110): archives answer so while their database is away.
    """
    return 0xA700 <= status <= 0xA7FF or status in (PROCESSING_FAILURE, RESOURCE_LIMITATION)


def describe(status: int) -> str:
    """Words for a status, with its number."""
    text = _TEXTS.get(status)
    if text is None:
        for low, high, words in (
            (0xA700, 0xA7FF, "out of resources"),
            (0xA900, 0xA9FF, "Dataset does not match its SOP Class"),
            (0xB000, 0xBFFF, "stored with a warning"),
            (0xC000, 0xCFFF, "cannot be understood"),
        ):
            if low <= status <= high:
                text = words
    return f"status 0x{status:04X} ({text or 'unknown'})"
