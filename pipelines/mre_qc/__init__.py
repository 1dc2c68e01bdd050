"""Quality of an MR elastography of the liver while the patient is on the table: repeat or not, why, and the stiffness.

Order: the networks judge every slice, physics measures it inside the liver that they see, both are joined; the exam is
judged by its definition; stiffness is taken from the diagnostic slices. It answers from any of the inputs and says
which it used.
"""

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.findings import Evaluation, Findings, ImageStatement, Map, Measurement, Region, UnsuitableInput
from pipelines.inputs import MRE_ARRAYS, MreInput, MreSlice
from pipelines.mre_qc import networks
from pipelines.mre_qc.grids import onto, pixel_mm2
from pipelines.mre_qc.headline import in_one_line, in_one_word
from pipelines.mre_qc.physics import SlicePhysics, examine
from pipelines.mre_qc.reasons import ADVICE
from pipelines.mre_qc.stiffness import ExamStiffness, SliceStiffness, exam_stiffness, slice_stiffness
from pipelines.mre_qc.thresholds import Thresholds, edition, in_force
from pipelines.mre_qc.verdict import ExamVerdict, SliceVerdict, exam_verdict, slice_verdict
from pipelines.pipeline import Predictor

#: Roles on whose grid masks and maps may lie, the best first; of those with most slices the first is taken.
GRID_ROLES = ("magnitude", "phase", "elastogram", "wave", "confidence", "colour")
LIVER, READABLE = networks.MAPS.index("liver"), networks.MAPS.index("readable")
#: Share of liver from which a pixel is liver.
LIVER_FROM = 0.5
#: Range of the colours of elastograms, kPa: that of the scanners' own.
SHOWN_KPA = (0.0, 8.0)
_MM2 = 100.0  # in one cm2
#: Gaps between slices may differ by this part of the usual one; with more they are no stack.
EVEN = 0.1


def run(study: MreInput, bundles: Mapping[str, Predictor]) -> Findings:
    """Judge an exam and measure its stiffness.

    bundles : networks.BUNDLE, as networks.slice_answers takes it.
    Returns Findings on the images of one role; `images` has a statement per slice of that role.
    Raises UnsuitableInput if no slice has an image, ValueError or OSError if the site's thresholds cannot be used.
    """
    limits = in_force()
    slices = tuple(one for one in study.slices if one.planes)
    if not slices:
        raise UnsuitableInput("The elastography has no image that can be read.")
    study = replace(study, slices=slices)
    clock = time.monotonic()
    said = networks.slice_answers(slices, bundles, hz=study.frequency_hz, sequence=study.sequence)
    inferred = time.monotonic()
    hz = study.frequency_hz or limits.stiffness.usual_hz
    role = _grid_role(study)
    planes = [one.planes[_plane_role(one, role)] for one in slices]
    maps = [one.on(plane) for one, plane in zip(said, planes, strict=True)]
    with ThreadPoolExecutor(max_workers=2) as pool:
        physics = list(
            pool.map(
                lambda one, plane, seen: examine(one, plane, hz, limits, seen[LIVER] > LIVER_FROM), slices, planes, maps
            )
        )
    wrong = _frequencies_differ(study, limits)
    verdicts = [
        slice_verdict(
            told.diagnostic, told.reasons, one.measures, limits,
            wrong_frequency=wrong, seen_mm2=float(seen[READABLE].sum()) * pixel_mm2(plane), by_network=told.by_network,
        )
        for told, one, seen, plane in zip(said, physics, maps, planes, strict=True)
    ]  # fmt: skip
    exam = exam_verdict(verdicts, limits)
    each = [slice_stiffness(one, limits) for one in physics]
    stiffness, refused = exam_stiffness(
        [(p, k, v.is_diagnostic) for p, k, v in zip(physics, each, verdicts, strict=True)], exam.is_diagnostic, limits
    )
    answer = _Answer(study, role, hz, limits, physics, verdicts, each, exam, stiffness, refused)
    return answer.findings({"prepare": time.monotonic() - inferred, "infer": inferred - clock})


def configuration() -> dict[str, str]:
    """The table that is in force, for the provenance of answers. Raises ValueError, OSError if it cannot be used."""
    return {"thresholds": edition()}


def _grid_role(study: MreInput) -> str:
    return max(GRID_ROLES, key=lambda role: (len(study.of_role(role)), -GRID_ROLES.index(role)))


def _plane_role(one: MreSlice, role: str) -> str:
    return role if role in one.planes else next(name for name in GRID_ROLES if name in one.planes)


def _frequencies_differ(study: MreInput, limits: Thresholds) -> bool:
    """Whether the headers say that driver and sequence run at different frequencies."""
    sequence, driver = study.frequency_hz, study.driver_frequency_hz
    return bool(sequence and driver and abs(driver / sequence - 1) > limits.slice.frequency_ratio)


