"""A second look at every candidate: the bundle ct_review says whether it is a lesion, and of which class."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipelines.pipeline import Predictor

#: Patch around a candidate (slice, row, column), on the grid of ct_lesion.
PATCH = (32, 64, 64)
#: The most probable candidates are looked at, so that a study full of noise still ends in time.
MAX_CANDIDATES = 60
#: Name of the channel that says "no lesion".
NONE = "none"


@dataclass(frozen=True)
class Verdict:
    """What ct_review says about one candidate."""

    score: float  # 0..1, probability that it is a lesion
    class_probabilities: dict[str, float]  # given that it is one; sums to 1


def review(
    bundle: Predictor,
    image: NDArray[np.float32],
    lesion: NDArray[np.float32],
    liver: NDArray[np.float32],
    labels: NDArray[np.int32],
) -> Mapping[int, Verdict]:
    """Judge the candidates.

    image : float32 [2, slice, row, column] HU, arterial and portal-venous.
    lesion, liver : float32 [slice, row, column] probability of any lesion, and of liver or lesion.
    labels : int32 [slice, row, column], the candidates, 0 = none.
    Returns verdicts by label; those beyond MAX_CANDIDATES are missing.
    """
    pieces = [(label, where) for label, where in enumerate(ndimage.find_objects(labels), start=1) if where is not None]
    peaks = {label: float(lesion[where][labels[where] == label].max()) for label, where in pieces}
    pieces.sort(key=lambda piece: -peaks[piece[0]])
    channels = (*image, lesion, liver)
    verdicts = {}
    for label, where in pieces[:MAX_CANDIDATES]:
        inside = np.argwhere(labels[where] == label)
        centre = np.rint(inside.mean(axis=0)).astype(int) + [part.start for part in where]
        patch = np.stack([_around(channel, centre) for channel in channels])
        mask = (_around(labels, centre) == label).astype(np.float32)
        answer = bundle(np.concatenate([patch, mask[np.newaxis]]).astype(np.float32))[:, 0, 0, 0]
        none = float(answer[bundle.channels.index(NONE)])
        shares = {
            name: float(value) / max(1e-9, 1.0 - none)
            for name, value in zip(bundle.channels, answer, strict=True)
            if name != NONE
        }
        verdicts[label] = Verdict(score=1.0 - none, class_probabilities=shares)
    return verdicts


def _around(volume: NDArray[Any], centre: NDArray[np.int64]) -> NDArray[Any]:
    """The patch around a voxel; outside of the volume its border is repeated."""
    where = np.ix_(
        *(
            np.clip(np.arange(c - size // 2, c - size // 2 + size), 0, n - 1)
            for c, size, n in zip(centre.tolist(), PATCH, volume.shape, strict=True)
        )
    )
    patch: NDArray[Any] = volume[where]
    return patch
