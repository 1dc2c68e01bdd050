"""Networks that know the truth of a simulated exam: they stand where trained ones are, so that the rest is tested."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from models.phantoms.mre.exam import Exam
from pipelines.inputs import MRE_ARRAYS, MreInput, MrePlane, MreSlice
from pipelines.mre_qc import networks
from pipelines.mre_qc.grids import onto


@dataclass(frozen=True)
class Known:
    """As pipelines.mre_qc.networks.SliceAnswer."""

    diagnostic: float
    reasons: Mapping[str, float]
    liver: NDArray[Any]
    readable: NDArray[Any]
    plane: MrePlane
    by_network: Mapping[str, float] = field(default_factory=dict)

    def on(self, plane: MrePlane) -> NDArray[np.float32]:
        return np.stack([onto(mask, self.plane, plane) for mask in (self.liver, self.liver, self.readable)])


def planes_of(exam: Exam) -> list[MrePlane]:
    """Axial planes of an exam's slices."""
    n, pixel = exam.protocol.matrix, exam.protocol.pixel_mm
    half = (n - 1) / 2 * pixel
    return [
        MrePlane(
            (one.state.centre_mm[1] - half, one.state.centre_mm[0] - half, one.z_mm),
            (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (pixel, pixel), (n, n),
        )
        for one in exam.slices
    ]  # fmt: skip


def input_of(exam: Exam, roles: Iterable[str] = MRE_ARRAYS[:2], **stated: Any) -> MreInput:
    """The exam as decoding hands it on."""
    slices = []
    for one, plane in zip(exam.slices, planes_of(exam), strict=True):
        maps = one.acquired.maps
        arrays = {
            "magnitude": np.abs(one.acquired.images.noisy).astype(np.float32), "phase": maps.phase,
            "elastogram": maps.stiffness_kpa, "confidence": maps.confidence,
        }  # fmt: skip
        chosen = {role: arrays[role] for role in roles}
        slices.append(MreSlice(one.z_mm, dict.fromkeys(chosen, plane), **chosen))
    facts = {
        "normal": (0.0, 0.0, 1.0), "slice_spacing_mm": 10.0, "slice_thickness_mm": 10.0, "vendor": exam.protocol.vendor,
        "sequence": "GRE", "frequency_hz": exam.protocol.hz, "driver_frequency_hz": None, "phase_offsets": 4,
        "motion_direction": "slice",
    }  # fmt: skip
    return MreInput(slices=tuple(slices), **(facts | stated))


def know(monkeypatch: pytest.MonkeyPatch, exam: Exam, probabilities: Sequence[float] | None = None) -> None:
    """Put networks that know this exam in place. probabilities: per slice; None: nearly certain of the truth."""
    answers = []
    for number, (one, plane) in enumerate(zip(exam.slices, planes_of(exam), strict=True)):
        truth = one.acquired.truth
        chance = probabilities[number] if probabilities is not None else 0.97 if truth.diagnostic else 0.03
        reasons = dict.fromkeys(truth.reasons[:1] or ("MOTION",), 1.0)
        answers.append(Known(chance, reasons, truth.liver, truth.readable, plane))
    monkeypatch.setattr(networks, "slice_answers", lambda slices, *_, **__: answers[: len(slices)])
