"""Open a MONAI bundle: check its hash, build network and transforms from its configuration, run it on arrays."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.config_parser import ConfigParser
from numpy.typing import NDArray
from torch import nn

SHIPPED = Path(__file__).resolve().parent
REQUIRED_METADATA = ("version", "spacing_mm", "channels", "in_channels", "trained_on")


class BundleError(Exception):
    """A bundle that must not be used: missing, incomplete or altered; the text is meant for the administrator."""


@dataclass(frozen=True)
class Bundle:
    """An opened bundle, ready to run; made by `open_bundle`."""

    name: str
    version: str
    sha256: str  # of the weights
    trained_on: str  # in words, for the report
    spacing_mm: tuple[float, float, float]  # slice, row, column
    channels: tuple[str, ...]  # of the output
    in_channels: tuple[str, ...]  # of the input: ("arterial", "portal_venous")
    folder: Path
    device: torch.device
    _network: nn.Module
    _preprocessing: Any
    _inferer: Any
    _postprocessing: Any

    def __call__(self, image: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run the network.

        image: [channel, slice, row, column], HU, on a grid of `spacing_mm`, channels as `in_channels`.
        Returns probabilities [channel, slice, row, column] of the same spatial shape, channels as `channels`.
        Raises ValueError when the shape is not as said or a voxel is not finite.
        """
        if image.ndim != 4 or image.shape[0] != len(self.in_channels):
            raise ValueError(
                f"{self.name}: image must be [{len(self.in_channels)}, slice, row, column], got {image.shape}"
            )
        if min(image.shape) < 1 or not np.isfinite(image).all():
            raise ValueError(f"{self.name}: image must not be empty and must hold finite HU only")
        with torch.inference_mode():
            tensor = torch.from_numpy(np.ascontiguousarray(image, np.float32))
            batch = torch.as_tensor(self._preprocessing(tensor))[None].to(self.device)
            logits = self._inferer(batch, self._network)[0]
            probabilities = torch.as_tensor(self._postprocessing(logits)).float().cpu().numpy()
        return np.asarray(probabilities, np.float32)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def bundle_folder(name: str, root: Path | None = None) -> Path:
    """Folder of a bundle: the site's own under `root` if there is one, else the shipped one.

    Raises BundleError when neither has a configs/metadata.json.
    """
    for parent in ([root] if root is not None else []) + [SHIPPED]:
        if (parent / name / "configs" / "metadata.json").is_file():
            return parent / name
    raise BundleError(f"bundle {name}: no {name}/configs/metadata.json in {root or SHIPPED}")


def pick_device(device: str = "auto") -> torch.device:
    """'auto' is CUDA when there is a usable GPU, else the CPU."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(device)


def read_config(folder: Path) -> ConfigParser:
    """The parsed configs/inference.json of a bundle."""
    with (folder / "configs" / "inference.json").open(encoding="utf-8") as file:
        return ConfigParser(json.load(file))


def open_bundle(name: str, device: str = "auto", threads: int | None = None, root: str | Path | None = None) -> Bundle:
    """Open a bundle by name and check that its weights are those it was released with.

    root: a folder with a site's own bundles, which take precedence over the shipped ones.
    threads: for torch on the CPU, for the whole process; None leaves it as it is.
    Raises BundleError when the bundle is missing, incomplete, or its weights do not match models/model.pt.sha256.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    folder = bundle_folder(name, Path(root) if root is not None else None)
    weights = folder / "models" / "model.pt"
    stated_file = folder / "models" / "model.pt.sha256"
    if not weights.is_file() or not stated_file.is_file():
        raise BundleError(f"bundle {name}: models/model.pt and models/model.pt.sha256 must both be in {folder}")
    found = sha256_of(weights)
    words = stated_file.read_text(encoding="ascii").split()
    stated = words[0].lower() if words else ""
    if found != stated:
        raise BundleError(
            f"bundle {name}: models/model.pt has SHA-256 {found}, model.pt.sha256 says {stated or 'nothing'}; "
            "the weights were altered or damaged. Restore them or train the bundle again."
        )
    with (folder / "configs" / "metadata.json").open(encoding="utf-8") as file:
        metadata = json.load(file)
    missing = [key for key in REQUIRED_METADATA if key not in metadata]
    if missing:
        raise BundleError(f"bundle {name}: configs/metadata.json lacks {', '.join(missing)}")
    where = pick_device(device)
    parser = read_config(folder)
    network: nn.Module = parser.get_parsed_content("network_def")
    state = torch.load(weights, map_location="cpu", weights_only=True)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise BundleError(f"bundle {name}: models/model.pt does not fit network_def of inference.json") from error
    spacing = tuple(float(s) for s in metadata["spacing_mm"])
    return Bundle(
        name=name,
        version=str(metadata["version"]),
        sha256=found,
        trained_on=str(metadata["trained_on"]),
        spacing_mm=(spacing[0], spacing[1], spacing[2]),
        channels=tuple(metadata["channels"]),
        in_channels=tuple(metadata["in_channels"]),
        folder=folder,
        device=where,
        _network=network.to(where).eval(),
        _preprocessing=parser.get_parsed_content("preprocessing"),
        _inferer=parser.get_parsed_content("inferer"),
        _postprocessing=parser.get_parsed_content("postprocessing"),
    )
