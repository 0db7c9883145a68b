"""Furniture of many shapes and finishes.

Enters: a random generator. Leaves: a ``Blueprint`` of parts in the local frame of
``synthetic.furniture`` (x along the width, y from the back to the front, z up from the floor).
"""

from itertools import pairwise

import numpy as np
import trimesh

from ..furniture import Blueprint, legs
from ..mesh import Part, box, frustum
from ..textures import Material
from .finish import finish

BODY = ('white', 'white', 'wood', 'wood', 'gray', 'vivid', 'dark', 'pale')


def fronts(
    rng: np.random.Generator,
    material: Material,
    x: tuple[float, float],
    y: float,
    z: tuple[float, float],
) -> list[Part]:
    """Doors or drawers that stand out a little, with gaps between them and maybe handles."""
    num_columns = max(1, round((x[1] - x[0]) / rng.uniform(0.4, 0.65)))
    num_rows = int(rng.choice([1, 1, 1, 2, 3])) if z[1] - z[0] < 1.2 else 1
    xs, zs = np.linspace(*x, num_columns + 1), np.linspace(*z, num_rows + 1)
    metal, has_handles = finish(rng, 'gray', 'dark', 'wood'), rng.random() < 0.7

    parts = []
    for x0, x1 in pairwise(xs):
        for z0, z1 in pairwise(zs):
            low, high = (x0 + 0.004, y, z0 + 0.004), (x1 - 0.004, y + 0.02, z1 - 0.004)
            parts.append(Part(box(low, high), material))
            if has_handles:
                middle, top = (x0 + x1) / 2, z1 - 0.06
                bar = box((middle - 0.07, y + 0.02, top), (middle + 0.07, y + 0.05, top + 0.015))
                parts.append(Part(bar, metal))
    return parts


def make_cabinet(rng: np.random.Generator) -> Blueprint:
    """Sideboard, chest of drawers or wardrobe."""
    w, d = rng.uniform(0.4, 1.8), rng.uniform(0.35, 0.65)
    h = rng.choice([rng.uniform(0.55, 1.1), rng.uniform(1.1, 1.6), rng.uniform(1.7, 2.25)])
    material = finish(rng, *BODY)
    body = box((-w / 2, 0, 0), (w / 2, d - 0.02, h))
    door = material if rng.random() < 0.6 else finish(rng, *BODY)
    parts = (Part(body, material), *fronts(rng, door, (-w / 2, w / 2), d - 0.02, (0.06, h - 0.03)))
    return Blueprint('cabinet', parts, (w, d, h))


def make_refrigerator(rng: np.random.Generator) -> Blueprint:
    """White or metal, one or two doors, a long upright handle."""
    w, d, h = rng.uniform(0.55, 0.9), rng.uniform(0.58, 0.72), rng.uniform(1.4, 1.95)
    material = finish(rng, 'white', 'white', 'gray')
    split, x = rng.uniform(0.3, 0.7) * h, rng.choice([-1, 1]) * (w / 2 - 0.06)
    parts = [
        Part(box((-w / 2, 0, 0), (w / 2, d - 0.05, h)), material),
        Part(box((-w / 2, d - 0.045, 0.06), (w / 2, d, split - 0.006)), material),
        Part(box((-w / 2, d - 0.045, split + 0.006), (w / 2, d, h)), material),
    ]
    for z in (split - 0.4, split + 0.06):
        parts.append(Part(box((x - 0.015, d, z), (x + 0.015, d + 0.05, z + 0.32)), material))
    return Blueprint('refrigerator', tuple(parts), (w, d, h))


