"""Procedural textures.

Enters: surface coordinates (M, 2) in metres. Leaves: their colours (M, 3).

``surface_color`` evaluates the texture of each hit at its own (u, v), so an image shows it at the
image's resolution. A texture mixes two colours by a pattern value m in [0, 1]. Patterns that tell
the classes of a pattern group apart cover half of the surface with each colour, whatever their
kind, so a single coloured point carries nothing of the class.

Letters: P materials, M surface samples.
"""

import colorsys
from dataclasses import dataclass
from enum import IntEnum

import numpy as np


class Pattern(IntEnum):
    """Kinds of texture; the first seven are two-coloured, half and half, the others are soft."""

    STRIPES = 0
    CHECKER = 1
    DOTS = 2
    RINGS = 3
    SOLID = 4
    GRAIN = 5
    CLOUDS = 6


# Angle in degrees of the direction in which the pattern alternates; 0 is the horizontal, None any.
CLASS_PATTERNS: dict[str, tuple[Pattern, float | None]] = {
    'picture': (Pattern.CHECKER, 0.0),
    'window': (Pattern.STRIPES, 0.0),
    'whiteboard': (Pattern.STRIPES, 90.0),
    'cabinet': (Pattern.STRIPES, 45.0),
    'refrigerator': (Pattern.DOTS, 0.0),
    'table': (Pattern.STRIPES, None),
    'desk': (Pattern.CHECKER, None),
}
CLASS_PERIOD = (0.045, 0.06)


@dataclass(frozen=True)
class Material:
    """One texture.

    Attributes:
        pattern: kind of texture.
        color_a, color_b: the two colours, RGB in [0, 1].
        period: metres after which the pattern repeats.
        angle: radians by which the pattern is turned in the surface.
        phase: shift of the pattern in periods.
    """

    pattern: Pattern
    color_a: tuple[float, float, float]
    color_b: tuple[float, float, float]
    period: float = 1.0
    angle: float = 0.0
    phase: tuple[float, float] = (0.0, 0.0)


@dataclass(frozen=True)
class MaterialTable:
    """Materials as arrays: pattern (P,), colors (P, 2, 3), period, angle (P,), phase (P, 2)."""

    pattern: np.ndarray
    colors: np.ndarray
    period: np.ndarray
    angle: np.ndarray
    phase: np.ndarray


def surface_color(table: MaterialTable, material: np.ndarray, uv: np.ndarray) -> np.ndarray:
    """Colour of surface samples before lighting.

    Args:
        table: materials.
        material: (M,) int, row of each sample's material.
        uv: (M, 2) float32 surface coordinates in metres.

    Returns:
        (M, 3) float32 RGB in [0, 1].
    """
    scaled = uv / table.period[material, None]
    cos, sin = np.cos(table.angle)[material], np.sin(table.angle)[material]
    phase = table.phase[material]
    # turned into the pattern's own axes, in periods
    s = scaled[:, 0] * cos + scaled[:, 1] * sin + phase[:, 0]
    t = scaled[:, 1] * cos - scaled[:, 0] * sin + phase[:, 1]

    pattern = table.pattern[material]
    mix = np.zeros(len(material), dtype=np.float32)
    for kind in Pattern:
        here = np.flatnonzero(pattern == kind)
        if len(here):
            mix[here] = pattern_value(kind, s[here], t[here])
    colors = table.colors[material]
    return colors[:, 0] + mix[:, None] * (colors[:, 1] - colors[:, 0])


