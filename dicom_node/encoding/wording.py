"""Numbers and statements of an answer as they are rounded and as they are said in words."""

import textwrap
from collections.abc import Iterable

import numpy as np

from dicom_node.encoding.concepts import concept, unit
from dicom_node.encoding.sources import InvalidResult, SourceSlice
from pipelines.findings import Evaluation, Measurement

#: Units that read otherwise than they are written in UCUM; annotations in braces and "1" are not said at all.
_SPOKEN = {"[hnsf'U]": "HU", "dB/(cm.MHz)": "dB/cm/MHz", "um2/s": "µm2/s"}


def rounded(measurement: Measurement) -> int | float:
    """The value as every object states it. Raises InvalidResult if it is not finite, UnknownConcept without a code."""
    name, value = concept(measurement.concept), float(measurement.value)
    unit(measurement.unit)
    if not np.isfinite(value):
        raise InvalidResult(f"{measurement.concept} is {value}; a finite number is needed.")
    small = measurement.unit in ("cm3", "mL") and abs(value) < 100
    decimals = max(name.decimals, 1 if small or (name.decimals == 0 and 0 < abs(value) < 10) else 0)
    number = round(value, decimals)
    return int(number) if number == int(number) else number


def number_in_words(measurement: Measurement) -> str:
    """ "Long axis 23.1 mm"."""
    ucum = measurement.unit
    spoken = "" if ucum == "1" or ucum.startswith("{") else f" {_SPOKEN.get(ucum, ucum)}"
    return f"{concept(measurement.concept).meaning} {rounded(measurement)}{spoken}"


def statement_in_words(evaluation: Evaluation, finding: str | None = None) -> str:
    """ "Quality Assessment: Non-diagnostic quality".

    finding : key of the finding whose presence is stated, if any.
    """
    name = finding if evaluation.concept == "presence" and finding else evaluation.concept
    return f"{concept(name).meaning}: {concept(evaluation.value).meaning}"


def values_in_words(evaluations: Iterable[Evaluation]) -> str:
    """The values alone: "Non-diagnostic quality, Motion"."""
    return ", ".join(concept(evaluation.value).meaning for evaluation in evaluations)


def place_in_words(source: SourceSlice) -> str:
    """Where a reader finds an image: "image 17", "image 1 frame 5"; nothing if it has no number."""
    image = "" if source.instance_number is None else f"image {source.instance_number}"
    frame = "" if source.frame_number is None else f"frame {source.frame_number}"
    return " ".join(part for part in (image, frame) if part)


def lines(text: str, characters: int) -> list[str]:
    """A text broken into lines, the second and later ones set in."""
    return textwrap.wrap(text, characters, subsequent_indent="  ")
