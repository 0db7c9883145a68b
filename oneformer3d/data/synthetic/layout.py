"""A furnished room: which objects, and where they stand.

Enters: ranges of sizes and counts. Leaves: a ``Room`` with its placed objects.

World frame: metres, z up, the floor at z = 0, the room's footprint centred near the origin. Objects
are tried at random positions one after the other, large ones first; what does not fit is left out.
Members of a pattern group are shuffled before they are placed: a class has no favourite position.
"""

from dataclasses import dataclass

import numpy as np
import trimesh

from .classes import SYNTHETIC_PATTERN_GROUPS, raw_id
from .furniture import BUILDERS, Blueprint, make_clutter
from .mesh import Part, SceneObject
from .placement import FloorPlan, hang_on_wall, place_against_wall, place_on_floor
from .settings import RoomSettings
from .textures import Material, Pattern, soft_material

NUM_LAYOUTS = 6
Placed = tuple[Blueprint, np.ndarray]


@dataclass(frozen=True)
class Room:
    """A furnished room.

    Attributes:
        low, high: (3,) corners of the room's box in metres.
        objects: walls, floor, ceiling and furniture.
    """

    low: np.ndarray
    high: np.ndarray
    objects: list[SceneObject]


def make_room(rng: np.random.Generator, settings: RoomSettings) -> Room:
    """Build and furnish a room.

    Several furnishings are tried; the first that has every wanted class is taken, else the one
    with most classes.

    Args:
        settings: ranges of sizes and counts.

    Returns:
        The room.
    """
    extent = np.array([rng.uniform(*settings.room_width), rng.uniform(*settings.room_depth)])
    low = rng.uniform(-0.5, 0.5, 2) - extent / 2
    high = low + extent
    height = rng.uniform(*settings.room_height)

    wanted = draw_names(rng, settings)
    best: list[Placed] = []
    for _ in range(NUM_LAYOUTS):
        placed = furnish(rng, FloorPlan(low, high), wanted)
        if num_classes(placed) > num_classes(best) or not best:
            best = placed
        if num_classes(best) == len(set(wanted)):
            break

    objects = make_shell(rng, low, high, height)
    num_instances = 0
    for blueprint, world_from_object in best:
        name = blueprint.name
        num_instances += name is not None
        objects.append(
            SceneObject(
                raw_id=0 if name is None else raw_id(name),
                instance_id=0 if name is None else num_instances,
                parts=blueprint.parts,
                world_from_object=world_from_object,
            )
        )
    return Room(np.array([*low, 0.0]), np.array([*high, height]), objects)


def draw_names(rng: np.random.Generator, settings: RoomSettings) -> list[str | None]:
    """Classes of the objects wanted in a room in the order in which they are placed; None for
    clutter."""
    panels, boxes, tables = (
        draw_group(rng, group, count)
        for group, count in zip(
            SYNTHETIC_PATTERN_GROUPS,
            (settings.num_panels, settings.num_boxes, settings.num_tables),
            strict=True,
        )
    )

    # large ones first
    return [
        *repeat(rng, 'door', settings.num_doors),
        *repeat(rng, 'bed', settings.num_beds),
        *boxes,
        *repeat(rng, 'sofa', settings.num_sofas),
        *tables,
        *repeat(rng, 'bookshelf', settings.num_bookshelves),
        *repeat(rng, 'lamp', settings.num_lamps),
        *panels,
        *repeat(rng, 'chair', settings.num_chairs),
        *repeat(rng, None, settings.num_clutter),
    ]


def furnish(rng: np.random.Generator, plan: FloorPlan, names: list[str | None]) -> list[Placed]:
    """Build and place objects one after the other.

    Args:
        plan: an empty floor; filled.
        names: classes in order, None for clutter.

    Returns:
        Those that fitted, with their (4, 4) ``world_from_object``.
    """
    panels, _, tables = SYNTHETIC_PATTERN_GROUPS
    placed = []
    for name in names:
        blueprint = make_clutter(rng) if name is None else BUILDERS[name](rng, name)
        if name in panels:
            position = hang_on_wall(rng, plan, blueprint, z=rng.uniform(1.1, 1.4))
        elif name in (None, 'chair') or (name in tables and rng.random() < 0.5):
            position = place_on_floor(rng, plan, blueprint, gap=0.1)
        else:
            position = place_against_wall(rng, plan, blueprint, 0.4 if name == 'door' else 0.0)
        if position is not None:
            placed.append((blueprint, position))
    return placed


def num_classes(placed: list[Placed]) -> int:
    """How many classes stand in a room, clutter counted as one."""
    return len({blueprint.name for blueprint, _ in placed})


def repeat(rng: np.random.Generator, name: str | None, count: tuple[int, int]) -> list[str | None]:
    """The name, a random number of times."""
    return [name] * int(rng.integers(count[0], count[1] + 1))


def draw_group(
    rng: np.random.Generator, group: tuple[str, ...], count: tuple[int, int]
) -> list[str]:
    """Members of a pattern group in random order, each before any comes again."""
    num = int(rng.integers(count[0], count[1] + 1))
    rounds = [rng.permutation(group) for _ in range(-(-num // len(group)))]
    names = [str(name) for names in rounds for name in names][:num]
    return [names[i] for i in rng.permutation(num)]


def make_shell(
    rng: np.random.Generator, low: np.ndarray, high: np.ndarray, height: float
) -> list[SceneObject]:
    """Floor, ceiling and four walls as stuff without instance ids."""
    floor = soft_material(
        rng,
        Pattern(rng.choice([Pattern.GRAIN, Pattern.CLOUDS])),
        (0.3, 0.8),
        (0.15, 0.5),
    )
    paint = soft_material(rng, Pattern.CLOUDS, (0.6, 1.0), (0.5, 1.5), 0.08, (0.0, 0.3))
    white = soft_material(rng, Pattern.CLOUDS, (0.85, 1.0), (0.5, 1.5), 0.05, (0.0, 0.1))

    (x0, y0), (x1, y1) = low, high
    level = [(x0, y0), (x1, y0), (x1, y1), (x0, y1)]
    shell = [
        stuff('floor', floor, [(x, y, 0.0) for x, y in level]),
        stuff('ceiling', white, [(x, y, height) for x, y in level[::-1]]),
    ]
    for (ax, ay), (bx, by) in zip(level, level[1:] + level[:1], strict=True):
        corners = [(bx, by, 0.0), (ax, ay, 0.0), (ax, ay, height), (bx, by, height)]
        shell.append(stuff('wall', paint, corners))
    return shell


def stuff(name: str, material: Material, corners: list) -> SceneObject:
    """One rectangle of a stuff class, given in world coordinates."""
    mesh = trimesh.Trimesh(np.array(corners), [(0, 1, 2), (0, 2, 3)], process=False)
    return SceneObject(raw_id(name), 0, (Part(mesh, material),), np.eye(4))
