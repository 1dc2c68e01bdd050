"""How a rule names an attribute, and how its values are found in a header (DICOM JSON model, PS3.18 Annex F).

Three ways to name one:  Modality · (0018,1030) or 0018,1030 · (0019,xx9C) GEMS_PARM_01, a private element through its
Private Creator, whatever block the creator was given in this object (PS3.5 7.8.1).
"""

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydicom._dicom_dict import DicomDictionary
from pydicom.datadict import dictionary_has_tag, dictionary_VR, tag_for_keyword

from dicom_node.recognition.json_header import KEPT_PATIENT_KEYWORDS, is_kept

_PUBLIC = re.compile(r"\(?([0-9A-Fa-f]{4}),\s*([0-9A-Fa-f]{4})\)?")
_PRIVATE = re.compile(r"\(?([0-9A-Fa-f]{4}),\s*xx([0-9A-Fa-f]{2})\)?\s+(\S.*)")
_KEYWORDS = [entry[4] for entry in DicomDictionary.values() if entry[4]]


@dataclass(frozen=True)
class Attribute:
    """One attribute, named once and resolved for every header."""

    text: str  # as the administrator wrote it
    group: int
    element: int  # of a private one: the last two digits
    creator: str = ""  # Private Creator; empty for a public attribute

    def values(self, header: Mapping[str, Any]) -> tuple[Any, ...] | None:
        """The values in a header; () when the element is there without a value, None when it is absent.

        header : DICOM JSON model. Person names give their alphabetic part; sequences give the number of items.
        """
        key = self._key(header)
        item = header.get(key) if key else None
        if not isinstance(item, Mapping):
            return None
        values = item.get("Value")
        if not isinstance(values, list):
            return ()
        if item.get("vr") == "SQ":
            return (len(values),)
        return tuple(_plain(value) for value in values if value is not None)

    def _key(self, header: Mapping[str, Any]) -> str | None:
        if not self.creator:
            return f"{self.group:04X}{self.element:04X}"
        for block in range(0x10, 0x100):
            found = header.get(f"{self.group:04X}{block:04X}")
            if isinstance(found, Mapping) and _first_text(found) == self.creator:
                return f"{self.group:04X}{block << 8 | self.element:04X}"
        return None


def parse_attribute(text: str) -> Attribute:
    """Resolve what the administrator wrote. Raises ValueError with a suggestion where it is no attribute."""
    text = text.strip()
    if private := _PRIVATE.fullmatch(text):
        group = int(private[1], 16)
        if not group % 2:
            raise ValueError(f"attribute {text!r}: private elements have an odd group")
        return Attribute(text, group, int(private[2], 16), private[3].strip().strip("\"'"))
    if public := _PUBLIC.fullmatch(text):
        group = int(public[1], 16)
        if group % 2:
            raise ValueError(
                f"attribute {text!r} is private: name it by its Private Creator, as in "
                f"'({public[1]},xx{public[2][2:]}) CREATOR'; the block differs from object to object"
            )
        return _public(text, group << 16 | int(public[2], 16))
    tag = tag_for_keyword(text)
    if tag is None:
        near = difflib.get_close_matches(text[:64], _KEYWORDS, n=1, cutoff=0.6)
        hint = f"; did you mean {near[0]}?" if near else "; a DICOM keyword such as Modality or (gggg,eeee) is needed"
        raise ValueError(f"unknown attribute {text!r}{hint}")
    return _public(text, tag)


def _public(text: str, tag: int) -> Attribute:
    """A public attribute, unless the rules' headers never hold it: then a condition on it could never be met."""
    if not is_kept(tag, dictionary_VR(tag) if dictionary_has_tag(tag) else None):
        there = ", ".join(sorted(KEPT_PATIENT_KEYWORDS))
        raise ValueError(
            f"attribute {text}: rules do not see what identifies a person; of the patient there are {there}"
        )
    return Attribute(text, tag >> 16, tag & 0xFFFF)


def _first_text(item: Mapping[str, Any]) -> str:
    values = item.get("Value")
    return str(values[0]).strip() if isinstance(values, list) and values else ""


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):  # a person name
        return str(value.get("Alphabetic") or next(iter(value.values()), ""))
    return value
