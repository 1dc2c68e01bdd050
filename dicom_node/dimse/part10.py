"""The few bytes before a Dataset in a DICOM file (PS3.10 section 7.1): written for what arrives, read to send."""

import struct
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from dicom_node.errors import NodeError

#: Identifies this software in file meta information; derived once at random (PS3.5 Annex B.2).
IMPLEMENTATION_CLASS_UID = "2.25.311230983290348934176823157318452390814"
IMPLEMENTATION_VERSION_NAME = "DICOM-NODE"

_PREAMBLE = b"\0" * 128 + b"DICM"
_LONG_VRS = (b"OB", b"OW", b"OF", b"OD", b"OL", b"OV", b"SQ", b"UC", b"UR", b"UT", b"UN", b"SV", b"UV")
_MAX_META_BYTES = 64 * 1024
_NEEDED = {0x0002, 0x0003, 0x0010}


def file_head(sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str, source_ae_title: str = "") -> bytes:
    """Preamble, "DICM" and File Meta Information; the encoded Dataset follows as it is.

    UIDs are ASCII; the AE title that sent the object goes into Source Application Entity Title (0002,0016).
    """
    before, after = _around_instance_uid(sop_class_uid, transfer_syntax_uid, source_ae_title)
    elements = before + _element(0x0003, b"UI", sop_instance_uid) + after
    return _PREAMBLE + struct.pack("<HH2sHI", 2, 0x0000, b"UL", 4, len(elements)) + elements


@lru_cache(maxsize=256)
def _around_instance_uid(sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> tuple[bytes, bytes]:
    """The elements that all objects of a series have in common, in front of the one that they have not, and behind."""
    before = struct.pack("<HH2sxxI", 2, 0x0001, b"OB", 2) + b"\0\1" + _element(0x0002, b"UI", sop_class_uid)
    after = (
        _element(0x0010, b"UI", transfer_syntax_uid)
        + _element(0x0012, b"UI", IMPLEMENTATION_CLASS_UID)
        + _element(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME)
        + (_element(0x0016, b"AE", source_ae_title) if source_ae_title else b"")
    )
    return before, after


def _element(element: int, vr: bytes, text: str) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value


@dataclass(frozen=True)
class FileHead:
    """What a C-STORE request needs to know of a file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int  # bytes from the start of the file


class NotPart10Error(NodeError):
    """The file has no File Meta Information that names its object; the text says what is missing."""


def read_file_head(path: Path) -> FileHead:
    """Read File Meta Information only. Raises NotPart10Error, OSError."""
    with path.open("rb") as file:
        return parse_file_head(file.read(len(_PREAMBLE) + _MAX_META_BYTES), path.name)


def parse_file_head(start: bytes, name: str) -> FileHead:
    """The same from the first bytes of a file; `name` is for the message. Raises NotPart10Error."""
    if start[128:132] != b"DICM":
        raise NotPart10Error(f"{name}: no DICOM file (PS3.10)")
    values, offset = _meta_values(start)
    try:
        return FileHead(values[0x0002], values[0x0003], values[0x0010], offset)
    except KeyError as error:
        missing = int(error.args[0])
        raise NotPart10Error(f"{name}: File Meta Information lacks (0002,{missing:04X})") from None


def _meta_values(start: bytes) -> tuple[dict[int, str], int]:
    """Text values of group 0002 by element number, and the offset of the first element of another group.

    What a Dataset has in group 0002, where nothing of it belongs (PS3.5 section 7.1), is not File Meta Information:
    it begins where (0002,0000) says; only a length that is too small to hold what is needed is not believed.
    """
    values: dict[int, str] = {}
    offset, dataset_at = 132, len(start)
    while offset + 8 <= len(start) and (offset < dataset_at or not values.keys() >= _NEEDED):
        group, element, vr, length = struct.unpack_from("<HH2sH", start, offset)
        if group != 2:
            break
        offset += 8
        if vr in _LONG_VRS:
            (length,) = struct.unpack_from("<I", start, offset) if offset + 4 <= len(start) else (0,)
            offset += 4
        if (element, length) == (0, 4) and not values:
            dataset_at = offset + 4 + struct.unpack_from("<I", start.ljust(offset + 4, b"\0"), offset)[0]
        values[element] = start[offset : offset + length].decode("ascii", "replace").strip("\0 ")
        offset += length
    return values, offset
