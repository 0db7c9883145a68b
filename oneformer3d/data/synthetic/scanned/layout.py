"""A lived-in room of any outline.

Enters: settings. Leaves: a ``Room``: shell, furniture, and things on, under and beside it.

What goes into a room depends on what kind of room it is; what does not fit is left out.
"""

from collections.abc import Callable

import numpy as np
import trimesh

from ..classes import ROOMS_CLASSES, raw_id
from ..furniture import Blueprint
from ..layout import Room
from ..mesh import Part, SceneObject, box, pose
from ..placement import footprint_of
from . import furniture
from .clutter import make_box, make_floor_thing, make_thing
from .finish import finish
from .kitchen import Placed, fit_kitchen, place_refrigerator
from .outline import Outline, hang, make_outline, stand_at_wall, stand_free
from .settings import ScannedSettings

# Of each kind of room how many of what are tried at furnishing 1: low, high.
_KINDS: dict[str, dict[str, tuple[int, int]]] = {
    'kitchen': {'kitchen': (1, 1), 'table': (1, 1), 'fridge': (0, 1), 'cabinet': (0, 2)},
    'living': {'sofa': (1, 3), 'table': (1, 3), 'bookshelf': (0, 3), 'cabinet': (1, 3)},
    'office': {'desk': (1, 5), 'table': (0, 2), 'bookshelf': (0, 3), 'cabinet': (0, 4)},
    'bedroom': {'bed': (1, 2), 'desk': (0, 1), 'cabinet': (1, 3), 'bookshelf': (0, 1)},
    'meeting': {'table': (1, 3), 'cabinet': (0, 2), 'whiteboard': (1, 2)},
    'mixed': {'bed': (0, 1), 'sofa': (0, 1), 'table': (0, 2), 'desk': (0, 2), 'cabinet': (0, 3)},
    'bath': {'toilet': (1, 1), 'washbasin': (1, 2), 'cabinet': (0, 2)},
}
_ANYWHERE = {
    'door': (1, 2),
    'window': (0, 3),
    'whiteboard': (0, 1),
    'radiator': (0, 2),
    'lamp': (0, 2),
    'chair': (0, 4),
    'floor thing': (1, 6),
    'box': (0, 3),
    'picture': (1, 8),
    'curtain': (0, 2),
    'wall shelf': (0, 2),
    'fridge': (0, 1),
}
# each as likely as it occurs here
_MIX = ('kitchen',) * 4 + ('living', 'office', 'office', 'bedroom', 'meeting', 'mixed', 'bath')

_AT_WALL: dict[str, Callable[[np.random.Generator], Blueprint]] = {
    'cabinet': furniture.make_cabinet,
    'bookshelf': furniture.make_bookshelf,
    'desk': furniture.make_desk,
    'bed': furniture.make_bed,
    'sofa': furniture.make_sofa,
    'toilet': furniture.make_toilet,
    'washbasin': furniture.make_washbasin,
    'lamp': furniture.make_lamp,
    'radiator': furniture.make_radiator,
    'door': furniture.make_door,
}
_ORDER = (
    'kitchen', 'door', 'window', 'fridge', 'bed', 'toilet', 'washbasin', 'whiteboard', 'radiator',
    'sofa', 'desk', 'table', 'cabinet', 'bookshelf', 'curtain', 'wall shelf', 'picture', 'lamp',
    'chair', 'box', 'floor thing',
)  # fmt: skip


