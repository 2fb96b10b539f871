"""Draw one phantom frame: the colon with folds, vessels and polyps, seen by an endoscope."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sam2unet_core.errors import DataError
from sam2unet_core.phantom.scene import (
    EMPTY_FRACTION,
    SHAPES,
    Field,
    Patient,
    Polyp,
    smooth_noise,
    uniform,
)

SMALLEST = 32


def draw_frame(
    rng: np.random.Generator | int,
    *,
    size: tuple[int, int] = (256, 256),
    polyps: int | None = None,
    patient: Patient | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw a frame and its mask.

    Args:
        rng: a generator, or its seed.
        size: (height, width) in pixels, each at least 32.
        polyps: number of polyps; None draws 0 (in `EMPTY_FRACTION` of frames), 1 or 2.
        patient: appearance shared by the frames of a sequence; None draws one.

    Returns:
        Pixels `(H, W, 3)` uint8 RGB and mask `(H, W)` uint8, 1 where a polyp is visible.

    Raises:
        DataError: the size is too small.
    """
    if min(size) < SMALLEST:
        raise DataError(
            f"phantom frames of {size[0]} x {size[1]} pixels: the minimum is {SMALLEST} x "
            f"{SMALLEST}"
        )
    rng = np.random.default_rng(rng) if isinstance(rng, int) else rng
    patient = patient or Patient.draw(rng)
    canvas = _Canvas.blank(size)
    field_of_view = _field_of_view(canvas, patient)
    count = _draw_count(rng) if polyps is None else polyps
    half = (float(canvas.x.max()), float(canvas.y.max()))

    _paint_wall(canvas, rng, patient=patient)
    canvas.wall_light = canvas.light.copy()
    mask = np.zeros(size, dtype=bool)
    for _ in range(count):
        shape = SHAPES[int(len(SHAPES) * rng.random())]
        mask |= _paint_polyp(canvas, rng, polyp=Polyp.draw(rng, shape=shape, half=half))
    rgb = _light(canvas, rng, patient=patient)
    rgb = _soften(rgb) + 0.012 * (rng.random((*size, 1)) + rng.random((*size, 3)) - 1.0)
    pixels = np.floor(np.clip(rgb, 0, 1) * 255 + 0.5) * field_of_view[..., None]
    return pixels.astype(np.uint8), (mask & field_of_view).astype(np.uint8)


@dataclass
class _Canvas:
    """The painted surface; all arrays are `(H, W)` float64 except `albedo`, `(H, W, 3)`.

    `x` and `y` are in units of half the shorter side from the centre; `height` is in the same unit
    towards the camera; `light` is a factor on the illumination, `wall_light` the same without the
    shadows of polyps.
    """

    x: Field
    y: Field
    albedo: NDArray[np.float64]
    height: Field
    light: Field
    wall_light: Field

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return (self.x.shape[0], self.x.shape[1])

    @property
    def pixel(self) -> float:
        """Size of a pixel."""
        return 2.0 / min(self.size)

    @classmethod
    def blank(cls, size: tuple[int, int]) -> _Canvas:
        height, width = size
        y = (np.arange(height) + 0.5 - height / 2) * (2.0 / min(size))
        x = (np.arange(width) + 0.5 - width / 2) * (2.0 / min(size))
        shape = np.zeros(size)
        return cls(
            x=x[None, :] + shape,
            y=y[:, None] + shape,
            albedo=np.ones((*size, 3)),
            height=np.zeros(size),
            light=np.ones(size),
            wall_light=np.ones(size),
        )


def _draw_count(rng: np.random.Generator) -> int:
    chance = float(rng.random())
    return 0 if chance < EMPTY_FRACTION else 1 if chance < 0.88 else 2


