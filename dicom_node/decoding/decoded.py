"""What decoding hands on: a pipeline's input, and the headers that its results will refer to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray
from pydicom import Dataset


@dataclass(frozen=True)
class Decoded:
    """A pipeline's input with its sources."""

    value: Any  # one of pipelines/inputs.py
    #: role -> headers without pixel data, one per slice of the role's grid in its order; a multi-frame object once
    sources: Mapping[str, Sequence[Dataset]]
    #: role -> 1-based frame behind each slice, where the source is one multi-frame object
    frame_numbers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    #: role -> values [slice, row, column] or RGB uint8 [slice, row, column, 3], for pictures in the results
    pixels: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    #: headers of what was read besides `sources`, such as further phase offsets: results name them as evidence
    others: Sequence[Dataset] = ()