def make_table(rng: np.random.Generator) -> Blueprint:
    """Dining, coffee or side table: square or round, on legs, panels or a column."""
    low = rng.random() < 0.25
    w, d = (rng.uniform(0.5, 1.2), rng.uniform(0.45, 0.7)) if low else (0.0, 0.0)
    if not low:
        w, d = rng.uniform(0.7, 2.4), rng.uniform(0.6, 1.1)
    h, t = rng.uniform(0.35, 0.5) if low else rng.uniform(0.68, 0.8), rng.uniform(0.02, 0.06)
    top = finish(rng, 'wood', 'wood', 'wood', 'white', 'pale', 'gray', 'dark')
    frame = top if rng.random() < 0.5 else finish(rng, 'gray', 'dark', 'white', 'wood')

    if rng.random() < 0.2:
        r = min(w, d, 1.3) / 2
        parts = [
            Part(frustum(r, r, (h - t, h), (0, r), 24), top),
            Part(frustum(0.05, 0.05, (0.0, h - t), (0, r)), frame),
            Part(frustum(0.6 * r, 0.06, (0.0, 0.06), (0, r)), frame),
        ]
        return Blueprint('table', tuple(parts), (2 * r, 2 * r, h))

    parts = [Part(box((-w / 2, 0, h - t), (w / 2, d, h)), top)]
    if rng.random() < 0.75:
        parts += legs(frame, w, d, h - t, rng.uniform(0.03, 0.09))
    else:
        for x in (-w / 2 + 0.1, w / 2 - 0.14):
            parts.append(Part(box((x, 0.08, 0), (x + 0.04, d - 0.08, h - t)), frame))
    if rng.random() < 0.3:  # an apron under the top
        parts.append(Part(box((-w / 2 + 0.05, 0.05, h - 0.13), (w / 2 - 0.05, 0.08, h - t)), frame))
    return Blueprint('table', tuple(parts), (w, d, h))


def make_desk(rng: np.random.Generator) -> Blueprint:
    """A board at a wall with panels or drawers at its sides."""
    w, d, h = rng.uniform(1.0, 1.9), rng.uniform(0.6, 0.85), rng.uniform(0.7, 0.78)
    top, side = finish(rng, 'wood', 'white', 'gray'), finish(rng, 'wood', 'white', 'gray', 'dark')
    parts = [Part(box((-w / 2, 0, h - 0.03), (w / 2, d, h)), top)]
    drawers = rng.choice([-1, 0, 1])
    for sign in (-1, 1):
        width = 0.42 if sign == drawers else 0.03
        x = sign * (w / 2 - width / 2)
        parts.append(Part(box((x - width / 2, 0.03, 0), (x + width / 2, d - 0.06, h - 0.03)), side))
    if rng.random() < 0.5:
        parts.append(Part(box((-w / 2 + 0.03, 0.05, 0.35), (w / 2 - 0.03, 0.07, h - 0.03)), side))
    return Blueprint('desk', tuple(parts), (w, d, h))


def make_chair(rng: np.random.Generator) -> Blueprint:
    """Dining, office or arm chair, or a stool."""
    w, d, seat = rng.uniform(0.38, 0.56), rng.uniform(0.4, 0.54), rng.uniform(0.42, 0.5)
    h, t = seat + rng.uniform(0.32, 0.55), rng.uniform(0.025, 0.09)
    cloth = finish(rng, 'cloth', 'cloth', 'wood', 'dark', 'vivid', 'gray')
    frame = finish(rng, 'dark', 'gray', 'wood', 'white') if rng.random() < 0.7 else cloth

    parts = [Part(box((-w / 2, 0, seat - t), (w / 2, d, seat)), cloth)]
    kind = rng.random()
    if kind < 0.55:
        foot = rng.uniform(0.0, 0.5) * (h - seat)  # the back may begin above the seat
        parts.append(Part(box((-w / 2, 0, seat + foot), (w / 2, 0.04, h)), cloth))
    elif kind < 0.9:
        num_slats = int(rng.integers(2, 5))
        for z in np.linspace(seat + 0.08, h - 0.06, num_slats):
            parts.append(Part(box((-w / 2, 0.0, z), (w / 2, 0.03, z + 0.06)), frame))
    if kind < 0.9:
        for x in (-w / 2, w / 2 - 0.035):
            parts.append(Part(box((x, 0.0, seat - t), (x + 0.035, 0.035, h)), frame))

    if rng.random() < 0.7:
        parts += legs(frame, w, d, seat - t, rng.uniform(0.025, 0.05))
    else:
        parts.append(Part(frustum(0.03, 0.03, (0.08, seat - t), (0, d / 2)), frame))
        parts.append(Part(frustum(0.3, 0.05, (0.03, 0.1), (0, d / 2), 5), frame))
    if rng.random() < 0.25:
        for x in (-w / 2 - 0.02, w / 2 - 0.03):
            arm = box((x, 0.05, seat + 0.18), (x + 0.05, d - 0.05, seat + 0.22))
            post = box((x, d - 0.1, seat - t), (x + 0.04, d - 0.06, seat + 0.18))
            parts += [Part(arm, frame), Part(post, frame)]
    return Blueprint('chair', tuple(parts), (w, d, h if kind < 0.9 else seat))


