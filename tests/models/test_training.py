"""Training: a few steps write a bundle that opens; a batch says the truth; losses fall."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from models.bundle import open_bundle
from models.candidate_numbers import NUMBERS, candidate_numbers
from models.networks import ReviewNet
from models.phantoms.acquisition import Scan
from models.phantoms.ct import simulate_ct_case
from models.phantoms.lesions import CLASSES
from models.preprocessing import ScalePhases
from models.training import ct_lesion, ct_review, train
from models.training.cases import LESION_SPACING_MM, coarse_noise, sample_of, sample_path
from models.training.loop import Budget, fit, learning_rate
from models.training.patches import Augmentation, cut
from models.training.site_cases import sample_of_site_case


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("samples")
    for number in range(2):
        case = simulate_ct_case(2_000_000 + number, spacing_mm=LESION_SPACING_MM, shape=(40, 130, 150), motion_mm=0.0)
        sample = sample_of(case)
        for first in (ct_lesion.FIRST_PATIENT, ct_review.FIRST_PATIENT):
            np.savez(sample_path(folder, first + number), **sample)  # type: ignore[arg-type]
    return folder


@pytest.mark.parametrize("name", ["ct_liver", "ct_lesion"])
def test_two_steps_write_a_bundle_that_opens(name: str, cache: Path, tmp_path: Path) -> None:
    folder = train(
        name, out_dir=tmp_path / name, cache_dir=cache, cases=2, device="cpu", steps=2, minutes=None, batch=1,
        show_progress=False,
    )  # fmt: skip
    assert folder == tmp_path / name
    bundle = open_bundle(name, device="cpu", root=tmp_path)
    assert bundle.folder == folder
    assert bundle.trained_on == "2 simulated patients; 2 steps"
    facts = json.loads((folder / "configs" / "metadata.json").read_text())["training"]
    assert facts["steps"] == 2
    assert np.isfinite(facts["final_loss"])
    assert bundle(np.zeros((2, 16, 32, 32), np.float32)).shape == (len(bundle.channels), 16, 32, 32)


@dataclass(frozen=True)
class Proposed:
    lesion: np.ndarray
    liver: np.ndarray
    labels: np.ndarray


def propose(probabilities: np.ndarray, *_: object) -> Proposed:
    """Two cubes, whatever the network says."""
    labels = np.zeros(probabilities.shape[1:], np.int32)
    labels[5:8, 10:16, 10:16], labels[9:12, 20:24, 20:24] = 1, 2
    return Proposed(probabilities[2:].sum(0), 1 - probabilities[0], labels)


def test_a_few_steps_write_a_review_that_opens(cache: Path, tmp_path: Path) -> None:
    options = {"cache_dir": cache, "cases": 2, "device": "cpu", "steps": 2, "minutes": None, "show_progress": False}
    folder = train("ct_review", out_dir=tmp_path / "ct_review", propose=propose, **options)
    bundle = open_bundle("ct_review", device="cpu", root=tmp_path)
    assert bundle.folder == folder
    assert bundle.trained_on == "2 simulated patients; 2 steps"
    assert bundle(np.zeros((5, 32, 64, 64), np.float32)).shape == (7, 1, 1, 1)
    with pytest.raises(ValueError, match="needs propose"):
        train("ct_review", out_dir=tmp_path / "other", **options)


def test_candidates_know_which_lesion_they_are() -> None:
    """On a lesion, a second piece of it, half on one, beside all."""
    truth = np.zeros((30, 60, 60), np.uint8)
    truth[2:28, 2:58, 2:58] = 1
    truth[10:16, 10:22, 10:22] = 2 + CLASSES.index("HEM")
    labels = np.zeros(truth.shape, np.int32)
    labels[10:16, 10:21, 10:22] = 1  # it
    labels[12:13, 21:22, 12:16] = 2  # a crumb of it
    labels[11:14, 18:21, 22:34] = 3  # nothing
    labels[20:24, 40:46, 40:46] = 4  # nothing
    sample = {
        "lesion_image": np.zeros((2, *truth.shape), np.int16),
        "lesion_label": truth,
        "lesion_points": np.array([[12, 15, 15]], np.int16),
        "lesion_size_mm": np.array([22.0], np.float32),
    }
    probabilities = np.zeros((8, *truth.shape), np.float32)
    probabilities[1] = 1
    case = ct_review.case_of(
        sample, probabilities, lambda p, *_: Proposed(p[2:].sum(0), 1 - p[0], labels)
    )  # fmt: skip
    kinds = {candidate.label: ct_review.CHANNELS[candidate.kind] for candidate in case.candidates}
    assert kinds == {1: "HEM", 3: "none", 4: "none"}  # a crumb is neither
    assert case.image.shape == (4, *truth.shape)
    network = ReviewNet(7, LESION_SPACING_MM, hidden=8, heads=2)
    table = ct_review.table_of([case], network, ScalePhases(-160, 400, -3, 4), np.random.default_rng(0), views=3)
    assert table.numbers.shape == (9, 2 * NUMBERS)
    assert torch.isfinite(table.numbers).all()
    numbers, label, weight = next(ct_review.batches(table, np.random.default_rng(0), 1))
    assert numbers.shape == (ct_review.BATCH, 2 * NUMBERS)
    assert set(label.tolist()) == {0, 1 + CLASSES.index("HEM")}
    right = torch.full((ct_review.BATCH, 7, 2), -8.0)
    right[torch.arange(ct_review.BATCH), label] = 8
    assert ct_review.loss(right, label, weight) < 0.01 < ct_review.loss(-right, label, weight)


def test_numbers_tell_a_ball_from_a_tube() -> None:
    """Both bright in the arterial phase; size, brightness and form are what was drawn."""
    patch = torch.zeros(2, 5, 16, 32, 32)
    patch[:, 3] = 1
    patch[0, [0, 4], 6:10, 12:20, 12:20] = 1  # 12 mm wide
    patch[1, [0, 4], :, 14:18, 14:18] = 1  # 48 mm long
    ball, tube = candidate_numbers(patch, LESION_SPACING_MM)
    assert ball.shape == (NUMBERS,)
    inside, voxels, long = 4, 26, 30
    assert ball[inside] == pytest.approx(1, abs=0.01)
    assert ball[inside + 1] == pytest.approx(0, abs=0.01)
    assert ball[voxels] == pytest.approx(np.log(4 * 8 * 8 + 1))
    assert abs(ball[long]) < 0.2
    assert tube[long] > 3


def test_case_folders_need_a_reader(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="read_phases"):
        train("ct_lesion", out_dir=tmp_path / "b", data_dir=tmp_path, steps=1, minutes=None, show_progress=False)
    with pytest.raises(ValueError, match="no recipe"):
        train("ct_brain", out_dir=tmp_path / "b", steps=1)


def test_a_patch_without_changes_is_the_image() -> None:
    rng = np.random.default_rng(0)
    image = rng.integers(-100, 300, (2, 20, 30, 40)).astype(np.int16)
    label = rng.integers(0, 8, (20, 30, 40)).astype(np.uint8)
    still = Augmentation((4, 6, 8), (3, 1.5, 1.5), motion_mm=0, zoom=0, rotate_degrees=0, flip=(0, 0, 0))
    hu, classes = cut(rng, image, label, np.array([9.5, 14.5, 19.5]), still)
    np.testing.assert_allclose(hu.numpy(), image[:, 8:12, 12:18, 16:24], atol=1e-2)
    np.testing.assert_array_equal(classes.numpy(), label[8:12, 12:18, 16:24])


def test_motion_moves_the_arterial_phase_only() -> None:
    rng = np.random.default_rng(0)
    ramp = np.broadcast_to(np.arange(40, dtype=np.int16) * 10, (2, 20, 30, 40)).copy()
    moving = Augmentation((8, 8, 8), (3, 1.5, 1.5), motion_mm=4, zoom=0, rotate_degrees=0, flip=(0, 0, 0))
    hu, _ = cut(rng, ramp, np.zeros((20, 30, 40), np.uint8), np.array([9.5, 14.5, 19.5]), moving)
    np.testing.assert_allclose(hu[1].numpy(), ramp[1, 6:14, 11:19, 16:24], atol=1e-2)
    moved = np.abs(hu[0].numpy() - hu[1].numpy()).mean() / 10 * 1.5  # mm
    assert 0.05 < moved < 8


def test_small_lesions_weigh_more_than_large_ones() -> None:
    label = torch.zeros(20, 60, 60, dtype=torch.long)
    label[:] = 1
    label[2:4, 5:8, 5:8] = 4
    label[:, :, 40:] = 0
    label[8:18, 10:40, 10:40] = 2
    weight = ct_lesion.weight_of(label)
    assert weight[3, 6, 6] > 2 * weight[12, 25, 25] > 2 * weight[0, 0, 0] > 4 * weight[0, 0, 59]


def test_the_loss_prefers_the_truth() -> None:
    label = torch.ones(1, 4, 8, 8, dtype=torch.long)
    label[0, 1:3, 2:6, 2:6] = 2
    weight = torch.ones(label.shape)
    right = 8 * torch.nn.functional.one_hot(label, 8).movedim(-1, 1).float()
    wrong_class = right.clone()
    wrong_class[:, [2, 5]] = wrong_class[:, [5, 2]]
    missed = 8 * torch.nn.functional.one_hot(torch.ones_like(label), 8).movedim(-1, 1).float()
    losses = [float(ct_lesion.loss(logits, label, weight)) for logits in (right, wrong_class, missed)]
    assert losses[0] < 0.1
    assert losses[0] < losses[1]
    assert losses[0] < losses[2]


def test_the_loop_learns_and_stops() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 1)

    def batches():  # type: ignore[no-untyped-def]
        generator = torch.Generator().manual_seed(1)
        while True:
            image = torch.randn(1, 1, 4, 8, 8, generator=generator)
            yield image, (image[:, 0] > 0).long(), torch.ones(1, 4, 8, 8)

    def loss_of(logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(logits, label)

    seen: list[float] = []
    fit(
        network,
        batches(),
        loss_of,
        Budget(steps=60),
        device="cpu",
        peak_rate=0.1,
        on_step=lambda p: seen.append(p.loss),
    )
    assert len(seen) == 60
    assert seen[-1] < 0.6 * seen[0]
    assert learning_rate(0.0, 1) < learning_rate(0.03, 1) > learning_rate(0.5, 1) > learning_rate(1.0, 1) > 0


def test_a_sites_case_becomes_a_sample(tmp_path: Path) -> None:
    import highdicom as hd
    import SimpleITK as sitk  # noqa: N813

    case = simulate_ct_case(4, spacing_mm=(5.0, 3.0, 3.0), shape=(46, 120, 140), motion_mm=0.0, noise=False)
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, :3] = [[0, 0, 3.0], [0, 3.0, 0], [5.0, 0, 0]]
    affine[:3, 3] = case.grid.origin_mm[::-1]

    def volume(array: np.ndarray) -> hd.Volume:
        return hd.Volume(array, affine, coordinate_system="PATIENT")

    class Phases:
        arterial, portal_venous = volume(case.arterial), volume(case.portal_venous)

    mask = sitk.GetImageFromArray(case.liver.astype(np.uint8))
    mask.SetSpacing((3.0, 3.0, 5.0))
    mask.SetOrigin(case.grid.origin_mm[::-1])
    sitk.WriteImage(mask, str(tmp_path / "liver.nii.gz"))
    lesions = [
        {"centre_mm": list(item.centre_mm[::-1]), "diameter_mm": item.diameter_mm, "class": item.kind}
        for item in case.lesions
    ]
    (tmp_path / "truth.json").write_text(json.dumps({"lesions": lesions, "liver_mask": "liver.nii.gz"}))
    sample = sample_of_site_case(tmp_path, Phases())
    voxel = float(np.prod(LESION_SPACING_MM))
    assert (sample["lesion_label"] > 0).sum() * voxel == pytest.approx(case.liver.sum() * 45, rel=0.1)
    for point, lesion in zip(sample["lesion_points"], lesions, strict=True):
        z, y, x = (int(v) for v in point)
        assert sample["lesion_label"][z, y, x] >= 2
        if lesion["class"] == "CYST" and lesion["diameter_mm"] > 20:
            assert abs(float(sample["lesion_image"][1, z, y, x])) < 30
    (tmp_path / "liver.nii.gz").unlink()
    with pytest.raises(ValueError, match="liver_mask"):
        sample_of_site_case(tmp_path, Phases())


def test_noise_falls_as_the_mean_over_four_pixels() -> None:
    """White noise halves; noise of long correlation stays."""
    white, long = (Scan(noise_hu=10, kernel_mm=k, slice_blur_mm=0, plane_blur_mm=0) for k in (0.01, 20.0))
    assert coarse_noise(white, 0.75) == pytest.approx(5.0, rel=0.01)
    assert coarse_noise(long, 0.75) == pytest.approx(10.0, rel=0.01)
