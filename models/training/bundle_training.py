"""Train a bundle: gather samples, run its recipe, write a complete bundle that `open_bundle` accepts."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from models.bundle import SHIPPED, bundle_folder, open_bundle, pick_device, read_config, sha256_of
from models.networks import ReviewNet
from models.training import ct_review
from models.training.cases import Sample, read_samples, write_phantoms
from models.training.ct_review import Propose
from models.training.loop import Budget, fit, save_state
from models.training.loop import Progress as Step
from models.training.site_cases import PhasesLike, sample_of_site_case

RECIPES = {
    "ct_liver": "models.training.ct_liver",
    "ct_lesion": "models.training.ct_lesion",
    "ct_review": "models.training.ct_review",
}
IN_CHANNELS = ("arterial", "portal_venous")
# Finds and reads the two phases below a case folder's dicom/. The node hands it in: recognising series is its business.
ReadPhases = Callable[[Path], PhasesLike]


def train(
    bundle: str,
    *,
    out_dir: Path | str | None = None,
    data_dir: Path | str | None = None,
    read_phases: ReadPhases | None = None,
    propose: Propose | None = None,
    cache_dir: Path | str | None = None,
    cases: int = 300,
    device: str = "auto",
    minutes: float | None = 60.0,
    steps: int | None = None,
    batch: int = 1,
    seed: int = 0,
    start_from: Path | None = None,
    show_progress: bool = True,
) -> Path:
    """Train a bundle and write it to out_dir (bundles/<bundle> when None); returns that folder.

    Without data_dir the bundle learns from `cases` simulated patients, made once into cache_dir (a folder beside
    out_dir when None). With data_dir it learns from a site's case folders, whose phases read_phases finds and reads
    from <case>/dicom; their lesions count as spheres of their diameter, because the folders carry no lesion masks.
    ct_review learns from the candidates that propose finds in what the bundle ct_lesion says: the one beside out_dir if
    there is one, else the shipped one.
    minutes and steps limit the training, whichever ends first. start_from: a state dict
    to go on from. The same seed, steps and thread count give the same weights on one machine.
    Raises ValueError for an unknown bundle or when there is nothing to learn from.
    """
    if bundle not in RECIPES:
        raise ValueError(f"bundle {bundle}: no recipe; there are {', '.join(sorted(RECIPES))}")
    recipe = import_module(RECIPES[bundle])
    folder = Path(out_dir) if out_dir is not None else Path("bundles") / bundle
    torch.manual_seed(seed)
    if data_dir is None:
        cache = Path(cache_dir) if cache_dir is not None else folder.parent / ".samples"
        numbers = range(recipe.FIRST_PATIENT, recipe.FIRST_PATIENT + cases)
        _make_phantoms(cache, numbers, show_progress)
        samples = load_samples(cache, recipe.PREFIX, numbers)
        source = f"{len(samples)} simulated patients"
    else:
        if read_phases is None:
            raise ValueError("training from case folders needs read_phases, which finds the two phases in a folder")
        folders = sorted(p.parent for p in Path(data_dir).glob("*/truth.json"))
        samples = [sample_of_site_case(case, read_phases(case / "dicom")) for case in folders]
        source = f"{len(samples)} case folders of the site (lesions as spheres)"
    if not samples:
        raise ValueError(f"bundle {bundle}: no sample to learn from")
    parser = read_config(bundle_folder(bundle))
    network: nn.Module = parser.get_parsed_content("network_def")
    if start_from is not None:
        load_state(network, start_from)
    normalise = parser.get_parsed_content("preprocessing")
    rng = np.random.default_rng(seed)
    learner: nn.Module = network
    if bundle == "ct_review":
        if propose is None:
            raise ValueError(f"training {bundle} needs propose, which divides what ct_lesion says into candidates")
        if not isinstance(network, ReviewNet):
            raise ValueError(f"bundle {bundle}: network_def must be a ReviewNet, got {type(network).__name__}")
        found = _cases_with_candidates(samples, propose, folder.parent, device, show_progress)
        network.to(pick_device(device)).eval()
        table = ct_review.table_of(found, network, normalise, rng, ct_review.VIEWS)
        learner, steps = network.judge, steps or ct_review.STEPS
        batches = partial(ct_review.batches, table, rng, batch)
    else:
        batches = partial(recipe.batches, samples, rng, batch, normalise)
    state = folder.parent / f".{bundle}.checkpoint.pt"
    began = time.monotonic()
    last = [Step(0, 0.0, 0.0, 0.0)]
    steps_before = 0
    columns = (
        TextColumn(f"training {bundle}"), BarColumn(),
        TextColumn("step {task.fields[step]}  loss {task.fields[loss]:.3f}"),
        TimeElapsedColumn(), TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, disable=not show_progress) as bar:
        task = bar.add_task("train", total=1.0, step=0, loss=0.0)

        def on_step(step: Step) -> None:
            last[0] = step
            bar.update(task, completed=step.fraction, step=step.step, loss=step.loss)

        rounds = 2 if hasattr(recipe, "hard_points") else 1
        budget = Budget(steps=steps and -(-steps // rounds), minutes=minutes and minutes / rounds)
        for number in range(rounds):
            if number:
                _look_again(network, samples, recipe, parser, rng)
                steps_before += last[0].step
            kept = fit(
                learner,
                batches(),
                recipe.loss,
                budget,
                device=str(pick_device(device)),
                peak_rate=recipe.PEAK_RATE,
                checkpoint=state,
                on_step=on_step,
            )
            learner.load_state_dict(kept.state_dict())
    save_state(network, state)
    facts = {
        "data": source,
        "steps": steps_before + last[0].step,
        "batch": batch,
        "minutes": round((time.monotonic() - began) / 60, 1),
        "final_loss": round(last[0].loss, 4),
        "seed": seed,
        "finished": datetime.now(UTC).strftime("%Y-%m-%d"),
    }
    install(bundle, state, folder, facts)
    state.unlink()
    return folder


def _look_again(
    network: nn.Module, samples: list[Sample], recipe: Any, parser: ConfigParser, rng: np.random.Generator
) -> None:
    """Half-way: note in every sample where the network is wrong, so that the second half trains there more."""
    normalise, infer = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("inferer")
    network.eval()
    device = next(network.parameters()).device
    with torch.inference_mode():
        for sample in samples:
            image = torch.as_tensor(normalise(torch.from_numpy(sample["lesion_image"].astype(np.float32))))
            answer = torch.softmax(infer(image[None].to(device), network)[0].float(), 0).cpu().numpy()
            sample["lesion_hard"] = recipe.hard_points(answer, sample, rng)


def _cases_with_candidates(
    samples: list[Sample], propose: Propose, root: Path, device: str, show_progress: bool
) -> Iterator[ct_review.Case]:
    lesion = open_bundle("ct_lesion", device, root=root)
    with Progress(disable=not show_progress) as bar:
        for sample in bar.track(samples, description="finding candidates"):
            yield ct_review.case_of(sample, lesion(sample["lesion_image"].astype(np.float32)), propose)


def _make_phantoms(cache: Path, numbers: range, show_progress: bool) -> None:
    with Progress(disable=not show_progress) as bar:
        for number in bar.track(numbers, description="simulating patients"):
            write_phantoms(cache, number, 1)


def load_samples(cache: Path, prefix: str, numbers: range) -> list[Sample]:
    """Read the samples of these patients into memory: the arrays whose name starts with `prefix`."""
    samples = []
    for path in read_samples(cache, numbers):
        with np.load(path) as file:
            samples.append({key: file[key] for key in file.files if key.startswith(prefix)})
    return samples


def load_state(network: nn.Module, path: Path) -> None:
    """Load a half-precision state dict into a network."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in state.items()})