def make_scanned_room(rng: np.random.Generator, settings: ScannedSettings) -> Room:
    """Build and furnish a room.

    Args:
        rng: source of everything random.
        settings: sizes and how full the room is.

    Returns:
        The room; its lower corner lies at the origin.
    """
    plan = make_outline(rng, settings.room_size, settings.room_height)
    counts = {**_ANYWHERE, **_KINDS[_MIX[rng.integers(len(_MIX))]]}
    fullness = rng.uniform(*settings.furnishing) * np.clip(np.prod(plan.size) / 20.0, 0.7, 2.0)

    placed: list[Placed] = []
    for name in _ORDER:
        low, high = counts.get(name, (0, 0))
        num = int(rng.integers(low, high + 1))
        num = round(num * fullness) if name not in ('kitchen', 'toilet', 'door') else num
        for _ in range(max(num, min(low, 1))):
            placed += _place(rng, plan, name)

    objects = make_shell(rng, plan)
    for index, (blueprint, room_from_object) in enumerate(placed):
        name = blueprint.name or 'other'
        identity = raw_id(name, ROOMS_CLASSES)
        objects.append(SceneObject(identity, index + 1, blueprint.parts, room_from_object))
    return Room(np.zeros(3), np.array([*plan.size, plan.height]), objects)


def _place(rng: np.random.Generator, plan: Outline, name: str) -> list[Placed]:
    """One more of what the name says, and what belongs to it."""
    if name == 'kitchen':
        return fit_kitchen(rng, plan)
    if name == 'fridge':
        return place_refrigerator(rng, plan)
    if name in ('window', 'picture', 'whiteboard', 'curtain', 'wall shelf'):
        return _hang(rng, plan, name)
    if name == 'table' or (name == 'desk' and rng.random() < 0.3):
        return _table(rng, plan, name)
    if name in _AT_WALL:
        return _at_wall(rng, plan, name)

    make = {'chair': furniture.make_chair, 'box': make_box, 'floor thing': make_floor_thing}[name]
    blueprint = make(rng)
    position = stand_free(rng, plan, blueprint.size[:2], 0.02, any_turn=True)
    return [] if position is None else [(blueprint, position)]


def _at_wall(rng: np.random.Generator, plan: Outline, name: str) -> list[Placed]:
    blueprint = _AT_WALL[name](rng)
    clearance = {'door': 0.6, 'desk': 0.5}.get(name, 0.1)
    gap = 0.0 if name == 'door' else rng.uniform(0.0, 0.04)
    position = stand_at_wall(rng, plan, blueprint.size, clearance, gap)
    if position is None:
        return []

    placed = [(blueprint, position)]
    if name in ('cabinet', 'bookshelf') and blueprint.size[2] < 1.5:
        placed += _things_on(rng, blueprint, position, make_thing, rng.uniform(0.0, 3.0))
    if name == 'desk':
        placed += _things_on(rng, blueprint, position, furniture.make_monitor, 1.2)
        placed += _things_on(
            rng, blueprint, position, make_thing, rng.uniform(0.0, 3.0), placed[1:]
        )
        placed += _chairs_around(rng, plan, blueprint, position, sides=('front',))
    return placed


def _table(rng: np.random.Generator, plan: Outline, name: str) -> list[Placed]:
    """A table in the room with chairs around it, tucked in or not, and things on it."""
    blueprint = furniture.make_table(rng) if name == 'table' else furniture.make_desk(rng)
    position = stand_free(rng, plan, blueprint.size[:2], 0.35, any_turn=rng.random() < 0.2)
    if position is None:
        return []
    placed = [(blueprint, position)]
    placed += _things_on(rng, blueprint, position, make_thing, rng.uniform(0.0, 5.0))
    if blueprint.size[2] > 0.6 and rng.random() < 0.85:
        placed += _chairs_around(rng, plan, blueprint, position, ('front', 'back', 'left', 'right'))
    return placed


