"""Opening a DICOM file up to an element, with every failure of the parser turned into one error."""

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

from pydicom import Dataset
from pydicom.filereader import read_partial

from dicom_node.errors import NodeError


class UnreadableHeader(NodeError):
    """The bytes are no usable DICOM Instance; the text names the element or the place."""


class NotDicom(UnreadableHeader):
    """No Instance at all: another kind of file, or a DICOMDIR."""


def _is_part10(file: BinaryIO) -> bool:
    file.seek(128)
    found = file.read(4) == b"DICM"
    file.seek(0)
    return found


def is_part10(path: Path) -> bool:
    """Whether the file has the preamble and prefix of PS3.10 section 7.1."""
    with path.open("rb") as file:
        return _is_part10(file)


def parse_elements(path: Path, last_tag: int, tags: Iterable[int] | None = None) -> Dataset:
    """The elements up to `last_tag`, or of them those in `tags`, not yet converted. Raises UnreadableHeader."""
    try:
        with path.open("rb") as file:
            return read_partial(
                file,
                stop_when=lambda tag, _vr, _length: tag > last_tag,
                force=not _is_part10(file),
                specific_tags=None if tags is None else list(tags),
            )
    except OSError:
        raise
    except RecursionError as error:
        raise UnreadableHeader(f"{path.name}: sequences are nested too deeply to be read") from error
    except Exception as error:  # pydicom raises many kinds on broken bytes: struct, zlib, EOF, Value, Type, Key
        raise UnreadableHeader(f"{path.name}: the Dataset cannot be parsed ({type(error).__name__})") from error
