"""What surfaces of lived-in rooms look like.

Enters: a random generator and the names of finishes. Leaves: a ``Material``.
"""

import colorsys

import numpy as np

from ..textures import Material, Pattern

# Of each finish the ranges of hue, saturation and value, its patterns and their strongest contrast.
_FINISHES = {
    'white': ((0.0, 1.0), (0.0, 0.08), (0.7, 1.0), (Pattern.SOLID, Pattern.CLOUDS), 0.08),
    'pale': ((0.0, 1.0), (0.02, 0.3), (0.5, 0.95), (Pattern.CLOUDS,), 0.12),
    'gray': ((0.5, 0.7), (0.0, 0.15), (0.2, 0.7), (Pattern.CLOUDS, Pattern.SOLID), 0.2),
    'dark': ((0.0, 1.0), (0.0, 0.4), (0.03, 0.25), (Pattern.SOLID, Pattern.CLOUDS), 0.3),
    'wood': ((0.04, 0.11), (0.25, 0.7), (0.2, 0.85), (Pattern.GRAIN,), 0.35),
    'vivid': ((0.0, 1.0), (0.4, 0.95), (0.25, 0.9), (Pattern.SOLID, Pattern.CLOUDS), 0.25),
    'cloth': ((0.0, 1.0), (0.05, 0.7), (0.1, 0.8), (Pattern.CLOUDS, Pattern.STRIPES), 0.4),
    'tiles': ((0.0, 1.0), (0.0, 0.3), (0.3, 0.95), (Pattern.CHECKER,), 0.15),
    'print': ((0.0, 1.0), (0.0, 0.9), (0.3, 1.0), (Pattern.CLOUDS, Pattern.RINGS), 0.8),
}


def finish(rng: np.random.Generator, *names: str) -> Material:
    """A material of one of these finishes, each as likely.

    Args:
        names: keys of the table above; repeat one to make it likelier.
    """
    hues, saturations, values, patterns, strongest = _FINISHES[names[rng.integers(len(names))]]
    hue, saturation, value = rng.uniform(*hues), rng.uniform(*saturations), rng.uniform(*values)
    color = colorsys.hsv_to_rgb(hue, saturation, value)
    contrast = rng.uniform(0.0, strongest)

    return Material(
        patterns[rng.integers(len(patterns))],
        color,
        tuple((1.0 - contrast) * c for c in color),
        period=rng.uniform(0.08, 0.6),
        angle=rng.choice([0.0, np.pi / 2]),
        phase=tuple(rng.uniform(0.0, 10.0, 2)),
    )
