"""A cheap look at the first bytes of an encoded Dataset: is it one, and is it the object that the command names?

PS3.4 Table B.2-1 has a status for both failures: C000 (cannot understand) and A900 (does not match). Only tags, lengths
and two values are read, in Python's own integers: an ordinary CT header takes a few microseconds. Everything doubtful
is let pass, for the whole header is read once more, by another process, before anything is done with the object.
"""

import struct
import zlib
from dataclasses import dataclass
from enum import Enum
from struct import Struct

from dicom_node.dimse.status import CANNOT_UNDERSTAND, DATASET_MISMATCH, RefusedError

#: How much of a Dataset's beginning is worth keeping for this: more is never looked at.
MAX_START_BYTES = 64 * 1024

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"
#: Deflated Explicit VR Little Endian, and the two of JPIP that are deflated as a whole (PS3.5 A.5, A.7, A.9)
DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_SOP_CLASS_UID, _SOP_INSTANCE_UID = 0x00080016, 0x00080018
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_UNKNOWN_TOTAL = 1 << 62
_INFLATED_BYTES = (4096, MAX_START_BYTES)  # nearly always the first is enough
_STEP_BYTES = 256

#: VRs with 2 bytes of length, and those with 4 after 2 reserved ones (PS3.5 section 7.1.2).
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_VRS = _SHORT_VRS | _LONG_VRS

_LITTLE_EXPLICIT, _BIG_EXPLICIT = Struct("<HH2sH"), Struct(">HH2sH")
_LITTLE_LONG, _BIG_LONG = Struct("<L"), Struct(">L")
_LITTLE_IMPLICIT = Struct("<HHL")


class Verdict(Enum):
    """What the first bytes say."""

    CONSISTENT = "consistent"  #: both UIDs were found and are those of the command
    MISMATCH = "mismatch"  #: a UID was found and is another one
    NOT_A_DATASET = "not a Dataset"  #: empty, noise, another byte order or Transfer Syntax, absurd lengths
    UNKNOWN = "unknown"  #: a UID was not found, in bytes that may well be a Dataset


@dataclass(frozen=True)
class DatasetStart:
    """Verdict with its reason; UIDs are None where they were not found."""

    verdict: Verdict
    reason: str
    sop_class_uid: str | None = None
    sop_instance_uid: str | None = None


class _BrokenError(Exception):
    """No element can be here; the text says why."""


class _EndError(Exception):
    """The bytes that are at hand end here."""


def look_at(
    start: bytes | bytearray | memoryview,
    transfer_syntax_uid: str,
    sop_class_uid: str,
    sop_instance_uid: str,
    total_bytes: int | None = None,
) -> DatasetStart:
    """Compare the beginning of a Dataset with the Affected SOP Class and Instance UIDs of its C-STORE request.

    start : the first bytes as they were sent; what goes beyond MAX_START_BYTES is not looked at.
    transfer_syntax_uid : the one negotiated. Explicit VR found under Implicit VR and the reverse, which some senders
        do and every reader of ours understands, is let pass; another byte order is not a Dataset.
    total_bytes : length of the whole Dataset as sent, None: not known yet. A length that reaches beyond it is absurd
        at the first element, and a truncation (UNKNOWN) later on.
    Never raises; a Dataset that was cut off anywhere is never a MISMATCH, as a UID counts only when it is whole.
    """
    view = memoryview(start)[:MAX_START_BYTES]
    if not view:
        return DatasetStart(Verdict.NOT_A_DATASET, "the Dataset is empty")
    if transfer_syntax_uid in DEFLATED:
        return _look_at_deflated(view, sop_class_uid, sop_instance_uid)
    total = _UNKNOWN_TOTAL if total_bytes is None else total_bytes
    walk = _Walk(view, total, transfer_syntax_uid == EXPLICIT_BIG, transfer_syntax_uid == IMPLICIT_LITTLE)
    return walk.compare(sop_class_uid, sop_instance_uid)


