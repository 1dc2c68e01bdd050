"""From element to element through the bytes of a file, without a parser: for the many objects that are in order.

A Python object per element costs more than everything else that is done with a header. Here only the elements that are
asked for become objects. What is unusual (Deflated, a VR nobody knows, elements out of order, a header longer than
what was read) is left to pydicom (parsing.py); the answers are the same.
"""

import struct
import zlib
from collections.abc import Callable, Container
from dataclasses import dataclass
from struct import Struct

from dicom_node.recognition.values import RawElement

#: What a caller should have read of a file for `scan`.
BEGINNING_BYTES = 32 * 1024

_IMPLICIT_LITTLE = "1.2.840.10008.1.2"
_EXPLICIT_BIG = "1.2.840.10008.1.2.2"
_DEFLATED = frozenset({"1.2.840.10008.1.2.1.99", "1.2.840.10008.1.2.4.95", "1.2.840.10008.1.2.4.205"})

_PIXEL_DATA = 0x7FE00010
#: Command Set and File Meta Information have no place in a Dataset; pydicom reads what looks like them in its own way.
_LAST_BEFORE_DATASET = 0x0003FFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_SHORT_VRS = {vr: vr.decode() for vr in b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split()}
_LONG_VRS = {vr: vr.decode() for vr in b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split()}
_READ_ON_BYTES = 4096
_MOST_VALUE_BYTES = 64 * 1024  # of an element that is asked for
#: fragments and elements behind the beginning: more than a multi-frame object of any exam has
_MOST_STEPS = 200_000
_MOST_INFLATED_BYTES = 64 << 20
_INFLATED_STEP_BYTES = 1 << 20

ReadAt = Callable[[int, int], bytes]


@dataclass(frozen=True)
class Beginning:
    """What was read of a file already: its first bytes and what File Meta Information says."""

    content: bytes  # the first BEGINNING_BYTES, or all of it
    size_bytes: int  # of the whole file
    dataset_offset: int
    transfer_syntax_uid: str
    sop_class_uid: str


@dataclass(frozen=True)
class Scan:
    """The elements that were asked for, and whether the file ends where its last element does."""

    elements: dict[int, RawElement]
    cut_off: str  # empty: it is whole; else which element ends beyond the end of the file


class _UnusualError(Exception):
    """To be read by pydicom."""


class _CutOffError(Exception):
    """An element ends beyond the end of the file."""

    def __init__(self, tag: int, length: int) -> None:
        super().__init__(f"element ({tag >> 16:04X},{tag & 0xFFFF:04X}) of {length} bytes ends beyond the file")


def scan(beginning: Beginning, tags: Container[int], last_tag: int, read_at: ReadAt) -> Scan | None:
    """The elements of the Dataset that are in `tags`, and whether it is whole; None: let pydicom read this one.

    tags, last_tag : none of `tags` is above `last_tag`; empty values are left out.
    read_at : (offset, length) -> bytes of the file, for elements behind the beginning. What it raises comes through.
    Pixel values are stepped over. Nothing nested is looked at, so depth costs no stack.
    """
    if beginning.transfer_syntax_uid in _DEFLATED:
        cut_off = _inflates_badly(beginning, read_at)
        return Scan({}, cut_off) if cut_off else None
    walk = _Walk(beginning, read_at)
    elements: dict[int, RawElement] = {}
    try:
        position, cut_off = walk.collect(elements, tags, last_tag), ""
        try:
            walk.to_the_end(position)
        except _CutOffError as error:
            cut_off = str(error)
    except _CutOffError as error:
        return Scan(elements, str(error))
    except (_UnusualError, struct.error):
        return None
    return Scan(elements, cut_off)


