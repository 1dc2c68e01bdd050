"""Body and liver on one slice without a network: where the liver must be, and which pixels look alike there.

Seeds deep in the patient's right side that share one signal are liver; the skin, the left side and what differs by far
are not. Between them every pixel goes to the seeds that it is most likely to reach by a random walk that avoids steps
of signal (Grady, IEEE Trans. Pattern Anal. Mach. Intell. 28:1768, 2006). Coil shading changes slowly and is no
obstacle. Without magnitude there is only geometry: a conservative part of the right side.
"""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, sparse
from scipy.sparse import linalg

from pipelines.mre_qc.grids import Array, Mask, Place
from pipelines.mre_qc.harmonics import largest_part

WALK_MM = 4.0  # pixels of the random walk
LEAST_MM2 = 400.0
USUAL_WIDTH = 1.45  # of a body, in its heights
TIE = 0.02  # of a pixel to what place and signal say, relative to the tie between equal neighbours


def body_of(magnitude: Array, noise: float) -> Mask:
    """The body on a magnitude image [row, column]; noise: SD of the background."""
    smooth = ndimage.gaussian_filter(magnitude, 1.5, truncate=2.5)
    return largest_part(smooth > max(4 * noise, 0.06 * float(np.percentile(magnitude, 98))))


def likely(body: Mask, place: Place) -> Array:
    """How likely a pixel of the body is liver by its place alone [row, column] 0..1.

    Coordinates go from -1 to 1 over the body's width (right to left) and height (front to back).
    """
    if not body.any():
        return np.zeros(body.shape, np.float32)
    x_low, x_high = (float(v) for v in np.percentile(place.x_mm[body], [0.5, 99.5]))
    y_low, y_high = (float(v) for v in np.percentile(place.y_mm[body], [0.5, 99.5]))
    rightmost = body & (place.x_mm <= place.x_mm.min() + 3)
    if rightmost.sum() > 0.1 * body.shape[0]:  # the field of view cuts the right side off: its width from its height
        x_low = min(x_low, x_high - USUAL_WIDTH * (y_high - y_low))
    x = (2 * place.x_mm - x_low - x_high) / max(x_high - x_low, 1.0)
    y = (2 * place.y_mm - y_low - y_high) / max(y_high - y_low, 1.0)
    right = np.exp(-0.5 * (((x + 0.48) / 0.24) ** 2 + ((y + 0.02) / 0.36) ** 2))
    left = 0.6 * np.exp(-0.5 * (((x + 0.08) / 0.22) ** 2 + ((y + 0.38) / 0.2) ** 2))
    return np.asarray(np.maximum(right, left) * body, np.float32)


def liver_of(magnitude: Array | None, body: Mask, place: Place, spacing_mm: tuple[float, float]) -> Mask:
    """The liver [row, column]; empty where no liver is seen.

    magnitude: [row, column] any unit; None where there is none.
    """
    prior = likely(body, place)
    if magnitude is None:
        return np.asarray(prior > 0.6, np.bool_)
    step = [max(1, round(WALK_MM / mm)) for mm in spacing_mm]
    coarse = ndimage.gaussian_filter(magnitude, [0.4 * s for s in step])[:: step[0], :: step[1]]
    small_body, small_prior = body[:: step[0], :: step[1]], prior[:: step[0], :: step[1]]
    depth = ndimage.distance_transform_edt(small_body) * step[0] * spacing_mm[0]
    # Any unit of the scanner: a thousandth of what is bright is as good as nothing.
    least = 1e-3 * float(np.percentile(coarse, 98)) + 1e-20
    chance = _walk(np.log(np.maximum(coarse, least)), small_body, small_prior, depth)
    if chance is None:
        return np.zeros_like(body)
    rows, columns = np.indices(body.shape, dtype=np.float32)
    fine = ndimage.map_coordinates(chance, [rows / step[0], columns / step[1]], order=1, mode="nearest")
    mask = largest_part((fine > 0.5) & body)
    return mask if mask.sum() * spacing_mm[0] * spacing_mm[1] >= LEAST_MM2 else np.zeros_like(mask)


def _walk(signal: NDArray, body: Mask, prior: Array, depth_mm: Array) -> NDArray | None:
    """Chance 0..1 of every coarse pixel to be liver; None without seeds. signal: natural logarithm."""
    core = (prior > 0.75) & (depth_mm > 18)
    if core.sum() < 12:
        return None
    # The commonest signal of the core, found where the histogram is densest.
    values = np.sort(signal[core])
    count = max(6, len(values) // 3)
    narrow = int(np.argmin(values[count - 1 :] - values[: len(values) - count + 1]))
    usual = float(np.median(values[narrow : narrow + count]))
    spread = max(0.06, 0.74 * float(values[narrow + count - 1] - values[narrow]))
    near = np.abs(signal - usual) < 1.6 * spread
    seeds = ndimage.binary_opening(core & near, np.ones((2, 2)))
    others = body & ((prior < 0.02) | (depth_mm < 9) | (np.abs(signal - usual) > 6 * spread))
    if seeds.sum() < 6 or not others.any():
        return None
    return _random_walk(signal, body, seeds, others & ~seeds, spread, prior, usual)


def _random_walk(
    signal: NDArray, body: Mask, seeds: Mask, others: Mask, spread: float, prior: Array, usual: float
) -> NDArray:
    number = np.cumsum(body).reshape(body.shape) - 1
    total = int(body.sum())
    pairs = []
    for here, there in (((slice(None, -1), slice(None)), (slice(1, None), slice(None))),
                        ((slice(None), slice(None, -1)), (slice(None), slice(1, None)))):  # fmt: skip
        both = body[here] & body[there]
        step = np.abs(signal[here] - signal[there])[both]
        pairs.append((number[here][both], number[there][both], np.exp(-((step / (1.5 * spread)) ** 2)) + 1e-3))
    first, second, weight = (np.concatenate(part) for part in zip(*pairs, strict=True))
    graph = sparse.coo_matrix((weight, (first, second)), (total, total))
    graph = (graph + graph.T).tocsr()
    # Every pixel is tied weakly to what its place and its signal say.
    tie = TIE
    laplacian = sparse.diags(np.asarray(graph.sum(1)).ravel() + tie) - graph
    held = (seeds | others)[body]
    known = seeds[body].astype(float)
    source = tie * np.sqrt(prior[body]) * np.exp(-0.5 * (np.abs(signal[body] - usual) / (2 * spread)) ** 2)
    free = ~held
    chance = known.copy()
    if free.any():
        system = laplacian[free][:, free].tocsc()
        right = source[free] - laplacian[free][:, held] @ known[held]
        chance[free] = linalg.spsolve(system, right)
    image = np.zeros(body.shape)
    image[body] = chance
    return image
