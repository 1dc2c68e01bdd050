"""Bundles: the contract of the Predictor, and the refusal of altered weights."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import SHIPPED, BundleError, open_bundle, sha256_of
from pipelines.pipeline import Predictor

CHANNELS = {
    "ct_liver": ("background", "liver"),
    "ct_lesion": ("background", "liver", "HCC", "ICC", "MET", "FNH", "HEM", "CYST"),
    "ct_review": ("none", "HCC", "ICC", "MET", "FNH", "HEM", "CYST"),
}


@pytest.fixture
def own_bundles(tmp_path: Path) -> Path:
    shutil.copytree(SHIPPED / "ct_liver", tmp_path / "ct_liver")
    return tmp_path


@pytest.mark.parametrize("name", ["ct_liver", "ct_lesion"])
def test_shipped_bundle_is_a_predictor(name: str) -> None:
    bundle: Predictor = open_bundle(name, device="cpu")
    assert bundle.name == name
    assert bundle.channels == CHANNELS[name]
    assert "simulated" in bundle.trained_on
    assert len(bundle.sha256) == 64
    assert bundle.version
    assert len(bundle.spacing_mm) == 3
    for shape in ((13, 37, 41), (20, 30, 117)):  # neither fits the network's strides, one exceeds the window
        image = np.random.default_rng(0).normal(40, 30, (2, *shape)).astype(np.float32)
        probabilities = bundle(image)
        assert probabilities.shape == (len(CHANNELS[name]), *shape)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities.sum(0), 1, atol=1e-3)


def test_the_review_judges_the_middle_of_a_patch() -> None:
    bundle: Predictor = open_bundle("ct_review", device="cpu")
    assert bundle.channels == CHANNELS["ct_review"]
    assert bundle.in_channels == ("arterial", "portal_venous", "lesion", "liver", "candidate")
    patch = np.zeros((5, 40, 96, 80), np.float32)
    patch[:2], patch[3] = 100, 1
    patch[:, 18:22, 44:52, 36:44] = np.array([5, 5, 0.9, 1, 1], np.float32)[:, None, None, None]
    answer = bundle(patch)
    assert answer.shape == (7, 1, 1, 1)
    assert answer.sum() == pytest.approx(1, abs=1e-3)
    middle = patch[:, 4:36, 16:80, 8:72]
    np.testing.assert_allclose(bundle(middle), answer, atol=1e-5)
    with pytest.raises(ValueError, match="at least"):
        bundle(patch[:, :20])


@pytest.mark.parametrize("name", list(CHANNELS))
def test_bundle_is_complete(name: str) -> None:
    for part in ("configs/metadata.json", "configs/inference.json", "configs/train.json", "docs/README.md", "LICENSE"):
        assert (SHIPPED / name / part).is_file(), part
    assert (SHIPPED / name / "models" / "model.pt").stat().st_size < 8_000_000
    assert "research use; trained on simulated data" in (SHIPPED / name / "docs" / "README.md").read_text().lower()
    metadata = json.loads((SHIPPED / name / "configs" / "metadata.json").read_text())
    assert metadata["network_data_format"]["outputs"]["pred"]["num_channels"] == len(CHANNELS[name])


def test_same_image_same_answer() -> None:
    bundle = open_bundle("ct_liver", device="cpu")
    image = np.random.default_rng(1).normal(40, 30, (2, 20, 40, 40)).astype(np.float32)
    np.testing.assert_array_equal(bundle(image), bundle(image))


def test_wrong_images_are_refused_by_name() -> None:
    bundle = open_bundle("ct_liver", device="cpu")
    with pytest.raises(ValueError, match=r"must be \[2, slice, row, column\]"):
        bundle(np.zeros((1, 20, 40, 40), np.float32))
    with pytest.raises(ValueError, match="finite"):
        bundle(np.full((2, 8, 16, 16), np.nan, np.float32))


def test_altered_weights_are_refused(own_bundles: Path) -> None:
    weights = own_bundles / "ct_liver" / "models" / "model.pt"
    data = bytearray(weights.read_bytes())
    data[len(data) // 2] ^= 1
    weights.write_bytes(data)
    with pytest.raises(BundleError, match="altered or damaged"):
        open_bundle("ct_liver", device="cpu", root=own_bundles)


def test_missing_weights_and_unknown_names_are_refused(own_bundles: Path) -> None:
    (own_bundles / "ct_liver" / "models" / "model.pt.sha256").unlink()
    with pytest.raises(BundleError, match=r"model\.pt\.sha256"):
        open_bundle("ct_liver", device="cpu", root=own_bundles)
    with pytest.raises(BundleError, match="no_such"):
        open_bundle("no_such", root=own_bundles)


def test_a_sites_own_bundle_takes_precedence(own_bundles: Path) -> None:
    folder = own_bundles / "ct_liver"
    state = torch.load(folder / "models" / "model.pt", weights_only=True)
    key = next(iter(state))
    state[key] = state[key] * 0
    torch.save(state, folder / "models" / "model.pt")
    (folder / "models" / "model.pt.sha256").write_text(sha256_of(folder / "models" / "model.pt"))
    own, shipped = open_bundle("ct_liver", device="cpu", root=own_bundles), open_bundle("ct_liver", device="cpu")
    assert own.folder == folder
    assert own.sha256 != shipped.sha256
    # A bundle that the site has not made comes from the package.
    assert open_bundle("ct_lesion", device="cpu", root=own_bundles).folder == SHIPPED / "ct_lesion"


def test_weights_that_do_not_fit_the_network_are_refused(own_bundles: Path) -> None:
    config = own_bundles / "ct_liver" / "configs" / "inference.json"
    text = json.loads(config.read_text())
    text["network_def"]["filters"] = [4, 8, 16]
    config.write_text(json.dumps(text))
    with pytest.raises(BundleError, match="does not fit"):
        open_bundle("ct_liver", device="cpu", root=own_bundles)
