"""The network of the CT bundles: a U-Net that works on folded voxels."""

from collections.abc import Sequence

from monai.networks.nets.dynunet import DynUNet
from torch import Tensor, nn


class FoldedUNet(nn.Module):
    """DynUNet on blocks of 1 x 2 x 2 voxels, which it takes and gives as channels.

    Folding keeps the in-plane detail of the input while all convolutions run on a quarter of the voxels, which is what
    a node without a GPU can afford. `filters` are the widths of the levels; each level halves all three axes.
    forward: [N, in_channels, D, H, W] -> logits [N, out_channels, D, H, W]; D must be a multiple of 2**(levels - 1),
    H and W of 2**levels.
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
        n, c, d, h, w = image.shape
        folded = image.reshape(n, c, d, h // 2, 2, w // 2, 2).permute(0, 1, 4, 6, 2, 3, 5)
        logits: Tensor = self.unet(folded.reshape(n, 4 * c, d, h // 2, w // 2))
        k = self.out_channels
        unfolded = logits.reshape(n, k, 2, 2, d, h // 2, w // 2).permute(0, 1, 4, 5, 2, 6, 3)
        return unfolded.reshape(n, k, d, h, w)
