"""The upper abdomen around the liver: soft-edged shapes painted in order, later ones over earlier ones.

Richness runs from a bare ellipsoid of liver in an ellipse of body to a full abdomen with vessels, bowel and ribs.
Every position is in mm on (z, y, x): z to the head, y to the back, x to the patient's left; the liver lies at x < 0.
"""

from dataclasses import dataclass

import numpy as np

from models.phantoms.enhancement import Contrast, Hu
from models.phantoms.fields import (
    Array,
    Grid,
    Triple,
    capsule_mm,
    coverage,
    ellipsoid_mm,
    rotation,
    smooth_field,
)


@dataclass(frozen=True)
class Style:
    """How much of an abdomen is drawn."""

    richness: float  # 0 = geometric, 1 = everything
    size: float  # scale of the patient
    edge_mm: float  # width of a tissue border
    warp_mm: float  # deformation of all shapes
    nodular_mm: float  # extra roughness of a cirrhotic liver
    steatosis: bool
    cirrhosis: bool

    def has(self, rng: np.random.Generator, often: float) -> bool:
        """Draw whether an organ is there; poorer styles leave more out."""
        return bool(rng.random() < often * min(1.0, 0.12 + 1.4 * self.richness))


def draw_style(rng: np.random.Generator, spacing_mm: Triple) -> Style:
    """Draw a patient's style: about a quarter are bare geometry."""
    richness = 0.0 if rng.random() < 0.22 else float(rng.uniform(0.15, 1.0))
    cirrhosis = bool(rng.random() < 0.3)
    return Style(
        richness=richness,
        size=float(np.clip(rng.normal(1.0, 0.09), 0.78, 1.22)),
        edge_mm=float(np.mean(spacing_mm) * rng.uniform(0.8, 1.6)),
        warp_mm=0.0 if richness < 0.1 else float(rng.uniform(1, 7)),
        nodular_mm=float(rng.uniform(0.8, 2.5)) if cirrhosis and richness > 0.1 else 0.0,
        steatosis=bool(rng.random() < 0.2),
        cirrhosis=cirrhosis,
    )


class Canvas:
    """HU of both phases and the liver's share of every voxel, painted shape by shape."""

    def __init__(self, grid: Grid, background_hu: float) -> None:
        self.grid = grid
        self.arterial: Array = np.full(grid.shape, background_hu, np.float32)
        self.portal: Array = np.full(grid.shape, background_hu, np.float32)
        self.liver: Array = np.zeros(grid.shape, np.float32)
        z, y, x = grid.axes()
        self.z: Array = np.broadcast_to(z, grid.shape)
        self.y: Array = np.broadcast_to(y, grid.shape)
        self.x: Array = np.broadcast_to(x, grid.shape)
        self.reach_mm = 0.0

    def warp(self, rng: np.random.Generator, amount_mm: float) -> None:
        """Bend the space in which all further shapes are drawn."""
        if amount_mm <= 0:
            return
        self.z = self.z + amount_mm * smooth_field(rng, self.grid, 55)
        self.y = self.y + amount_mm * smooth_field(rng, self.grid, 55)
        self.x = self.x + amount_mm * smooth_field(rng, self.grid, 55)
        self.reach_mm += 3.5 * amount_mm

    def blend(self, window: tuple[slice, slice, slice], alpha: Array, hu: Hu, *, over_liver: bool = True) -> None:
        """Paint `hu` with opacity `alpha` over a window; `over_liver` takes the voxels away from the liver."""
        for volume, value in ((self.arterial, hu[0]), (self.portal, hu[1])):
            part = volume[window]
            part += alpha * (value - part)
        if over_liver:
            self.liver[window] *= 1 - alpha

    def ellipsoid(
        self,
        hu: Hu,
        centre: Triple,
        radii: Triple,
        edge_mm: float,
        *,
        turn: Array | None = None,
        inside: Array | None = None,
        keep_liver: bool = False,
    ) -> None:
        """Paint an ellipsoid, optionally only where `inside` (a share per voxel) is."""
        reach = max(radii) if turn is not None else 0
        margin = self.reach_mm + 2 * edge_mm
        low = tuple(c - max(r, reach) - margin for c, r in zip(centre, radii, strict=True))
        high = tuple(c + max(r, reach) + margin for c, r in zip(centre, radii, strict=True))
        window = self.grid.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        if window is None:
            return
        distance = ellipsoid_mm(self.z[window], self.y[window], self.x[window], centre, radii, turn)
        alpha = coverage(distance, edge_mm)
        if inside is not None:
            alpha = alpha * inside[window]
        self.blend(window, alpha, hu, over_liver=not keep_liver)

    def tube(
        self,
        hu: Hu,
        start: Triple,
        end: Triple,
        radii: tuple[float, float],
        edge_mm: float,
        *,
        inside: Array | None = None,
        keep_liver: bool = False,
    ) -> None:
        """Paint a tapering tube."""
        margin = self.reach_mm + max(radii) + 2 * edge_mm
        low = tuple(min(a, b) - margin for a, b in zip(start, end, strict=True))
        high = tuple(max(a, b) + margin for a, b in zip(start, end, strict=True))
        window = self.grid.window((low[0], low[1], low[2]), (high[0], high[1], high[2]))
        if window is None:
            return
        distance = capsule_mm(self.z[window], self.y[window], self.x[window], start, end, radii)
        # A tube thinner than the edge keeps its volume by fading instead of growing.
        alpha = coverage(distance, edge_mm) * min(1.0, (2 * max(radii) / edge_mm) ** 2)
        if inside is not None:
            alpha = alpha * inside[window]
        self.blend(window, alpha, hu, over_liver=not keep_liver)