def require_consistent(
    start: bytes | bytearray | memoryview,
    transfer_syntax_uid: str,
    sop_class_uid: str,
    sop_instance_uid: str,
    total_bytes: int | None = None,
) -> None:
    """Raise RefusedError with the status of PS3.4 Table B.2-1 when `look_at` finds no Dataset, or another object."""
    found = look_at(start, transfer_syntax_uid, sop_class_uid, sop_instance_uid, total_bytes)
    if found.verdict is Verdict.NOT_A_DATASET:
        raise RefusedError(CANNOT_UNDERSTAND, found.reason)
    if found.verdict is Verdict.MISMATCH:
        raise RefusedError(DATASET_MISMATCH, found.reason)


def _look_at_deflated(start: memoryview, sop_class_uid: str, sop_instance_uid: str) -> DatasetStart:
    """Inflate no more than is needed, 64 KiB at most: a bomb stays small. PS3.5 section A.5: no zlib header."""
    for most in _INFLATED_BYTES:
        inflated, is_broken, is_all = _inflated(start, most)
        if not inflated:
            if is_broken or is_all:
                return DatasetStart(Verdict.NOT_A_DATASET, "the Dataset is not deflated")
            return DatasetStart(Verdict.UNKNOWN, "it ends before its UIDs")
        total = len(inflated) if is_all or is_broken else _UNKNOWN_TOTAL
        walk = _Walk(memoryview(inflated), total, False, False)
        found = walk.compare(sop_class_uid, sop_instance_uid)
        if len(inflated) < most or found.verdict is not Verdict.UNKNOWN:
            break
    return found