def _paint_wall(canvas: _Canvas, rng: np.random.Generator, *, patient: Patient) -> None:
    """Paint lumen, haustral folds, mucosa and vessels."""
    size = canvas.size
    shift, bearing = uniform(rng, 0.05, 0.95), uniform(rng, 0, 2 * np.pi)
    sway = 0.16
    u = canvas.x - shift * np.cos(bearing) + sway * smooth_noise(rng, size, cells=3)
    v = canvas.y - shift * np.sin(bearing) + sway * smooth_noise(rng, size, cells=3)
    r = np.sqrt(u * u + v * v) + 1e-12
    # The taeniae coli give the lumen a triangular outline: three periods around it.
    roll = uniform(rng, 0, 2 * np.pi)
    cos_3, sin_3 = (4 * (u / r) ** 2 - 3) * (u / r), (3 - 4 * (v / r) ** 2) * (v / r)
    r *= 1 + 0.13 * (np.cos(roll) * cos_3 - np.sin(roll) * sin_3)

    # The wall recedes as 1 / r, and light falls off towards the lumen.
    canvas.light *= 0.10 + 0.90 * _smoothstep((r - 0.06) / uniform(rng, 0.45, 0.75))
    phase = uniform(rng, 1.6, 2.6) * np.log(r + 0.12) + 0.10 * smooth_noise(rng, size, cells=4)
    t = np.mod(phase + uniform(rng, 0, 1), 1.0)  # 0 behind a crest, rising to 1 on the next
    strength = patient.folds * _smoothstep(0.5 + 0.6 * smooth_noise(rng, size, cells=2.5))
    crest = _smoothstep(t / 0.80) * _smoothstep((1 - t) / 0.20)
    canvas.height += 0.07 * strength * crest * (0.25 + np.minimum(r, 1.2))
    behind = np.exp(-((t / 0.24) ** 2)) + np.exp(-(((1 - t) / 0.045) ** 2))
    canvas.light *= 1 + strength * (0.10 * crest - 0.40 * np.minimum(behind, 1))

    blotch = smooth_noise(rng, size, cells=4)
    grain = smooth_noise(rng, size, cells=28)
    tone = 1 + 0.05 * blotch + 0.018 * grain
    hue = 0.06 * smooth_noise(rng, size, cells=5)
    for channel, reflectance in enumerate(patient.mucosa):
        canvas.albedo[..., channel] = reflectance * tone * (1 + (channel > 0) * hue)
    canvas.height += 0.010 * blotch + 0.0016 * grain
    _paint_vessels(canvas, rng, strength=patient.vessels * _smoothstep(r / 0.8))


def _paint_vessels(canvas: _Canvas, rng: np.random.Generator, *, strength: Field) -> None:
    """Paint vessels along the zero lines of smooth fields, in patches."""
    size = canvas.size
    loss = np.zeros(size)
    seen = strength * _smoothstep(0.35 + 0.7 * smooth_noise(rng, size, cells=3))
    for cells, width, contrast in ((4, 0.075, 0.42), (9, 0.13, 0.30), (17, 0.22, 0.16)):
        course = smooth_noise(rng, size, cells=cells)
        loss += contrast * np.maximum(1 - (course / width) ** 2, 0)
    loss = np.minimum(seen * loss, 0.6)
    for channel, absorbed in enumerate((0.35, 1.0, 0.85)):
        canvas.albedo[..., channel] *= 1 - absorbed * loss


def _paint_polyp(canvas: _Canvas, rng: np.random.Generator, *, polyp: Polyp) -> NDArray[np.bool_]:
    """Paint a polyp over the canvas and return the pixels it covers."""
    level = polyp.level(canvas.x, canvas.y)
    radius = min(polyp.radii)
    inside = level < 1
    _cast_shadow(canvas, rng, polyp=polyp)
    if polyp.stalk[1] > 0:
        stalk = polyp.stalk_level(canvas.x, canvas.y)
        rise = 0.55 * polyp.stalk[2] * np.sqrt(np.clip(1 - stalk**2, 0, 1))
        join = 1 - 0.35 * np.exp(-(((level - 1.05) / 0.22) ** 2))
        cover = _edge(stalk, polyp.stalk[2] / canvas.pixel)
        _cover(canvas, polyp, cover=cover, rise=rise, mottle=join)
        inside |= stalk < 1

    lumps = smooth_noise(rng, canvas.size, cells=9)
    pits = smooth_noise(rng, canvas.size, cells=44)
    dome = np.clip(1 - level**2, 0, 1)
    if polyp.shape == "flat":
        rise = 0.08 * _smoothstep(dome / 0.55) * (1 + 0.20 * lumps) + 0.004 * pits * (level < 1)
        soft = 0.18 * radius / canvas.pixel
    else:
        rise = 0.55 * radius * np.sqrt(dome) * (1 + 0.06 * lumps) + 0.003 * pits * (level < 1)
        soft = radius / canvas.pixel
    mottle = 1 + 0.05 * lumps + 0.035 * pits
    _cover(canvas, polyp, cover=_edge(level, soft), rise=rise, mottle=mottle)
    return inside