def _near(rng: np.random.Generator, point: Triple, sd_mm: float) -> Triple:
    z, y, x = (float(p + rng.normal(0, sd_mm)) for p in point)
    return z, y, x


def _scaled(point: Triple, size: float) -> Triple:
    return point[0] * size, point[1] * size, point[2] * size


def paint_body(canvas: Canvas, rng: np.random.Generator, style: Style, contrast: Contrast) -> None:
    """Skin, fat, muscle, abdominal cavity, spine, ribs, lungs, heart."""
    s, edge, hu = style.size, style.edge_mm, contrast.tissue
    half = float(rng.uniform(150, 185)) * s, float(rng.uniform(105, 130)) * s
    tall = 4000.0
    fat_mm = float(rng.uniform(6, 32)) * s
    soft = rng.random() < (0.6 if style.richness < 0.1 else 0.15)
    filling: Hu = (float(rng.uniform(0, 55)),) * 2 if soft else hu["fat"]
    if style.has(rng, 0.8):  # table
        canvas.ellipsoid((-300.0, -300.0), (0, half[1] + 22, 0), (tall, 12, 220), edge)
    canvas.ellipsoid(hu["fat"] if not soft else filling, (0, 0, 0), (tall, half[1], half[0]), edge)
    inner = half[1] - fat_mm * 0.8, half[0] - fat_mm
    if style.has(rng, 0.9):
        canvas.ellipsoid(hu["muscle"], (0, 2, 0), (tall, *inner), edge)
        wall = float(rng.uniform(8, 16))
        canvas.ellipsoid(filling, (0, -2, 0), (tall, inner[0] - wall, inner[1] - wall), edge)
    for side in (-1, 1):
        if style.has(rng, 0.95):
            top = _near(rng, (150 * s, 5 * s, side * 78 * s), 10)
            canvas.ellipsoid(hu["lung"], top, (float(rng.uniform(85, 125)) * s, 88 * s, 68 * s), edge)
    if style.has(rng, 0.9):
        canvas.ellipsoid(hu["heart"], _near(rng, (125 * s, -30 * s, 25 * s), 8), (55 * s, 50 * s, 60 * s), edge)
    if style.has(rng, 1.0):
        spine = float(half[1] - rng.uniform(48, 60) * s)
        canvas.ellipsoid(hu["bone"], (0, spine, 0), (tall, 18 * s, 23 * s), edge)
        canvas.ellipsoid(hu["cord"], (0, spine + 24 * s, 0), (tall, 8 * s, 9 * s), edge)
        canvas.ellipsoid(hu["cortex"], (0, spine + 40 * s, 0), (tall, 8 * s, 5 * s), edge)
        for side in (-1, 1):
            canvas.ellipsoid(hu["muscle"], (0, spine + 30 * s, side * 34 * s), (tall, 20 * s, 24 * s), edge)
    if style.has(rng, 0.9):
        for rib in range(-4, 5):
            for side in (-1, 1):
                for angle in (-0.9, -0.3, 0.3, 0.9):
                    y, x = np.sin(angle) * inner[0], side * np.cos(angle) * inner[1]
                    at = (float(rib * 28 * s - 14 * side + 12 * angle), float(y), float(x))
                    canvas.ellipsoid(hu["cortex"], at, (6, 9, 7), edge)


