"""Plain values out of a Dataset's unparsed elements.

A value is read by what the data dictionary says the element is, not by the VR that the sender wrote, so that a
wrong VR, UN, an empty value or a wrong character set costs that value at most and never the Instance.
"""

import math
import re
import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from pydicom import Dataset, charset
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement

MAX_TEXT_CHARACTERS = 1024

_SPECIFIC_CHARACTER_SET = 0x00080005
_BINARY = {"US", "UL", "SS", "SL", "FL", "FD", "US or SS"}
_UID = re.compile(r"[0-9]+(\.[0-9]+)*")


def valid_uid(text: str | None) -> bool:
    """Digits and dots, at most 64 characters (PS3.5 section 9.1); leading zeros, which some makers write, may stay."""
    return text is not None and len(text) <= 64 and _UID.fullmatch(text) is not None


def decoded(value: bytes, encodings: list[str]) -> str:
    """Text of any element, never failing: declared character set, else UTF-8, GB 2312, Latin-1."""
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    if set(encodings) - {"iso8859", "latin_1"}:  # those two are what senders of other texts declare, too
        try:
            return charset.decode_bytes(value, encodings, set())
        except (LookupError, ValueError):
            pass
    chinese = _gb_text(value)
    try:
        text = value.decode("utf-8")
    except UnicodeDecodeError:
        return chinese or value.decode("latin-1")
    # Two GB 2312 characters may happen to be valid UTF-8: letters that no European language writes (U+0180 to U+036F).
    return chinese if chinese and any("\u0180" <= c <= "\u036f" for c in text) else text


def _gb_text(value: bytes) -> str | None:
    """The text as GB 2312, which Chinese scanners often write while they declare nothing, or Latin-1; else None.

    Its high bytes come in pairs from A1 up, which Western text has only where two accented letters meet.
    """
    runs = re.findall(rb"[\x80-\xff]+", value)
    if not runs or any(len(run) % 2 or min(run) < 0xA1 for run in runs):
        return None
    try:
        return value.decode("gb2312")
    except UnicodeDecodeError:
        return None


def plain_text(text: str) -> str:
    """Without padding, NUL, control and lone surrogate characters, which neither JSON columns nor pages can hold."""
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text.replace("\x00", ""))
    if not text.isascii():
        text = text.encode("utf-8", "replace").decode("utf-8")
    return text.strip()[:MAX_TEXT_CHARACTERS]


def _number(text: str) -> float | None:
    try:
        value = float(text.strip("\x00 ").replace(",", "."))
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def age_years(text: str) -> float | None:
    """Age String (AS), such as 052Y or 018M, in years."""
    match = re.fullmatch(r"\s*(\d{1,3})\s*([DWMY]?)\s*", text, re.ASCII)
    if match is None:
        return None
    return round(int(match[1]) / {"D": 365.25, "W": 52.18, "M": 12.0, "Y": 1.0, "": 1.0}[match[2]], 2)


def whole(number: float | None) -> int | None:
    """The number as an integer if it is one and no more than 32 bits, as IS and UL demand."""
    return int(number) if number is not None and abs(number) < 2**32 and number == int(number) else None


@lru_cache(maxsize=64)
def _encodings(declared: bytes) -> list[str]:
    try:
        return charset.convert_encodings(declared.decode("latin-1").strip("\x00 ").split("\\"))
    except (LookupError, ValueError):
        return []


class RawElement(NamedTuple):
    """An element's value as it was written; VR is None where the Transfer Syntax does not say it."""

    VR: str | None
    value: bytes
    is_little_endian: bool


def raw_elements(dataset: Dataset) -> dict[int, RawElement]:
    """The elements of a Dataset that were not converted yet, and its character set, which pydicom always converts."""
    found = {
        int(e.tag): RawElement(e.VR, e.value, e.is_little_endian)
        for e in dataset.values()
        if isinstance(e, RawDataElement) and isinstance(e.value, bytes)
    }
    declared = dataset.get_item(_SPECIFIC_CHARACTER_SET)
    if isinstance(declared, DataElement) and declared.value:
        values = [declared.value] if isinstance(declared.value, str) else declared.value
        text = "\\".join(str(value) for value in values)
        found[_SPECIFIC_CHARACTER_SET] = RawElement("CS", text.encode("latin-1", "replace"), True)
    return found


class ElementValues:
    """Values by tag; None for what is absent, empty or unreadable. Nothing here raises."""

    def __init__(self, elements: Mapping[int, RawElement]) -> None:
        self._raw = elements
        self._encodings: list[str] = []
        declared = self._bytes(_SPECIFIC_CHARACTER_SET)
        if declared:
            self._encodings = _encodings(declared)

    def _bytes(self, tag: int) -> bytes | None:
        raw = self._raw.get(tag)
        return raw.value if raw is not None and raw.value else None

    def text(self, tag: int) -> str | None:
        value = self._bytes(tag)
        return None if value is None else plain_text(decoded(value, self._encodings)) or None

    def texts(self, tag: int) -> list[str] | None:
        text = self.text(tag)
        return None if text is None else [part.strip() for part in text.split("\\")]

    def numbers(self, tag: int) -> list[float] | None:
        """Backslash-separated decimals; None unless every one can be read."""
        value = self._bytes(tag)
        if value is None:
            return None
        found = [_number(part) for part in value.decode("latin-1").split("\\")]
        numbers = [n for n in found if n is not None]
        return numbers if len(numbers) == len(found) else None

    def number(self, tag: int) -> float | None:
        """First value of a number, whether it is written as text (DS, IS) or in binary."""
        raw, value = self._raw.get(tag), self._bytes(tag)
        if raw is None or value is None:
            return None
        if raw.VR in (None, "UN"):
            try:
                is_binary = dictionary_VR(tag) in _BINARY
            except KeyError:
                is_binary = False
        else:
            is_binary = raw.VR in _BINARY
        if not is_binary:
            return _number(value.decode("latin-1").split("\\")[0])
        formats = {2: "h" if raw.VR == "SS" else "H", 4: {"FL": "f", "SL": "l"}.get(raw.VR or "", "L"), 8: "d"}
        if len(value) not in formats:
            return None
        number = float(struct.unpack(("<" if raw.is_little_endian else ">") + formats[len(value)], value)[0])
        return number if math.isfinite(number) else None
