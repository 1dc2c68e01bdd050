"""Command Sets of C-STORE (PS3.7 section 9.3.1), to and from bytes: always Implicit VR Little Endian, group 0000."""

import struct
from dataclasses import dataclass

C_STORE_RQ, C_ECHO_RQ, C_CANCEL_RQ = 0x0001, 0x0030, 0x0FFF
RESPONSE = 0x8000  # set in the Command Field of every response
_NO_DATASET = 0x0101

# elements of group 0000 (PS3.7 Table E.1-1)
_AFFECTED_SOP_CLASS_UID = 0x0002
_COMMAND_FIELD = 0x0100
_MESSAGE_ID = 0x0110
_MESSAGE_ID_BEING_RESPONDED_TO = 0x0120
_COMMAND_DATA_SET_TYPE = 0x0800
_STATUS = 0x0900
_ERROR_COMMENT = 0x0902
_AFFECTED_SOP_INSTANCE_UID = 0x1000

_ELEMENT = struct.Struct("<HHI")
_US = struct.Struct("<H")
_COMMAND_LAST_FRAGMENT = 0x03


class MalformedCommandError(Exception):
    """The bytes are no Command Set; the text says why."""


@dataclass(frozen=True, slots=True)
class Command:
    """What is needed of any Command Set, and of C-STORE-RQ in particular; None: the element is not there."""

    command_field: int | None
    message_id: int | None
    has_dataset: bool
    sop_class_uid: str  # affected; empty: missing or blank
    sop_instance_uid: str


def decode(encoded: bytes | bytearray) -> Command:
    """Read a Command Set. Raises MalformedCommandError."""
    values: dict[int, bytes] = {}
    offset, end = 0, len(encoded)
    while offset < end:
        if offset + 8 > end:
            raise MalformedCommandError(f"{end - offset} bytes left over after the last element")
        group, element, length = _ELEMENT.unpack_from(encoded, offset)
        offset += 8
        if group:
            raise MalformedCommandError(f"an element of group {group:04X}")
        if length > end - offset:
            raise MalformedCommandError(f"(0000,{element:04X}) of {length} bytes, {end - offset} are there")
        values[element] = bytes(encoded[offset : offset + length])
        offset += length
    return Command(
        command_field=_number(values, _COMMAND_FIELD),
        message_id=_number(values, _MESSAGE_ID),
        has_dataset=_number(values, _COMMAND_DATA_SET_TYPE) not in (None, _NO_DATASET),
        sop_class_uid=_uid(values, _AFFECTED_SOP_CLASS_UID),
        sop_instance_uid=_uid(values, _AFFECTED_SOP_INSTANCE_UID),
    )


def _number(values: dict[int, bytes], element: int) -> int | None:
    value = values.get(element)
    if value is None:
        return None
    if len(value) != 2:
        raise MalformedCommandError(f"(0000,{element:04X}) of {len(value)} bytes, a US has 2")
    return int(_US.unpack(value)[0])


def _uid(values: dict[int, bytes], element: int) -> str:
    return values.get(element, b"").decode("ascii", "replace").strip("\0 ")


def store_response(
    context_id: int,
    message_id: int,
    sop_class_uid: str,
    sop_instance_uid: str,
    status: int,
    comment: str = "",
    request_field: int = C_STORE_RQ,
) -> bytes:
    """C-STORE-RSP, or the response to another request, as one whole PDU (PS3.7 Table 9.3-2, PS3.8 section 9.3.5).

    An empty UID is left out. comment : Error Comment (0000,0902), ASCII, at most 64 characters are sent.
    request_field : Command Field of the request.
    """
    elements = b""
    if sop_class_uid:
        elements += _text(_AFFECTED_SOP_CLASS_UID, sop_class_uid, b"\0")
    elements += _short(_COMMAND_FIELD, request_field | RESPONSE)
    elements += _short(_MESSAGE_ID_BEING_RESPONDED_TO, message_id)
    elements += _short(_COMMAND_DATA_SET_TYPE, _NO_DATASET)
    elements += _short(_STATUS, status)
    if comment:
        elements += _text(_ERROR_COMMENT, comment[:64], b" ")
    if sop_instance_uid:
        elements += _text(_AFFECTED_SOP_INSTANCE_UID, sop_instance_uid, b"\0")
    command = struct.pack("<HHII", 0, 0, 4, len(elements)) + elements
    size = len(command)
    return struct.pack(">BxIIBB", 0x04, size + 6, size + 2, context_id, _COMMAND_LAST_FRAGMENT) + command


def _short(element: int, value: int) -> bytes:
    return struct.pack("<HHIH", 0, element, 2, value)


def _text(element: int, text: str, padding: bytes) -> bytes:
    value = text.encode("ascii", "replace")
    if len(value) % 2:
        value += padding
    return _ELEMENT.pack(0, element, len(value)) + value
