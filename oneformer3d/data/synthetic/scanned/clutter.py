"""Things that lie about: on tables, counters, shelves and floors.

Enters: a random generator. Leaves: a ``Blueprint`` of class *other* or *box*, its back at y = 0.
"""

import numpy as np

from ..furniture import Blueprint
from ..mesh import Part, box, frustum
from .finish import finish
from .furniture import make_ball

ANY = ('vivid', 'white', 'dark', 'gray', 'cloth', 'print', 'wood', 'pale')


def make_small(rng: np.random.Generator) -> Blueprint:
    """A bottle, a bowl, an appliance, a pile of paper, a plant, a bag, …"""
    kind = rng.integers(7)
    if kind == 0:  # appliance: a body with a darker front
        w, d, h = rng.uniform(0.2, 0.55), rng.uniform(0.2, 0.42), rng.uniform(0.18, 0.42)
        body, front = finish(rng, 'white', 'gray', 'dark', 'vivid'), finish(rng, 'dark', 'gray')
        parts = [
            Part(box((-w / 2, 0, 0), (w / 2, d - 0.02, h)), body),
            Part(box((-w / 2 + 0.02, d - 0.02, 0.03), (0.2 * w, d, h - 0.03)), front),
        ]

    elif kind == 1:  # bottle, vase, can
        r, h = rng.uniform(0.04, 0.12), rng.uniform(0.12, 0.4)
        w, d = 2 * r, 2 * r
        parts = [Part(frustum(r, rng.uniform(0.4, 1.2) * r, (0.0, h), (0, r)), finish(rng, *ANY))]

    elif kind == 2:  # bowl or plate
        r, h = rng.uniform(0.08, 0.22), rng.uniform(0.03, 0.14)
        w, d = 2 * r, 2 * r
        parts = [Part(frustum(0.6 * r, r, (0.0, h), (0, r)), finish(rng, *ANY))]

    elif kind == 3:  # papers and books that lie
        w, d, h = rng.uniform(0.18, 0.45), rng.uniform(0.18, 0.35), rng.uniform(0.015, 0.12)
        parts = [Part(box((-w / 2, 0, 0), (w / 2, d, h)), finish(rng, 'white', 'print', 'vivid'))]

    elif kind == 4:  # plant
        r, h = rng.uniform(0.07, 0.15), rng.uniform(0.12, 0.25)
        w, d = 2 * r, 2 * r
        pot = Part(frustum(0.8 * r, r, (0.0, h), (0, r)), finish(rng, 'vivid', 'white', 'wood'))
        leaves = make_ball(1.1 * r, finish(rng, 'cloth'))
        leaves.mesh.apply_translation((0, -0.1 * r, h - 0.3 * r))
        parts, h = [pot, leaves], h + 2 * r

    elif kind == 5:  # bag, heap, cushion
        r = rng.uniform(0.1, 0.2)
        w, d, h = 2.4 * r, 2 * r, 1.6 * r
        ball = make_ball(r, finish(rng, 'cloth', 'dark', 'vivid'))
        ball.mesh.apply_scale((1.2, 1.0, 0.8))
        parts = [ball]

    else:  # books or folders that stand
        num, d, h = int(rng.integers(2, 9)), rng.uniform(0.15, 0.3), rng.uniform(0.18, 0.34)
        w = 0.04 * num
        parts = [
            Part(
                box(
                    (-w / 2 + 0.04 * i, 0, 0), (-w / 2 + 0.04 * (i + 1), d, h - 0.05 * rng.random())
                ),
                finish(rng, 'vivid', 'white', 'dark'),
            )
            for i in range(num)
        ]

    return Blueprint('other', tuple(parts), (w, d, h))


def make_box(rng: np.random.Generator) -> Blueprint:
    """A carton, closed or with standing flaps."""
    w, d, h = rng.uniform(0.2, 0.6), rng.uniform(0.2, 0.5), rng.uniform(0.15, 0.5)
    card = finish(rng, 'wood', 'wood', 'white', 'vivid')
    parts = [Part(box((-w / 2, 0, 0), (w / 2, d, h)), card)]
    if rng.random() < 0.4:
        parts.append(Part(box((-w / 2, 0, h), (w / 2, 0.006, h + 0.12)), card))
        parts.append(Part(box((-w / 2, d - 0.006, h), (w / 2, d, h + 0.12)), card))
    return Blueprint('box', tuple(parts), (w, d, h))


def make_floor_thing(rng: np.random.Generator) -> Blueprint:
    """A bin, a ball, a bag, a computer case, a plant as high as a person."""
    kind = rng.integers(4)
    if kind == 0:  # bin
        r, h = rng.uniform(0.1, 0.24), rng.uniform(0.25, 0.7)
        bin_ = Part(frustum(rng.uniform(0.7, 1.0) * r, r, (0.0, h), (0, r)), finish(rng, *ANY))
        return Blueprint('other', (bin_,), (2 * r, 2 * r, h))

    if kind == 1:  # computer case
        w, d, h = rng.uniform(0.16, 0.25), rng.uniform(0.35, 0.5), rng.uniform(0.35, 0.5)
        case = Part(box((-w / 2, 0, 0), (w / 2, d, h)), finish(rng, 'dark', 'gray', 'white'))
        return Blueprint('other', (case,), (w, d, h))

    if kind == 2:  # bag or ball
        r = rng.uniform(0.12, 0.28)
        bag = make_ball(r, finish(rng, 'cloth', 'dark', 'vivid'))
        return Blueprint('other', (bag,), (2 * r, 2 * r, 2 * r))

    # plant: a pot, a stem, a crown
    r, h = rng.uniform(0.14, 0.22), rng.uniform(0.5, 1.3)
    crown = make_ball(1.3 * r, finish(rng, 'cloth'))
    crown.mesh.apply_translation((0, -0.3 * r, h - 1.3 * r))
    parts = (
        Part(frustum(0.8 * r, r, (0.0, 0.3), (0, r)), finish(rng, 'vivid', 'white', 'wood')),
        Part(frustum(0.03, 0.03, (0.3, h), (0, r), 8), finish(rng, 'wood')),
        crown,
    )
    return Blueprint('other', parts, (2 * r, 2 * r, h + r))


def make_thing(rng: np.random.Generator) -> Blueprint:
    """What stands on a table or a shelf; now and then a box."""
    return make_box(rng) if rng.random() < 0.08 else make_small(rng)
