"""Focal liver lesions on CT in arterial and portal-venous phase: where, how large, malignant or benign.

Order: check the input, find the liver on a coarse grid, check liver and enhancement, register the arterial phase onto
the portal-venous one, run the lesion network on the liver, divide its output into candidates, have each judged by
a second network, measure the lesions on the portal-venous images.
"""

import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray

from pipelines.ct_lesion import localisation, measure, quality
from pipelines.ct_lesion.grid import crop_around, grid_over, image_of, onto, refined
from pipelines.ct_lesion.lesions import Candidate, SourceMasks, find_lesions, on_source, proposals
from pipelines.ct_lesion.registration import MAX_SHIFT_MM, register
from pipelines.ct_lesion.review import review
from pipelines.findings import Evaluation, Finding, Findings, Measurement, Region
from pipelines.inputs import CtLesionInput
from pipelines.pipeline import Predictor

#: Margin around the liver for the lesion network.
MARGIN_MM = 12.0
#: Two networks must agree on where the liver is: lesions lie at most so far from the coarse liver.
REGION_MARGIN_MM = 10.0
#: A lesion is called malignant from this probability on.
MALIGNANT_FROM = 0.5


def run(study: CtLesionInput, bundles: Mapping[str, Predictor]) -> Findings:
    """Find, measure and classify every focal liver lesion.

    bundles : "ct_liver" (channels with "liver") and "ct_lesion" (channels "background", "liver" and the six classes),
        which take [arterial, portal-venous] in HU, and "ct_review" (channels "none" and the six classes; see review).
    Returns Findings on the grid of the portal-venous volume, lesions by falling volume.
    Raises UnsuitableInput with a text for the radiologist.
    """
    clock = _Stopwatch()
    quality.check_input(study)
    arterial, portal_venous = image_of(study.arterial), image_of(study.portal_venous)
    coarse = grid_over(study.portal_venous, bundles["ct_liver"].spacing_mm)
    phases = localisation.coarse_phases(arterial, portal_venous, coarse)
    clock.lap("prepare")
    localised = localisation.find_liver(*phases, coarse, bundles["ct_liver"])
    clock.lap("infer")
    warnings = quality.thickness_warnings(study) + quality.check_liver(localised)
    warnings += quality.check_enhancement(quality.enhancement(localised))
    registered = register(arterial, portal_venous, localised)
    warnings += quality.movement_warnings(registered.shift_mm)
    moved = onto(arterial, coarse, registered.transform, reach_mm=MAX_SHIFT_MM)
    warnings += quality.timing_warnings(localised, moved)
    fine = refined(crop_around(coarse, localised.liver, MARGIN_MM), bundles["ct_lesion"].spacing_mm, coarse)
    image = np.stack(
        [
            onto(arterial, fine, registered.transform, reach_mm=MAX_SHIFT_MM),
            onto(portal_venous, fine),
        ]
    )
    clock.lap("prepare")
    probabilities = bundles["ct_lesion"](image)
    clock.lap("infer")
    around = localisation.around_liver(localised, fine, REGION_MARGIN_MM)
    coarse_liver = localisation.around_liver(localised, fine, 0.0)
    proposed = proposals(probabilities, bundles["ct_lesion"].channels, fine.spacing_mm, around, coarse_liver)
    clock.lap("prepare")
    verdicts = review(bundles["ct_review"], image, proposed.lesion, proposed.liver, proposed.labels)
    clock.lap("infer")
    found = find_lesions(proposed, verdicts, fine)
    masks = on_source(found, portal_venous)
    findings, summary = _report(found.candidates, masks, study.portal_venous)
    liver_ml = measure.volume_mm3(masks.liver, study.portal_venous) / 1000.0
    count = (Measurement("lesion_count", len(findings), "{lesions}"),) if findings else ()  # none is said in words
    clock.lap("prepare")
    return Findings(
        role="portal_venous",
        findings=findings,
        regions=(Region("Liver", "liver", _whole(masks.liver, masks, study.portal_venous)),),
        measurements=(*count, Measurement("volume", round(liver_ml, 1), "mL")),
        evaluations=(Evaluation("lesion", "present" if findings else "absent"),),
        headline=headline(findings),
        warnings=tuple(warnings),
        summary={"lesions": summary, "liver_volume_ml": round(liver_ml, 1)},
        seconds=clock.seconds,
    )


def _report(
    candidates: tuple[Candidate, ...], masks: SourceMasks, volume: hd.Volume
) -> tuple[tuple[Finding, ...], list[dict[str, Any]]]:
    """Lesions by falling volume (then by place), as findings and as the summary of result.json."""
    offset = tuple(part.start for part in masks.box)
    measured = []
    for candidate, mask in zip(candidates, masks.lesions, strict=True):
        size, centre = measure.volume_mm3(mask, volume), measure.centre_mm(mask, volume, offset)
        measured.append((-size, centre, candidate, mask))
    measured.sort(key=lambda entry: entry[:2])
    findings, summary = [], []
    for number, (negative_size, centre, candidate, mask) in enumerate(measured, start=1):
        name = f"Lesion {number}"
        long_axis = measure.long_axis_mm(mask, volume)
        low, high = measure.box_mm(mask, volume, offset)
        malignant = candidate.malignant_probability
        likely_class = max(candidate.class_probabilities, key=candidate.class_probabilities.__getitem__)
        findings.append(
            Finding(
                tracking_id=name,
                concept="lesion",
                site="liver",
                mask=_whole(mask, masks, volume),
                measurements=(
                    Measurement("long_axis", round(long_axis, 1), "mm"),
                    Measurement("volume", round(-negative_size, 1), "mm3"),
                    Measurement("malignant_probability", round(100 * malignant, 1), "%"),
                    Measurement("certainty", round(100 * candidate.score, 1), "%"),
                ),
                evaluations=(
                    Evaluation("malignancy", "malignant" if malignant >= MALIGNANT_FROM else "benign"),
                    Evaluation("lesion_class", likely_class),
                ),
            )
        )
        summary.append(
            {
                "tracking_id": name,
                "centre_mm": [round(value, 2) for value in centre],
                "long_axis_mm": round(long_axis, 1),
                "volume_mm3": round(-negative_size, 1),
                "box_mm": [[round(value, 2) for value in corner] for corner in (low, high)],
                "score": round(candidate.score, 4),
                "malignant_probability": round(malignant, 4),
                "class_probabilities": {key: round(p, 4) for key, p in candidate.class_probabilities.items()},
            }
        )
    return tuple(findings), summary


def headline(findings: tuple[Finding, ...]) -> str:
    """The answer in one line: "3 lesions: 2 malignant, 1 benign"."""
    if not findings:
        return "No lesion found"
    called = Counter(item.value for finding in findings for item in finding.evaluations if item.concept == "malignancy")
    parts = ", ".join(f"{number} {value}" for value, number in sorted(called.items(), reverse=True))
    return f"{len(findings)} lesion{'s' if len(findings) > 1 else ''}: {parts}"


def _whole(mask: NDArray[np.bool_], masks: SourceMasks, volume: hd.Volume) -> NDArray[np.bool_]:
    """A mask of the index box as a mask of the whole volume; untouched pages cost no memory."""
    whole = np.zeros(volume.spatial_shape, dtype=bool)
    whole[masks.box] = mask
    return whole


class _Stopwatch:
    """Seconds per step, summed over the parts of the step."""

    def __init__(self) -> None:
        self.seconds = {"prepare": 0.0, "infer": 0.0}
        self._since = time.perf_counter()

    def lap(self, step: str) -> None:
        now = time.perf_counter()
        self.seconds[step] += now - self._since
        self._since = now
