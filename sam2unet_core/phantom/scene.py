"""Content of a phantom frame: the patient's appearance, polyps with exact outlines, textures.

Its smooth random fields are reproducible on every platform.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

SHAPES = ("sessile", "pedunculated", "flat")
"""Polyp shapes, after the Paris classification's Is, Ip and IIa."""

EMPTY_FRACTION = 0.15
"""Share of frames without a polyp."""


@dataclass(frozen=True)
class Patient:
    """Appearance shared by the frames of one sequence.

    Attributes:
        mucosa: reflectance of the wall, RGB, 0 to 1.
        vessels: contrast of the submucosal vessels, 0 to 1.
        folds: prominence of the haustral folds, 0 to 1.
        frame: outline of the visible field: `octagon`, `circle` or `full`.
        box: whether the console shows its dark navigation box at the lower left.
        gain: exposure of the camera.
    """

    mucosa: tuple[float, float, float]
    vessels: float
    folds: float
    frame: str
    box: bool
    gain: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Patient:
        """Draw a patient."""
        red = uniform(rng, 0.72, 0.90)
        green = red * uniform(rng, 0.46, 0.66)
        return cls(
            mucosa=(red, green, green * uniform(rng, 0.70, 0.95)),
            vessels=uniform(rng, 0.25, 1.0),
            folds=uniform(rng, 0.5, 1.0),
            frame=("octagon", "octagon", "circle", "full")[int(4 * rng.random())],
            box=bool(rng.random() < 0.3),
            gain=uniform(rng, 0.88, 1.12),
        )


@dataclass(frozen=True)
class Polyp:
    """One polyp, in units of half the frame's shorter side, origin at the centre, x right, y down.

    Attributes:
        shape: one of `SHAPES`.
        center: (x, y) of the polyp, or of its head if it has a stalk.
        radii: semi-axes of the outline.
        angle: of the first semi-axis, radians from x towards y.
        lobes: amplitudes of the waves of the outline with 2, 3, 4 and 5 periods.
        phases: their phases, radians.
        stalk: (angle, length, half width) of the stalk; length 0 for none.
        tint: factors on the wall's RGB reflectance.
    """

    shape: str
    center: tuple[float, float]
    radii: tuple[float, float]
    angle: float
    lobes: tuple[float, ...]
    phases: tuple[float, ...]
    stalk: tuple[float, float, float]
    tint: tuple[float, float, float]

    @classmethod
    def draw(cls, rng: np.random.Generator, *, shape: str, half: tuple[float, float]) -> Polyp:
        """Draw a polyp inside a field of half width and half height `half`."""
        radius = uniform(rng, 0.15, 0.50) * (0.85 if shape == "pedunculated" else 1.0)
        flat = shape == "flat"
        reach = [max(0.05, h - radius - 0.22) for h in half]
        return cls(
            shape=shape,
            center=(uniform(rng, -reach[0], reach[0]), uniform(rng, -reach[1], reach[1])),
            radii=(radius, radius * uniform(rng, 0.6 if flat else 0.72, 1.0)),
            angle=uniform(rng, 0, np.pi),
            lobes=tuple(
                uniform(rng, 0, (0.13 if flat else 0.08) / wave) * 2 for wave in (1, 1.5, 2, 2.5)
            ),
            phases=tuple(uniform(rng, 0, 2 * np.pi) for _ in range(4)),
            stalk=_stalk(rng, shape, radius),
            tint=(uniform(rng, 0.98, 1.10), uniform(rng, 0.76, 1.02), uniform(rng, 0.80, 1.06)),
        )

    def level(self, x: Field, y: Field) -> Field:
        """Return the head's level function: 0 at its centre, 1 on its outline, 2 twice as far."""
        u, v = _turn(x - self.center[0], y - self.center[1], self.angle)
        u, v = u / self.radii[0], v / self.radii[1]
        distance = np.sqrt(u * u + v * v) + 1e-12
        cos, sin = u / distance, v / distance
        outline = np.ones_like(u)
        cos_wave, sin_wave = cos, sin
        for lobe, phase in zip(self.lobes, self.phases, strict=True):
            # Angle addition is cheaper than a cosine per pixel.
            cos_wave, sin_wave = cos_wave * cos - sin_wave * sin, sin_wave * cos + cos_wave * sin
            outline += lobe * (np.cos(phase) * cos_wave - np.sin(phase) * sin_wave)
        return distance / outline

    def stalk_level(self, x: Field, y: Field) -> Field:
        """Return the stalk's level function: 0 on its axis, 1 on its outline."""
        angle, length, half_width = self.stalk
        u, v = _turn(x - self.center[0], y - self.center[1], angle)
        along = np.clip(u, 0, length)
        widening = half_width * (1 + 0.5 * (along / length) ** 2)
        return np.hypot(u - along, v) / widening


