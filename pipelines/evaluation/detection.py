"""Which predicted lesion is which true lesion, and the counts that follow.

Two rules, both reported:
- "overlap" (headline): the boxes along the patient axes overlap with intersection over union >= 0.3, the threshold of
  the published detectors (in 3-D it is stricter than in their 2-D slices);
- "centre": the centres lie at most max(true radius, 5 mm) apart, fair to tiny lesions, where half a voxel decides the
  overlap.
Predictions are matched by falling score, each to the best free lesion: highest overlap, or nearest centre.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

MIN_OVERLAP = 0.3
MIN_REACH_MM = 5.0
RULES = ("overlap", "centre")


@dataclass(frozen=True)
class TrueLesion:
    """One lesion of truth.json."""

    centre_mm: tuple[float, float, float]  # LPS
    diameter_mm: float  # of the sphere of equal volume
    kind: str  # "HCC", ...
    malignant: bool


@dataclass(frozen=True)
class FoundLesion:
    """One lesion of result.json."""

    centre_mm: tuple[float, float, float]  # LPS
    box_mm: tuple[tuple[float, float, float], tuple[float, float, float]]
    volume_mm3: float
    score: float
    malignant_probability: float
    class_probabilities: Mapping[str, float]


@dataclass(frozen=True)
class Matched:
    """One case: for each found lesion the true one (or None), and for each true lesion the found one (or None)."""

    truth: tuple[TrueLesion, ...]
    found: tuple[FoundLesion, ...]
    truth_of_found: tuple[int | None, ...]
    found_of_truth: tuple[int | None, ...]

    @property
    def counts(self) -> tuple[int, int, int]:
        """True positives, false positives, false negatives."""
        hits = sum(index is not None for index in self.truth_of_found)
        return hits, len(self.found) - hits, len(self.truth) - hits


def true_lesions(truth: Mapping[str, Any]) -> tuple[TrueLesion, ...]:
    """Lesions of a truth.json. Raises KeyError where a field is missing."""
    return tuple(
        TrueLesion(_triple(item["centre_mm"]), float(item["diameter_mm"]), str(item["class"]), bool(item["malignant"]))
        for item in truth["lesions"]
    )


def found_lesions(result: Mapping[str, Any]) -> tuple[FoundLesion, ...]:
    """Lesions of a result.json; none where the study was refused."""
    return tuple(
        FoundLesion(
            _triple(item["centre_mm"]),
            (_triple(item["box_mm"][0]), _triple(item["box_mm"][1])),
            float(item["volume_mm3"]),
            float(item["score"]),
            float(item["malignant_probability"]),
            dict(item["class_probabilities"]),
        )
        for item in result.get("lesions", ())
    )


def match(truth: Sequence[TrueLesion], found: Sequence[FoundLesion], rule: str) -> Matched:
    """One-to-one matching of one case by a rule of RULES."""
    quality = _overlaps(truth, found) if rule == "overlap" else _nearness(truth, found)
    truth_of_found: list[int | None] = [None] * len(found)
    found_of_truth: list[int | None] = [None] * len(truth)
    for index in sorted(range(len(found)), key=lambda i: (-found[i].score, i)):
        free = [j for j in range(len(truth)) if found_of_truth[j] is None and quality[index, j] > 0]
        if free:
            best = max(free, key=lambda j: (quality[index, j], -j))
            truth_of_found[index], found_of_truth[best] = best, index
    return Matched(tuple(truth), tuple(found), tuple(truth_of_found), tuple(found_of_truth))


def froc(cases: Sequence[Matched]) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Free-response curve: false positives per case, sensitivity, and the score threshold, each [thresholds].

    A match made at the lowest threshold is kept while the threshold rises, since matching goes by falling score.
    """
    scored = sorted(
        ((lesion.score, partner is not None) for case in cases for lesion, partner in zip(
            case.found, case.truth_of_found, strict=True
        )),
        key=lambda entry: -entry[0],
    )  # fmt: skip
    scores = np.asarray([entry[0] for entry in scored], dtype=np.float64)
    hits = np.asarray([entry[1] for entry in scored], dtype=bool)
    last = np.append(np.diff(scores) != 0, True) if len(scores) else np.zeros(0, dtype=bool)
    total = max(1, sum(len(case.truth) for case in cases))
    alarms = np.cumsum(~hits)[last] / max(1, len(cases))
    return alarms, np.cumsum(hits)[last] / total, scores[last]


def sphere_box(lesion: TrueLesion) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Box around the sphere of the lesion's volume: (lowest, highest) corner, LPS mm."""
    centre = np.asarray(lesion.centre_mm)
    return centre - lesion.diameter_mm / 2, centre + lesion.diameter_mm / 2


def _overlaps(truth: Sequence[TrueLesion], found: Sequence[FoundLesion]) -> NDArray[np.float64]:
    """[found, truth] intersection over union of the boxes, 0 under the threshold."""
    overlap = np.zeros((len(found), len(truth)))
    for i, lesion in enumerate(found):
        low, high = np.asarray(lesion.box_mm[0]), np.asarray(lesion.box_mm[1])
        for j, other in enumerate(truth):
            other_low, other_high = sphere_box(other)
            sides = np.clip(np.minimum(high, other_high) - np.maximum(low, other_low), 0, None)
            shared = float(np.prod(sides))
            union = float(np.prod(high - low) + np.prod(other_high - other_low)) - shared
            overlap[i, j] = shared / union if union > 0 else 0.0
    return np.where(overlap >= MIN_OVERLAP, overlap, 0.0)


def _nearness(truth: Sequence[TrueLesion], found: Sequence[FoundLesion]) -> NDArray[np.float64]:
    """[found, truth] 1 / (1 + distance in mm), 0 beyond reach."""
    near = np.zeros((len(found), len(truth)))
    for i, lesion in enumerate(found):
        for j, other in enumerate(truth):
            distance = float(np.linalg.norm(np.subtract(lesion.centre_mm, other.centre_mm)))
            if distance <= max(other.diameter_mm / 2, MIN_REACH_MM):
                near[i, j] = 1 / (1 + distance)
    return near


def _triple(values: Sequence[float]) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
