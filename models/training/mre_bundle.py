"""Train the bundle mre_qc: simulate slices, train one network after the other, calibrate them together, write it."""

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Protocol

import monai
import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import Tensor

from models.bundle import SHIPPED, bundle_folder, pick_device, read_config, sha256_of
from models.mre_networks import MAPS, Ensemble
from models.phantoms.mre.readable import REASONS
from models.training import mre_qc
from models.training.loop import Budget, fit, save_state
from models.training.mre_slices import PER_SHARD, STEPS_PER_UNIT, Slices, read_shards, write_shard

EXAM_SHARE = 0.2  # of the slices come as whole exams
CALIBRATION_SHARE = 0.15  # held-out slices, in relation to those that are learned from
USUAL_SUBSETS = (
    ("magnitude", "phase", "wave", "elastogram", "confidence", "colour"), ("magnitude", "phase"), ("magnitude",),
    ("phase",), ("colour",),
)  # fmt: skip


class Measure(Protocol):
    """How channels are measured: a module of the pipeline, which the node hands in."""

    CHANNELS: tuple[str, ...]
    OF_ROLE: dict[str, tuple[str, ...]]
    PITCH_MM: float

    def describe(self, images: Any, hz: float | None, sequence: str) -> NDArray[np.float32]:
        """See mre_slices.Describer."""
        ...

    def onto_grid(
        self, image: NDArray, first: tuple[float, float], spacing: tuple[float, float]
    ) -> NDArray[np.float32]:
        """[row, column] to the grid of the channels."""
        ...


@dataclass(frozen=True)
class Answers:
    """What an ensemble says of slices; n is their number."""

    maps: NDArray[np.float32]  # [n, MAPS] mean area in cm2
    diagnostic: NDArray[np.float32]  # [n] calibrated
    reasons: NDArray[np.float32]  # [n, reasons]
    single: NDArray[np.float32]  # [n, network, 1 + reasons]