def _stalk(rng: np.random.Generator, shape: str, radius: float) -> tuple[float, float, float]:
    bearing, length, half_width = (float(v) for v in rng.random(3))
    if shape != "pedunculated":
        return (0.0, 0.0, 0.0)
    length, half_width = 1.35 + 0.5 * length, 0.26 + 0.12 * half_width
    return (2 * np.pi * bearing, radius * length, radius * half_width)


def _turn(x: Field, y: Field, angle: float) -> tuple[Field, Field]:
    cos, sin = np.cos(angle), np.sin(angle)
    return cos * x + sin * y, cos * y - sin * x


CELLS = (2, 5, 11, 23, 47)
"""Knots along the shorter side, from large patches to grain."""


def draw_texture(
    rng: np.random.Generator | int, *, size: tuple[int, int] = (256, 256)
) -> NDArray[np.uint8]:
    """Draw smooth noise at several scales, with speckle, tint and a field of view.

    Args:
        rng: a generator, or its seed.
        size: (height, width) in pixels.

    Returns:
        Pixels `(H, W, 3)` uint8 RGB: half of the textures are grey, the others tinted; a third
        have bright or dark lines, like vessels or tissue layers; half are cropped to a disc or a
        band, black outside.
    """
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    level = np.zeros(size)
    for cells in CELLS:
        level += uniform(rng, 0.0, 0.25) * smooth_noise(rng, size, cells=cells)
    level += uniform(rng, 0.15, 0.65)
    if rng.random() < 1 / 3:
        cells = CELLS[1 + int(3 * rng.random())]
        course = smooth_noise(rng, size, cells=cells)
        level += uniform(rng, -0.5, 0.5) * np.exp(-((course / uniform(rng, 0.05, 0.3)) ** 2))
    if rng.random() < 0.5:  # ultrasound speckle, proportional to the signal
        level *= 1 + uniform(rng, 0.1, 0.6) * (2 * rng.random(size) - 1)
    tint = np.ones(3)
    if rng.random() < 0.5:
        tint = 0.2 + 0.8 * rng.random(3)
    rgb = np.clip(level, 0, 1)[..., None] * tint
    if rng.random() < 0.5:
        rgb *= _field_of_view(rng, size)[..., None]
    return np.floor(rgb * 255 + 0.5).astype(np.uint8)


def _field_of_view(rng: np.random.Generator, size: tuple[int, int]) -> NDArray[np.bool_]:
    height, width = size
    y = (np.arange(height)[:, None] + 0.5) * 2 / height - 1
    x = (np.arange(width)[None, :] + 0.5) * 2 / width - 1
    if rng.random() < 0.5:
        disc: NDArray[np.bool_] = np.hypot(x, y) < uniform(rng, 0.7, 1.1)
        return disc
    left, right = uniform(rng, -1.0, -0.3), uniform(rng, 0.3, 1.0)
    lean = uniform(rng, -0.4, 0.4)
    band: NDArray[np.bool_] = (x > left + lean * y) & (x < right - lean * y)
    return band


Field = NDArray[np.float64]
"""`(H, W)` float64, row-major."""

_UNIT = 3.6  # scales a cubic B-spline of uniform(-1, 1) knots to a standard deviation near 1


def uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """Return one number from `[low, high)`.

    The phantom draws only from `Generator.random`, whose stream is stable across NumPy versions.
    """
    return low + (high - low) * float(rng.random())


def smooth_noise(rng: np.random.Generator, size: tuple[int, int], *, cells: float) -> Field:
    """Draw a smooth field of mean near 0 and standard deviation near 1.

    It is a bicubic B-spline of uniform random knots, with `cells` knots along the shorter side.
    """
    height, width = size
    step = min(size) / cells
    rows, columns = _spline_weights(height, step), _spline_weights(width, step)
    knots = 2 * rng.random((rows.shape[1], columns.shape[1])) - 1
    field: Field = _UNIT * (rows @ knots @ columns.T)
    return field


@lru_cache(maxsize=64)
def _spline_weights(length: int, step: float) -> Field:
    """Return `(length, knots)` cubic B-spline weights for one knot every `step` pixels."""
    position = (np.arange(length) + 0.5) / step
    knot = np.floor(position).astype(np.int64)
    t = position - knot
    weights = np.zeros((length, int(knot[-1]) + 4))
    line = np.arange(length)
    weights[line, knot] = (1 - t) ** 3 / 6
    weights[line, knot + 1] = (3 * t**3 - 6 * t**2 + 4) / 6
    weights[line, knot + 2] = (-3 * t**3 + 3 * t**2 + 3 * t + 1) / 6
    weights[line, knot + 3] = t**3 / 6
    return weights
