"""The bytes of a result object as nested elements: Explicit VR Little Endian (PS3.5 section 7), read strictly.

A reader of its own, on purpose: what wrote the object must not be what judges it, and pydicom's objects per element
would take most of the time that reading back may cost. Anything a careful receiver could stumble over is an error: odd
lengths, tags out of order, a VR that nobody knows, items that end elsewhere than they say.
"""

import struct
from collections.abc import Iterator
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from pydicom.charset import convert_encodings, decode_bytes
from pydicom.datadict import keyword_for_tag, tag_for_keyword

_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FD FL IS LO LT PN SH SL SS ST TM UI UL US".split())
_LONG_VRS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
_BINARY_VRS = frozenset(b"AT FD FL OB OD OF OL OV OW SL SS SV UL UN US UV".split())
_DTYPES = {b"US": "<u2", b"SS": "<i2", b"UL": "<u4", b"SL": "<i4", b"FL": "<f4", b"FD": "<f8"}
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_element_at = struct.Struct("<HH2sH").unpack_from
_item_at = struct.Struct("<HHL").unpack_from
_long_at = struct.Struct("<L").unpack_from
_DEEPEST = 64


class BrokenBytesError(Exception):
    """The bytes are not elements, or an element not what its VR says; the text says which and why."""


class Item(dict[int, tuple[bytes, "bytes | list[Item]"]]):
    """A Dataset or an item of a sequence: tag -> (VR, value); the value of a sequence is its items."""

    def has(self, keyword: str) -> bool:
        """Whether the element is there with a value: for a sequence, with an item."""
        found = self.get(tag_of(keyword))
        if found is None:
            return False
        vr, value = found
        return bool(value if isinstance(value, list) or vr in _BINARY_VRS else value.strip(b" \0"))

    def raw(self, keyword: str) -> bytes:
        """Bytes of the value without padding; empty where there are none, and for a sequence."""
        return self.padded(keyword).rstrip(b" \0")

    def padded(self, keyword: str) -> bytes:
        """Bytes of the value as they are written; empty where there are none, and for a sequence."""
        found = self.get(tag_of(keyword))
        return found[1] if found is not None and isinstance(found[1], bytes) else b""

    def text(self, keyword: str) -> str:
        """A value of the repertoire that needs no character set: UID, code, number as text."""
        return self.raw(keyword).decode("ascii", "replace").strip()

    def words(self, keyword: str) -> list[str]:
        """The same of a multi-valued element."""
        return [part.strip() for part in self.text(keyword).split("\\")] if self.has(keyword) else []

    def sequence(self, keyword: str) -> "list[Item]":
        """Items of a sequence; none where there is no such sequence."""
        found = self.get(tag_of(keyword))
        return found[1] if found is not None and isinstance(found[1], list) else []

    def first(self, keyword: str) -> "Item":
        """First item of a sequence; one without elements where there is none."""
        return next(iter(self.sequence(keyword)), _NOTHING)

    def numbers(self, keyword: str) -> NDArray[np.float64]:
        """Numbers of an element, by its VR; empty where there are none. Raises BrokenBytesError for a text."""
        found = self.get(tag_of(keyword))
        if found is None or not isinstance(found[1], bytes) or not found[1]:
            return np.empty(0)
        if found[0] in _DTYPES:
            return np.frombuffer(found[1], dtype=_DTYPES[found[0]]).astype(np.float64)
        try:
            return np.array([float(part) for part in found[1].rstrip(b" \0").split(b"\\") if part.strip()])
        except ValueError:
            raise BrokenBytesError(f"{name_of(tag_of(keyword))} is no number") from None

    def integer(self, keyword: str) -> int | None:
        """The only number of an element, or None."""
        found = self.numbers(keyword)
        return int(found[0]) if len(found) == 1 else None

    def code(self, keyword: str) -> tuple[str, str]:
        """(Coding Scheme Designator, Code Value) of the first item of a code sequence; empty texts where none is."""
        item = self.first(keyword)
        return item.text("CodingSchemeDesignator"), item.text("CodeValue") or item.text("LongCodeValue")


_NOTHING = Item()


@lru_cache(maxsize=512)
def tag_of(keyword: str) -> int:
    """The tag of a keyword of PS3.6."""
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)
    return tag


@lru_cache(maxsize=2048)
def keyword_of(tag: int) -> str:
    """The keyword of a tag of PS3.6; empty for one that is not there."""
    return str(keyword_for_tag(tag))


