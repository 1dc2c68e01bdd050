"""P-DATA-TF PDUs and the presentation data values in them (PS3.8 section 9.3.5 and Annex E), as a stream."""

import struct
from typing import Protocol

_PDU_HEADER = struct.Struct(">BxI")
_PDV_HEADER = struct.Struct(">IBB")
_P_DATA_TF = 0x04
_COMMAND = 0x01
_LAST = 0x02


class MalformedPduError(Exception):
    """The peer breaks PS3.8; the association must be aborted. The text says how."""


class Fragments(Protocol):
    """Takes message fragments in the order in which they come."""

    def part(self, context_id: int, is_command: bool, data: memoryview) -> None:
        """The next bytes of a fragment, which may come in many parts; valid until the buffer behind is used again."""

    def end(self, context_id: int, is_command: bool) -> None:
        """The Command Set or Dataset is complete: its last fragment has ended."""


class PDataReader:
    """Cuts a stream of P-DATA-TF PDUs into parts of fragments, wherever the network has cut it."""

    def __init__(self, fragments: Fragments, max_pdu_bytes: int) -> None:
        """max_pdu_bytes : a PDU announced to be longer is refused (nothing is ever allocated for it)."""
        self._fragments = fragments
        self._max_pdu_bytes = max_pdu_bytes
        self._pdu_left = 0  # bytes of the PDU that are still to come
        self._pdv_left = 0  # of the fragment in it
        self._context_id = 0
        self._is_command = self._is_last = False
        self.is_before_other_pdu = False  # the next PDU is not P-DATA-TF: not for this reader

    @property
    def bytes_left(self) -> int:
        """Of the PDU that has begun; 0: it has ended."""
        return self._pdu_left

    def feed(self, data: memoryview) -> int:
        """Take bytes and return how many were used up: all but a header that is not there whole.

        Stops in front of a PDU of another type. Raises MalformedPduError, and what the fragments' taker raises.
        """
        position, end = 0, len(data)
        self.is_before_other_pdu = False
        while True:
            if self._pdv_left:
                count = min(self._pdv_left, end - position)
                if not count:
                    return position
                self._fragments.part(self._context_id, self._is_command, data[position : position + count])
                position += count
                self._pdu_left -= count
                self._pdv_left -= count
                if not self._pdv_left and self._is_last:
                    self._fragments.end(self._context_id, self._is_command)
            elif self._pdu_left:
                if end - position < 6:
                    return position
                self._begin_value(*_PDV_HEADER.unpack_from(data, position))
                position += 6
            else:
                if end - position < 6:
                    return position
                kind, length = _PDU_HEADER.unpack_from(data, position)
                if kind != _P_DATA_TF:
                    self.is_before_other_pdu = True
                    return position
                self._begin_pdu(length)
                position += 6

    def _begin_pdu(self, length: int) -> None:
        if length > self._max_pdu_bytes:
            raise MalformedPduError(f"P-DATA-TF of {length} bytes, at most {self._max_pdu_bytes} are taken")
        if 0 < length < 6:
            raise MalformedPduError(f"P-DATA-TF of {length} bytes: too short for a presentation data value")
        self._pdu_left = length

    def _begin_value(self, length: int, context_id: int, control: int) -> None:
        # Bits 2 to 7 of the message control header are not looked at (PS3.8 Annex E.2).
        if length < 2 or length + 4 > self._pdu_left:
            raise MalformedPduError(f"presentation data value of {length} bytes in the last {self._pdu_left} of a PDU")
        self._pdu_left -= 6
        if 0 < self._pdu_left - (length - 2) < 6:
            raise MalformedPduError("bytes left over behind the last presentation data value of a PDU")
        self._pdv_left = length - 2
        self._context_id = context_id
        self._is_command = bool(control & _COMMAND)
        self._is_last = bool(control & _LAST)
        if not self._pdv_left and self._is_last:
            self._fragments.end(context_id, self._is_command)