def install(bundle: str, state: Path, folder: Path, facts: dict[str, Any]) -> None:
    """Make `folder` a complete bundle with these weights; `facts` says how they were trained.

    Configuration, licence and model card come from the shipped bundle unless they are there already.
    """
    recipe = import_module(RECIPES[bundle])
    in_channels = getattr(recipe, "IN_CHANNELS", IN_CHANNELS)
    source = SHIPPED / bundle
    for part in ("configs", "models", "docs"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name in ("configs/inference.json", "configs/train.json", "docs/README.md", "LICENSE"):
        if not (folder / name).exists() and (source / name).exists():
            shutil.copyfile(source / name, folder / name)
    weights = folder / "models" / "model.pt"
    network: nn.Module = read_config(folder).get_parsed_content("network_def")
    load_state(network, state)
    save_state(network, weights)
    digest = sha256_of(weights)
    (folder / "models" / "model.pt.sha256").write_text(f"{digest}  model.pt\n", encoding="ascii")
    version = str(facts.get("version", f"0.1.0+{digest[:8]}"))
    metadata = {
        "version": version,
        "changelog": {version: f"Trained for {facts['steps']} steps on {facts['data']}."},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.split("+")[0],
        "numpy_version": np.__version__,
        "task": recipe.TASK,
        "description": recipe.DESCRIPTION,
        "authors": "dicom-node",
        "copyright": "Apache-2.0",
        "intended_use": "research use; trained on simulated data",
        "trained_on": f"{facts['data']}; {facts['steps']} steps",
        "spacing_mm": list(recipe.SPACING_MM),
        "in_channels": list(in_channels),
        "channels": list(recipe.CHANNELS),
        "training": facts,
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT",
                    "num_channels": len(in_channels),
                    "spatial_shape": ["*", "*", "*"],
                    "dtype": "float32",
                    "value_range": [-1024, 3071],
                    "is_patch_data": True,
                    "channel_def": {str(i): name for i, name in enumerate(in_channels)},
                }
            },
            "outputs": {
                "pred": {
                    "type": "probabilities",
                    "format": "segmentation",
                    "num_channels": len(recipe.CHANNELS),
                    "spatial_shape": ["*", "*", "*"],
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": {str(i): name for i, name in enumerate(recipe.CHANNELS)},
                }
            },
        },
    }
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata, indent=2) + "\n", encoding="utf-8")
