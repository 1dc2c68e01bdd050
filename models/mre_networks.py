"""The networks of mre_qc: five small ones, differently built, that judge one slice each, and their ensemble.

All share how they begin (a convolution with stride 2) and end: maps of liver, inner liver and readable liver on the
input's grid, and the verdict from what the features say in those places and from the areas that they cover. Between,
each has three levels of its own kind of blocks.
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as nnf
from monai.networks.blocks.squeeze_and_excitation import ChannelSELayer
from torch import Tensor, nn

MAPS = 3  # liver, its part more than 8 mm inside the capsule, the part of that where stiffness can be read
FUSED = 32


def _conv(inputs: int, outputs: int, size: int, *, stride: int = 1, groups: int = 1, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


class Fire(nn.Module):
    """Squeeze by 1 x 1, expand by 1 x 1 and 3 x 3 (SqueezeNet, arXiv 1602.07360), with a bypass."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.squeeze = _conv(inputs, outputs // 4, 1)
        self.one = _conv(outputs // 4, outputs - outputs // 2, 1, act=False)
        self.three = _conv(outputs // 4, outputs // 2, 3, act=False)
        self.bypass = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        squeezed = self.squeeze(x)
        return nnf.relu(torch.cat([self.one(squeezed), self.three(squeezed)], 1) + self.bypass(x))


class Residual(nn.Module):
    """Two 3 x 3 convolutions beside a bypass (ResNet, arXiv 1512.03385)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(_conv(inputs, outputs, 3), _conv(outputs, outputs, 3, act=False))
        self.bypass = nn.Identity() if inputs == outputs else _conv(inputs, outputs, 1, act=False)

    def forward(self, x: Tensor) -> Tensor:
        return nnf.relu(self.body(x) + self.bypass(x))


class Dense(nn.Module):
    """Every layer sees all before it (DenseNet, arXiv 1608.06993), then a transition to `outputs`."""

    LAYERS = 3

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        growth = max(8, outputs // 3)
        self.layers = nn.ModuleList(
            nn.Sequential(_conv(inputs + i * growth, 2 * growth, 1), _conv(2 * growth, growth, 3))
            for i in range(self.LAYERS)
        )
        self.transition = _conv(inputs + self.LAYERS * growth, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.cat([x, layer(x)], 1)
        return self.transition(x)


class Mobile(nn.Module):
    """Inverted residual with depthwise 5 x 5 and channel attention (MobileNetV3, arXiv 1905.02244)."""

    EXPANSION = 3

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = self.EXPANSION * inputs
        self.body = nn.Sequential(
            _conv(inputs, wide, 1),
            _conv(wide, wide, 5, groups=wide),
            ChannelSELayer(2, wide, r=4),
            _conv(wide, outputs, 1, act=False),
        )
        self.same = inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x) + x if self.same else self.body(x)


class _ChannelNorm(nn.LayerNorm):
    """Layer norm over the channels of every place."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class ConvNext(nn.Module):
    """Depthwise 7 x 7, norm, two 1 x 1 with GELU (ConvNeXt, arXiv 2201.03545); a 1 x 1 first where the width grows."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.widen = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        self.body = nn.Sequential(
            nn.Conv2d(outputs, outputs, 7, padding=3, groups=outputs),
            _ChannelNorm(outputs),
            nn.Conv2d(outputs, 3 * outputs, 1),
            nn.GELU(),
            nn.Conv2d(3 * outputs, outputs, 1),
        )
        self.share = nn.Parameter(torch.full((1, outputs, 1, 1), 0.2))

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        return x + self.share * self.body(x)


BLOCKS: dict[str, Callable[[int, int], nn.Module]] = {
    "squeeze": Fire,
    "residual": Residual,
    "dense": Dense,
    "mobile": Mobile,
    "convnext": ConvNext,
}


class SliceNet(nn.Module):
    """Judge slices with one kind of blocks.

    forward: [N, in_channels, H, W] -> logits [N, MAPS + 1 + reasons, H, W]: the maps, then "diagnostic" and one per
    reason, which are the same everywhere. H and W are multiples of 8; `pitch_mm` is the side of a pixel.
    """

    def __init__(
        self, kind: str, in_channels: int, reasons: int, widths: Sequence[int], depths: Sequence[int], pitch_mm: float
    ) -> None:
        super().__init__()
        block = BLOCKS[kind]
        self.cell_cm2 = pitch_mm**2 / 100
        self.stem = _conv(in_channels, widths[0], 3, stride=2)
        self.levels = nn.ModuleList()
        self.taken = nn.ModuleList()
        before = widths[0]
        for width, depth in zip(widths, depths, strict=True):
            self.levels.append(nn.Sequential(*(block(before if i == 0 else width, width) for i in range(depth))))
            self.taken.append(nn.Conv2d(width, FUSED, 1))
            before = width
        self.fused = nn.Sequential(nn.BatchNorm2d(FUSED), nn.ReLU(inplace=True), _conv(FUSED, FUSED, 3))
        self.maps = nn.Sequential(nn.Conv2d(FUSED, 4 * MAPS, 1), nn.PixelShuffle(2))
        described = MAPS * FUSED + widths[-1] + 5
        self.verdict = nn.Sequential(
            nn.BatchNorm1d(described), nn.Dropout(0.1), nn.Linear(described, 48), nn.ReLU(), nn.Linear(48, 1 + reasons)
        )
        self.by_area = nn.Linear(5, 1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image)
        total: Tensor | None = None
        for number, (level, taken) in enumerate(zip(self.levels, self.taken, strict=True)):
            x = level(nnf.avg_pool2d(x, 2) if number else x)
            part = taken(x)
            if number:
                part = nnf.interpolate(part, scale_factor=2**number, mode="bilinear", align_corners=False)
            total = part if total is None else total + part
        fused = self.fused(total)
        maps = self.maps(fused)
        share = torch.sigmoid(maps)
        inner, readable = share[:, 1], share[:, 2]
        weights = nnf.avg_pool2d(share, 2) + 1e-4
        pooled = torch.einsum("nchw,nmhw->nmc", fused, weights) / weights.sum((2, 3))[..., None]
        seen, whole = readable.sum((1, 2)) * self.cell_cm2, inner.sum((1, 2)) * self.cell_cm2
        part = seen / (whole + 2)
        areas = torch.stack(
            [torch.log1p(seen), torch.log1p(whole), part, torch.sigmoid(seen - 8.5), torch.sigmoid(20 * (part - 0.17))],
            1,
        )
        numbers = torch.cat([pooled.flatten(1), x.mean((2, 3)), areas], 1)
        verdict = self.verdict(numbers)
        verdict = torch.cat([verdict[:, :1] + self.by_area(areas), verdict[:, 1:]], 1)
        everywhere = verdict[:, :, None, None].expand(-1, -1, *image.shape[2:])
        return torch.cat([maps, everywhere], 1)


class Ensemble(nn.Module):
    """The networks together, calibrated.

    forward: [N, in_channels, D, H, W], every slice of D for itself -> probabilities [N, K, D, H, W]: the mean maps,
    the ensemble's probability that the slice is diagnostic and of each reason if it is not, then the same 1 + reasons
    of every network, in the order of `kinds`. All but the maps are the same everywhere in a slice.
    The ensemble's log-odds are the networks' mean, scaled and shifted by what fits the kind of input: neither magnitude
    nor phase, magnitude, phase, both (`has_magnitude` and `has_phase` are the indices of the channels that say so).
    """

    def __init__(
        self,
        kinds: Sequence[str],
        in_channels: int,
        reasons: int,
        widths: Sequence[Sequence[int]],
        depths: Sequence[Sequence[int]],
        pitch_mm: float,
        has_magnitude: int,
        has_phase: int,
    ) -> None:
        super().__init__()
        self.networks = nn.ModuleDict(
            {
                kind: SliceNet(kind, in_channels, reasons, wide, deep, pitch_mm)
                for kind, wide, deep in zip(kinds, widths, depths, strict=True)
            }
        )
        self.has = (has_magnitude, has_phase)
        self.scale: Tensor
        self.shift: Tensor
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("shift", torch.zeros(4))

    def inputs_of(self, slices: Tensor) -> Tensor:
        """Kind of input of each slice [N, C, H, W]: 0 neither, 1 magnitude, 2 phase, 3 both; int64 [N]."""
        magnitude, phase = (slices[:, index].amax((1, 2)) > 0.5 for index in self.has)
        return magnitude.long() + 2 * phase.long()

    def forward(self, image: Tensor) -> Tensor:
        n, c, d, h, w = image.shape
        slices = image.transpose(1, 2).reshape(n * d, c, h, w)
        answers = torch.stack([network(slices) for network in self.networks.values()])
        maps = torch.sigmoid(answers[:, :, :MAPS]).mean(0)
        verdicts = answers[:, :, MAPS:, 0, 0]
        kind = self.inputs_of(slices)
        log_odds = verdicts[..., 0].mean(0) * self.scale[kind] + self.shift[kind]
        reasons = torch.softmax(verdicts[..., 1:], -1)
        single = torch.cat([torch.sigmoid(verdicts[..., :1]), reasons], -1)  # [network, slice, 1 + reasons]
        joint = torch.cat([torch.sigmoid(log_odds)[:, None], reasons.mean(0)], 1)
        numbers = torch.cat([joint, single.transpose(0, 1).flatten(1)], 1)
        out = torch.cat([maps, numbers[:, :, None, None].expand(-1, -1, h, w)], 1)
        return out.reshape(n, d, -1, h, w).transpose(1, 2)
