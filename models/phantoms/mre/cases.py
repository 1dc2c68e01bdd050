"""A simulated MRE exam as a case folder: DICOM files in the words of a maker, and truth.json."""

import json
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from models.phantoms.mre import decoys, vendor_canon, vendor_ge, vendor_philips, vendor_siemens
from models.phantoms.mre.exam import Exam, simulate_exam
from models.phantoms.mre.study import ROLES, Geometry, Study, base_dataset, draw_geometry

WRITERS = {
    "GE": (vendor_ge.MAKERS, vendor_ge.write),
    "Siemens": (vendor_siemens.MAKERS, vendor_siemens.write),
    "Siemens XA": (vendor_siemens.MAKERS_XA, vendor_siemens.write_enhanced),
    "Philips": (vendor_philips.MAKERS, vendor_philips.write),
    "Canon": (vendor_canon.MAKERS, vendor_canon.write),
}


def case_name(seed: int) -> str:
    """Folder name of a case."""
    return f"mre_qc-{seed:06d}"


def _truth(exam: Exam, geometry: Geometry, writer: str, series: dict[str, str]) -> dict[str, Any]:
    slices = []
    for index, piece in enumerate(exam.slices):
        truth = piece.acquired.truth
        slices.append(
            {
                "slice_position_mm": round(geometry.position_mm(exam, index), 3),
                "diagnostic": truth.diagnostic,
                "reasons": list(truth.reasons),
                "borderline": truth.borderline,
                "readable_mm2": round(truth.readable_mm2, 1),
                "inner_mm2": round(truth.inner_mm2, 1),
                "stiffness_kpa": None if truth.stiffness_kpa is None else round(truth.stiffness_kpa, 4),
            }
        )
    diagnostic, borderline = exam.verdict
    kpa = exam.stiffness_kpa
    return {
        "slices": slices,
        "exam_diagnostic": diagnostic,
        "exam_borderline": borderline,
        "exam_reasons": list(exam.reasons),
        "stiffness_kpa": None if kpa is None else round(kpa, 4),
        "hz": exam.protocol.hz,
        "series": series,
        "phantom": {
            "seed": exam.seed,
            "writer": writer,
            "sequence": exam.protocol.sequence,
            "tesla": exam.protocol.tesla,
            "stage": exam.patient.stage,
            "driver_hz": exam.driver.hz,
            "fault": exam.fault,
        },
    }


def write_exam(
    exam: Exam,
    folder: Path,
    *,
    enhanced: bool | None = None,
    roles: Collection[str] | None = None,
    others: bool = True,
    extras: bool = False,
) -> None:
    """Write dicom/*.dcm and truth.json of an exam into `folder`; options as for write_case.

    enhanced: Siemens XA instead of classic images; None draws it.
    """
    rng = np.random.default_rng([exam.seed, 0xDC])
    drawn_enhanced = bool(rng.random() < 0.4)
    siemens = exam.protocol.vendor == "Siemens"
    writer = "Siemens XA" if siemens and (drawn_enhanced if enhanced is None else enhanced) else exam.protocol.vendor
    makers, write = WRITERS[writer]
    start = datetime(2025, 1, 1, 8) + timedelta(minutes=int(rng.integers(0, 500_000)))  # noqa: DTZ001 - DICOM local time
    (folder / "dicom").mkdir(parents=True, exist_ok=True)
    base = base_dataset(exam, rng, start, makers[int(rng.integers(len(makers)))])
    drawn = {"magnitude", "phase"} | {role for role in ROLES if rng.random() < 0.85}
    wanted = frozenset(drawn if roles is None else roles)
    study = Study(exam, base, draw_geometry(rng), start, folder / "dicom", rng, wanted)
    write(study)
    if others:
        decoys.write(study, all_kinds=extras)
    truth = _truth(exam, study.geometry, writer, study.series)
    (folder / "truth.json").write_text(json.dumps(truth, indent=1), encoding="utf-8")


def write_case(
    seed: int,
    out_dir: Path | str,
    *,
    extras: bool = False,
    vendor: str | None = None,
    matrix: int | None = None,
    fault: str | None = None,
    slices: int | None = None,
    roles: Collection[str] | None = None,
    others: bool = True,
) -> Path:
    """Simulate one exam and write the case folder `mre_qc-<seed>`: dicom/*.dcm, truth.json.

    vendor: a key of WRITERS; matrix, fault, slices: see simulate_exam; roles: of study.ROLES to write, None draws what
    this console sends (always magnitude and phase). others=False leaves out the localizer, T2w and diffusion series;
    extras adds T1w, a second b-value and ADC. slice_position_mm in truth.json is the distance of the slice's plane from
    the origin along its normal to the head, z for axial slices; slices from feet to head; truth.json also says which
    series is which role. Returns the folder. The same arguments write the same pixels, UIDs and truth.
    """
    maker = None if vendor is None else vendor.split()[0]
    exam = simulate_exam(seed, vendor=maker, matrix=matrix, fault=fault, slices=slices)
    folder = Path(out_dir) / case_name(seed)
    enhanced = None if vendor is None else vendor == "Siemens XA"
    write_exam(exam, folder, enhanced=enhanced, roles=roles, others=others, extras=extras)
    return folder
