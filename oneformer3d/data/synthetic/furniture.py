"""Furniture.

Enters: a random generator. Leaves: a ``Blueprint`` of parts in a local frame.

Local frame: x along the width with 0 in the middle, y from the back (0) to the front, z up from
the floor. The builders of one pattern group (``make_panel``, ``make_storage_box``,
``make_table``) draw every size from the same ranges whatever class they build.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import trimesh

from .mesh import Part, box, frustum
from .textures import Material, Pattern, class_material, plain_material, soft_material


@dataclass(frozen=True)
class Blueprint:
    """An object before it is placed.

    Attributes:
        name: class name, None for clutter.
        parts: meshes and materials.
        size: width, depth and height in metres.
    """

    name: str | None
    parts: tuple[Part, ...]
    size: tuple[float, float, float]


def make_panel(rng: np.random.Generator, name: str) -> Blueprint:
    """Picture, window or whiteboard: a framed panel that stands out from the wall; z = 0 is its
    lower edge."""
    w, h = rng.uniform(0.7, 1.1), rng.uniform(0.55, 0.85)
    depth, frame = rng.uniform(0.06, 0.08), rng.uniform(0.03, 0.05)
    border = plain_material(rng, (0.2, 0.9))
    x = w / 2
    panel = box((-x + frame, 0, frame), (x - frame, depth - 0.015, h - frame))
    rims = [
        box((-x, 0, 0), (-x + frame, depth, h)),
        box((x - frame, 0, 0), (x, depth, h)),
        box((-x + frame, 0, 0), (x - frame, depth, frame)),
        box((-x + frame, 0, h - frame), (x - frame, depth, h)),
    ]
    parts = (Part(panel, class_material(rng, name)), *(Part(rim, border) for rim in rims))
    return Blueprint(name, parts, (w, depth, h))


def make_storage_box(rng: np.random.Generator, name: str) -> Blueprint:
    """Cabinet or refrigerator: a closed box on a plinth with a handle."""
    w, d, h = rng.uniform(0.55, 0.85), rng.uniform(0.5, 0.65), rng.uniform(1.0, 1.75)
    trim = plain_material(rng, (0.2, 0.9))
    body = box((-w / 2, 0, 0.06), (w / 2, d, h))
    plinth = box((-w / 2 + 0.03, 0.0, 0), (w / 2 - 0.03, d - 0.05, 0.06))
    x = rng.choice([-1, 1]) * (w / 2 - 0.08)
    handle = box((x - 0.015, d, 0.5 * h), (x + 0.015, d + 0.04, 0.5 * h + 0.3))
    parts = (Part(body, class_material(rng, name)), Part(plinth, trim), Part(handle, trim))
    return Blueprint(name, parts, (w, d + 0.04, h))


def make_table(rng: np.random.Generator, name: str) -> Blueprint:
    """Table or desk: a patterned top on four legs."""
    w, d, h = rng.uniform(1.0, 1.4), rng.uniform(0.65, 0.85), rng.uniform(0.70, 0.78)
    wood = plain_material(rng, (0.2, 0.9))
    top = box((-w / 2, 0, h - 0.05), (w / 2, d, h))
    return Blueprint(
        name,
        (Part(top, class_material(rng, name)), *legs(wood, w, d, h - 0.05, 0.06)),
        (w, d, h),
    )


def make_chair(rng: np.random.Generator, name: str) -> Blueprint:
    """Seat, back and either four legs or a column on a foot."""
    w, d, seat = rng.uniform(0.42, 0.5), rng.uniform(0.42, 0.5), rng.uniform(0.42, 0.48)
    h = seat + rng.uniform(0.4, 0.5)
    cloth = soft_material(rng, Pattern.CLOUDS, (0.2, 0.9), (0.1, 0.3))
    frame = plain_material(rng, (0.1, 0.5))

    parts = [
        Part(box((-w / 2, 0, seat - 0.05), (w / 2, d, seat)), cloth),
        Part(box((-w / 2, 0, seat), (w / 2, 0.05, h)), cloth),
    ]
    if rng.random() < 0.6:
        parts += legs(frame, w, d, seat - 0.05, 0.04)
    else:
        parts.append(Part(frustum(0.03, 0.03, (0.05, seat - 0.05), (0, d / 2)), frame))
        parts.append(Part(frustum(0.24, 0.05, (0.0, 0.05), (0, d / 2)), frame))
    return Blueprint(name, tuple(parts), (w, d, h))


def make_sofa(rng: np.random.Generator, name: str) -> Blueprint:
    """Seat block, back and two arms; one to three cushions."""
    w, d, seat = rng.uniform(1.3, 1.8), rng.uniform(0.75, 0.9), rng.uniform(0.38, 0.45)
    back, arm = rng.uniform(0.78, 0.9), rng.uniform(0.56, 0.64)
    cloth = fabric(rng)
    parts = [
        Part(box((-w / 2, 0, 0.05), (w / 2, d, seat)), cloth),
        Part(box((-w / 2, 0, seat), (w / 2, 0.2, back)), cloth),
        Part(box((-w / 2, 0.2, seat), (-w / 2 + 0.18, d, arm)), cloth),
        Part(box((w / 2 - 0.18, 0.2, seat), (w / 2, d, arm)), cloth),
    ]
    return Blueprint(name, tuple(parts), (w, d, back))


def make_bed(rng: np.random.Generator, name: str) -> Blueprint:
    """Frame, mattress, pillows and a headboard at the back."""
    w, d, h = rng.uniform(1.1, 1.5), rng.uniform(1.85, 2.05), rng.uniform(0.45, 0.55)
    board = rng.uniform(0.85, 1.05)
    wood = soft_material(rng, Pattern.GRAIN, (0.3, 0.7), (0.1, 0.2))
    parts = [
        Part(box((-w / 2, 0, 0), (w / 2, 0.07, board)), wood),
        Part(box((-w / 2, 0.07, 0.08), (w / 2, d, h - 0.2)), wood),
        Part(box((-w / 2 + 0.02, 0.07, h - 0.2), (w / 2 - 0.02, d - 0.02, h)), fabric(rng)),
    ]
    pillow = plain_material(rng, (0.7, 1.0))
    for x in (-w / 4, w / 4):
        parts.append(Part(box((x - 0.2, 0.12, h), (x + 0.2, 0.45, h + 0.1)), pillow))
    return Blueprint(name, tuple(parts), (w, d, board))


def make_door(rng: np.random.Generator, name: str) -> Blueprint:
    """Leaf with a frame around it, on the wall down to the floor."""
    w, h, depth = rng.uniform(0.8, 0.95), rng.uniform(1.95, 2.1), rng.uniform(0.06, 0.08)
    leaf = soft_material(rng, Pattern.GRAIN, (0.4, 0.9), (0.1, 0.3))
    frame = plain_material(rng, (0.2, 0.9))
    x = rng.choice([-1, 1]) * (w / 2 - 0.14)
    parts = (
        Part(box((-w / 2 + 0.06, 0, 0), (w / 2 - 0.06, depth - 0.02, h - 0.06)), leaf),
        Part(box((-w / 2, 0, 0), (-w / 2 + 0.06, depth, h)), frame),
        Part(box((w / 2 - 0.06, 0, 0), (w / 2, depth, h)), frame),
        Part(box((-w / 2 + 0.06, 0, h - 0.06), (w / 2 - 0.06, depth, h)), frame),
        Part(box((x - 0.06, depth - 0.02, 1.0), (x + 0.06, depth + 0.04, 1.04)), frame),
    )
    return Blueprint(name, parts, (w, depth, h))


def make_bookshelf(rng: np.random.Generator, name: str) -> Blueprint:
    """Open shelves, partly filled with books."""
    w, d, h = rng.uniform(0.8, 1.1), rng.uniform(0.28, 0.36), rng.uniform(1.6, 1.95)
    num_shelves = int(rng.integers(4, 6))
    wood = soft_material(rng, Pattern.GRAIN, (0.3, 0.8), (0.08, 0.2))
    parts = [
        Part(box((-w / 2, 0, 0), (w / 2, 0.02, h)), wood),
        Part(box((-w / 2, 0.02, 0), (-w / 2 + 0.03, d, h)), wood),
        Part(box((w / 2 - 0.03, 0.02, 0), (w / 2, d, h)), wood),
    ]

    pitch = (h - 0.03) / num_shelves
    for z in np.linspace(0.0, h - 0.03, num_shelves + 1):
        parts.append(Part(box((-w / 2 + 0.03, 0.02, z), (w / 2 - 0.03, d, z + 0.03)), wood))
    for z in np.linspace(0.03, h - pitch, num_shelves):
        parts += books(rng, (-w / 2 + 0.04, w / 2 - 0.04), d, z, pitch)
    return Blueprint(name, tuple(parts), (w, d, h))


def books(
    rng: np.random.Generator, x: tuple[float, float], depth: float, z: float, pitch: float
) -> list[Part]:
    """A row of books along a shelf that leaves its last part free."""
    parts = []
    at, end = x[0], x[0] + rng.uniform(0.3, 0.95) * (x[1] - x[0])
    while at < end - 0.05:
        width = min(rng.uniform(0.04, 0.14), end - at)
        top = z + rng.uniform(0.55, 0.8) * pitch
        front = depth - rng.uniform(0.04, 0.1)
        parts.append(
            Part(box((at, 0.02, z), (at + width, front, top)), plain_material(rng, (0.2, 0.95)))
        )
        at += width
    return parts


def make_lamp(rng: np.random.Generator, name: str) -> Blueprint:
    """Floor lamp: foot, pole and a conical shade."""
    h, radius = rng.uniform(1.35, 1.65), rng.uniform(0.17, 0.23)
    metal = plain_material(rng, (0.1, 0.7))
    shade = soft_material(rng, Pattern.CLOUDS, (0.8, 1.0), (0.1, 0.3), 0.1, (0.05, 0.4))
    c = (0.0, radius)
    parts = (
        Part(frustum(0.14, 0.14, (0.0, 0.04), c), metal),
        Part(frustum(0.025, 0.025, (0.04, h - 0.3), c, num_sides=8), metal),
        Part(frustum(radius, 0.6 * radius, (h - 0.32, h), c), shade),
    )
    return Blueprint(name, parts, (2 * radius, 2 * radius, h))


def make_clutter(rng: np.random.Generator) -> Blueprint:
    """Unlabeled junk: a carton, a bin or a ball."""
    kind = rng.integers(3)
    material = fabric(rng)
    if kind == 0:
        w, d, h = rng.uniform(0.15, 0.4, 3)
        return Blueprint(None, (Part(box((-w / 2, 0, 0), (w / 2, d, h)), material),), (w, d, h))
    if kind == 1:
        r, h = rng.uniform(0.1, 0.18), rng.uniform(0.2, 0.4)
        return Blueprint(
            None, (Part(frustum(0.8 * r, r, (0.0, h), (0.0, r)), material),), (2 * r, 2 * r, h)
        )
    r = rng.uniform(0.1, 0.16)
    ball = trimesh.creation.icosphere(subdivisions=2, radius=r)
    ball.apply_translation((0.0, r, r))
    return Blueprint(None, (Part(ball, material),), (2 * r, 2 * r, 2 * r))


def legs(material: Material, w: float, d: float, top: float, thickness: float) -> list[Part]:
    """Four square legs under the corners of a w × d board."""
    x, t = w / 2, thickness
    return [
        Part(box((x0, y0, 0), (x0 + t, y0 + t, top)), material)
        for x0 in (-x, x - t)
        for y0 in (0.0, d - t)
    ]


def fabric(rng: np.random.Generator) -> Material:
    """Cloth, plain or with a coarse pattern: having a pattern names no class."""
    if rng.random() < 0.5:
        return soft_material(rng, Pattern.CLOUDS, (0.25, 0.95), (0.2, 0.5))
    kind = Pattern(rng.choice([Pattern.STRIPES, Pattern.CHECKER, Pattern.RINGS]))
    return soft_material(rng, kind, (0.3, 0.95), (0.12, 0.25), contrast=0.4)


BUILDERS: dict[str, Callable[[np.random.Generator, str], Blueprint]] = {
    'picture': make_panel,
    'window': make_panel,
    'whiteboard': make_panel,
    'cabinet': make_storage_box,
    'refrigerator': make_storage_box,
    'table': make_table,
    'desk': make_table,
    'chair': make_chair,
    'sofa': make_sofa,
    'bed': make_bed,
    'door': make_door,
    'bookshelf': make_bookshelf,
    'lamp': make_lamp,
}