def pattern_value(kind: Pattern, s: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Share of the second colour.

    Args:
        kind: kind of texture.
        s, t: (M,) coordinates in periods, turned and shifted.

    Returns:
        (M,) float in [0, 1]; the two-coloured kinds are 0 and 1 on equal areas.
    """
    if kind == Pattern.STRIPES:
        return s - np.floor(s) < 0.5
    if kind == Pattern.CHECKER:
        return (s - np.floor(s) < 0.5) != (t - np.floor(t) < 0.5)
    if kind == Pattern.DOTS:  # discs of half the cell's area
        return (s - np.floor(s) - 0.5) ** 2 + (t - np.floor(t) - 0.5) ** 2 < 0.5 / np.pi
    if kind == Pattern.RINGS:
        radius = np.hypot(s, t)
        return radius - np.floor(radius) < 0.5
    if kind == Pattern.GRAIN:
        return 0.5 + 0.5 * np.sin(2 * np.pi * (s + 0.3 * np.sin(1.7 * t) + 0.15 * np.sin(4.1 * t)))
    if kind == Pattern.CLOUDS:
        return 0.5 + 0.25 * (np.sin(5.3 * s + 2.1 * np.sin(3.1 * t)) + np.sin(6.7 * t + 2.7 * s))
    return np.zeros(s.shape)


def material_table(materials: list[Material]) -> MaterialTable:
    """Stack materials into arrays for ``surface_color``."""
    return MaterialTable(
        pattern=np.array([int(m.pattern) for m in materials]),
        colors=np.array([(m.color_a, m.color_b) for m in materials], dtype=np.float32),
        period=np.array([m.period for m in materials], dtype=np.float32),
        angle=np.array([m.angle for m in materials], dtype=np.float32),
        phase=np.array([m.phase for m in materials], dtype=np.float32),
    )


def class_material(rng: np.random.Generator, name: str) -> Material:
    """The patterned material of a class of a pattern group.

    Period, phase, contrast and both colours are drawn from one distribution for all classes; only
    the kind and the direction of the pattern belong to the class.

    Args:
        rng: source of randomness; the same number of draws is made for every class.
        name: key of ``CLASS_PATTERNS``.

    Returns:
        The material.
    """
    pattern, angle = CLASS_PATTERNS[name]

    # drawn for every class alike, so that nothing but the pattern tells them apart
    any_angle = rng.uniform(0.0, 180.0)
    jitter = rng.uniform(-5.0, 5.0)
    dark = random_color(rng, value=(0.15, 0.45))
    bright = random_color(rng, value=(0.75, 1.0))
    if rng.random() < 0.5:
        dark, bright = bright, dark
    return Material(
        pattern,
        dark,
        bright,
        period=rng.uniform(*CLASS_PERIOD),
        angle=np.deg2rad(any_angle if angle is None else angle + jitter),
        phase=tuple(rng.uniform(0.0, 1.0, 2)),
    )


def plain_material(rng: np.random.Generator, value: tuple[float, float]) -> Material:
    """One colour."""
    color = random_color(rng, value)
    return Material(Pattern.SOLID, color, color)


def soft_material(
    rng: np.random.Generator,
    pattern: Pattern,
    value: tuple[float, float],
    period: tuple[float, float],
    contrast: float = 0.25,
    saturation: tuple[float, float] = (0.1, 0.6),
) -> Material:
    """Two shades of one colour: wood, fabric, plaster.

    Args:
        pattern: kind of texture.
        value: range of brightness.
        period: range of the period in metres.
        contrast: how much darker the second shade is, 0–1.
        saturation: range of saturation.
    """
    color = random_color(rng, value, saturation)
    red, green, blue = ((1.0 - contrast) * c for c in color)
    return Material(
        pattern,
        color,
        (red, green, blue),
        period=rng.uniform(*period),
        angle=rng.choice([0.0, np.pi / 2]),
        phase=tuple(rng.uniform(0.0, 10.0, 2)),
    )


def random_color(
    rng: np.random.Generator,
    value: tuple[float, float],
    saturation: tuple[float, float] = (0.1, 0.6),
) -> tuple[float, float, float]:
    """A colour of any hue, RGB in [0, 1], of a brightness and saturation in the given ranges."""
    return colorsys.hsv_to_rgb(rng.random(), rng.uniform(*saturation), rng.uniform(*value))
