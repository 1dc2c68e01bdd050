"""The networks of the CT bundles: a U-Net that works on folded voxels, and a classifier of what it found."""

from collections.abc import Sequence

import torch
import torch.nn.functional as nnf
from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn

from models.candidate_numbers import NUMBERS, candidate_numbers


def _folded(image: Tensor) -> Tensor:
    """[N, C, D, H, W] -> [N, 4 C, D, H / 2, W / 2]: blocks of 1 x 2 x 2 voxels as channels."""
    n, c, d, h, w = image.shape
    blocks = image.reshape(n, c, d, h // 2, 2, w // 2, 2).permute(0, 1, 4, 6, 2, 3, 5)
    return blocks.reshape(n, 4 * c, d, h // 2, w // 2)


class FoldedUNet(nn.Module):
    """DynUNet on blocks of 1 x 2 x 2 voxels, which it takes and gives as channels.

    Folding keeps the in-plane detail of the input while all convolutions run on a quarter of the voxels, which is what
    a node without a GPU can afford. `filters` are the widths of the levels; each level halves all three axes.
    forward: [N, in_channels, D, H, W] -> logits [N, out_channels, D, H, W] of any size; within, the border is repeated
    up to a multiple of 2**(levels - 1) for D and of 2**levels for H and W.
    """

    def __init__(self, in_channels: int, out_channels: int, filters: Sequence[int]) -> None:
        super().__init__()
        levels = len(filters)
        self.out_channels = out_channels
        self.multiple = (2 ** (levels - 1), 2**levels, 2**levels)
        self.unet = DynUNet(
            spatial_dims=3,
            in_channels=4 * in_channels,
            out_channels=4 * out_channels,
            kernel_size=[3] * levels,
            strides=[1] + [2] * (levels - 1),
            upsample_kernel_size=[2] * (levels - 1),
            filters=list(filters),
            norm_name=("instance", {"affine": True}),
            res_block=False,
            deep_supervision=False,
        )

    def forward(self, image: Tensor) -> Tensor:
        d, h, w = image.shape[2:]
        missing = [-size % multiple for size, multiple in zip((d, h, w), self.multiple, strict=True)]
        if any(missing):
            image = nnf.pad(image, (0, missing[2], 0, missing[1], 0, missing[0]), mode="replicate")
        logits: Tensor = self.unet(_folded(image))
        n, k = len(image), self.out_channels
        deep, high, wide = logits.shape[2:]
        unfolded = logits.reshape(n, k, 2, 2, deep, high, wide).permute(0, 1, 4, 5, 2, 6, 3)
        return unfolded.reshape(n, k, deep, 2 * high, 2 * wide)[:, :, :d, :h, :w]


class ReviewNet(nn.Module):
    """Classify the candidate in the middle of a patch of 32 x 64 x 64 voxels (96 mm at 3 x 1.5 x 1.5 mm).

    forward: [N, 5, D, H, W] -> logits [N, out_channels, 1, 1, 1]. Channels: both phases, normalised; probability of a
    lesion and of the liver with its lesions; the candidate's own voxels (0 or 1). What exceeds 32 x 64 x 64 is cut off
    around the middle; less is not accepted.
    The patch is described by plain numbers (`candidate_numbers`) at two scales: its middle half at full detail, and the
    whole at 6 mm. `judge` gives the answer from them.
    """

    SIZE = (32, 64, 64)

    def __init__(self, out_channels: int, spacing_mm: Sequence[float], hidden: int, heads: int) -> None:
        super().__init__()
        self.spacing_mm = tuple(spacing_mm)
        self.judge = Judge(2 * NUMBERS, out_channels, hidden, heads)

    def numbers(self, patch: Tensor) -> Tensor:
        """[N, 5, D, H, W] -> [N, 2 * NUMBERS]."""
        starts = [(n - size) // 2 for n, size in zip(patch.shape[2:], self.SIZE, strict=True)]
        if min(starts) < 0:
            raise ValueError(f"a patch must be at least {self.SIZE} voxels, got {tuple(patch.shape[2:])}")
        z, y, x = (slice(start, start + size) for start, size in zip(starts, self.SIZE, strict=True))
        patch = patch[:, :, z, y, x]
        near = patch[:, :, 8:24, 16:48, 16:48]
        wide = nnf.avg_pool3d(patch, (2, 4, 4))
        deep, high, broad = self.spacing_mm
        return torch.cat(
            [
                candidate_numbers(near, self.spacing_mm),
                candidate_numbers(wide, (2 * deep, 4 * high, 4 * broad)),
            ],
            1,
        )

    def forward(self, patch: Tensor) -> Tensor:
        logits: Tensor = self.judge(self.numbers(patch))
        return logits[:, :, None, None, None]


class Judge(nn.Module):
    """Small perceptrons on the same standardised numbers: some tell lesions from others, some tell the class.

    They disagree where they have not learned enough, and their mean probability counts.
    forward: [N, numbers] -> logits, channel 0 "no lesion": while training [N, out_channels, heads], else
    [N, out_channels].
    """

    def __init__(self, numbers: int, out_channels: int, hidden: int, heads: int) -> None:
        super().__init__()
        self.standardise = nn.BatchNorm1d(numbers, affine=False)
        self.lesion = nn.ModuleList(_perceptron(numbers, hidden, 1) for _ in range(heads))
        self.kind = nn.ModuleList(_perceptron(numbers, hidden, out_channels - 1) for _ in range(heads))

    def forward(self, numbers: Tensor) -> Tensor:
        values = self.standardise(numbers).clamp(-5, 5)
        if self.training:  # numbers of another scanner's images would not be quite these
            values = values + 0.3 * torch.randn_like(values)
        lesion = torch.stack([head(values) for head in self.lesion], -1)
        kind = nnf.log_softmax(torch.stack([head(values) for head in self.kind], -1), 1)
        answers = torch.cat([nnf.logsigmoid(-lesion), nnf.logsigmoid(lesion) + kind], 1)
        if self.training:
            return answers
        none, shares = answers[:, :1].exp().mean(-1), kind.exp().mean(-1)
        return torch.log(torch.cat([none, (1 - none) * shares], 1) + 1e-8)


def _perceptron(numbers: int, hidden: int, out: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(numbers, hidden), nn.GELU(), nn.Dropout(0.5), nn.Linear(hidden, out))
