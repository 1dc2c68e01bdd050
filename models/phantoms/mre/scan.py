"""What the magnet makes of a moving section: encoded phase, k-space line by line, noise.

Every image is built from k-space lines that are taken while the body and the driver are somewhere in their cycles, so
ghosts of breathing and of a driver that is out of step arise as they do in a scanner. Two polarities of the motion
encoding are acquired per offset; the console keeps their phase difference and mean magnitude.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from models.phantoms.fields import Array, Grid, smooth_field
from models.phantoms.mre.anatomy import PITCH_MM, Section
from models.phantoms.mre.field import WaveField
from models.phantoms.mre.protocol import Protocol
from models.phantoms.mre.tissue import BLOOD, LIVER, MATERIALS, signals

Complex64 = NDArray[np.complex64]
CYCLE_BINS = 8


@dataclass(frozen=True)
class State:
    """One acquisition of a slice: what is well and what is wrong with it."""

    amplitude_rad: float  # phase amplitude (both polarities) where |shear| = 1
    driver_hz: float
    liver_r2_star: float  # 1/s
    snr: float  # of the mean magnitude in a liver without iron
    motion_mm: float = 0.0  # amplitude of breathing at the front wall, while lines are acquired
    motion_s: float = 4.0  # period
    motion_rad: float = 0.0  # phase that the motion's velocity leaves
    jumps_mm: float = 0.0  # SD of the position between offsets
    blur_mm: float = 0.0  # SD of the point spread along the phase encoding
    pulsation: float = 0.05  # modulation of blood by the pulse
    nyquist: float = 0.0  # phase error of odd echo-planar lines, rad
    centre_mm: tuple[float, float] = (0.0, 0.0)  # y, x of the field of view
    seed: int = 0


@dataclass(frozen=True)
class Scene:
    """A section on the image grid; along the phase encoding `over` more pixels on both ends than the image has."""

    protocol: Protocol
    over: int
    signal: Array  # [row, column] without noise; liver without iron, unshaded = its sequence signal
    shear: Complex64  # [row, column] relative
    motion: Complex64  # [row, column] shear + longitudinal background, relative
    liver: Array
    vessel: Array
    blood: Array
    liver_kpa: Array
    shading: Array  # of the coils
    noise_shape: Array  # [image row, image column] noise relative to its mean, from parallel imaging
    front: Array  # share of the front wall's motion, per pixel
    reference: float  # signal of a liver without iron

    def crop(self, image: NDArray) -> NDArray:
        """The part of an extended array that the image shows."""
        if self.over == 0:
            return image
        inner = slice(self.over, -self.over)
        return image[inner] if self.protocol.phase_axis == 0 else image[:, inner]

    def fold(self, image: NDArray) -> NDArray:
        """What lies beyond the field of view appears on its other side."""
        if self.over == 0:
            return image
        if self.protocol.phase_axis == 1:
            return replace(self, protocol=replace(self.protocol, phase_axis=0)).fold(image.T).T
        folded = image[self.over : -self.over].copy()
        folded[-self.over :] += image[: self.over]
        folded[: self.over] += image[-self.over :]
        return folded


def _interpolate(at: NDArray[np.floating], origin: float, pitch: float, count: int) -> NDArray[np.float32]:
    """Matrix [len(at), count] of linear interpolation along one axis; nothing beyond its ends."""
    position = (np.asarray(at, np.float64) - origin) / pitch
    low = np.floor(position).astype(int)
    part = position - low
    matrix = np.zeros((len(position), count + 2), np.float32)
    row = np.arange(len(position))
    matrix[row, np.clip(low + 1, 0, count + 1)] += 1 - part
    matrix[row, np.clip(low + 2, 0, count + 1)] += part
    return matrix[:, 1:-1]


def place(section: Section, field: WaveField, protocol: Protocol, state: State) -> Scene:
    """Put a section into the scanner's field of view."""
    n, pixel = protocol.matrix, protocol.pixel_mm
    over = [0, 0]
    reach = (abs(section.y_mm[0]), abs(section.x_mm[0]))
    axis = protocol.phase_axis
    over[axis] = int(np.clip(np.ceil((reach[axis] + abs(state.centre_mm[axis]) - protocol.fov_mm / 2) / pixel), 0, n // 2))
    lines = [
        state.centre_mm[a] + (np.arange(-over[a], n + over[a]) - (n - 1) / 2) * pixel for a in (0, 1)
    ]  # fmt: skip
    my = _interpolate(lines[0], float(section.y_mm[0]), PITCH_MM, len(section.y_mm))
    mx = _interpolate(lines[1], float(section.x_mm[0]), PITCH_MM, len(section.x_mm)).T

    def onto(image: NDArray) -> NDArray:
        return my @ np.ascontiguousarray(image) @ mx

    rng = np.random.default_rng([state.seed, 0x5C])
    table = signals(
        protocol.sequence, protocol.tesla, protocol.te_ms, protocol.tr_ms, protocol.flip_deg, state.liver_r2_star
    ).astype(np.float32)
    if protocol.sequence == "gre" and rng.random() < 0.5:
        table[BLOOD] *= 2.0  # inflow
    normal = MATERIALS[LIVER].r2_star[int(protocol.tesla > 2)]
    reference = float(
        signals(protocol.sequence, protocol.tesla, protocol.te_ms, protocol.tr_ms, protocol.flip_deg, normal)[LIVER]
    )
    shares = section.shares
    signal = np.tensordot(table, shares, axes=(0, 0)) + table[LIVER] * shares[LIVER] * (section.texture - 1)
    y, x = lines[0][:, None] / 130.0, lines[1][None, :] / 180.0
    grid = Grid((1, len(lines[0]), len(lines[1])), (10.0, pixel, pixel), (0.0, 0.0, 0.0))
    surface = float(rng.uniform(0.1, 0.6))
    shading = 1 + surface * (y**2 + x**2 - 0.4) + 0.2 * surface * smooth_field(rng, grid, 160)[0]
    shading = np.clip(shading - surface * float(rng.uniform(0, 0.4)) * y, 0.25, 3)
    parallel = float(rng.uniform(0, 0.5)) if protocol.acceleration > 1 else 0.0
    inner = Grid((1, n, n), (10.0, pixel, pixel), (0.0, 0.0, 0.0))
    centre = np.hypot(*np.meshgrid(np.linspace(-1, 1, n), np.linspace(-1, 1, n), indexing="ij"))
    noise_shape = 1 + parallel * (0.6 - centre + 0.3 * smooth_field(rng, inner, 60)[0])
    half = section.y_mm[-1]
    return Scene(
        protocol=protocol,
        over=over[axis],
        signal=np.asarray(onto(signal) * shading, np.float32),
        shear=onto(field.shear.astype(np.complex64)),
        motion=onto((field.shear + field.background).astype(np.complex64)),
        liver=onto(section.liver), vessel=onto(section.vessel), blood=onto(shares[BLOOD]),
        liver_kpa=onto(field.liver_kpa),
        shading=np.asarray(shading, np.float32),
        noise_shape=np.asarray(np.clip(noise_shape, 0.4, 2.5), np.float32),
        front=np.asarray(np.broadcast_to(np.clip(0.55 - 0.45 * lines[0][:, None] / half, 0.08, 1), (len(lines[0]), len(lines[1]))), np.float32),
        reference=reference,
    )  # fmt: skip


def encoding(ratio: float) -> float:
    """Phase that one sinusoidal period of motion encoding takes from a motion of `ratio` times its frequency."""
    return 1.0 if abs(ratio - 1) < 1e-4 else 2 * abs(np.sin(np.pi * ratio)) / (np.pi * abs(1 - ratio**2))


@dataclass(frozen=True)
class Images:
    """Phase-difference images [offset, row, column]: magnitude times e^{i phase}; clean has no noise."""

    clean: Complex64
    noisy: Complex64
    noise: float  # SD of the noise of the mean magnitude where noise_shape = 1


def _moved(image: NDArray, front: Array, shift_mm: float, pixel_mm: float) -> NDArray:
    """The image with its front wall `shift_mm` further to the front."""
    if abs(shift_mm) < 0.05:
        return image
    rows = np.arange(image.shape[0]) + shift_mm / pixel_mm * front[:, 0]
    return _interpolate(rows, 0.0, 1.0, image.shape[0]) @ image


def _lines_mask(protocol: Protocol, rows: int) -> tuple[NDArray[np.intp], Array]:
    """Index in k-space (FFT order) of the acquired lines in the order of time, and the apodisation of the readout."""
    n = min(protocol.lines, rows)
    order = (np.arange(n) - n // 2) % rows
    readout = np.abs(fft.fftfreq(rows) * rows) <= min(protocol.samples, rows) / 2
    return order.astype(np.intp), readout.astype(np.float32)


def acquire(scene: Scene, state: State) -> Images:
    """Acquire all offsets of one slice with both polarities."""
    protocol, axis = scene.protocol, scene.protocol.phase_axis
    n, pixel = protocol.matrix, protocol.pixel_mm
    rng = np.random.default_rng([state.seed, 0xAC])
    order, readout = _lines_mask(protocol, n)
    gain = encoding(state.driver_hz / protocol.hz)
    moving = scene.motion * np.float32(0.5 * state.amplitude_rad * gain)
    steep = np.abs(np.stack(np.gradient(moving)))  # rad per pixel
    through = 0.15 * protocol.thickness_mm / pixel
    signal = scene.signal * np.exp(-(steep**2).sum(0) * (1 + through**2) / 24)
    breath, pulse = rng.uniform(0, 1), rng.uniform(0, 1)
    beat = float(rng.uniform(0.7, 1.1))
    jumps = rng.normal(0, state.jumps_mm, protocol.offsets) if state.jumps_mm else np.zeros(protocol.offsets)
    locked = abs(state.driver_hz / protocol.hz - 1) < 1e-4
    spread = np.exp(-0.5 * (2 * np.pi * fft.fftfreq(n, pixel)[order] * state.blur_mm) ** 2)
    edge = np.clip((1 - np.abs(np.linspace(-1, 1, len(order)))) / 0.15, 0, 1)
    apodise = (spread * (0.5 - 0.5 * np.cos(np.pi * edge))).astype(np.float32)
    if protocol.sequence == "se_epi" and state.nyquist:
        odd = np.where(np.arange(len(order)) % 2 == 1, np.exp(1j * state.nyquist), 1)
        apodise = (apodise * odd).astype(np.complex64)
    side = np.exp(-0.5 * (2 * np.pi * fft.fftfreq(n, pixel) * 0.5 * state.blur_mm) ** 2).astype(np.float32) * readout
    noise = scene.reference * float(np.median(scene.shading[scene.liver > 0.5]) if (scene.liver > 0.5).any() else 1)
    noise /= state.snr
    pairs: list[list[Complex64]] = []
    for offset in range(protocol.offsets):
        images = []
        for polarity in (0, 1):
            seconds = protocol.line_seconds(offset, polarity)[: len(order)]
            cycle = (breath + seconds / state.motion_s) % 1
            bins = np.floor(cycle * CYCLE_BINS).astype(int) if state.motion_mm or state.motion_rad else np.zeros(len(order), int)
            turns = offset / protocol.offsets + (0 if locked else (state.driver_hz / protocol.hz - 1) * offset / protocol.offsets)
            drive = turns + (np.zeros(len(order)) if locked else (state.driver_hz * seconds) % 1)
            steps = np.round(drive % 1 * 16).astype(int) % 16 if not locked else np.zeros(len(order), int)
            space = np.zeros((n, n), np.complex64)
            for key in np.unique(bins * 16 + steps):
                chosen = (bins == key // 16) & (steps == key % 16)
                psi = 2 * np.pi * (key % 16 / 16 if not locked else turns)
                image = signal * np.exp(
                    1j * (1 - 2 * polarity) * (moving * np.complex64(np.exp(1j * psi))).real
                )  # fmt: skip
                image = _in_breath(image, scene, state, int(key // 16), polarity, float(jumps[offset]), rng)
                image = scene.fold(image)
                rows = fft.fft(image, axis=axis)
                picked = order[chosen]
                if axis == 0:
                    space[picked] = rows[picked]
                else:
                    space[:, picked] = rows[:, picked]
            if state.pulsation:
                wave = 1 + state.pulsation * np.cos(2 * np.pi * (pulse + seconds * beat))
                blood = fft.fft(scene.fold(scene.signal * scene.blood), axis=axis)
                if axis == 0:
                    space[order] += (wave - 1)[:, None] * blood[order]
                else:
                    space[:, order] += (wave - 1)[None, :] * blood[:, order]
            images.append(_reconstruct(space, order, apodise, side, axis))
        pairs.append(images)
    clean = np.stack([_difference(a, b) for a, b in pairs])
    deviation = noise * np.sqrt(2)  # one polarity has more noise than the mean of two
    noisy = np.stack(
        [
            _difference(*(i + _noise(rng, order, apodise, side, axis, n, deviation) * scene.noise_shape for i in pair))
            for pair in pairs
        ]
    )
    return Images(clean, noisy, noise)


def _in_breath(
    image: NDArray, scene: Scene, state: State, part: int, polarity: int, jump_mm: float, rng: np.random.Generator
) -> NDArray:
    """The image in one eighth of the breathing cycle, with the phase that the motion's velocity leaves."""
    shift = jump_mm
    if state.motion_mm or state.motion_rad:
        angle = 2 * np.pi * (part + 0.5) / CYCLE_BINS
        shift += state.motion_mm * float(np.sin(angle))
        velocity = float(np.cos(angle)) + 0.3 * float(rng.standard_normal())
        image = image * np.exp((0.5j * (1 - 2 * polarity) * state.motion_rad * velocity) * scene.front)
    return _moved(image, scene.front, shift, scene.protocol.pixel_mm)


def _reconstruct(space: NDArray, order: NDArray[np.intp], apodise: NDArray, side: Array, axis: int) -> Complex64:
    """Acquired k-space (transformed along `axis`) to the image."""
    kept = np.zeros_like(space)
    if axis == 0:
        kept[order] = space[order] * apodise[:, None]
        image = fft.ifft(kept, axis=0)
    else:
        kept[:, order] = space[:, order] * apodise[None, :]
        image = fft.ifft(kept, axis=1)
    if side.min() < 0.999:
        shaped = side[None, :] if axis == 0 else side[:, None]
        image = fft.ifft(fft.fft(image, axis=1 - axis) * shaped, axis=1 - axis)
    return np.asarray(image, np.complex64)


def _noise(
    rng: np.random.Generator, order: NDArray[np.intp], apodise: NDArray, side: Array, axis: int, n: int, deviation: float
) -> Complex64:
    """Complex noise of the given SD per part, with the resolution of the image."""
    white = rng.standard_normal((2, n, n), dtype=np.float32)
    image = _reconstruct(white[0] + 1j * white[1], order, apodise, side, axis)
    return image * np.float32(deviation / max(float(image.real.std()), 1e-12))


def _difference(plus: NDArray, minus: NDArray) -> Complex64:
    """Mean magnitude with the phase difference of the two polarities."""
    product = plus * np.conj(minus)
    size = np.abs(product)
    return np.asarray(product / np.sqrt(np.maximum(size, 1e-20)), np.complex64)