def _inflated(start: memoryview, most: int) -> tuple[bytes, bool, bool]:
    """-> the first `most` bytes at most, whether they end at an error, whether they are all there are."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        return inflater.decompress(start, most), False, inflater.eof
    except zlib.error:
        pass
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)  # it does not give out what came before an error: in small steps
    inflated = b""
    for position in range(0, len(start), _STEP_BYTES):
        try:
            inflated += inflater.decompress(start[position : position + _STEP_BYTES], most - len(inflated))
        except zlib.error:
            break
        if len(inflated) >= most:
            break
    return inflated, True, False


class _Walk:
    """From element to element, as far as (0008,0018)."""

    def __init__(self, start: memoryview, total_bytes: int, is_big: bool, is_implicit: bool) -> None:
        self._bytes = start
        self._total = max(total_bytes, len(start))
        self._is_big = is_big
        self._is_implicit = is_implicit
        self._explicit = _BIG_EXPLICIT if is_big else _LITTLE_EXPLICIT
        self._long = _BIG_LONG if is_big else _LITTLE_LONG

    def compare(self, sop_class_uid: str, sop_instance_uid: str) -> DatasetStart:
        found: dict[int, str] = {}
        reason = "the UIDs are not where they should be"
        try:
            self._read_uids(found)
        except _EndError:
            reason = "it ends before its UIDs"
        except _BrokenError as error:
            return DatasetStart(Verdict.NOT_A_DATASET, f"not a Dataset: {error}")
        of_class, of_instance = found.get(_SOP_CLASS_UID), found.get(_SOP_INSTANCE_UID)
        # UIDs of the Dataset are not in the reason: it goes into Error Comment and log, and may hold anything
        if of_instance is not None and of_instance != sop_instance_uid:
            verdict, reason = Verdict.MISMATCH, "SOP Instance UID of the Dataset is not that of the command"
        elif of_class is not None and of_class != sop_class_uid:
            verdict, reason = Verdict.MISMATCH, "SOP Class UID of the Dataset is not that of the command"
        elif of_class is not None and of_instance is not None:
            verdict, reason = Verdict.CONSISTENT, ""
        else:
            verdict = Verdict.UNKNOWN
        return DatasetStart(verdict, reason, of_class, of_instance)

    def _read_uids(self, found: dict[int, str]) -> None:
        """Put the values of the two UIDs into `found`. Raises _EndError, and _BrokenError at the beginning only."""
        position, last, seen = 0, -1, 0
        self._judge_first()
        while last < _SOP_INSTANCE_UID or seen < 4:  # what begins beyond the UIDs must look like a Dataset, too
            if position == self._total:
                return
            tag, length, value = self._header(position)
            if tag == 0 and seen and not found:  # nothing but zeros
                raise _BrokenError("its elements are in no order")
            if length == _UNDEFINED:
                if not seen and self._header(value)[0] not in (_ITEM, _SEQUENCE_END):
                    raise _BrokenError("its first element has no end")
                position = self._after_items(value)
            elif not seen and self._is_absurd(tag, value + length):
                raise _BrokenError("its first element is longer than can be")
            else:
                position = value + length
                if tag in (_SOP_CLASS_UID, _SOP_INSTANCE_UID):
                    if position > len(self._bytes):
                        raise _EndError
                    text = bytes(self._bytes[value:position]).decode("latin-1").strip("\0 ")
                    if text:  # an empty one is told by whoever reads the whole header
                        found[tag] = text
            last, seen = max(tag, last), seen + 1

    def _is_absurd(self, tag: int, end: int) -> bool:
        """Whether a first element cannot end there. In the group where the UIDs are it may, in what was cut off."""
        return tag >> 16 != 0x0008 and (end > self._total or (end > MAX_START_BYTES and tag > _SOP_INSTANCE_UID))

    def _judge_first(self) -> None:
        """Another byte order or VR encoding shows in the first element. Raises _BrokenError, _EndError."""
        if len(self._bytes) < 8:
            if len(self._bytes) >= self._total:
                raise _BrokenError("it is shorter than one element")
            raise _EndError
        group, _, vr, short = self._explicit.unpack_from(self._bytes)
        if group & 0xFF == 0 and 0 < group >> 8 <= 0x08:  # 0x0800: no such group; 0x0008 the other way round
            raise _BrokenError("the byte order is not that of its Transfer Syntax")
        # a length made of two capital letters would be 16 kB or more: no value that comes first is so long
        if self._is_implicit and vr in _VRS and (vr in _LONG_VRS or 8 + short <= self._total):
            self._is_implicit = False

    def _header(self, position: int) -> tuple[int, int, int]:
        """-> tag, length, position of the value. Raises _EndError, _BrokenError."""
        try:
            if self._is_implicit:
                group, element, length = _LITTLE_IMPLICIT.unpack_from(self._bytes, position)
                return group << 16 | element, length, position + 8
            group, element, vr, length = self._explicit.unpack_from(self._bytes, position)
            tag = group << 16 | element
            if vr in _SHORT_VRS:
                return tag, length, position + 8
            if vr in _LONG_VRS:
                return tag, self._long.unpack_from(self._bytes, position + 8)[0], position + 12
            if group == 0xFFFE or not vr.isalpha() or not vr.isupper():  # items, or Implicit VR in between
                return tag, self._long.unpack_from(self._bytes, position + 4)[0], position + 8
        except struct.error:
            raise _EndError from None
        # a VR of a later edition of the standard: those have 4 bytes of length (PS3.5 section 7.1.2, note)
        try:
            return tag, self._long.unpack_from(self._bytes, position + 8)[0], position + 12
        except struct.error:
            raise _EndError from None

    def _after_items(self, position: int) -> int:
        """Where a value of undefined length ends, at any depth. Every step goes forward. Raises _EndError."""
        depth = 1
        while depth:
            tag, length, value = self._header(position)
            if tag == _SEQUENCE_END:
                depth -= 1
                position = value
            elif tag == _ITEM_END or (tag == _ITEM and length == _UNDEFINED):
                position = value
            elif length == _UNDEFINED:
                depth += 1
                position = value
            else:
                position = value + length
        return position
