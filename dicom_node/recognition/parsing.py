"""Opening a DICOM file up to an element, with every failure of the parser turned into one error."""

import zlib
from collections.abc import Iterable
from io import BufferedReader, BytesIO, FileIO, RawIOBase
from pathlib import Path

from pydicom import Dataset
from pydicom.filereader import read_dataset, read_file_meta_info, read_partial

from dicom_node.errors import NodeError


class UnreadableHeader(NodeError):
    """The bytes are no usable DICOM Instance; the text names the element or the place."""


class NotDicom(UnreadableHeader):
    """No Instance at all: another kind of file, or a DICOMDIR."""


#: Bytes that are read for a header; values that are skipped do not count. Parsing costs 5 s per MB of tiny sequence
#: items, and one such object must not hold up the others.
MAX_PARSED_BYTES = 512 * 1024
#: Where a Deflated Dataset's header must have ended; its pixels, and bombs, are not inflated.
MAX_INFLATED_BYTES = 4 * 1024 * 1024
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_META_BYTES = 2048


class _TooMuch(Exception):
    """The header is longer than anybody needs."""


class _Bounded(BufferedReader):
    """A stream that gives out only so many bytes; seeking past a value is free."""

    def __init__(self, stream: RawIOBase, most: int) -> None:
        super().__init__(stream)
        self._left = most

    def read(self, size: int | None = -1, /) -> bytes:
        found = super().read(size)
        self._left -= len(found)
        if self._left < 0:
            raise _TooMuch
        return found


def is_part10(path: Path) -> bool:
    """Whether the file has the preamble and prefix of PS3.10 section 7.1."""
    with path.open("rb") as file:
        return file.read(132)[128:] == b"DICM"


def parse_elements(
    path: Path,
    last_tag: int,
    tags: Iterable[int] | None = None,
    *,
    skip_over_bytes: int | None = None,
    most_bytes: int = MAX_PARSED_BYTES,
) -> Dataset:
    """The elements up to `last_tag`, or of them those in `tags`, not yet converted.

    skip_over_bytes : values longer than this are left unread (their raw value is None).
    Raises UnreadableHeader, also when more than `most_bytes` would have to be read.
    """
    try:
        with _Bounded(FileIO(path), most_bytes + _META_BYTES) as stream:
            beginning = stream.read(_META_BYTES)
            if _DEFLATED in beginning:
                return _inflated_elements(path, last_tag, tags, skip_over_bytes, most_bytes)
            stream.seek(0)
            return read_partial(
                stream,
                stop_when=lambda tag, _vr, _length: tag > last_tag,
                defer_size=skip_over_bytes,
                force=beginning[128:132] != b"DICM",
                specific_tags=None if tags is None else list(tags),
            )
    except OSError:
        raise
    except _TooMuch as error:
        raise UnreadableHeader(f"{path.name}: the header is longer than {most_bytes >> 10} kB") from error
    except RecursionError as error:
        raise UnreadableHeader(f"{path.name}: sequences are nested too deeply to be read") from error
    except Exception as error:  # pydicom raises many kinds on broken bytes: struct, zlib, EOF, Value, Type, Key
        raise UnreadableHeader(f"{path.name}: the Dataset cannot be parsed ({type(error).__name__})") from error


def _inflated_elements(
    path: Path, last_tag: int, tags: Iterable[int] | None, skip_over_bytes: int | None, most_bytes: int
) -> Dataset:
    """The same for the Deflated Explicit VR Little Endian Transfer Syntax (PS3.5 A.5), inflating the beginning only."""
    meta = read_file_meta_info(path)
    with path.open("rb") as file:
        file.seek(128 + 4)
        # File Meta Information Group Length (0002,0000) is the first element: 12 bytes, its value the rest's length.
        first = file.read(12)
        file.seek(int.from_bytes(first[8:], "little"), 1)
        inflated = zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    stream = _Bounded(BytesIO(inflated), most_bytes)  # type: ignore[arg-type] # a BytesIO will do for a raw stream
    dataset = read_dataset(
        stream,
        is_implicit_VR=False,
        is_little_endian=True,
        stop_when=lambda tag, _vr, _length: tag > last_tag,
        defer_size=skip_over_bytes,
        specific_tags=None if tags is None else list(tags),
    )
    dataset.file_meta = meta
    return dataset
