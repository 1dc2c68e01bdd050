"""What bundles do to an image before the network sees it."""

from torch import Tensor


class ScalePhases:
    """Scale the HU of the first two channels from [low, high] to [to_low, to_high], clipped; leave the others alone."""

    def __init__(self, low: float, high: float, to_low: float, to_high: float) -> None:
        self.low, self.high, self.to_low, self.to_high = low, high, to_low, to_high

    def __call__(self, image: Tensor) -> Tensor:
        """image [channel, slice, row, column] -> the same shape; the input is not changed."""
        scaled = image.clone()
        share = (image[:2].clamp(self.low, self.high) - self.low) / (self.high - self.low)
        scaled[:2] = self.to_low + share * (self.to_high - self.to_low)
        return scaled