def _inflates_badly(beginning: Beginning, read_at: ReadAt) -> str:
    """Why a deflated Dataset is not whole; empty where it is, or where it unpacks to more than is worth unpacking."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated, position = 0, beginning.dataset_offset
    try:
        while position < beginning.size_bytes and not inflater.eof and inflated < _MOST_INFLATED_BYTES:
            packed = read_at(position, _INFLATED_STEP_BYTES)
            position += len(packed) or beginning.size_bytes
            while packed and inflated < _MOST_INFLATED_BYTES:
                inflated += len(inflater.decompress(packed, _INFLATED_STEP_BYTES))
                packed = inflater.unconsumed_tail
    except zlib.error:
        return "its deflated bytes are damaged"
    return "" if inflater.eof or inflated >= _MOST_INFLATED_BYTES else "its deflated bytes have no end"


class _Walk:
    """Positions are offsets in the file."""

    def __init__(self, beginning: Beginning, read_at: ReadAt) -> None:
        self._content = beginning.content
        self._size = beginning.size_bytes
        self._start = beginning.dataset_offset
        self._is_implicit = beginning.transfer_syntax_uid == _IMPLICIT_LITTLE
        self._is_little = beginning.transfer_syntax_uid != _EXPLICIT_BIG
        order = "<" if self._is_little else ">"
        self._explicit, self._long = Struct(order + "HH2sH"), Struct(order + "L")
        self._implicit = Struct(order + "HHL")
        self._read_at = read_at
        self._window, self._window_at = b"", 0

    def collect(self, elements: dict[int, RawElement], tags: Container[int], last_tag: int) -> int:
        """Fill `elements`; the position of the first element above last_tag, or of the end."""
        content, size, position, last = self._content, self._size, self._start, _LAST_BEFORE_DATASET
        is_implicit, is_little, known = self._is_implicit, self._is_little, len(content)
        explicit, implicit, long = self._explicit.unpack_from, self._implicit.unpack_from, self._long.unpack_from
        short_vr, long_vr = _SHORT_VRS.get, _LONG_VRS.get
        if is_implicit and content[position + 4 : position + 6] in _ALL_VRS:
            raise _UnusualError  # Explicit VR under the name of Implicit
        vr: str | None = None
        while position < size:
            value = position + 8
            if value + 4 > known and known < size:
                return self._collect_on(position, last, elements, tags, last_tag)
            if value > size:
                raise _CutOffError(max(last, 0), 0)
            if is_implicit:
                group, element, length = implicit(content, position)
            else:
                group, element, code, length = explicit(content, position)
                vr = short_vr(code)
                if vr is None:
                    vr = long_vr(code)
                    if vr is None:
                        raise _UnusualError
                    (length,) = long(content, value)
                    value += 4
            tag = group << 16 | element
            if tag <= last:
                raise _UnusualError
            if tag > last_tag:
                return position
            last = tag
            if length == _UNDEFINED:
                position = self._after_items(value, tag)
                continue
            position = value + length
            if position > size:
                raise _CutOffError(tag, length)
            if tag in tags:
                whole = position <= known
                elements[tag] = RawElement(
                    vr, content[value:position] if whole else self._value(value, length), is_little
                )
        return position

    def _collect_on(
        self, position: int, last: int, elements: dict[int, RawElement], tags: Container[int], last_tag: int
    ) -> int:
        """The same behind the beginning: large private elements push what we look for out of it."""
        for _ in range(_MOST_STEPS):
            if position >= self._size:
                return position
            tag, vr, length, value = self._header(position)
            if tag <= last:
                raise _UnusualError
            if tag > last_tag:
                return position
            last = tag
            if length == _UNDEFINED:
                position = self._after_items(value, tag)
                continue
            position = value + length
            if position > self._size:
                raise _CutOffError(tag, length)
            if tag in tags:
                elements[tag] = RawElement(vr, self._value(value, length), self._is_little)
        raise _UnusualError

    def _value(self, position: int, length: int) -> bytes:
        if position + length <= len(self._content):
            return self._content[position : position + length]
        if length > _MOST_VALUE_BYTES:
            raise _UnusualError
        return self._read_at(position, length)

    def to_the_end(self, position: int) -> None:
        """Step over what is left. Raises _CutOffError."""
        last = 0
        for _ in range(_MOST_STEPS):
            if position >= self._size or (last >= _PIXEL_DATA and position + 8 > self._size):
                return  # some writers pad the file
            tag, _, length, value = self._header(position)
            if last >= _PIXEL_DATA and tag <= last:
                return  # padding, too
            if length == _UNDEFINED:
                position = self._after_items(value, tag)
            else:
                position = value + length
                if position > self._size:
                    if last >= _PIXEL_DATA:
                        return
                    raise _CutOffError(tag, length)
            last = tag

    def _header(self, position: int) -> tuple[int, str | None, int, int]:
        """-> tag, VR, length, position of the value. Raises _CutOffError, _UnusualError."""
        content = self._at(position)
        at = position - self._window_at if content is self._window else position
        if self._is_implicit:
            group, element, length = self._implicit.unpack_from(content, at)
            return group << 16 | element, None, length, position + 8
        group, element, code, length = self._explicit.unpack_from(content, at)
        tag = group << 16 | element
        vr = _SHORT_VRS.get(code)
        if vr is not None:
            return tag, vr, length, position + 8
        if group == 0xFFFE:
            return tag, None, self._long.unpack_from(content, at + 4)[0], position + 8
        vr = _LONG_VRS.get(code)
        if vr is None:
            raise _UnusualError
        if at + 12 > len(content):
            raise _CutOffError(tag, 0)
        return tag, vr, self._long.unpack_from(content, at + 8)[0], position + 12

    def _at(self, position: int) -> bytes:
        """Bytes in which at least the next header lies."""
        if position + 8 > self._size:
            raise _CutOffError(_ITEM_END, 0)
        needed = min(position + 12, self._size)
        if needed <= len(self._content):
            return self._content
        if not (self._window_at <= position and needed <= self._window_at + len(self._window)):
            self._window_at, self._window = position, self._read_at(position, _READ_ON_BYTES)
            if len(self._window) < needed - position:
                raise _CutOffError(_ITEM_END, 0)
        return self._window

    def _after_items(self, position: int, tag: int) -> int:
        """The position behind a value of undefined length. Items of defined length are stepped over."""
        depth = 1
        for _ in range(_MOST_STEPS):
            if depth == 1 and tag >= _PIXEL_DATA and position >= self._size:
                return position  # fragments to the last byte, and no delimiter: every decoder takes it
            inner, _, length, value = self._header(position)
            if inner == _SEQUENCE_END:
                depth -= 1
                position = value
                if not depth:
                    return position
            elif inner == _ITEM_END or (inner == _ITEM and length == _UNDEFINED):
                position = value
            elif length == _UNDEFINED:
                depth += 1
                position = value
            else:
                position = value + length
                if position > self._size:
                    raise _CutOffError(tag, length)
        raise _UnusualError


_ALL_VRS = frozenset(_SHORT_VRS) | frozenset(_LONG_VRS)
