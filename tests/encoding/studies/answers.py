"""Answers like those of the pipelines, with any number of findings, on any grid."""

import numpy as np
from numpy.typing import NDArray

from pipelines.findings import (
    Evaluation,
    Finding,
    Findings,
    ImageStatement,
    Map,
    Measurement,
    PlanarFinding,
    Region,
)

Grid = tuple[int, int, int]  # slices, rows, columns
_KINDS = [("HCC", 87.4), ("CYST", 3.2), ("MET", 99.6), ("HEM", 41.0), ("FNH", 0.4)]


def liver_of(grid: Grid) -> NDArray[np.bool_]:
    """An organ that is not the same from any two sides."""
    z, y, x = (np.linspace(0, 1, size).reshape([-1 if axis == place else 1 for place in range(3)])
               for axis, size in enumerate(grid))  # fmt: skip
    organ = (y - 0.5) ** 2 + (x - 0.45) ** 2 < 0.16 + 0 * z
    organ &= ~((x > 0.6) & (y > 0.7)) & (z >= 0)
    organ[0] = organ[-1] = False
    return np.asarray(organ)


def lesions(count: int, grid: Grid) -> list[NDArray[np.bool_]]:
    """Bodies apart from each other, of unlike shape, in rows from front to back."""
    slices, rows, columns = grid
    step_row, step_column = rows // 12, columns // 12
    masks = []
    for index in range(count):
        layer, rest = divmod(index, 25)
        row, column = (3 + rest // 5) * step_row, (3 + rest % 5) * step_column
        z = 2 + (layer * 3 + (rest * 3 if count == 1 else 0)) % (slices - 4)
        mask = np.zeros(grid, dtype=bool)
        mask[z, row : row + step_row - 1, column : column + step_column - 1] = True
        mask[z + 1, row : row + step_row - 1, column : column + max(1, step_column // 2)] = True
        masks.append(mask)
    return masks


def ct_lesion(count: int, grid: Grid, voxel_mm3: float) -> Findings:
    """Volumes in the liver, with a class and a probability each."""
    organ = liver_of(grid)
    found = []
    for index, mask in enumerate(lesions(count, grid)):
        kind, percent = _KINDS[index % len(_KINDS)]
        organ |= mask
        found.append(Finding(
            f"Lesion {index + 1}", "lesion", "liver", mask,
            (Measurement("long_axis", 5.2 + index, "mm"), Measurement("volume", mask.sum() * voxel_mm3, "mm3"),
             Measurement("malignant_probability", percent, "%")),
            (Evaluation("malignancy", "malignant" if percent >= 50 else "benign"), Evaluation("lesion_class", kind)),
        ))  # fmt: skip
    return Findings(
        role="images",
        findings=tuple(found),
        regions=(Region("Liver", "liver", organ),),
        measurements=(
            *((Measurement("lesion_count", count, "{lesions}"),) if count else ()),
            Measurement("liver_volume", organ.sum() * voxel_mm3 / 1000, "mL"),
        ),
        evaluations=(Evaluation("lesion", "present" if count else "absent"),),
        headline=f"{count} lesions" if count else "No lesion found",
    )


def mre(count: int, grid: Grid) -> Findings:
    """A statement for each of the first images, the liver, a map of stiffness that covers part of it."""
    organ = liver_of(grid)
    values = np.full(grid, np.nan, dtype=np.float32)
    values[organ] = np.linspace(1.5, 6.5, int(organ.sum()), dtype=np.float32)
    values[:, : grid[1] // 3] = np.nan
    statements = tuple(
        ImageStatement(
            index,
            f"Slice {index + 1}",
            (Measurement("shear_stiffness", 2.1 + 0.1 * index, "kPa"),) if index % 3 else (),
            (Evaluation("quality", "diagnostic"),) if index % 3
            else (Evaluation("quality", "non_diagnostic"), Evaluation("quality_finding", "MOTION")),
        )
        for index in range(min(count, grid[0]))
    )  # fmt: skip
    return Findings(
        role="images",
        findings=(),
        regions=(Region("Liver", "liver", organ),),
        measurements=(Measurement("shear_stiffness", 3.234, "kPa"),
                      Measurement("diagnostic_slices", len(statements), "{slices}")),
        evaluations=(Evaluation("study_quality", "diagnostic"), Evaluation("method", "mr_elastography")),
        images=statements,
        maps=(Map("Shear stiffness", "shear_stiffness", "kPa", values),),
        headline="Diagnostic: shear stiffness 3.23 kPa",
    )  # fmt: skip


_EXAM = (
    Measurement("fat_fraction", 12.34, "%"),
    Measurement("apparent_diffusion", 1123.4, "um2/s"),
    Measurement("significant_fibrosis_probability", 81.4, "%"),
    *(Measurement(f"F{stage}_probability", 20, "%") for stage in range(5)),
    Measurement("fib4", 1.456, "{score}"),
)


def mpmri(count: int, grid: Grid, voxel_mm3: float) -> Findings:
    """Numbers of the exam and the liver that they are of."""
    organ = liver_of(grid)
    return Findings(
        role="images",
        findings=(),
        regions=(Region("Liver", "liver", organ),),
        measurements=(Measurement("liver_volume", organ.sum() * voxel_mm3 / 1000, "mL"), *_EXAM[:count]),
        evaluations=(Evaluation("steatosis_grade", "S2"), Evaluation("fibrosis_stage", "F1")),
        headline="Steatosis S2; fibrosis F1",
        warnings=("motion on 2 of 12 slices",),
    )


def us_rf(count: int, frames: int, rows: int, columns: int) -> Findings:
    """Outlines on frames, and estimates of the exam."""
    angle = np.linspace(0, 2 * np.pi, 24)
    planar = tuple(
        PlanarFinding(
            f"Lesion {index + 1}",
            "focal_abnormality",
            "liver",
            (4 + index) % frames,
            np.column_stack([
                columns * (0.3 + 0.04 * (index % 9)) + rows / 11 * np.cos(angle),
                rows * (0.3 + 0.05 * (index % 7)) + rows / 14 * np.sin(angle),
            ]),
            (Measurement("diameter", 14.26, "mm"), Measurement("certainty", 91, "%")),
            (Evaluation("presence", "present"),),
        )
        for index in range(count)
    )  # fmt: skip
    return Findings(
        role="images",
        findings=(),
        planar=planar,
        measurements=(Measurement("ultrasound_attenuation", 0.713, "dB/(cm.MHz)"),
                      Measurement("elasticity", 8.13, "kPa")),
        evaluations=(Evaluation("steatosis_grade", "S2"),),
        headline=f"Steatosis S2; {count} focal abnormalities",
    )  # fmt: skip


def fusion(count: int) -> Findings:
    """Numbers of the exam alone, from images of several modalities."""
    return Findings(
        role="fusion",
        findings=(),
        measurements=_EXAM[2 : 2 + max(1, count)],
        evaluations=(Evaluation("fibrosis_stage", "F2"),),
        headline="Fibrosis F2 of F0 to F4; significant fibrosis 81 %",
        warnings=("no biochemistry",),
    )
