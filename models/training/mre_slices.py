"""Simulated slices of elastographies as training samples: channels on the networks' grid, and the truth there.

Channels are kept as whole 32nds in int8, so that a slice takes a quarter of a megabyte.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from models.phantoms.mre import colour
from models.phantoms.mre.anatomy import CAPSULE_MM
from models.phantoms.mre.exam import exam_slices
from models.phantoms.mre.readable import (
    DIAGNOSTIC_MM2,
    DIAGNOSTIC_SHARE,
    REASONS,
    REFUSED_MM2,
    REFUSED_SHARE,
    SliceTruth,
)
from models.phantoms.mre.samples import Sample, sample_slices

STEPS_PER_UNIT = 32
PER_SHARD, PER_WAVE = 64, 6
# Pixels per side of the reconstruction, and how often; training sees what vendors make of their data.
SIZES, SIZES_OFTEN = (128, 160, 224, 256), (0.7, 0.16, 0.07, 0.07)
EDDY_SHARE, EDDY_RAD = 0.4, 0.25
SECOND_REASON = 0.35  # share of a second reason in what is to be learned
MAPS = ("liver", "inner", "readable")
SEQUENCES = {"gre": "GRE", "se_epi": "SE-EPI"}


class Describer(Protocol):
    """What measures channels of a slice; the node hands it in, because measuring belongs to the pipeline."""

    def __call__(self, images: Any, hz: float | None, sequence: str) -> NDArray[np.float32]:
        """images: role -> (array, first pixel mm, spacing mm) -> channels [channel, row, column]."""
        ...


OntoGrid = Callable[[NDArray, tuple[float, float], tuple[float, float]], NDArray[np.float32]]


@dataclass(frozen=True)
class Slices:
    """Samples in memory; n is the first axis of all."""

    channels: NDArray[np.int8]  # [n, channel, row, column] in 32nds
    maps: NDArray[np.uint8]  # [n, len(MAPS), row, column] share of the pixel, 255 = all
    diagnostic: NDArray[np.float32]  # 0..1; between for a borderline slice
    borderline: NDArray[np.bool_]
    reasons: NDArray[np.float32]  # [n, len(REASONS)], sum 1, or 0 for a diagnostic slice
    readable_mm2: NDArray[np.float32]
    epi: NDArray[np.bool_]
    vendor: NDArray[np.str_]


def how_diagnostic(truth: SliceTruth, *, wrong_frequency: bool) -> float:
    """1 diagnostic, 0 not, between how far a borderline slice is from one to the other."""
    if not truth.borderline:
        return float(truth.diagnostic)
    if wrong_frequency or truth.inner_mm2 <= 0:
        return 0.0
    area = (truth.readable_mm2 - REFUSED_MM2) / (DIAGNOSTIC_MM2 - REFUSED_MM2)
    share = (truth.readable_mm2 / truth.inner_mm2 - REFUSED_SHARE) / (DIAGNOSTIC_SHARE - REFUSED_SHARE)
    return float(np.clip(min(area, share), 0, 1))


def reason_shares(reasons: tuple[str, ...]) -> NDArray[np.float32]:
    """What is to be said of a slice: its main reason, and less of a second one."""
    out = np.zeros(len(REASONS), np.float32)
    for place, name in enumerate(reasons[:2]):
        alone = len(reasons) == 1
        out[REASONS.index(name)] = (1.0 if alone else 1 - SECOND_REASON) if place == 0 else SECOND_REASON
    return out


def images_of(sample: Sample, rng: np.random.Generator) -> dict[str, tuple[NDArray, Any, Any]]:
    """All images of a sample as a scanner would send them: role -> (array, first pixel mm, spacing mm)."""
    n = sample.magnitude.shape[-1]
    place = (-(n - 1) / 2 * sample.pixel_mm,) * 2, (sample.pixel_mm,) * 2
    offsets = sample.protocol.offsets if rng.random() < 0.8 else int(rng.choice([1, 8]))
    turns = np.exp(2j * np.pi * np.arange(offsets) / offsets)[:, None, None]
    picture = colour.elastogram(sample.stiffness_kpa)
    if rng.random() < 0.75:
        picture = colour.overlaid(picture, sample.confidence, pitch=int(rng.integers(4, 8)))
    arrays = {
        "magnitude": sample.magnitude,
        "phase": _with_eddies(sample.phase, rng) if rng.random() < EDDY_SHARE else sample.phase,
        "wave": (sample.harmonic[None] * turns).real,
        "elastogram": sample.stiffness_kpa,
        "confidence": sample.confidence,
        "colour": picture,
    }
    return {role: (array, *place) for role, array in arrays.items()}


def _with_eddies(phase: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Phase [offset, row, column] with what eddy currents of the encoding leave: linear in space, in all offsets."""
    down, across = (np.linspace(-1, 1, n, dtype=np.float32) for n in phase.shape[1:])
    level, along, aside = rng.normal(0, EDDY_RAD, 3).astype(np.float32)
    static = level + along * down[:, None] + aside * across[None, :]
    return np.asarray(np.angle(np.exp(1j * (phase + static))), np.float32)