def _cover(
    canvas: _Canvas,
    polyp: Polyp,
    *,
    cover: Field,
    rise: Field,
    mottle: Field | float = 1.0,
) -> None:
    """Lay a surface `rise` above the wall; `cover`, 0 to 1, is the covered share of each pixel."""
    # Only the mean colour of the wall shows through, not its vessels and folds.
    weight = cover.sum() + 1e-9
    mean = np.tensordot(cover, canvas.albedo, axes=2) / weight
    colour = mean * np.array(polyp.tint) * np.asarray(mottle)[..., None]
    canvas.albedo += cover[..., None] * (colour - canvas.albedo)
    flat = float((canvas.height * cover).sum() / weight)
    canvas.height += cover * (0.75 * (flat - canvas.height) + rise)
    lit = 1.06 * max(float((canvas.wall_light * cover).sum() / weight), 0.55)
    canvas.light += cover * (0.25 * canvas.wall_light + 0.75 * lit - canvas.light)


def _cast_shadow(canvas: _Canvas, rng: np.random.Generator, *, polyp: Polyp) -> None:
    """Darken the wall on the side of the polyp that faces away from the lamp."""
    bearing, reach = uniform(rng, 0, 2 * np.pi), 0.28 * min(polyp.radii)
    depth = 0.12 if polyp.shape == "flat" else 0.42
    shifted = polyp.level(canvas.x - reach * np.cos(bearing), canvas.y - reach * np.sin(bearing))
    canvas.light *= 1 - depth * _smoothstep((1.30 - shifted) / 0.45)


def _light(canvas: _Canvas, rng: np.random.Generator, *, patient: Patient) -> NDArray[np.float64]:
    """Return `(H, W, 3)` RGB, 0 to about 1: the surface lit by a lamp beside the camera."""
    size = canvas.size
    slope_y, slope_x = np.gradient(canvas.height, canvas.pixel)
    lamp_x = uniform(rng, -0.25, 0.25) - 0.30 * canvas.x
    lamp_y = uniform(rng, -0.25, 0.25) - 0.30 * canvas.y
    facing = (1 - slope_x * lamp_x - slope_y * lamp_y) / np.sqrt(
        (1 + slope_x**2 + slope_y**2) * (1 + lamp_x**2 + lamp_y**2)
    )
    falloff = 1.05 - 0.28 * np.minimum(canvas.x**2 + canvas.y**2, 2.5)
    shade = patient.gain * canvas.light * falloff * (0.34 + 0.74 * np.clip(facing, 0, 1))
    shade *= 1 + 0.07 * smooth_noise(rng, size, cells=2.5)
    rgb: NDArray[np.float64] = canvas.albedo * shade[..., None]

    # Specular highlights where the wet surface faces half way between lamp and camera.
    tilt_x = slope_x + lamp_x / 2 + 0.13 * smooth_noise(rng, size, cells=30)
    tilt_y = slope_y + lamp_y / 2 + 0.13 * smooth_noise(rng, size, cells=24)
    wet = _smoothstep(0.25 + 0.6 * smooth_noise(rng, size, cells=5))
    mirror = np.exp(-(tilt_x**2 + tilt_y**2) / 0.006) * wet * np.minimum(canvas.light, 1)
    glint = _smoothstep((mirror - 0.25) / 0.5)[..., None]
    rgb += glint * (np.array([0.99, 0.97, 0.94]) - rgb)
    return rgb


def _field_of_view(canvas: _Canvas, patient: Patient) -> NDArray[np.bool_]:
    """Return the pixels inside the field of view; the rest is black."""
    half = (float(canvas.x.max()), float(canvas.y.max()))
    seen = np.ones(canvas.x.shape, dtype=bool)
    if patient.frame == "octagon":
        seen = np.abs(canvas.x) + np.abs(canvas.y) < half[0] + half[1] - 0.42
    elif patient.frame == "circle":
        seen = np.hypot(canvas.x / half[0], canvas.y / half[1]) < 1.08
    if patient.box:
        seen &= (canvas.x > -half[0] + 0.42) | (canvas.y < half[1] - 0.42)
    return seen


def _smoothstep(t: Field) -> Field:
    t = np.clip(t, 0, 1)
    return t * t * (3 - 2 * t)


def _edge(level: Field, pixels: float) -> Field:
    """Return the cover across an outline at level 1, one level unit being `pixels` wide."""
    return _smoothstep(0.5 + (1 - level) * pixels / 2.5)


def _soften(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Blur `(H, W, 3)` with the binomial kernel 1-2-1 along rows and columns."""
    padded = np.pad(rgb, ((1, 1), (1, 1), (0, 0)), mode="edge")
    rows = (padded[:-2] + 2 * padded[1:-1] + padded[2:]) / 4
    blurred: NDArray[np.float64] = (rows[:, :-2] + 2 * rows[:, 1:-1] + rows[:, 2:]) / 4
    return blurred
