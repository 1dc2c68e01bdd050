"""Training of mre_qc from simulated slices to a bundle that opens."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import bundle_folder, open_bundle, read_config
from models.mre_networks import BLOCKS, MAPS, Ensemble, SliceNet
from models.phantoms.mre.readable import REASONS, SliceTruth
from models.training import mre_bundle, mre_qc
from models.training.loop import Budget, fit
from models.training.mre_slices import Slices, how_diagnostic, read_shards, reason_shares, write_shard
from pipelines.mre_qc import channels

ROLES = mre_qc.role_of(channels.CHANNELS, channels.OF_ROLE)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Slices:
    folder = tmp_path_factory.mktemp("slices")
    path = write_shard(folder, 820_001, channels.describe, channels.onto_grid, count=8)
    assert write_shard(folder, 820_001, channels.describe, channels.onto_grid, count=8) == path
    return read_shards([path])


def truth(diagnostic: bool, borderline: bool, area: float, inner: float) -> SliceTruth:
    empty = np.zeros((2, 2), bool)
    return SliceTruth(diagnostic, borderline, () if diagnostic else ("MOTION",), area, inner, 2.0, empty, empty)


def test_a_borderline_slice_is_between() -> None:
    assert how_diagnostic(truth(True, False, 1500, 4000), wrong_frequency=False) == 1
    assert how_diagnostic(truth(False, False, 300, 4000), wrong_frequency=False) == 0
    assert how_diagnostic(truth(True, True, 850, 2000), wrong_frequency=False) == pytest.approx(0.5)
    assert how_diagnostic(truth(False, True, 1050, 7500), wrong_frequency=False) == pytest.approx(0.2)
    assert reason_shares(()).sum() == 0
    assert reason_shares(("BLUR", "MOTION", "PHASE_WRAP")).sum() == pytest.approx(1)
    assert REASONS[int(reason_shares(("BLUR", "MOTION")).argmax())] == "BLUR"


def test_shards_hold_what_was_simulated(data: Slices) -> None:
    assert data.channels.shape == (8, len(channels.CHANNELS), *channels.SHAPE)
    liver, inner, readable = (data.maps[:, i].astype(int) for i in range(MAPS))
    assert (inner <= liver + 1).all()
    assert (readable <= inner + 1).all()
    areas = readable.sum((1, 2)) / 255 * channels.PITCH_MM**2
    shown = data.readable_mm2 > 500
    np.testing.assert_allclose(areas[shown], data.readable_mm2[shown], rtol=0.1)
    assert ((data.reasons.sum(1) > 0) == (data.diagnostic < 0.5)).mean() > 0.8


def test_batches_leave_roles_out_whole(data: Slices) -> None:
    stream = mre_qc.batches(data, channels.CHANNELS, ROLES, np.random.default_rng(1), 4)
    patterns = set()
    for _ in range(12):
        image, label, weight = next(stream)
        assert label.shape == (4, MAPS + 1 + len(REASONS), *channels.SHAPE)
        assert weight.shape == (4, 2)
        for one in image:
            there = tuple(role for role, indices in ROLES.items() if float(one[indices[-1]].max()) > 0.5)
            assert there
            patterns.add(there)
            for role, indices in ROLES.items():
                assert role in there or not one[indices].any()
    assert len(patterns) >= 5
    kept = mre_qc.keep_only(image, ROLES, ("phase",))
    assert not kept[:, ROLES["magnitude"]].any()


@pytest.mark.parametrize("kind", BLOCKS)
def test_every_network_learns(data: Slices, kind: str) -> None:
    torch.manual_seed(0)
    network = SliceNet(kind, len(channels.CHANNELS), len(REASONS), [8, 12, 16], [1, 1, 1], channels.PITCH_MM)
    stream = mre_qc.batches(data, channels.CHANNELS, ROLES, np.random.default_rng(2), 4)
    losses: list[float] = []
    image, label, weight = next(stream)
    batch = image[..., 16:64, 16:72], label[..., 16:64, 16:72], weight  # a part is enough to learn by heart
    fit(
        network, iter([batch] * 13), mre_qc.loss, Budget(steps=12),
        device="cpu", peak_rate=5e-3, on_step=lambda p: losses.append(p.loss),
    )  # fmt: skip
    with torch.no_grad():
        assert float(mre_qc.loss(network(batch[0]), *batch[1:])) < 0.7 * losses[0]


def test_calibration_makes_probabilities_frequencies() -> None:
    ensemble = read_config(bundle_folder("mre_qc")).get_parsed_content("network_def")
    generator = torch.Generator().manual_seed(0)
    odds = 3 * torch.randn(4000, generator=generator)
    happened = (torch.rand(4000, generator=generator) < torch.sigmoid(0.5 * odds + 0.4)).float()
    mre_qc.calibrate(ensemble, odds, torch.full((4000,), 3), happened)
    assert float(ensemble.scale[3]) == pytest.approx(0.5, abs=0.05)
    assert float(ensemble.shift[3]) == pytest.approx(0.4, abs=0.15)
    assert ensemble.scale[:3].tolist() == [1, 1, 1]


def test_what_is_written_opens_and_says_the_same(data: Slices, tmp_path: Path) -> None:
    torch.manual_seed(1)
    ensemble = read_config(bundle_folder("mre_qc")).get_parsed_content("network_def")
    assert isinstance(ensemble, Ensemble)
    facts = {"data": "8 simulated slices", "steps": {}}
    folder = mre_bundle.finish(ensemble, data, channels, tmp_path / "mre_qc", facts)
    bundle = open_bundle("mre_qc", "cpu", root=tmp_path)
    assert bundle.in_channels == channels.CHANNELS
    expected = mre_bundle.answers(ensemble, data, ROLES, ("magnitude", "phase"))
    images = mre_qc.keep_only(torch.from_numpy(data.channels).float() / 32, ROLES, ("magnitude", "phase"))
    said = bundle(images.transpose(0, 1).numpy())
    assert said.shape == (len(bundle.channels), 8, *channels.SHAPE)
    np.testing.assert_allclose(said[bundle.channels.index("diagnostic"), :, 0, 0], expected.diagnostic, atol=0.02)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    assert metadata["version"].endswith(bundle.sha256[:8])
    assert (folder / "models" / "model.pt").stat().st_size < 5 * 500_000
