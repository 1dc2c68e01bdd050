"""What the magnet makes of a moving section: encoded phase, k-space line by line, noise.

Every image is built from k-space lines that are taken while the body and the driver are somewhere in their cycles, so
ghosts of breathing and of a driver that is out of step arise as they do in a scanner. Two polarities of the motion
encoding are acquired per offset; the console keeps their phase difference and mean magnitude.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from models.phantoms.fields import Array, Grid, smooth_field
from models.phantoms.mre.anatomy import PITCH_MM, Section
from models.phantoms.mre.field import WaveField
from models.phantoms.mre.protocol import Protocol
from models.phantoms.mre.tissue import BLOOD, LIVER, MATERIALS, signals

Complex64 = NDArray[np.complex64]
CYCLE_BINS = 6
DRIVE_BINS = 16
IN_STEP = 1e-4  # relative difference of frequencies that is none


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
    inner_mm2: float  # of the whole section, seen or not: area more than 8 mm inside the capsule

    def crop(self, image: NDArray[Any]) -> NDArray[Any]:
        """The part of an extended array that the image shows."""
        if self.over == 0:
            return image
        inner = slice(self.over, -self.over)
        return image[inner] if self.protocol.phase_axis == 0 else image[:, inner]

    def folded(self) -> NDArray:
        """Signal that lies over the image from beyond its field of view [row, column]."""
        return self.fold(self.signal) - self.crop(self.signal)

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
    over[axis] = int(
        np.clip(np.ceil((reach[axis] + abs(state.centre_mm[axis]) - protocol.fov_mm / 2) / pixel), 0, n // 2)
    )
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
    front = np.clip(0.55 - 0.45 * lines[0][:, None] / section.y_mm[-1], 0.08, 1)
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
        front=np.asarray(np.broadcast_to(front, (len(lines[0]), len(lines[1]))), np.float32),
        reference=reference,
        inner_mm2=section.inner_mm2,
    )  # fmt: skip


def encoding(ratio: float) -> float:
    """Phase that one sinusoidal period of motion encoding takes from a motion of `ratio` times its frequency."""
    return 1.0 if abs(ratio - 1) < IN_STEP else 2 * abs(np.sin(np.pi * ratio)) / (np.pi * abs(1 - ratio**2))


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
    ratio = state.driver_hz / protocol.hz
    moving = scene.motion * np.float32(0.5 * state.amplitude_rad * encoding(ratio))
    breath = _Breath.draw(rng, state, protocol)
    pulse, beat = rng.uniform(0, 1), rng.uniform(0.7, 1.1)
    apodise, side = _point_spread(state, protocol, order, readout)
    blood = fft.fft(scene.fold(scene.signal * scene.blood), axis=axis) if state.pulsation else None
    liver = scene.liver > 0.5
    noise = scene.reference * float(np.median(scene.shading[liver]) if liver.any() else 1) / state.snr
    signal = scene.signal * _dephasing(moving, 0.15 * protocol.thickness_mm / pixel)
    clean: list[Complex64] = []
    noisy: list[Complex64] = []
    for offset in range(protocol.offsets):
        pair = []
        for polarity in (0, 1):
            seconds = protocol.line_seconds(offset, polarity)[: len(order)]
            parts = breath.part_of(seconds)
            # The offset is counted in periods of the sequence; a driver that is out of step goes its own way.
            turns = offset / protocol.offsets * ratio
            drive = np.zeros(len(order)) if abs(ratio - 1) < IN_STEP else state.driver_hz * seconds
            steps = np.floor(drive % 1 * DRIVE_BINS).astype(int)
            sign = 1 - 2 * polarity
            space = np.zeros((n, n), np.complex64)
            for key in np.unique(parts * DRIVE_BINS + steps):
                part, step = divmod(int(key), DRIVE_BINS)
                psi = 2 * np.pi * (turns + step / DRIVE_BINS)
                phase = (moving * np.complex64(sign * np.exp(1j * psi))).real + sign * breath.phase_rad(
                    part
                ) * scene.front
                image = _moved(signal * np.exp(1j * phase), scene.front, breath.shift_mm(part, offset), pixel)
                spectrum = fft.fft(scene.fold(image), axis=axis)
                taken = order[(parts == part) & (steps == step)]
                _lines(space, axis)[taken] = _lines(spectrum, axis)[taken]
            if blood is not None:
                swell = (state.pulsation * np.cos(2 * np.pi * (pulse + seconds * beat))).astype(np.float32)
                _lines(space, axis)[order] += swell[:, None] * _lines(blood, axis)[order]
            pair.append(_reconstruct(space, order, apodise, side, axis))
        clean.append(_difference(pair[0], pair[1]))
        # One polarity has more noise than the mean of two.
        grain = [_noise(rng, order, apodise, side, axis, n, noise * np.sqrt(2)) * scene.noise_shape for _ in pair]
        noisy.append(_difference(pair[0] + grain[0], pair[1] + grain[1]))
    return Images(np.stack(clean), np.stack(noisy), noise)


def _lines(space: NDArray, axis: int) -> NDArray:
    """A view whose first axis is the phase encoding."""
    return space if axis == 0 else space.T


@dataclass(frozen=True)
class _Breath:
    """Breathing in CYCLE_BINS parts, and where the body lies at each offset."""

    state: State
    start: float  # share of the cycle at time 0
    jumps_mm: NDArray[np.float64]
    restless: NDArray[np.float64]  # per part: what is irregular in its velocity

    @classmethod
    def draw(cls, rng: np.random.Generator, state: State, protocol: Protocol) -> "_Breath":
        jumps = rng.normal(0, 1, protocol.offsets) * state.jumps_mm
        return cls(state, float(rng.uniform(0, 1)), jumps, rng.normal(0, 0.3, CYCLE_BINS))

    def part_of(self, seconds: NDArray[np.float64]) -> NDArray[np.intp]:
        if not (self.state.motion_mm or self.state.motion_rad):
            return np.zeros(len(seconds), np.intp)
        return np.floor((self.start + seconds / self.state.motion_s) % 1 * CYCLE_BINS).astype(np.intp)

    def shift_mm(self, part: int, offset: int) -> float:
        return float(self.jumps_mm[offset] + self.state.motion_mm * np.sin(2 * np.pi * (part + 0.5) / CYCLE_BINS))

    def phase_rad(self, part: int) -> np.float32:
        """Phase that velocity leaves in one polarity at the front wall."""
        velocity = np.cos(2 * np.pi * (part + 0.5) / CYCLE_BINS) + self.restless[part]
        return np.float32(0.5 * self.state.motion_rad * velocity)


def _dephasing(moving: Complex64, through: float) -> Array:
    """Signal left where the phase is steep within a voxel; through: slope across the slice, relative, in pixels."""
    down, across = np.gradient(moving)  # rad per pixel, one polarity
    steep = np.abs(down) ** 2 + np.abs(across) ** 2
    return np.asarray(np.exp(-steep * (1 + through**2) / 24), np.float32)


def _point_spread(state: State, protocol: Protocol, order: NDArray[np.intp], readout: Array) -> tuple[NDArray, Array]:
    """Weights of the acquired lines, and of the frequencies along the readout."""
    n, pixel = protocol.matrix, protocol.pixel_mm
    frequency = 2 * np.pi * fft.fftfreq(n, pixel)
    edge = np.clip((1 - np.abs(np.linspace(-1, 1, len(order)))) / 0.15, 0, 1)
    lines = np.exp(-0.5 * (frequency[order] * state.blur_mm) ** 2) * (0.5 - 0.5 * np.cos(np.pi * edge))
    side = (np.exp(-0.5 * (frequency * 0.5 * state.blur_mm) ** 2) * readout).astype(np.float32)
    if protocol.sequence == "se_epi" and state.nyquist:
        odd = np.where(np.arange(len(order)) % 2 == 1, np.exp(1j * state.nyquist), 1)
        return (lines * odd).astype(np.complex64), side
    return lines.astype(np.float32), side


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
    rng: np.random.Generator,
    order: NDArray[np.intp],
    apodise: NDArray,
    side: Array,
    axis: int,
    n: int,
    deviation: float,
) -> Complex64:
    """Complex noise of the given SD per part, with the resolution of the image."""
    white = rng.standard_normal((n, n, 2), dtype=np.float32).view(np.complex64)[..., 0]
    image = _reconstruct(white, order, apodise, side, axis)
    return image * np.float32(deviation / max(float(image.real.std()), 1e-12))


def _difference(plus: NDArray, minus: NDArray) -> Complex64:
    """Mean magnitude with the phase difference of the two polarities."""
    product = plus * np.conj(minus)
    size = np.abs(product)
    return np.asarray(product / np.sqrt(np.maximum(size, 1e-20)), np.complex64)