def train(
    *,
    measure: Measure,
    out_dir: Path | str | None = None,
    cache_dir: Path | str | None = None,
    cases: int = 9000,
    device: str = "auto",
    minutes: float | None = 60.0,
    steps: int | None = None,
    batch: int = mre_qc.BATCH,
    seed: int = 0,
    show_progress: bool = True,
    start_from: Path | None = None,
) -> Path:
    """Train mre_qc on `cases` simulated slices and write it to out_dir (bundles/mre_qc when None); returns the folder.

    Slices are simulated once into cache_dir (a folder beside out_dir when None), on all cores. minutes and steps limit
    the training, whichever ends first; minutes are shared by the networks, steps are for each. start_from: a state dict
    of the ensemble to go on from. Raises ValueError when there is nothing to learn from.
    """
    folder = Path(out_dir) if out_dir is not None else Path("bundles") / "mre_qc"
    cache = Path(cache_dir) if cache_dir is not None else folder.parent / ".mre_slices"
    count = -(-cases // PER_SHARD)
    held = max(1, round(count * CALIBRATION_SHARE))
    single = _simulate(cache, mre_qc.FIRST_SEED, count - round(count * EXAM_SHARE), measure, show_progress)
    whole = _simulate(cache, mre_qc.FIRST_EXAM_SEED, round(count * EXAM_SHARE), measure, show_progress, whole=True)
    data = read_shards([*single, *whole])
    unseen = read_shards(_simulate(cache, mre_qc.FIRST_CALIBRATION_SEED, held, measure, show_progress))
    torch.manual_seed(seed)
    ensemble = read_config(bundle_folder("mre_qc")).get_parsed_content("network_def")
    if not isinstance(ensemble, Ensemble):
        raise ValueError(f"bundle mre_qc: network_def must be an Ensemble, got {type(ensemble).__name__}")
    if start_from is not None:
        ensemble.load_state_dict(torch.load(start_from, map_location="cpu", weights_only=True))
    roles = mre_qc.role_of(measure.CHANNELS, measure.OF_ROLE)
    began, taken = time.monotonic(), {}
    where = str(pick_device(device))
    with Progress(disable=not show_progress) as bar:
        for number, (kind, network) in enumerate(ensemble.networks.items()):
            task = bar.add_task(f"training {kind}", total=1.0)
            stream = mre_qc.batches(data, measure.CHANNELS, roles, np.random.default_rng([seed, number]), batch)
            budget = Budget(steps=steps, minutes=minutes and minutes / len(ensemble.networks))

            def on_step(step: Any, task: Any = task, kind: str = kind) -> None:
                bar.update(task, completed=step.fraction)
                taken[kind] = step.step

            kept = fit(
                network, stream, mre_qc.loss, budget,
                device=where, peak_rate=mre_qc.PEAK_RATE, on_step=on_step, average=0.99,
            )  # fmt: skip
            network.load_state_dict(kept.cpu().state_dict())
            network.cpu()
    facts = {
        "data": f"{len(data.diagnostic)} simulated slices",
        "steps": taken,
        "batch": batch,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "seed": seed,
        "calibrated_on": f"{len(unseen.diagnostic)} other simulated slices",
        "finished": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    return finish(ensemble, unseen, measure, folder, facts)


def _simulate(
    cache: Path, first: int, count: int, measure: Measure, show_progress: bool, *, whole: bool = False
) -> list[Path]:
    make = partial(write_shard, cache, describe=measure.describe, onto_grid=measure.onto_grid, whole=whole)
    with (
        ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool,
        Progress(disable=not show_progress) as bar,
    ):
        made = pool.map(make, range(first, first + count))
        return list(bar.track(made, total=count, description="simulating slices"))


def finish(ensemble: Ensemble, unseen: Slices, measure: Measure, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Calibrate trained networks on slices that they have not learned from, and write the bundle."""
    roles = mre_qc.role_of(measure.CHANNELS, measure.OF_ROLE)
    ensemble.eval()
    odds, kinds, truth = [], [], []
    for subset in USUAL_SUBSETS:
        for image, rows in _chunks(unseen, roles, subset):
            with torch.inference_mode():
                said = torch.stack([network(image)[:, MAPS, 0, 0] for network in ensemble.networks.values()])
                odds.append(said.mean(0))
                kinds.append(ensemble.inputs_of(image))
            truth.append(torch.from_numpy(unseen.diagnostic[rows]))
    mre_qc.calibrate(ensemble, torch.cat(odds).clone(), torch.cat(kinds).clone(), torch.cat(truth))
    return install(ensemble, measure, folder, facts)


def _chunks(
    data: Slices, roles: dict[str, list[int]], subset: Sequence[str], size: int = 32
) -> Iterator[tuple[Tensor, slice]]:
    for start in range(0, len(data.diagnostic), size):
        rows = slice(start, start + size)
        image = torch.from_numpy(data.channels[rows]).float() / STEPS_PER_UNIT
        yield mre_qc.keep_only(image, roles, subset), rows


def answers(ensemble: Ensemble, data: Slices, roles: dict[str, list[int]], subset: Sequence[str]) -> Answers:
    """Judge slices as if only the roles of `subset` had been sent."""
    ensemble.eval()
    out, areas = [], []
    for image, _ in _chunks(data, roles, subset):
        with torch.inference_mode():
            said = ensemble(image[:, :, None])[:, :, 0]
        areas.append(said[:, :MAPS].sum((2, 3)).numpy() * next(iter(ensemble.networks.values())).cell_cm2)
        out.append(said[:, MAPS:, 0, 0].numpy())
    numbers = np.concatenate(out).reshape(len(data.diagnostic), -1, 1 + len(REASONS))
    return Answers(np.concatenate(areas), numbers[:, 0, 0], numbers[:, 0, 1:], numbers[:, 1:])


def install(ensemble: Ensemble, measure: Measure, folder: Path, facts: Mapping[str, Any]) -> Path:
    """Make `folder` a complete bundle with these weights; what it lacks comes from the shipped one."""
    source = SHIPPED / "mre_qc"
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in ("configs/inference.json", "configs/train.json", "docs/README.md", "LICENSE"):
        if not (folder / name).exists() and (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    weights = folder / "models" / "model.pt"
    save_state(ensemble, weights)
    digest = sha256_of(weights)
    (folder / "models" / "model.pt.sha256").write_text(f"{digest}  model.pt\n", encoding="ascii")
    version = f"0.1.0+{digest[:8]}"
    said = ("diagnostic", *REASONS)
    channels = [*mre_qc.CHANNELS_OF_ALL, *(f"{kind}:{name}" for kind in ensemble.networks for name in said)]
    shape = ["*", "*", "*"]
    metadata = {
        "version": version,
        "changelog": {version: f"Trained on {facts['data']}."},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "task": mre_qc.TASK,
        "description": mre_qc.DESCRIPTION,
        "authors": "dicom-node",
        "copyright": "Apache-2.0",
        "intended_use": "research use; trained on simulated data",
        "trained_on": f"{facts['data']}",
        "spacing_mm": [10.0, measure.PITCH_MM, measure.PITCH_MM],
        "in_channels": list(measure.CHANNELS),
        "channels": channels,
        "training": dict(facts),
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image", "format": "measured", "modality": "MR", "num_channels": len(measure.CHANNELS),
                    "spatial_shape": shape, "dtype": "float32", "value_range": [-3.9, 3.9], "is_patch_data": False,
                    "channel_def": {str(i): name for i, name in enumerate(measure.CHANNELS)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities", "format": "classification", "num_channels": len(channels),
                    "spatial_shape": shape, "dtype": "float32", "value_range": [0, 1], "is_patch_data": False,
                    "channel_def": {str(i): name for i, name in enumerate(channels)},
                }
            },
        },
    }  # fmt: skip
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
    return folder