def make_sofa(rng: np.random.Generator) -> Blueprint:
    """Arm chair to corner-wide sofa with cushions."""
    w, d, seat = rng.uniform(0.8, 2.4), rng.uniform(0.75, 1.0), rng.uniform(0.36, 0.46)
    back, arm, side = rng.uniform(0.7, 0.95), rng.uniform(0.5, 0.66), rng.uniform(0.12, 0.25)
    cloth = finish(rng, 'cloth', 'cloth', 'gray', 'dark', 'pale')
    parts = [
        Part(box((-w / 2, 0, 0.04), (w / 2, d, seat)), cloth),
        Part(box((-w / 2, 0, seat), (w / 2, 0.22, back)), cloth),
        Part(box((-w / 2, 0.2, seat), (-w / 2 + side, d, arm)), cloth),
        Part(box((w / 2 - side, 0.2, seat), (w / 2, d, arm)), cloth),
    ]
    for _ in range(rng.integers(0, 4)):
        x = rng.uniform(-w / 2 + 0.4, w / 2 - 0.4) if w > 1 else 0.0
        cushion = box((x - 0.2, 0.22, seat), (x + 0.2, 0.36, seat + 0.36))
        parts.append(Part(cushion, finish(rng, 'cloth', 'vivid')))
    return Blueprint('sofa', tuple(parts), (w, d, back))


def make_bed(rng: np.random.Generator) -> Blueprint:
    """Frame, mattress, blanket, pillows and maybe a headboard."""
    w, d, h = rng.uniform(0.85, 1.9), rng.uniform(1.9, 2.1), rng.uniform(0.38, 0.6)
    board = rng.uniform(0.75, 1.1) if rng.random() < 0.7 else h
    wood, cloth = finish(rng, 'wood', 'white', 'dark', 'cloth'), finish(rng, 'cloth', 'pale')
    parts = [
        Part(box((-w / 2, 0, 0), (w / 2, 0.06, board)), wood),
        Part(box((-w / 2, 0.06, 0.0), (w / 2, d, h - 0.2)), wood),
        Part(
            box((-w / 2 + 0.02, 0.06, h - 0.2), (w / 2 - 0.02, d - 0.02, h)), finish(rng, 'white')
        ),
        Part(box((-w / 2 - 0.02, 0.7, h - 0.25), (w / 2 + 0.02, d, h + 0.04)), cloth),
    ]
    for x in (-w / 4, w / 4) if w > 1.2 else (0.0,):
        pillow = box((x - 0.3, 0.12, h), (x + 0.3, 0.5, h + 0.11))
        parts.append(Part(pillow, finish(rng, 'white', 'cloth')))
    return Blueprint('bed', tuple(parts), (w, d, board))


def make_bookshelf(rng: np.random.Generator) -> Blueprint:
    """Open shelves with books and gaps."""
    w, d, h = rng.uniform(0.5, 1.6), rng.uniform(0.24, 0.4), rng.uniform(0.9, 2.2)
    wood, num = finish(rng, 'wood', 'white', 'dark', 'gray'), max(2, round(h / 0.37))
    zs = np.linspace(0.05, h - 0.025, num + 1)
    parts = [
        Part(box((-w / 2, 0, 0), (w / 2, 0.015, h)), wood),
        Part(box((-w / 2, 0, 0), (-w / 2 + 0.025, d, h)), wood),
        Part(box((w / 2 - 0.025, 0, 0), (w / 2, d, h)), wood),
    ]

    for z, above in zip(zs, np.append(zs[1:], h + 0.3), strict=True):
        parts.append(Part(box((-w / 2, 0, z - 0.025), (w / 2, d, z)), wood))
        at, end = -w / 2 + 0.03, -w / 2 + rng.uniform(0.0, 1.0) * (w - 0.06)
        while at < end and z < h - 0.1:
            width = rng.uniform(0.03, 0.16)
            top, front = z + rng.uniform(0.5, 0.9) * (above - z - 0.03), d - rng.uniform(0.02, 0.12)
            book = box((at, 0.02, z), (min(at + width, w / 2 - 0.03), front, top))
            parts.append(Part(book, finish(rng, 'vivid', 'white', 'dark', 'cloth')))
            at += width
    return Blueprint('bookshelf', tuple(parts), (w, d, h))