def _things_on(
    rng: np.random.Generator,
    support: Blueprint,
    room_from_support: np.ndarray,
    make: Callable[[np.random.Generator], Blueprint],
    mean: float,
    others: list[Placed] | None = None,
) -> list[Placed]:
    """Things on the top of an object, apart from each other.

    Args:
        mean: how many on average.
        others: what stands there already.
    """
    width, depth, top = support.size
    to_support = np.linalg.inv(room_from_support)
    taken = [
        footprint_of(to_support @ position, thing.size[:2]) for thing, position in others or []
    ]

    placed = []
    for _ in range(rng.poisson(mean)):
        thing = make(rng)
        w, d, _ = thing.size
        if w > width - 0.02 or d > depth - 0.02:
            continue

        # anywhere on the top, turned a little
        local = pose(
            rng.uniform(-0.4, 0.4),
            (rng.uniform(-(width - w) / 2, (width - w) / 2), rng.uniform(0.01, depth - d), top),
        )
        footprint = footprint_of(local, (w, d))
        apart = all(
            (footprint[:2] > other[2:]).any() or (footprint[2:] < other[:2]).any()
            for other in taken
        )
        if apart:
            taken.append(footprint)
            placed.append((thing, room_from_support @ local))

    return placed


def _chairs_around(
    rng: np.random.Generator,
    plan: Outline,
    table: Blueprint,
    room_from_table: np.ndarray,
    sides: tuple[str, ...],
) -> list[Placed]:
    """Chairs that face a table; most are pushed under it, some of one kind, some of many."""
    width, depth, _ = table.size
    seed, alike = rng.integers(2**32), rng.random() < 0.8
    placed, taken = [], []

    for side in sides:
        length = width if side in ('front', 'back') else depth
        for along in np.arange(-length / 2 + 0.32, length / 2 - 0.25, 0.62):
            if rng.random() < 0.35:
                continue

            # how far it is pulled out, seen from its side of the table
            chair = furniture.make_chair(np.random.default_rng(seed) if alike else rng)
            out = rng.choice([0.08, rng.uniform(-0.25, 0.15), rng.uniform(0.1, 0.7)])
            away = chair.size[1] + out
            turn = {'front': np.pi, 'back': 0.0, 'left': -np.pi / 2, 'right': np.pi / 2}[side]
            x, y = {
                'front': (along, depth + away - 0.2),
                'back': (along, -away + 0.2),
                'left': (-width / 2 - away + 0.2, depth / 2 + along),
                'right': (width / 2 + away - 0.2, depth / 2 + along),
            }[side]

            # it stays if it meets neither walls nor other things; under the table it may stand
            position = room_from_table @ pose(turn + rng.normal(0, 0.15), (x, y, 0.0))
            footprint = footprint_of(position, chair.size[:2])
            behind = [other for other in plan.footprints if not _is_within(other, room_from_table)]
            free = all(
                (footprint[:2] > other[2:]).any() or (footprint[2:] < other[:2]).any()
                for other in [*behind, *taken]
            )
            if plan.holds(footprint, 0.0) and free:
                taken.append(footprint)
                placed.append((chair, position))

    plan.footprints += taken
    return placed


def _is_within(footprint: np.ndarray, room_from_object: np.ndarray) -> bool:
    """Whether a footprint is the object's own: its back's middle lies on the border."""
    x, y = room_from_object[:2, 3] + 0.02 * room_from_object[:2, 1]
    return bool(footprint[0] <= x <= footprint[2] and footprint[1] <= y <= footprint[3])


def _hang(rng: np.random.Generator, plan: Outline, name: str) -> list[Placed]:
    """Windows, pictures, whiteboards, curtains, boards with things on them."""
    if name == 'wall shelf':
        return _wall_shelf(rng, plan)
    if name == 'curtain':
        blueprint, z = furniture.make_curtain(rng, plan.height), 0.0
    elif name == 'window':
        blueprint, z = furniture.make_window(rng), rng.uniform(0.6, 1.1)
    else:
        blueprint, z = furniture.make_panel(rng, name), rng.uniform(0.8, 1.6)
    position = hang(rng, plan, (blueprint.size[0], blueprint.size[2]), z)
    return [] if position is None else [(blueprint, position)]