def name_of(tag: int) -> str:
    """An element as PS3.3 names it in messages: "Patient ID" is PatientID (0010,0020)."""
    return f"{keyword_of(tag)} ({tag >> 16:04X},{tag & 0xFFFF:04X})".strip()


def read_elements(data: bytes, start: int, end: int | None = None, *, last_group: int = 0xFFFF) -> tuple[Item, int]:
    """The elements from `start` on, up to and with those of `last_group`, and the position behind them.

    Values of encapsulated pixels are left empty. Raises BrokenBytesError.
    """
    try:
        return _read(data, start, len(data) if end is None else end, last_group, 0)
    except (struct.error, IndexError):
        raise BrokenBytesError("the bytes end within an element") from None


def walk(dataset: Item) -> Iterator[tuple[str, Item]]:
    """Every item of every sequence, at any depth, with the keyword of its sequence."""
    for tag, (_, value) in dataset.items():
        if isinstance(value, list):
            keyword = keyword_of(tag)
            for item in value:
                yield keyword, item
                yield from walk(item)


def decoded(value: bytes, character_set: list[str]) -> str:
    """Text in the Dataset's character set. Raises UnicodeError, LookupError where it cannot be."""
    encodings = convert_encodings(character_set or [""])
    if len(encodings) == 1:
        return value.decode(encodings[0])
    text: str = decode_bytes(value, encodings, {0x0A, 0x0C, 0x0D, 0x5C})  # code extensions; replaces what it cannot
    if "\N{REPLACEMENT CHARACTER}" in text:
        raise UnicodeError
    return text


def _read(data: bytes, position: int, end: int, last_group: int, depth: int) -> tuple[Item, int]:
    if depth > _DEEPEST:
        raise BrokenBytesError("sequences are nested too deeply")
    found, last = Item(), -1
    while position < end:
        group, element, vr, length = _element_at(data, position)
        tag = group << 16 | element
        if group > last_group or tag == _ITEM_END:
            return found, position
        if tag <= last:
            raise BrokenBytesError(f"{name_of(tag)} comes after {name_of(last)}")
        last = tag
        position += 8
        if vr in _LONG_VRS:
            (length,) = _long_at(data, position)
            position += 4
        elif vr not in _SHORT_VRS:
            raise BrokenBytesError(f"{name_of(tag)} has the VR {vr!r}")
        if vr == b"SQ":
            items, position = _read_items(data, position, length, end, tag, depth)
            found[tag] = vr, items
        elif length == _UNDEFINED:
            position = _behind_fragments(data, position)
            found[tag] = vr, b""
        else:
            if length % 2 or position + length > end:
                raise BrokenBytesError(f"{name_of(tag)} has {length} bytes, {end - position} are left")
            found[tag] = vr, data[position : position + length]
            position += length
    return found, position


def _read_items(data: bytes, position: int, length: int, end: int, tag: int, depth: int) -> tuple[list[Item], int]:
    stop = end if length == _UNDEFINED else position + length
    if stop > end:
        raise BrokenBytesError(f"{name_of(tag)} ends beyond what holds it")
    items: list[Item] = []
    while position < stop:
        group, element, size = _item_at(data, position)
        position += 8
        marker = group << 16 | element
        if marker == _SEQUENCE_END and length == _UNDEFINED:
            return items, position
        if marker != _ITEM:
            raise BrokenBytesError(f"{name_of(tag)} holds something that is no item")
        item_end = stop if size == _UNDEFINED else position + size
        if item_end > stop:
            raise BrokenBytesError(f"an item of {name_of(tag)} ends beyond its sequence")
        item, position = _read(data, position, item_end, 0xFFFF, depth + 1)
        if size == _UNDEFINED:
            position += 8  # its Item Delimitation Item
        elif position != item_end:
            raise BrokenBytesError(f"an item of {name_of(tag)} ends elsewhere than it says")
        items.append(item)
    return items, position


def _behind_fragments(data: bytes, position: int) -> int:
    """The position behind encapsulated pixels (PS3.5 A.4)."""
    while True:
        group, element, length = _item_at(data, position)
        position += 8
        if group << 16 | element == _SEQUENCE_END:
            return position
        if group << 16 | element != _ITEM or length % 2:
            raise BrokenBytesError("encapsulated pixels are not fragments of even length")
        position += length