def paint_liver(canvas: Canvas, rng: np.random.Generator, style: Style, contrast: Contrast) -> Triple:
    """Paint the liver and fill `canvas.liver`; returns the position of the porta hepatis."""
    s = style.size * float(np.clip(rng.normal(1, 0.07), 0.82, 1.15))
    middle = _near(rng, (float(rng.uniform(-5, 35)), -5, -62 * style.size), 9)
    big = float(np.exp(rng.normal(0, 0.1))) * 76 * s, float(np.exp(rng.normal(0, 0.08))) * 68 * s, 66.0 * s
    roughness = style.nodular_mm * smooth_field(rng, canvas.grid, 9) if style.nodular_mm else 0.0
    right = ellipsoid_mm(canvas.z, canvas.y, canvas.x, middle, big, rotation(rng, 8))
    distance: Array = right
    porta = (middle[0] - 12 * s, middle[1] + 5 * s, middle[2] + 40 * s)
    if style.richness > 0.1 or rng.random() < 0.3:
        left_scale = float(rng.uniform(0.75, 1.25))
        offset = (22 * s, -30 * s, 62 * s * min(left_scale, 1.1))
        centre = middle[0] + offset[0], middle[1] + offset[1], middle[2] + offset[2]
        radii = (45 * s * left_scale, 40 * s, 72 * s * left_scale)
        left = ellipsoid_mm(canvas.z, canvas.y, canvas.x, centre, radii, rotation(rng, 12))
        blend = np.clip(0.5 + (left - right) / 30, 0, 1)
        distance = np.asarray(right + blend * (left - right) + 15 * blend * (1 - blend), np.float32)
        notch = ellipsoid_mm(
            canvas.z, canvas.y, canvas.x, (porta[0] - 35 * s, porta[1] + 12 * s, porta[2]), (42 * s, 32 * s, 22 * s)
        )
        distance = np.minimum(distance, -notch)
    distance = np.asarray(distance + roughness, np.float32)
    if style.has(rng, 0.12):  # ascites
        rim = float(rng.uniform(5, 18))
        canvas.blend((slice(None),) * 3, coverage(distance + rim, style.edge_mm), contrast.tissue["fluid"])
    alpha = coverage(distance, style.edge_mm)
    texture = float(rng.uniform(0, 4.5)) if style.richness > 0.1 else 0.0
    ap: Array | float = contrast.liver[0]
    pvp: Array | float = contrast.liver[1]
    if texture > 0.5:
        lumps = smooth_field(rng, canvas.grid, float(rng.uniform(5, 30)))
        ap, pvp = ap + texture * lumps, pvp + texture * lumps
    canvas.arterial += alpha * (ap - canvas.arterial)
    canvas.portal += alpha * (pvp - canvas.portal)
    canvas.liver = np.asarray(alpha, np.float32)
    return porta


def _under_liver(canvas: Canvas, near: Triple, radius_mm: float, rng: np.random.Generator) -> Triple:
    """A place for the gallbladder at the liver's lower surface, at least half of it outside: else it is a cyst."""
    _, row, column = (round(i) for i in canvas.grid.index_of(near))
    row = min(max(row, 0), canvas.grid.shape[1] - 1)
    column = min(max(column, 0), canvas.grid.shape[2] - 1)
    filled = np.flatnonzero(canvas.liver[:, row, column] > 0.5)
    if filled.size == 0:
        return near
    # The shapes are drawn in bent space, so the surface is looked up there.
    surface = float(canvas.z[filled[0], row, column])
    sideways = float(canvas.y[filled[0], row, column]), float(canvas.x[filled[0], row, column])
    return surface - radius_mm * float(rng.uniform(0.05, 0.7)), *sideways