def _wall_shelf(rng: np.random.Generator, plan: Outline) -> list[Placed]:
    """A board on the wall, class other, and what stands on it."""
    w, d = rng.uniform(0.4, 1.6), rng.uniform(0.12, 0.3)
    board = Part(box((-w / 2, 0, 0), (w / 2, d, 0.03)), finish(rng, 'wood', 'white', 'vivid'))
    shelf = Blueprint('other', (board,), (w, d, 0.03))
    position = hang(rng, plan, (w, 0.4), rng.uniform(1.2, 1.7))
    if position is None:
        return []
    return [(shelf, position), *_things_on(rng, shelf, position, make_thing, rng.uniform(0, 3))]


def make_shell(rng: np.random.Generator, plan: Outline) -> list[SceneObject]:
    """Floor, ceiling and walls as stuff; an accent, skirting, a pillar now and then."""
    floor = finish(rng, 'wood', 'gray', 'gray', 'tiles', 'cloth', 'dark', 'pale')
    ceiling, paint = (
        finish(rng, 'white', 'white', 'pale'),
        finish(rng, 'white', 'pale', 'pale', 'gray'),
    )
    accent = finish(rng, 'vivid', 'pale', 'gray', 'wood', 'tiles')
    corners, height = plan.corners, plan.height

    shell = [
        _stuff('floor', Part(_level(corners, plan.notch, 0.0), floor)),
        _stuff('ceiling', Part(_level(corners, plan.notch, height), ceiling)),
    ]
    skirting = finish(rng, 'white', 'wood', 'dark') if rng.random() < 0.5 else None
    for wall in plan.walls:
        material = accent if rng.random() < 0.15 else paint
        a, b = wall.start, wall.start + wall.length * wall.direction
        upright = [(*b, 0.0), (*a, 0.0), (*a, height), (*b, height)]
        mesh = trimesh.Trimesh(np.array(upright), [(0, 1, 2), (0, 2, 3)], process=False)
        shell.append(_stuff('wall', Part(mesh, material)))
        if skirting is not None:
            board = box((0, 0, 0), (wall.length, 0.015, 0.08))
            board.apply_transform(pose(wall.yaw, (*wall.start, 0.0)))
            shell.append(_stuff('wall', Part(board, skirting)))
        if rng.random() < 0.12 and wall.length > 2.0:
            shell.append(_pillar(rng, plan, wall.pose(rng.uniform(0.5, wall.length - 0.5)), paint))
    return shell


def _pillar(
    rng: np.random.Generator, plan: Outline, room_from_pillar: np.ndarray, paint
) -> SceneObject:
    """A pillar that stands out from a wall, and belongs to it."""
    w, d = rng.uniform(0.15, 0.5), rng.uniform(0.1, 0.4)
    plan.footprints.append(footprint_of(room_from_pillar, (w, d)))
    mesh = box((-w / 2, 0, 0), (w / 2, d, plan.height))
    mesh.apply_transform(room_from_pillar)
    return _stuff('wall', Part(mesh, paint))


def _level(corners: np.ndarray, notch: np.ndarray | None, z: float) -> trimesh.Trimesh:
    """The outline as a level surface of one or two rectangles."""
    (w, d) = corners.max(axis=0)
    rectangles = [(0.0, 0.0, w, d)]
    if notch is not None:
        rectangles = [(0.0, 0.0, w, notch[1]), (0.0, notch[1], notch[0], d)]
    vertices, faces = [], []
    for x0, y0, x1, y1 in rectangles:
        first = len(vertices)
        vertices += [(x0, y0, z), (x1, y0, z), (x1, y1, z), (x0, y1, z)]
        faces += [(first, first + 1, first + 2), (first, first + 2, first + 3)]
    return trimesh.Trimesh(np.array(vertices), faces, process=False)


def _stuff(name: str, part: Part) -> SceneObject:
    return SceneObject(raw_id(name, ROOMS_CLASSES), 0, (part,), np.eye(4))
