"""The matrix: kind of source, answer, character set, orientation and number of findings, every pair of which occurs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from encoded_studies import provenance, through_bytes
from numpy.typing import NDArray
from pydicom import Dataset

from dicom_node.encoding.package import KINDS, Package
from dicom_node.encoding.provenance import Provenance
from dicom_node.encoding.results import EncodedObject, encode_results
from pipelines.findings import Findings
from studies import answers
from studies.images import CHARACTER_SETS, ORIENTATIONS, SPACING_MM, stack, study_uid, ultrasound
from studies.pairs import covering, possible

EVERYTHING = Package(kinds=tuple(KINDS), fall_backs=False)
_PLANAR = ("us", "us_cine")
_VOLUMES = ("ct", "ct_enhanced", "mr", "mr_enhanced")
_VOXEL_MM3 = float(np.prod(SPACING_MM))


@dataclass(frozen=True)
class Case:
    """One study of the matrix."""

    number: int
    source: str
    answer: str
    character_set: str
    orientation: str  # "none" for ultrasound
    findings: int

    def __str__(self) -> str:
        parts = (self.source, self.answer, self.character_set, self.orientation, self.findings)
        return f"{self.number:02}-" + "-".join(str(part) for part in parts)


def cases() -> list[Case]:
    """Sixty cases; every pair of values that can meet does, most of them twice."""
    factors: Mapping[str, Sequence[object]] = {
        "source": (*_VOLUMES, *_PLANAR),
        "answer": ("ct_lesion", "mre", "mpmri", "us_rf", "fusion"),
        "character_set": tuple(CHARACTER_SETS),
        "orientation": (*ORIENTATIONS, "none"),
        "findings": (0, 1, 50),
    }

    def is_possible(case: Mapping[str, object]) -> bool:
        is_planar = case["source"] in _PLANAR
        allowed = ("us_rf", "fusion") if is_planar else ("ct_lesion", "mre", "mpmri", "fusion")
        return case["answer"] in allowed and is_planar == (case["orientation"] == "none")

    chosen = covering([case for case in possible(factors) if is_possible(case)], times=2)[:60]
    return [Case(number, **case) for number, case in enumerate(chosen, start=1)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Study:
    """A case with its images and the answer for it."""

    case: Case
    size: int = 64  # rows and columns
    slices: int = 12

    @cached_property
    def _made(self) -> tuple[dict[str, list[Dataset]], NDArray[Any], Findings]:
        case = self.case
        if case.source in _PLANAR:
            frames = max(6, min(case.findings, 20))
            images, pixels = ultrasound(case.source, case.number, case.character_set, frames, self.size)
            findings = answers.us_rf(case.findings, *pixels.shape)
        else:
            grid = (self.slices, self.size, self.size)
            findings = {
                "ct_lesion": lambda: answers.ct_lesion(case.findings, grid, _VOXEL_MM3),
                "mre": lambda: answers.mre(case.findings, grid),
                "mpmri": lambda: answers.mpmri(case.findings, grid, _VOXEL_MM3),
                "fusion": lambda: answers.fusion(case.findings),
            }[case.answer]()
            pixels = _pixels(findings, grid)
            images = stack(case.source, case.number, case.character_set, case.orientation, pixels)
        sources = {"images": images}
        if case.answer == "fusion":
            findings = answers.fusion(case.findings)
            clip, _ = ultrasound("us_cine", case.number, case.character_set, 6, self.size, place=7)
            sources["clip"] = clip
        return sources, pixels, findings

    @property
    def images(self) -> dict[str, list[Dataset]]:
        """Role -> images with pixels."""
        return self._made[0]

    @property
    def findings(self) -> Findings:
        """What the pipeline answers."""
        return self._made[2]

    @property
    def provenance(self) -> Provenance:
        """Where the answer comes from."""
        case = self.case
        return provenance(study_instance_uid=study_uid(case.number), pipeline=case.answer, title=f"AI {case.answer}")

    @cached_property
    def sources(self) -> dict[str, list[Dataset]]:
        """Role -> headers as a receiver reads them."""
        return {role: [through_bytes(image) for image in images] for role, images in self.images.items()}

    def encoded(self, package: Package = EVERYTHING) -> tuple[EncodedObject, ...]:
        """The objects, read back by the gate."""
        pixels = None if self.case.answer == "fusion" else self._made[1]
        return encode_results(self.findings, self.sources, self.provenance, package=package, pixels=pixels)


def _pixels(findings: Findings, grid: answers.Grid) -> NDArray[np.int16]:
    """Images on which the findings can be seen."""
    values = np.random.default_rng(1).normal(40, 12, grid)
    values[answers.liver_of(grid)] += 60
    for finding in findings.findings:
        values[finding.mask] += 90
    return values.astype(np.int16)