def make_toilet(rng: np.random.Generator) -> Blueprint:
    """Bowl, lid and cistern."""
    white, r = finish(rng, 'white'), rng.uniform(0.17, 0.2)
    parts = (
        Part(box((-0.19, 0, 0.38), (0.19, 0.18, rng.uniform(0.72, 0.85))), white),
        Part(frustum(0.7 * r, r, (0.0, 0.4), (0, 0.4)), white),
        Part(box((-0.1, 0.05, 0.0), (0.1, 0.4, 0.38)), white),
        Part(frustum(r, r, (0.4, 0.44), (0, 0.4)), white),
    )
    return Blueprint('toilet', parts, (0.4, 0.62, 0.8))


def make_washbasin(rng: np.random.Generator) -> Blueprint:
    """A basin on a column."""
    w, d, h = rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.5), rng.uniform(0.8, 0.9)
    white = finish(rng, 'white')
    parts = [Part(box((-0.08, 0.02, 0), (0.08, 0.2, h - 0.16)), white)]
    parts += basin(white, w, d, h, 0.14)
    return Blueprint('sink', tuple(parts), (w, d, h))


def basin(material: Material, w: float, d: float, h: float, depth: float) -> list[Part]:
    """An open tub whose rim lies at h."""
    x, t = w / 2, 0.03
    return [
        Part(box((-x, 0, h - depth), (x, d, h - depth + 0.02)), material),
        Part(box((-x, 0, h - depth), (x, 0.06, h)), material),
        Part(box((-x, d - t, h - depth), (x, d, h)), material),
        Part(box((-x, 0.06, h - depth), (-x + t, d - t, h)), material),
        Part(box((x - t, 0.06, h - depth), (x, d - t, h)), material),
    ]


def make_lamp(rng: np.random.Generator) -> Blueprint:
    """Floor lamp."""
    h, r = rng.uniform(1.2, 1.8), rng.uniform(0.14, 0.25)
    metal, c = finish(rng, 'dark', 'gray', 'wood'), (0.0, r)
    parts = (
        Part(frustum(0.15, 0.15, (0.0, 0.04), c), metal),
        Part(frustum(0.025, 0.025, (0.04, h - 0.25), c, num_sides=8), metal),
        Part(frustum(r, rng.uniform(0.5, 1.0) * r, (h - 0.3, h), c), finish(rng, 'white', 'pale')),
    )
    return Blueprint('lamp', parts, (2 * r, 2 * r, h))


def make_radiator(rng: np.random.Generator) -> Blueprint:
    """Ribs under a window: no name fits."""
    w, h, d = rng.uniform(0.5, 1.6), rng.uniform(0.4, 0.65), rng.uniform(0.07, 0.14)
    white = finish(rng, 'white')
    parts = [Part(box((-w / 2, 0.03, 0.12), (w / 2, d - 0.03, 0.12 + h)), white)]
    for x in np.arange(-w / 2, w / 2 - 0.04, 0.08).tolist():
        parts.append(Part(box((x, 0.03, 0.12), (x + 0.04, d, 0.12 + h)), white))
    return Blueprint('other', tuple(parts), (w, d, 0.12 + h))


def make_door(rng: np.random.Generator) -> Blueprint:
    """Leaf in a frame, level with the wall or a little before it."""
    w, h, t = rng.uniform(0.75, 1.0), rng.uniform(1.95, 2.2), rng.uniform(0.02, 0.08)
    leaf, frame = (
        finish(rng, 'wood', 'white', 'pale', 'vivid'),
        finish(rng, 'white', 'wood', 'gray'),
    )
    x = rng.choice([-1, 1]) * (w / 2 - 0.14)
    parts = (
        Part(box((-w / 2 + 0.06, 0, 0), (w / 2 - 0.06, 0.6 * t, h - 0.06)), leaf),
        Part(box((-w / 2, 0, 0), (-w / 2 + 0.06, t, h)), frame),
        Part(box((w / 2 - 0.06, 0, 0), (w / 2, t, h)), frame),
        Part(box((-w / 2 + 0.06, 0, h - 0.06), (w / 2 - 0.06, t, h)), frame),
        Part(box((x - 0.06, 0.6 * t, 1.0), (x + 0.06, t + 0.05, 1.04)), finish(rng, 'gray')),
    )
    return Blueprint('door', parts, (w, t + 0.05, h))