class _Answer:
    """Everything that is known, and its form as Findings."""

    def __init__(
        self,
        study: MreInput,
        role: str,
        hz: float,
        limits: Thresholds,
        physics: Sequence[SlicePhysics],
        verdicts: Sequence[SliceVerdict],
        each: Sequence[SliceStiffness | None],
        exam: ExamVerdict,
        stiffness: ExamStiffness | None,
        refused: str,
    ) -> None:
        self.study, self.role, self.hz, self.limits = study, role, hz, limits
        self.physics, self.verdicts, self.each = physics, verdicts, each
        self.exam, self.stiffness, self.refused = exam, stiffness, refused
        # Index of every slice of the study among the images of the role.
        self.on_grid = [index for index, one in enumerate(study.slices) if getattr(one, role) is not None]

    def findings(self, seconds: Mapping[str, float]) -> Findings:
        regions, maps = self._volumes()
        return Findings(
            role=self.role,
            findings=(),
            regions=regions,
            measurements=self._exam_measurements(),
            evaluations=(
                *self._exam_evaluations(),
                Evaluation("method", "mr_elastography"),
                *self._source(),
            ),
            images=tuple(self._statement(place, index) for place, index in enumerate(self.on_grid)),
            maps=maps,
            shown=self._shown(),
            verdict=in_one_word(self.exam, more_to_come=self.study.more_to_come),
            headline=in_one_line(
                self.exam, self.verdicts, self.stiffness, self.hz, self.limits, more_to_come=self.study.more_to_come
            ),
            warnings=self._warnings(),
            remarks=self._remarks(),
            summary=self._summary(),
            seconds=seconds,
        )

    def _source(self) -> tuple[Evaluation, ...]:
        if self.stiffness is None:
            return ()
        own = self.stiffness.source == "inversion"
        return (Evaluation("stiffness_source", "own_inversion" if own else "scanner_elastogram"),)

    def _exam_evaluations(self) -> tuple[Evaluation, ...]:
        """The verdict on the exam; slices that are still to come may only make it better, so no bad one before them."""
        if self.study.more_to_come and not self.exam.is_diagnostic:
            return ()
        return (
            Evaluation("study_quality", "diagnostic" if self.exam.is_diagnostic else "non_diagnostic"),
            *(Evaluation("quality_finding", reason) for reason in self.exam.reasons),
        )

    def _exam_measurements(self) -> tuple[Measurement, ...]:
        found = [
            Measurement("diagnostic_slices", self.exam.diagnostic_slices, "{slices}"),
            Measurement("diagnostic_probability", round(100 * self.exam.probability, 1), "%"),
        ]
        if self.stiffness is not None:
            found.insert(0, Measurement("shear_stiffness", round(self.stiffness.mean_kpa, 3), "kPa"))
            found.append(Measurement("area_of_region", self.stiffness.valid_mm2 / _MM2, "cm2"))
        if self.study.frequency_hz:
            found.append(Measurement("driver_frequency", self.study.driver_frequency_hz or self.hz, "Hz"))
        return tuple(found)

    def _statement(self, place: int, index: int) -> ImageStatement:
        verdict, stiffness = self.verdicts[index], self.each[index]
        measured = [Measurement("diagnostic_probability", round(100 * verdict.probability, 1), "%")]
        if verdict.readable_mm2 is not None:
            measured.append(Measurement("readable_area", verdict.readable_mm2 / _MM2, "cm2"))
        if verdict.is_diagnostic and stiffness is not None and self.stiffness is not None:
            measured.insert(0, Measurement("shear_stiffness", round(stiffness.mean_kpa, 3), "kPa"))
            measured.append(Measurement("area_of_region", stiffness.valid_mm2 / _MM2, "cm2"))
        return ImageStatement(
            image=place,
            label=f"Slice {index + 1}",
            measurements=tuple(measured),
            evaluations=(
                Evaluation("quality", verdict.quality),
                *(Evaluation("quality_finding", reason) for reason in verdict.reasons),
                Evaluation("method", "mr_elastography"),
            ),
            remark=ADVICE[verdict.reasons[0]] if verdict.reasons else "",
        )

    def _volumes(self) -> tuple[tuple[Region, ...], tuple[Map, ...]]:
        """Where stiffness was measured, and the map that it was measured on; nothing where slices are no stack."""
        if self.stiffness is None or not self._is_stack():
            return (), ()
        masks = np.stack([np.isfinite(self._map(index)) for index in self.on_grid])
        values = np.stack([self._map(index) for index in self.on_grid])
        if not masks.any():
            return (), ()
        return (
            (Region("Measured area of the liver", "measured_area", masks),),
            (Map("Shear stiffness", "shear_stiffness", "kPa", values, SHOWN_KPA),),
        )

    def _shown(self) -> tuple[Map, ...]:
        """The elastogram, so that the page shows what was judged where nothing could be measured too."""
        if not self._is_stack() or "elastogram" not in self.study.roles:
            return ()
        shape = (len(self.on_grid), *self.study.slices[self.on_grid[0]].planes[self.role].shape)
        values = np.full(shape, np.nan, np.float32)
        for place, index in enumerate(self.on_grid):
            one = self.study.slices[index]
            if one.elastogram is not None:
                kpa = onto(np.nan_to_num(one.elastogram), one.planes["elastogram"], one.planes[self.role])
                values[place] = np.where(kpa > 0, kpa, np.nan)
        return (Map("Elastogram", "shear_stiffness", "kPa", values, SHOWN_KPA),) if np.isfinite(values).any() else ()

    def _map(self, index: int) -> NDArray[np.float32]:
        """Stiffness inside the measured area of a diagnostic slice."""
        physics = self.physics[index]
        shown = physics.valid & self.verdicts[index].is_diagnostic
        return np.asarray(np.where(shown, physics.stiffness_kpa, np.nan), np.float32)

    def _is_stack(self) -> bool:
        slices = [self.study.slices[index] for index in self.on_grid]
        if len({one.planes[self.role].shape for one in slices}) > 1:
            return False
        gaps = np.diff([one.position_mm for one in slices])
        return bool(not gaps.size or np.all(np.abs(gaps - np.median(gaps)) <= EVEN * abs(float(np.median(gaps)))))

    def _used(self) -> tuple[str, ...]:
        return tuple(role for role in MRE_ARRAYS if role in self.study.roles)

    def _warnings(self) -> tuple[str, ...]:
        study, found = self.study, []
        if _frequencies_differ(study, self.limits):
            found.append(f"Driver {study.driver_frequency_hz:g} Hz, sequence {study.frequency_hz:g} Hz.")
        if self.stiffness is None:
            found.append(f"No stiffness is stated: {self.refused}.")
        elif self.stiffness.source == "inversion":
            found.append("No elastogram was there: stiffness is from this node's own inversion.")
        if not study.frequency_hz:
            found.append(f"The frequency is not stated; {self.hz:g} Hz is assumed.")
        left_out = len(study.slices) - len(self.on_grid)
        if left_out:
            found.append(f"{left_out} slices have no {self.role} image; they are judged, but not shown.")
        return tuple(found)

    def _remarks(self) -> tuple[str, ...]:
        """What the answer was come by with: inputs, method, limits."""
        found = [f"Judged from {', '.join(self._used())}."]
        stated = self._stiffness()
        if stated is not None:
            source = "the scanner's elastogram" if stated["source"] == "elastogram" else "this node's inversion"
            found.append(f"|G*| at {self.hz:g} Hz from {source}, {stated['slices']} slices; not Young's modulus.")
            if stated["bin"] is not None:
                found.append(f"Bin '{stated['bin']['meaning']}': {stated['bin']['source']}.")
            else:
                low, high = self.limits.stiffness.bins_hz
                found.append(f"Bins of stiffness hold for {low:g} to {high:g} Hz: none is stated.")
        return (*found, *(f"Input: {note}." for note in self.study.notes))

    def _summary(self) -> dict[str, Any]:
        """The pipeline's part of result.json."""
        return {
            "slices": [
                {
                    "slice_position_mm": round(one.position_mm, 3),
                    "diagnostic_probability": round(verdict.probability, 4),
                    "diagnostic": verdict.is_diagnostic,
                    "reasons": list(verdict.reasons),
                    "quality": verdict.quality,
                    "network_probability": round(verdict.network_probability, 4),
                    "by_network": {name: round(value, 4) for name, value in verdict.by_network.items()},
                    "readable_mm2": None if verdict.readable_mm2 is None else round(verdict.readable_mm2, 1),
                    "stiffness_kpa": round(stiffness.mean_kpa, 3) if stiffness and verdict.is_diagnostic else None,
                    "measures": {
                        name: value if value is None else round(value, 4)
                        for name, value in asdict(physics.measures).items()
                    },
                }
                for one, physics, verdict, stiffness in zip(
                    self.study.slices, self.physics, self.verdicts, self.each, strict=True
                )
            ],
            "exam": {
                "diagnostic": self.exam.is_diagnostic,
                "diagnostic_probability": round(self.exam.probability, 4),
                "reasons": list(self.exam.reasons),
                "diagnostic_slices": self.exam.diagnostic_slices,
            },
            "stiffness": self._stiffness(),
            "stiffness_refused": self.refused or None,
            "inputs_used": list(self._used()),
            "vendor": self.study.vendor,
            "sequence": self.study.sequence,
        }

    def _stiffness(self) -> dict[str, Any] | None:
        if self.stiffness is None:
            return None
        row = self.limits.bin_of(self.stiffness.mean_kpa, self.hz)
        return {
            "mean_kpa": round(self.stiffness.mean_kpa, 3),
            "valid_area_mm2": round(self.stiffness.valid_mm2, 1),
            "source": self.stiffness.source,
            "quantity": "shear stiffness |G*|",
            "frequency_hz": self.hz,
            "slices": self.stiffness.slices,
            "bin": None if row is None else {"meaning": row.meaning, "source": self.limits.bins_source},
        }
