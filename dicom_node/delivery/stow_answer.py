"""What an archive answers to STOW-RS, object by object (PS3.18 section 10.5.3, Store Instances Response Module)."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dicom_node.delivery import Fate, Outcome
from dicom_node.dimse.status import PROCESSING_FAILURE, SOP_CLASS_NOT_SUPPORTED, describe, is_transient

# tags as the DICOM JSON Model writes them (PS3.18 Annex F)
_REFERENCED_SOP_SEQUENCE, _FAILED_SOP_SEQUENCE = "00081199", "00081198"
_REFERENCED_SOP_INSTANCE_UID, _FAILURE_REASON, _WARNING_REASON = "00081155", "00081197", "00081196"
#: The archive has an object of this UID: PS3.7 C.5.7, and what Azure's DICOM service says (45070). Bytes of ours never
#: change under a UID, so it is this object, of which an answer was lost.
_IS_THERE_ALREADY = (0x0111, 0xB00E)

#: The request as a whole, perhaps for one of its objects.
_REFUSED_TOGETHER = (400, 409, 413, 415, 422)
_IS_BUSY = (408, 425, 429, 502, 503, 504)
_MEANINGS = {
    400: "it cannot read the request",
    401: "it does not accept the node's credentials",
    403: "the node may not store there",
    404: "no STOW-RS service is at this URL",
    405: "no STOW-RS service is at this URL",
    409: "it cannot store the object",
    413: "the object is too large for it",
    415: "it does not take DICOM objects",
    429: "it asks for fewer requests",
    501: "no STOW-RS service is at this URL",
    503: "it is busy",
    507: "it has no room",
}


@dataclass(frozen=True)
class StowAnswer:
    """One response."""

    status: int  # of HTTP
    stored: Mapping[str, int] = field(default_factory=dict)  # SOP Instance UID -> Warning Reason (0008,1196), 0: none
    failed: Mapping[str, int] = field(default_factory=dict)  # SOP Instance UID -> Failure Reason (0008,1197)
    wait_s: float = 0.0  # as Retry-After asks

    @property
    def is_refused_as_a_whole(self) -> bool:
        """Refused without a word about single objects."""
        return self.status in _REFUSED_TOGETHER and not self.stored and not self.failed

    @property
    def is_about_the_archive(self) -> bool:
        """Other objects would get the same answer now."""
        return self.status in (401, 403, 404, 405, 407, 501, *_IS_BUSY) or 300 <= self.status < 400


def read_answer(status: int, content_type: str, content: bytes, wait_s: float = 0.0) -> StowAnswer:
    """The answer in a response. A payload that is no DICOM JSON says nothing about single objects; never raises."""
    stored: dict[str, int] = {}
    failed: dict[str, int] = {}
    if "json" in content_type.lower():
        try:
            document = json.loads(content)
        except (ValueError, RecursionError):
            document = None
        for dataset in document if isinstance(document, list) else [document]:
            stored |= _reasons(dataset, _REFERENCED_SOP_SEQUENCE, _WARNING_REASON, 0)
            failed |= _reasons(dataset, _FAILED_SOP_SEQUENCE, _FAILURE_REASON, PROCESSING_FAILURE)
    return StowAnswer(status, stored, failed, wait_s)


def _reasons(dataset: Any, sequence: str, reason: str, without: int) -> dict[str, int]:
    found = {}
    for item in _values(dataset, sequence):
        for uid in _values(item, _REFERENCED_SOP_INSTANCE_UID)[:1]:
            try:
                found[str(uid)] = int(*_values(item, reason)[:1]) or without
            except (ValueError, TypeError):
                found[str(uid)] = without
    return found


def _values(dataset: Any, tag: str) -> list[Any]:
    element = dataset.get(tag) if isinstance(dataset, dict) else None
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def outcome_of(answer: StowAnswer, sop_instance_uid: str, peer: str) -> Outcome:
    """What became of one object of the request. `status` of the outcome is DICOM's; HTTP's stands in the reason."""
    if sop_instance_uid in answer.failed:
        reason = answer.failed[sop_instance_uid]
        if reason in _IS_THERE_ALREADY:
            return Outcome(Fate.DELIVERED, 0, "it was there already")
        return Outcome(_fate(reason), reason, f"{peer}: {describe(reason)}", answer.wait_s)
    if sop_instance_uid in answer.stored:
        warning = answer.stored[sop_instance_uid]
        return Outcome(Fate.DELIVERED, warning, describe(warning) if warning else "")
    if 200 <= answer.status < 300:
        if answer.stored or answer.failed:
            return Outcome(Fate.BUSY, None, f"{peer} answered HTTP {answer.status} without a word about this object")
        if answer.status == 202:  # some were stored, some not
            return Outcome(Fate.BUSY, None, f"{peer} answered HTTP 202 and does not say which objects it stored")
        return Outcome(Fate.DELIVERED, 0)
    is_elsewhere = 300 <= answer.status < 400
    words = "it points elsewhere; url must be the final address" if is_elsewhere else _MEANINGS.get(answer.status)
    text = f"{peer} answered HTTP {answer.status}" + (f": {words}" if words else "")
    if answer.status in _IS_BUSY:
        return Outcome(Fate.AWAY, None, text, answer.wait_s)
    if answer.is_about_the_archive:
        return Outcome(Fate.REJECTED, None, text)
    return Outcome(Fate.BUSY if answer.status >= 500 else Fate.REFUSED, None, text, answer.wait_s)


def _fate(failure_reason: int) -> Fate:
    """By PS3.18 Table I.2-2, whose Failure Reasons are the statuses of C-STORE but for C122."""
    if failure_reason == SOP_CLASS_NOT_SUPPORTED:
        return Fate.NOT_TAKEN
    return Fate.BUSY if is_transient(failure_reason) else Fate.REFUSED