def make_window(rng: np.random.Generator) -> Blueprint:
    """Panes between bars, a sill below; z = 0 is its lower edge."""
    w, h, t = rng.uniform(0.7, 2.4), rng.uniform(0.7, 1.5), rng.uniform(0.04, 0.1)
    frame, pane = (
        finish(rng, 'white', 'white', 'wood', 'gray'),
        finish(rng, 'white', 'dark', 'pale'),
    )
    parts = [Part(box((-w / 2, 0, 0), (w / 2, 0.01, h)), pane)]
    for x in np.linspace(-w / 2, w / 2 - 0.06, max(2, round(w / 0.7) + 1)):
        parts.append(Part(box((x, 0, 0), (x + 0.06, t, h)), frame))
    for z in (0.0, h - 0.06):
        parts.append(Part(box((-w / 2, 0, z), (w / 2, t, z + 0.06)), frame))
    parts.append(Part(box((-w / 2 - 0.05, 0, -0.03), (w / 2 + 0.05, t + 0.12, 0.0)), frame))
    return Blueprint('window', tuple(parts), (w, t + 0.12, h))


def make_curtain(rng: np.random.Generator, height: float) -> Blueprint:
    """Folds of cloth from a rail nearly to the floor."""
    w, h = rng.uniform(0.35, 1.6), height - rng.uniform(0.1, 0.3)
    cloth, low = finish(rng, 'cloth', 'pale', 'vivid'), float(rng.choice([0.03, 0.03, 0.8]))
    parts, xs = [], np.arange(-w / 2, w / 2, 0.09).tolist()
    for i, x in enumerate(xs):
        y = 0.06 + 0.05 * (i % 2)
        parts.append(Part(box((x, y, low), (x + 0.09, y + 0.04, h)), cloth))
    return Blueprint('curtain', tuple(parts), (w, 0.16, h))


def make_panel(rng: np.random.Generator, name: str) -> Blueprint:
    """Picture or whiteboard: a flat or framed panel, or a sheet of paper; z = 0 is its edge."""
    sheet = name == 'picture' and rng.random() < 0.45
    if name == 'whiteboard':
        w, h, t = rng.uniform(1.0, 2.6), rng.uniform(0.8, 1.3), rng.uniform(0.02, 0.04)
    elif sheet:
        w, h, t = rng.uniform(0.18, 0.65), rng.uniform(0.2, 0.9), rng.uniform(0.003, 0.01)
    else:
        w, h, t = rng.uniform(0.25, 1.3), rng.uniform(0.25, 1.0), rng.uniform(0.012, 0.05)

    inner = finish(rng, 'white') if name == 'whiteboard' else finish(rng, 'print', 'white', 'vivid')
    parts = [Part(box((-w / 2, 0, 0), (w / 2, t, h)), inner)]
    if not sheet:
        rim, b = finish(rng, 'dark', 'wood', 'gray', 'white'), rng.uniform(0.015, 0.05)
        for low, high in (
            ((-w / 2, 0, 0), (-w / 2 + b, t + 0.01, h)),
            ((w / 2 - b, 0, 0), (w / 2, t + 0.01, h)),
            ((-w / 2, 0, 0), (w / 2, t + 0.01, b)),
            ((-w / 2, 0, h - b), (w / 2, t + 0.01, h)),
        ):
            parts.append(Part(box(low, high), rim))
    return Blueprint(name, tuple(parts), (w, t + 0.01, h))


def make_monitor(rng: np.random.Generator) -> Blueprint:
    """A flat screen on a foot."""
    w, h, z = rng.uniform(0.4, 0.8), rng.uniform(0.28, 0.45), rng.uniform(0.05, 0.16)
    dark = finish(rng, 'dark', 'dark', 'gray')
    parts = (
        Part(box((-w / 2, 0.08, z), (w / 2, 0.13, z + h)), dark),
        Part(
            box((-w / 2 + 0.02, 0.13, z + 0.02), (w / 2 - 0.02, 0.132, z + h - 0.02)),
            finish(rng, 'dark', 'print'),
        ),
        Part(box((-0.04, 0.05, 0), (0.04, 0.1, z + 0.1)), dark),
        Part(box((-0.14, 0, 0), (0.14, 0.2, 0.015)), dark),
    )
    return Blueprint('monitor', parts, (w, 0.2, z + h))


def make_ball(r: float, material: Material) -> Part:
    """A ball that lies on the floor behind the back's middle."""
    ball = trimesh.creation.icosphere(subdivisions=2, radius=r)
    ball.apply_translation((0.0, r, r))
    return Part(ball, material)
