"""GE MR-Touch: one raw series with the phase images first and the magnitude images after them, then derived series.

Phase in rad x 1000; elastogram in Pa; confidence x 1000; colour pictures as RGB. The sequence's name is a private
element (GEMS_ACQU_01, 0019,xx9C).
"""

import numpy as np
from pydicom.dataset import Dataset

from models.phantoms.mre import colour
from models.phantoms.mre.exam import Exam
from models.phantoms.mre.study import (
    Picture,
    Series,
    Study,
    largest_wave,
    magnitude_stored,
    per_offset,
    per_slice,
    wave_offsets,
    write_series,
)

MAKERS = (
    ("GE MEDICAL SYSTEMS", "SIGNA Premier", "29\\LX\\MR Software release:RX29.1_R02_2131.a"),
    ("GE MEDICAL SYSTEMS", "DISCOVERY MR750w", "27\\LX\\MR Software release:DV26.0_R05_2008.a"),
    ("GE MEDICAL SYSTEMS", "Optima MR450w", "25\\LX\\MR Software release:DV25.1_R04_1903.b"),
)
CONFIDENCE_SCALE = 1000


def description(exam: Exam, rng: np.random.Generator) -> str:
    """Name of the raw series; says the frequency unless it is the usual 60 Hz, and often then."""
    hz = f"{exam.protocol.hz:g}Hz"
    texts = (
        "Ax MRE",
        "MR Touch",
        "Liver MRE",
        "MRE 2D GRE" if exam.protocol.sequence == "gre" else "MRE 2D EPI",
        "ELASTO AX BH",
    )
    text = str(rng.choice(texts))
    return text if exam.protocol.hz == 60 and rng.random() < 0.5 else f"{text} {hz}"


def write(study: Study) -> None:
    """Write the raw and the derived series."""
    exam, rng = study.exam, study.rng
    shifted = bool(rng.random() < 0.3)
    name = "MR-Touch"
    text = description(exam, rng)
    number = int(rng.integers(3, 15))

    def private(ds: Dataset) -> None:
        if shifted:  # another creator took the first block
            ds.private_block(0x0019, "GEMS_OTHER_01", create=True).add_new(0x01, "LO", "")
        ds.private_block(0x0019, "GEMS_ACQU_01", create=True).add_new(0x9C, "LO", name)
        ds.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x30, "SS", 0)

    phases = per_offset(study, lambda i: exam.slices[i].acquired.maps.phase * 1000.0)
    sizes = magnitude_stored(exam, 4000)
    magnitudes = per_offset(study, lambda i: sizes[i])
    if rng.random() < 0.3:  # all slices of an offset, then the next offset
        phases.sort(key=lambda p: (p.offset, p.index))
        magnitudes.sort(key=lambda p: (p.offset, p.index))
    raw = {"phase": phases, "magnitude": magnitudes}
    chosen: list[Picture] = [p for role, pictures in raw.items() if role in study.wanted for p in pictures]
    if chosen:
        style = Series("raw", number, text, ("ORIGINAL", "PRIMARY", "OTHER"), 300, signed=True, extra=private)
        write_series(study, style, chosen, [role for role in raw if role in study.wanted])

    def derived(
        key: str, step: int, words: str, *, signed: bool = True, window: tuple[float, float] | None = None
    ) -> Series:
        return Series(
            key, number * 100 + step, f"{words}:{text}"[:64], ("DERIVED", "SECONDARY", "OTHER"), 420 + step,
            signed=signed, window=window, extra=private,
        )  # fmt: skip

    maps = [s.acquired.maps for s in exam.slices]
    if "wave" in study.wanted:
        pictures = per_offset(study, lambda i: wave_offsets(exam, i) * 1000)
        write_series(study, derived("wave", 1, "Wave Images"), pictures, ["wave"])
    if "unwrapped" in study.wanted and rng.random() < 0.4:
        pictures = per_offset(study, lambda i: maps[i].unwrapped * 1000)
        write_series(study, derived("unwrapped", 2, "Unwrapped Phase"), pictures, ["unwrapped"])
    if "stiffness" in study.wanted:
        style = derived("stiffness", 3, "Elastogram (Pa)", window=(4000, 8000))
        write_series(study, style, per_slice(study, lambda i: maps[i].stiffness_kpa * 1000), ["stiffness"])
    if "confidence" in study.wanted:
        pictures = per_slice(study, lambda i: maps[i].confidence * CONFIDENCE_SCALE)
        write_series(study, derived("confidence", 4, "Confidence Map"), pictures, ["confidence"])
    if "colour" in study.wanted:
        pictures = per_slice(study, lambda i: colour.elastogram(maps[i].stiffness_kpa))
        write_series(study, derived("colour", 5, "Elastogram RGB (0-8 kPa)"), pictures, ["colour"])
    if "overlay" in study.wanted:
        pictures = per_slice(
            study, lambda i: colour.overlaid(colour.elastogram(maps[i].stiffness_kpa), maps[i].confidence)
        )
        write_series(study, derived("overlay", 6, "Elastogram RGB 95% Conf"), pictures, ["overlay"])
    if "colour_wave" in study.wanted:
        waves = [colour.wave(wave_offsets(exam, i, 1)[0], largest_wave(exam, i)) for i in range(len(maps))]
        write_series(
            study, derived("colour_wave", 7, "Wave RGB"), per_slice(study, lambda i: waves[i]), ["colour_wave"]
        )