def write_shard(
    folder: Path, seed: int, describe: Describer, onto_grid: OntoGrid, count: int = PER_SHARD, *, whole: bool = False
) -> Path:
    """Simulate `count` slices from one seed and write them as <seed>.npz, unless they are there; returns the file.

    whole: slices of whole exams instead of single ones.
    """
    path = folder / f"{seed:07d}.npz"
    if path.exists():
        return path
    rng = np.random.default_rng([seed, 0x51])
    drawn = int(rng.choice(SIZES, p=SIZES_OFTEN))
    rows: dict[str, list[Any]] = {name: [] for name in Slices.__annotations__}
    slices_of = (
        exam_slices(seed, count, size=drawn) if whole else sample_slices(seed, count, size=drawn, states=PER_WAVE)
    )
    for sample in slices_of:
        truth, pixel, size = sample.truth, sample.pixel_mm, sample.protocol.matrix
        measured = describe(images_of(sample, rng), sample.protocol.hz, SEQUENCES[sample.protocol.sequence])
        rows["channels"].append(np.rint(measured * STEPS_PER_UNIT).clip(-127, 127).astype(np.int8))
        inner = ndimage.distance_transform_edt(np.pad(truth.liver, 1))[1:-1, 1:-1] * pixel > CAPSULE_MM
        first = (-(size - 1) / 2 * pixel,) * 2
        maps = [onto_grid(mask, first, (pixel, pixel)) for mask in (truth.liver, inner, truth.readable)]
        rows["maps"].append(np.rint(np.stack(maps) * 255).astype(np.uint8))
        wrong = truth.reasons == ("WRONG_FREQUENCY",)
        rows["diagnostic"].append(how_diagnostic(truth, wrong_frequency=wrong))
        rows["borderline"].append(truth.borderline)
        rows["reasons"].append(reason_shares(truth.reasons))
        rows["readable_mm2"].append(truth.readable_mm2)
        rows["epi"].append(sample.protocol.sequence == "se_epi")
        rows["vendor"].append(sample.protocol.vendor)
    folder.mkdir(parents=True, exist_ok=True)
    aside = path.with_suffix(".part")
    kinds = {"diagnostic": np.float32, "readable_mm2": np.float32}
    with aside.open("wb") as file:
        np.savez(file, **{k: np.asarray(v, kinds.get(k)) for k, v in rows.items()})  # type: ignore[arg-type]
    aside.replace(path)
    return path


def read_shards(paths: Iterable[Path]) -> Slices:
    """Several files as one; ValueError when there is none."""
    loaded = [np.load(path) for path in paths]
    if not loaded:
        raise ValueError("no simulated slice to learn from")
    return Slices(**{name: np.concatenate([file[name] for file in loaded]) for name in Slices.__annotations__})