def paint_organs(canvas: Canvas, rng: np.random.Generator, style: Style, contrast: Contrast, porta: Triple) -> None:
    """Spleen, kidneys, stomach, pancreas, gallbladder, bowel, aorta and vena cava, around the liver."""
    s, edge, hu = style.size, style.edge_mm, contrast.tissue
    free = np.asarray(1 - canvas.liver, np.float32)
    if style.has(rng, 0.95):
        big = float(rng.uniform(1.1, 1.6)) if style.cirrhosis else float(rng.uniform(0.75, 1.15))
        at = _near(rng, (25 * s, 35 * s, 100 * s), 8)
        turn = rotation(rng, 15)
        canvas.ellipsoid(hu["spleen"], at, (50 * s * big, 42 * s, 26 * s * big), edge, turn=turn, inside=free)
        if contrast.early > 0.3 or rng.random() < 0.5:  # mottled in the arterial phase
            weight = float(rng.uniform(8, 30))
            window = canvas.grid.window((at[0] - 80, at[1] - 60, at[2] - 45), (at[0] + 80, at[1] + 60, at[2] + 45))
            if window is not None:
                level = ellipsoid_mm(
                    canvas.z[window], canvas.y[window], canvas.x[window], at, (48 * s * big, 40 * s, 24 * s), turn
                )
                part = canvas.arterial[window]
                stripes = np.sin((canvas.y[window] + canvas.z[window]) / 3.5) * weight
                part += coverage(level, 6) * free[window] * stripes
    if style.has(rng, 0.95):
        at = _near(rng, (10 * s, -40 * s, 62 * s), 10)
        radii = (42 * s, 35 * s, 40 * s)
        canvas.ellipsoid(hu["stomach_wall"], at, radii, edge, inside=free)
        content = hu["air"] if rng.random() < 0.3 else hu["stomach_fluid"]
        canvas.ellipsoid(content, at, (radii[0] - 5, radii[1] - 5, radii[2] - 5), edge, inside=free)
    for side in (-1, 1):
        if style.has(rng, 0.95):
            at = _near(rng, (-60 * s, 50 * s, side * 68 * s), 7)
            turn = rotation(rng, 10)
            canvas.ellipsoid(hu["kidney"], at, (52 * s, 26 * s, 28 * s), edge, turn=turn, inside=free)
            canvas.ellipsoid(hu["kidney_core"], at, (30 * s, 11 * s, 12 * s), edge * 3, turn=turn, inside=free)
    if style.has(rng, 0.9):
        canvas.ellipsoid(
            hu["pancreas"], _near(rng, (-25 * s, 12 * s, 25 * s), 6), (14 * s, 13 * s, 48 * s), edge, inside=free
        )
    if style.has(rng, 0.85):
        size = float(rng.uniform(0.6, 1.3))
        radii = (28 * s * size, 17 * s * size, 14 * s * size)
        at = _under_liver(canvas, _near(rng, (porta[0], porta[1] - 22 * s, porta[2] - 12 * s), 7), radii[0], rng)
        canvas.ellipsoid(hu["gallbladder"], at, radii, edge, turn=rotation(rng, 20))
    for _ in range(int(rng.integers(3, 14)) if style.has(rng, 0.9) else 0):
        at = (
            float(rng.uniform(-130, -40)) * s,
            float(rng.uniform(-75, 20)) * s,
            float(rng.uniform(-100, 100)) * s,
        )
        tube = float(rng.uniform(12, 26)) * s, float(rng.uniform(12, 26)) * s, float(rng.uniform(12, 26)) * s
        canvas.ellipsoid(hu["bowel"], at, tube, edge, inside=free)
        content = hu["air"] if rng.random() < 0.4 else hu["stomach_fluid"]
        canvas.ellipsoid(content, at, (tube[0] - 4, tube[1] - 4, tube[2] - 4), edge, inside=free)
    if style.has(rng, 1.0):
        aorta = _near(rng, (0, 42 * s, 12 * s), 3)
        canvas.tube(hu["aorta"], (-300, aorta[1], aorta[2]), (300, aorta[1], aorta[2]), (10 * s, 12 * s), edge)
    if style.has(rng, 0.95):
        cava = _near(rng, (0, 34 * s, -20 * s), 3)
        canvas.tube(hu["vena_cava"], (-300, cava[1], cava[2]), (110 * s, cava[1], cava[2]), (11 * s, 12 * s), edge)


