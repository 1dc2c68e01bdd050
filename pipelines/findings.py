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
class PlanarFinding:
    """One thing found on one image or frame that has no place in space, such as a frame of ultrasound."""

    tracking_id: str  # for people: "Lesion 1"
    concept: str
    site: str
    image: int  # index of the image, or of the frame, among those of Findings.role
    outline: NDArray[np.float64]  # [point, (column, row)] pixels; (0, 0) is the image's top left corner; closed
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()


@dataclass(frozen=True)
class ImageStatement:
    """What is true of one image or frame as a whole: its quality, the stiffness measured on it."""

    image: int  # index of the image, or of the frame, among those of Findings.role
    label: str  # for people: "Slice 2"
    measurements: tuple[Measurement, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()
    remark: str = ""  # for people, in words: "repeat the breath-hold at end-expiration"


@dataclass(frozen=True)
class Region:
    """A segmented structure that is no finding, such as the liver."""

    label: str
    concept: str
    mask: NDArray[np.bool_]  # [slice, row, column] on the grid of Findings.role


@dataclass(frozen=True)
class Map:
    """A quantity per voxel: stiffness, attenuation, probability."""

    label: str  # for people: "Shear stiffness"
    concept: str  # "elasticity"
    unit: str  # UCUM
    values: NDArray[np.float32]  # [slice, row, column] on the grid of Findings.role; NaN where there is none
    shown_range: tuple[float, float] | None = None  # in which readers are used to see it; None: that of its values


@dataclass(frozen=True)
class Findings:
    """The whole answer of a pipeline for one study."""

    role: str  # the role on whose grid every mask lies: "portal_venous"
    findings: tuple[Finding, ...]
    regions: tuple[Region, ...] = ()
    measurements: tuple[Measurement, ...] = ()  # of the exam as a whole
    evaluations: tuple[Evaluation, ...] = ()  # of the exam as a whole
    planar: tuple[PlanarFinding, ...] = ()  # findings on images that have no place in space
    images: tuple[ImageStatement, ...] = ()
    maps: tuple[Map, ...] = ()
    shown: tuple[Map, ...] = ()  # maps of the source for the page that sums up alone: they are sent in no object
    verdict: str = ""  # the answer in a word, where a list of series should show it: "REPEAT"
    headline: str = ""  # the answer in one line: "3 lesions: 2 malignant, 1 benign"
    warnings: tuple[str, ...] = ()  # what the reader should know: "arterial phase is early"
    remarks: tuple[str, ...] = ()  # how it was come by: what was read, where limits come from
    summary: Mapping[str, Any] = field(default_factory=dict)  # the pipeline's own part of result.json, plain JSON
    seconds: Mapping[str, float] = field(default_factory=dict)  # "prepare", "infer"
