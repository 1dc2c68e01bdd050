"""What the pipelines answer: findings with measurements and masks, free of DICOM coding.

`concept` strings are keys of `dicom_node/encoding/concepts.py`, where each becomes a coded concept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


class UnsuitableInput(Exception):
    """The study cannot be read by this pipeline; the text is meant for the radiologist."""


@dataclass(frozen=True)
class Measurement:
    """One number, with its UCUM unit."""

    concept: str  # "long_axis", "volume", "malignant_probability", ...
    value: float
    unit: str  # UCUM: "mm", "mm3", "%", "kPa", "1"


@dataclass(frozen=True)
class Evaluation:
    """One coded statement, such as presence = absent."""

    concept: str
    value: str


@dataclass(frozen=True)
class Finding:
    """One thing found, with the voxels where it lies."""

    tracking_id: str  # for people: "Lesion 1"
    concept: str  # "lesion"
    site: str  # "liver"
    mask: NDArray[np.bool_]  # [slice, row, column] on the grid of Findings.role, at least one voxel
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class Region:
    """A segmented structure that is no finding, such as the liver."""

    label: str
    concept: str
    mask: NDArray[np.bool_]  # [slice, row, column] on the grid of Findings.role


@dataclass(frozen=True)
class Findings:
    """The whole answer of a pipeline for one study."""

    role: str  # the role on whose grid every mask lies: "portal_venous"
    findings: tuple[Finding, ...]
    regions: tuple[Region, ...] = ()
    measurements: tuple[Measurement, ...] = ()  # of the exam as a whole
    warnings: tuple[str, ...] = ()  # what the reader should know: "arterial phase is early"
    summary: Mapping[str, Any] = field(default_factory=dict)  # the pipeline's own part of result.json, plain JSON
    seconds: Mapping[str, float] = field(default_factory=dict)  # "prepare", "infer"
