"""Canon: one series per kind of image, named in Image Comments; phase signed with a Rescale Slope to rad."""

from collections.abc import Callable

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage, SecondaryCaptureImageStorage

from models.phantoms.mre import colour
from models.phantoms.mre.study import Series, Study, magnitude_stored, per_offset, per_slice, wave_offsets, write_series

MAKERS = (
    ("CANON_MEC", "Vantage Galan 3T", "V9.0*R002"),
    ("TOSHIBA", "Vantage Orian", "V6.0*R001"),
)


def write(study: Study) -> None:
    """Write all series."""
    exam = study.exam
    number = int(study.rng.integers(4, 20)) * 1000
    hz = "" if exam.protocol.hz == 60 and study.rng.random() < 0.5 else f" {exam.protocol.hz:g}Hz"
    text = str(study.rng.choice(["MRE SEEPI2D", "Elasto Liver", "MRE"])) + hz
    maps = [s.acquired.maps for s in exam.slices]

    def commented(words: str, slope: float | None = None) -> Callable[[Dataset], None]:
        def apply(ds: Dataset) -> None:
            ds.ImageComments = words
            if slope is not None:
                ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType = f"{slope:.9g}", "0", "US"

        return apply

    def style(
        key: str, step: int, words: str, kind: str, slope: float | None = None, *, signed: bool = False
    ) -> Series:
        source = ("ORIGINAL", "PRIMARY", "OTHER") if step < 3 else ("DERIVED", "SECONDARY", "OTHER")
        return Series(
            key, number + step, f"{text} {kind}".strip(), source, 300 + 10 * step, signed=signed,
            extra=commented(words, slope),
            sop_class=SecondaryCaptureImageStorage if key == "overlay" else MRImageStorage,
        )  # fmt: skip

    sizes = magnitude_stored(exam, 20000)
    if "magnitude" in study.wanted:
        write_series(
            study, style("magnitude", 1, "Magnitude", ""), per_offset(study, lambda i: sizes[i]), ["magnitude"]
        )
    slope = float(np.pi / 4096)
    if "phase" in study.wanted:
        pictures = per_offset(study, lambda i: maps[i].phase / slope)
        write_series(study, style("phase", 2, "PhaseDiff", "", slope, signed=True), pictures, ["phase"])
    if "wave" in study.wanted:
        pictures = per_offset(study, lambda i: wave_offsets(exam, i) / slope)
        write_series(study, style("wave", 3, "Wave", "Wave", slope, signed=True), pictures, ["wave"])
    if "stiffness" in study.wanted:
        pictures = per_slice(study, lambda i: maps[i].stiffness_kpa * 1000)
        write_series(study, style("stiffness", 4, "Stiffness", "Stiffness", 0.001), pictures, ["stiffness"])
    if "confidence" in study.wanted:
        pictures = per_slice(study, lambda i: maps[i].confidence * 1000)
        write_series(study, style("confidence", 5, "Confidence", "Confidence", 0.001), pictures, ["confidence"])
    if "overlay" in study.wanted:
        pictures = per_slice(
            study, lambda i: colour.overlaid(colour.elastogram(maps[i].stiffness_kpa), maps[i].confidence)
        )
        write_series(study, style("overlay", 6, "Stiffness", "Stiffness Color"), pictures, ["overlay"])