def _branch(
    canvas: Canvas,
    rng: np.random.Generator,
    hu: Hu,
    start: Triple,
    direction: Array,
    radius: float,
    length: float,
    depth: int,
    edge_mm: float,
    artery: Hu | None,
) -> None:
    stop = np.asarray(start, np.float32) + direction * length
    end = (float(stop[0]), float(stop[1]), float(stop[2]))
    canvas.tube(hu, start, end, (radius, radius * 0.8), edge_mm, inside=canvas.liver, keep_liver=True)
    if artery is not None:
        beside = tuple(c + radius + 1 for c in start), tuple(c + radius * 0.8 + 1 for c in end)
        a, b = beside
        thin = max(0.6, radius * 0.25)
        canvas.tube(
            artery, (a[0], a[1], a[2]), (b[0], b[1], b[2]), (thin, thin), edge_mm, inside=canvas.liver, keep_liver=True
        )
    if depth == 0:
        return
    for _ in range(2):
        turned = direction + 0.65 * rng.standard_normal(3).astype(np.float32)
        turned /= np.linalg.norm(turned)
        _branch(
            canvas, rng, hu, end, turned, radius * 0.72, length * float(rng.uniform(0.65, 0.95)), depth - 1, edge_mm,
            artery,
        )  # fmt: skip


def paint_vessels(canvas: Canvas, rng: np.random.Generator, style: Style, contrast: Contrast, porta: Triple) -> None:
    """Portal tree with hepatic arteries, and the hepatic veins; they stay part of the liver."""
    s, edge, hu = style.size, style.edge_mm, contrast.tissue
    depth = int(rng.integers(2, 5))
    artery = hu["hepatic_artery"] if rng.random() < 0.5 else None
    if style.has(rng, 0.9):
        below = (porta[0] - 45 * s, porta[1] + 15 * s, porta[2] + 25 * s)
        canvas.tube(hu["portal_vein"], below, porta, (7 * s, 7 * s), edge, keep_liver=True)
        for direction in ((0.15, 0.1, -1.0), (0.35, -0.5, 0.8), (0.7, -0.1, -0.6)):
            way = np.asarray(direction, np.float32)
            way = way / np.linalg.norm(way)
            _branch(canvas, rng, hu["portal_vein"], porta, way, 5.5 * s, 32 * s, depth, edge, artery)
    if style.has(rng, 0.9):
        root = (porta[0] + 65 * s, porta[1] + 22 * s, porta[2] + 8 * s)
        for direction in ((-0.6, -0.3, -1.0), (-0.7, -0.9, -0.3), (-0.5, -0.8, 0.6)):
            way = np.asarray(direction, np.float32)
            way = way / np.linalg.norm(way)
            _branch(canvas, rng, hu["hepatic_vein"], root, way, 5.5 * s, 42 * s, max(1, depth - 1), edge, None)


def paint_pitfalls(canvas: Canvas, rng: np.random.Generator, style: Style, positions_mm: Array) -> None:
    """Perfusion differences and focal fat: seen in the liver, yet no lesions."""
    if style.richness < 0.1 or len(positions_mm) == 0:
        return
    for _ in range(int(rng.integers(1, 4)) if rng.random() < 0.3 else 0):  # transient arterial hyperenhancement
        at = positions_mm[int(rng.integers(len(positions_mm)))]
        radii = tuple(float(rng.uniform(6, 30)) for _ in range(3))
        window = canvas.grid.window((at[0] - 50, at[1] - 50, at[2] - 50), (at[0] + 50, at[1] + 50, at[2] + 50))
        if window is None:
            continue
        level = ellipsoid_mm(
            canvas.z[window], canvas.y[window], canvas.x[window], (at[0], at[1], at[2]),
            (radii[0], radii[1], radii[2]), rotation(rng, 60),
        )  # fmt: skip
        soft = coverage(level, float(rng.uniform(10, 20))) * canvas.liver[window]
        canvas.arterial[window] += soft * float(rng.uniform(10, 35))
        canvas.portal[window] += soft * float(rng.uniform(-3, 5))
    if rng.random() < 0.15:  # focal fat or sparing, with a wide soft edge
        at = positions_mm[int(rng.integers(len(positions_mm)))]
        change = float(rng.uniform(8, 22)) * (1 if style.steatosis else -1)
        window = canvas.grid.window((at[0] - 45, at[1] - 45, at[2] - 45), (at[0] + 45, at[1] + 45, at[2] + 45))
        if window is not None:
            level = ellipsoid_mm(
                canvas.z[window], canvas.y[window], canvas.x[window], (at[0], at[1], at[2]),
                (float(rng.uniform(6, 18)), float(rng.uniform(6, 22)), float(rng.uniform(4, 12))),
            )  # fmt: skip
            soft = coverage(level, float(rng.uniform(8, 16))) * canvas.liver[window]
            canvas.arterial[window] += soft * change
            canvas.portal[window] += soft * change
