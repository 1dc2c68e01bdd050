"""Private elements that recognition needs, found through their Private Creators (PS3.5 section 7.8.1).

The block that a creator reserves is chosen by the writer and may move on every re-write of the file, so that a tag
such as (0019,109C) says nothing until (0019,0010) was read.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dicom_node.recognition.parsing import UnreadableHeader, parse_elements
from dicom_node.recognition.values import ElementValues, RawElement, raw_elements, whole


@dataclass(frozen=True)
class PrivateElement:
    """One private element by creator; `element` is the low byte of the element number."""

    creator: str
    group: int
    element: int
    is_text: bool


#: Key of Instance.attributes -> element, read of every Instance. They lie before the public elements end.
PRIVATE_ELEMENTS: Mapping[str, PrivateElement] = {
    "GePulseSequenceName": PrivateElement("GEMS_ACQU_01", 0x0019, 0x9C, True),
    # "number of echoes" and "fast phases" to GE; its elastography sequences count their motion directions in them
    "GeDirectionsEpi": PrivateElement("GEMS_ACQU_01", 0x0019, 0x7E, False),
    "GeDirectionsGre": PrivateElement("GEMS_ACQU_01", 0x0019, 0xF2, False),
    # 23 fields between underscores, the last counts the motion directions
    "SiemensMreFields": PrivateElement("SIEMENS MR SDI 02", 0x0021, 0x8E, True),
}
#: The same, read in a second look that only images of elastography cost.
LATER_PRIVATE_ELEMENTS: Mapping[str, PrivateElement] = {
    "GeImageKind": PrivateElement("GEMS_PARM_01", 0x0043, 0x2F, False),  # 0 magnitude, 1 phase, 2 real, 3 imaginary
    "PhilipsSlices": PrivateElement("Philips Imaging DD 001", 0x2001, 0x18, False),
    "PhilipsDynamics": PrivateElement("Philips Imaging DD 001", 0x2001, 0x81, False),
}
PRIVATE_KEYS: tuple[str, ...] = (*PRIVATE_ELEMENTS, *LATER_PRIVATE_ELEMENTS)

_BLOCKS = range(0x10, 0x100)


def tags_of(elements: Mapping[str, PrivateElement]) -> frozenset[int]:
    """Every tag at which one of the elements, or a creator in its group, may stand."""
    groups = {element.group for element in elements.values()}
    creators = {group << 16 | block for group in groups for block in _BLOCKS}
    values = {e.group << 16 | block << 8 | e.element for e in elements.values() for block in _BLOCKS}
    return frozenset(creators | values)


PRIVATE_TAGS = tags_of(PRIVATE_ELEMENTS)
_PRIVATE_GROUPS = frozenset(element.group for element in PRIVATE_ELEMENTS.values())
_LATER_TAGS = tags_of(LATER_PRIVATE_ELEMENTS)
_LAST_LATER_TAG = max(_LATER_TAGS)


def private_values(
    raw: Mapping[int, RawElement], elements: Mapping[str, PrivateElement] = PRIVATE_ELEMENTS
) -> dict[str, Any]:
    """Values of the elements whose Private Creator is there, by key; of `raw`, other elements are not looked at."""
    found: dict[str, Any] = {}
    if _PRIVATE_GROUPS.isdisjoint(tag >> 16 for tag in raw) and elements is PRIVATE_ELEMENTS:
        return found
    values = ElementValues(raw)
    blocks = {
        (tag >> 16, values.text(tag)): tag & 0xFF for tag in raw if tag >> 16 & 1 and 0x10 <= tag & 0xFFFF <= 0xFF
    }
    for key, element in elements.items():
        block = blocks.get((element.group, element.creator))
        if block is None:
            continue
        tag = element.group << 16 | block << 8 | element.element
        value = values.text(tag) if element.is_text else _integer(raw.get(tag), values, tag)
        if value is not None:
            found[key] = value
    return found


def _integer(raw: RawElement | None, values: ElementValues, tag: int) -> int | None:
    """A binary integer whatever VR was written: Implicit VR files do not say it, and the tag alone means nothing."""
    if raw is None or not raw.value:
        return None
    if raw.VR in (None, "UN") and len(raw.value) in (2, 4) and not raw.value.strip(b" \x00").isdigit():
        return int.from_bytes(raw.value, "little" if raw.is_little_endian else "big", signed=True)
    return whole(values.number(tag))


def later_private_values(path: Path) -> dict[str, Any]:
    """LATER_PRIVATE_ELEMENTS of one file; empty where they cannot be read."""
    try:
        dataset = parse_elements(path, _LAST_LATER_TAG, _LATER_TAGS)
    except UnreadableHeader:
        return {}
    return private_values(raw_elements(dataset), LATER_PRIVATE_ELEMENTS)
