"""Class tables: which ids stand on disk, which inside the program, and what they are called.

Enters: a dataset's name, or a JSON file with a table of one's own. Leaves: a ``ClassTable`` of
C classes. Inside the program semantic labels are 0…C−1 in the table's order and C means
unlabeled; instance label k is semantic class ``instance_classes[k]``.
"""

import colorsys
import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .synthetic.classes import (
    ROOMS_CLASSES,
    ROOMS_PALETTE,
    ROOMS_STUFF,
    SYNTHETIC_CLASSES,
    SYNTHETIC_PALETTE,
    SYNTHETIC_STUFF,
)

MAX_RAW_ID = 65535  # ids also stand in 16-bit label images


def get_class_table(name: str) -> 'ClassTable':
    """Class table of a dataset.

    Args:
        name: 'scannet', 'scannet200', 's3dis', 'synthetic', 'rooms', or the path of a ``.json``
            file with ``{"name", "classes": [...], "stuff": [names, the first classes],
            "raw_ids": [...] (default 1…C), "palette": [[r, g, b], ...] (optional)}``.

    Raises:
        FileNotFoundError: no such JSON file.
        ValueError: unknown name, or a faulty table.
    """
    if name in _BUILDERS:
        return _built(name)
    if str(name).endswith('.json'):
        return _read_table(Path(name))
    raise ValueError(
        f'unknown class table {name!r}, expected one of {", ".join(_BUILDERS)} or a .json file'
    )


@dataclass(frozen=True, eq=False)
class ClassTable:
    """Names and ids of C classes.

    Attributes:
        name: what configurations call the table.
        classes: C names, in the order of the contiguous labels.
        raw_ids: C ids on disk, same order.
        stuff: contiguous labels without instances of their own in panoptic results.
        instance_classes: semantic label of instance label 0, 1, …
        palette: (C, 3) uint8 colours.
        things: contiguous labels that are not stuff.
    """

    name: str
    classes: tuple[str, ...]
    raw_ids: tuple[int, ...]
    stuff: tuple[int, ...]
    instance_classes: tuple[int, ...]
    palette: NDArray[np.uint8]
    things: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        """Check the table; derive ``things``."""
        num_classes = len(self.classes)
        if num_classes == 0 or len(set(self.classes)) != num_classes:
            raise ValueError(f'class table {self.name}: names must be there and differ')

        if len(self.raw_ids) != num_classes or len(set(self.raw_ids)) != num_classes:
            raise ValueError(
                f'class table {self.name}: expected {num_classes} different raw ids, '
                f'got {len(set(self.raw_ids))}'
            )
        if min(self.raw_ids) < 0 or max(self.raw_ids) > MAX_RAW_ID:
            raise ValueError(f'class table {self.name}: raw ids must be within 0…{MAX_RAW_ID}')

        for labels in (self.stuff, self.instance_classes):
            if len(set(labels)) != len(labels) or not set(labels) <= set(range(num_classes)):
                raise ValueError(
                    f'class table {self.name}: stuff and instance classes must be different '
                    f'labels within 0…{num_classes - 1}, got {labels}'
                )
        if self.palette.shape != (num_classes, 3) or self.palette.dtype != np.uint8:
            raise ValueError(f'class table {self.name}: palette must be ({num_classes}, 3) uint8')

        self.palette.flags.writeable = False
        stuff = set(self.stuff)
        object.__setattr__(self, 'things', tuple(k for k in range(num_classes) if k not in stuff))

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.classes)

    @property
    def ignore_index(self) -> int:
        """Label of unlabeled points: C."""
        return len(self.classes)

    def contiguous_from_raw(self, raw: np.ndarray) -> NDArray[np.int64]:
        """Labels on disk → labels inside the program.

        Args:
            raw: ids of any shape and integer dtype.

        Returns:
            int64 of the same shape: 0…C−1, or C where the table does not know the id.

        Raises:
            ValueError: ids that cannot be class ids at all: negative or above 65535.
        """
        raw = np.asarray(raw)
        if raw.dtype.kind not in 'iu':
            raise ValueError(f'class ids must be integers, got {raw.dtype}')
        if raw.size and (raw.min() < 0 or raw.max() > MAX_RAW_ID):
            bad = raw.min() if raw.min() < 0 else raw.max()
            raise ValueError(f'class id {bad} is outside 0…{MAX_RAW_ID}')

        lookup = np.full(MAX_RAW_ID + 1, self.ignore_index, dtype=np.int64)
        lookup[list(self.raw_ids)] = np.arange(self.num_classes)
        return lookup[raw]

    def raw_from_contiguous(self, labels: np.ndarray, unlabeled: int = 0) -> NDArray[np.int64]:
        """Labels inside the program → ids on disk (int64); C becomes ``unlabeled``."""
        return np.append(np.asarray(self.raw_ids, dtype=np.int64), unlabeled)[np.asarray(labels)]


# The palette of the ScanNet benchmark, in the order of its 20 classes.
_SCANNET_PALETTE = (
    (174, 199, 232), (152, 223, 138), (31, 119, 180), (255, 187, 120), (188, 189, 34),
    (140, 86, 75), (255, 152, 150), (214, 39, 40), (197, 176, 213), (148, 103, 189),
    (196, 156, 148), (23, 190, 207), (247, 182, 210), (219, 219, 141), (255, 127, 14),
    (158, 218, 229), (44, 160, 44), (112, 128, 144), (227, 119, 194), (82, 84, 163),
)  # fmt: skip
_S3DIS_PALETTE = (
    (0, 255, 0), (0, 0, 255), (0, 255, 255), (255, 255, 0), (255, 0, 255), (100, 100, 255),
    (200, 200, 100), (170, 120, 200), (255, 0, 0), (200, 100, 100), (10, 200, 100),
    (200, 200, 200), (50, 50, 50),
)  # fmt: skip


def _scannet() -> ClassTable:
    classes = (
        'wall', 'floor', 'cabinet', 'bed', 'chair', 'sofa', 'table', 'door', 'window',
        'bookshelf', 'picture', 'counter', 'desk', 'curtain', 'refrigerator', 'showercurtrain',
        'toilet', 'sink', 'bathtub', 'otherfurniture',
    )  # fmt: skip
    raw_ids = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
    return _table('scannet', classes, raw_ids, num_stuff=2, palette=_SCANNET_PALETTE)


def _scannet200() -> ClassTable:
    # The benchmark lists wall, chair, floor, ...; with chair and floor exchanged the stuff
    # classes are the first two labels, as published models have them.
    order = [0, 2, 1, *range(3, len(SCANNET200_NAMES))]
    return _table(
        'scannet200',
        tuple(SCANNET200_NAMES[k] for k in order),
        tuple(SCANNET200_RAW_IDS[k] for k in order),
        num_stuff=2,
        palette=distinct_colors(len(order)),
    )


def _s3dis() -> ClassTable:
    classes = (
        'ceiling', 'floor', 'wall', 'beam', 'column', 'window', 'door', 'table', 'chair', 'sofa',
        'bookcase', 'board', 'clutter',
    )  # fmt: skip
    return ClassTable(
        name='s3dis',
        classes=classes,
        raw_ids=tuple(range(13)),
        stuff=(0, 1, 2, 3, 4, 5, 6, 12),
        instance_classes=tuple(range(13)),  # the benchmark scores instances of all classes
        palette=np.array(_S3DIS_PALETTE, dtype=np.uint8),
    )


def _synthetic() -> ClassTable:
    return _table(
        'synthetic',
        SYNTHETIC_CLASSES,
        tuple(range(1, len(SYNTHETIC_CLASSES) + 1)),
        num_stuff=len(SYNTHETIC_STUFF),
        palette=SYNTHETIC_PALETTE,
    )


def _rooms() -> ClassTable:
    return _table(
        'rooms',
        ROOMS_CLASSES,
        tuple(range(1, len(ROOMS_CLASSES) + 1)),
        num_stuff=len(ROOMS_STUFF),
        palette=ROOMS_PALETTE,
    )


_BUILDERS = {
    'scannet': _scannet,
    'scannet200': _scannet200,
    's3dis': _s3dis,
    'synthetic': _synthetic,
    'rooms': _rooms,
}


@lru_cache
def _built(name: str) -> ClassTable:
    return _BUILDERS[name]()


def _table(
    name: str,
    classes: tuple[str, ...],
    raw_ids: tuple[int, ...],
    num_stuff: int,
    palette: object,
) -> ClassTable:
    """A table whose stuff classes are the first ones and whose instances are the things."""
    return ClassTable(
        name=name,
        classes=classes,
        raw_ids=raw_ids,
        stuff=tuple(range(num_stuff)),
        instance_classes=tuple(range(num_stuff, len(classes))),
        palette=np.array(palette, dtype=np.uint8),
    )


def distinct_colors(num_colors: int) -> np.ndarray:
    """Well-spread colours (num_colors, 3) uint8: hues by the golden ratio, three brightnesses."""
    golden = 0.61803398875
    colors = [
        colorsys.hsv_to_rgb(k * golden % 1.0, (0.55, 0.85, 0.7)[k % 3], (0.95, 0.85, 0.65)[k % 3])
        for k in range(num_colors)
    ]
    return np.round(np.array(colors, dtype=np.float64).reshape(-1, 3) * 255).astype(np.uint8)


def _read_table(path: Path) -> ClassTable:
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such class table')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (ValueError, RecursionError) as error:
        raise ValueError(f'{path}: not valid JSON: {error}') from error
    known = {'name', 'classes', 'stuff', 'raw_ids', 'palette'}
    if not isinstance(content, dict) or not {'classes', 'stuff'} <= set(content) <= known:
        raise ValueError(
            f'{path}: expected an object with "classes" and "stuff", and perhaps "name", '
            '"raw_ids", "palette"'
        )

    classes, stuff = content['classes'], content['stuff']
    raw_ids = content.get('raw_ids')
    if not _is_list_of(classes, str) or not _is_list_of(stuff, str):
        raise ValueError(f'{path}: "classes" and "stuff" must be lists of names')
    if raw_ids is not None and not _is_list_of(raw_ids, int):
        raise ValueError(f'{path}: "raw_ids" must be a list of integers')
    # Thing labels are counted from the last stuff class on, so stuff has to come first.
    if stuff != classes[: len(stuff)]:
        raise ValueError(f'{path}: "stuff" must be the first of "classes", in the same order')
    try:
        palette = np.array(content.get('palette', distinct_colors(len(classes))), dtype=np.uint8)
        return _table(
            str(content.get('name', path.stem)),
            tuple(classes),
            tuple(raw_ids if raw_ids is not None else range(1, len(classes) + 1)),
            num_stuff=len(stuff),
            palette=palette,
        )
    except (ValueError, OverflowError, TypeError) as error:
        raise ValueError(f'{path}: {error}') from error


def _is_list_of(value: object, kind: type) -> bool:
    return isinstance(value, list) and all(type(item) is kind for item in value)


# fmt: off
SCANNET200_RAW_IDS: tuple[int, ...] = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 16, 17, 18, 19, 21, 22, 23, 24, 26, 27, 28, 29,
    31, 32, 33, 34, 35, 36, 38, 39, 40, 41, 42, 44, 45, 46, 47, 48, 49, 50, 51, 52, 54, 55, 56, 57,
    58, 59, 62, 63, 64, 65, 66, 67, 68, 69, 70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 82, 84, 86,
    87, 88, 89, 90, 93, 95, 96, 97, 98, 99, 100, 101, 102, 103, 104, 105, 106, 107, 110, 112, 115,
    116, 118, 120, 121, 122, 125, 128, 130, 131, 132, 134, 136, 138, 139, 140, 141, 145, 148, 154,
    155, 156, 157, 159, 161, 163, 165, 166, 168, 169, 170, 177, 180, 185, 188, 191, 193, 195, 202,
    208, 213, 214, 221, 229, 230, 232, 233, 242, 250, 261, 264, 276, 283, 286, 300, 304, 312, 323,
    325, 331, 342, 356, 370, 392, 395, 399, 408, 417, 488, 540, 562, 570, 572, 581, 609, 748, 776,
    1156, 1163, 1164, 1165, 1166, 1167, 1168, 1169, 1170, 1171, 1172, 1173, 1174, 1175, 1176, 1178,
    1179, 1180, 1181, 1182, 1183, 1184, 1185, 1186, 1187, 1188, 1189, 1190, 1191,
)

SCANNET200_NAMES: tuple[str, ...] = (
    'wall', 'chair', 'floor', 'table', 'door', 'couch', 'cabinet', 'shelf', 'desk', 'office chair',
    'bed', 'pillow', 'sink', 'picture', 'window', 'toilet', 'bookshelf', 'monitor', 'curtain',
    'book', 'armchair', 'coffee table', 'box', 'refrigerator', 'lamp', 'kitchen cabinet', 'towel',
    'clothes', 'tv', 'nightstand', 'counter', 'dresser', 'stool', 'cushion', 'plant', 'ceiling',
    'bathtub', 'end table', 'dining table', 'keyboard', 'bag', 'backpack', 'toilet paper',
    'printer', 'tv stand', 'whiteboard', 'blanket', 'shower curtain', 'trash can', 'closet',
    'stairs', 'microwave', 'stove', 'shoe', 'computer tower', 'bottle', 'bin', 'ottoman', 'bench',
    'board', 'washing machine', 'mirror', 'copier', 'basket', 'sofa chair', 'file cabinet', 'fan',
    'laptop', 'shower', 'paper', 'person', 'paper towel dispenser', 'oven', 'blinds', 'rack',
    'plate', 'blackboard', 'piano', 'suitcase', 'rail', 'radiator', 'recycling bin', 'container',
    'wardrobe', 'soap dispenser', 'telephone', 'bucket', 'clock', 'stand', 'light',
    'laundry basket', 'pipe', 'clothes dryer', 'guitar', 'toilet paper holder', 'seat', 'speaker',
    'column', 'bicycle', 'ladder', 'bathroom stall', 'shower wall', 'cup', 'jacket', 'storage bin',
    'coffee maker', 'dishwasher', 'paper towel roll', 'machine', 'mat', 'windowsill', 'bar',
    'toaster', 'bulletin board', 'ironing board', 'fireplace', 'soap dish', 'kitchen counter',
    'doorframe', 'toilet paper dispenser', 'mini fridge', 'fire extinguisher', 'ball', 'hat',
    'shower curtain rod', 'water cooler', 'paper cutter', 'tray', 'shower door', 'pillar', 'ledge',
    'toaster oven', 'mouse', 'toilet seat cover dispenser', 'furniture', 'cart',
    'storage container', 'scale', 'tissue box', 'light switch', 'crate', 'power outlet',
    'decoration', 'sign', 'projector', 'closet door', 'vacuum cleaner', 'candle', 'plunger',
    'stuffed animal', 'headphones', 'dish rack', 'broom', 'guitar case', 'range hood', 'dustpan',
    'hair dryer', 'water bottle', 'handicap bar', 'purse', 'vent', 'shower floor', 'water pitcher',
    'mailbox', 'bowl', 'paper bag', 'alarm clock', 'music stand', 'projector screen', 'divider',
    'laundry detergent', 'bathroom counter', 'object', 'bathroom vanity', 'closet wall',
    'laundry hamper', 'bathroom stall door', 'ceiling light', 'trash bin', 'dumbbell',
    'stair rail', 'tube', 'bathroom cabinet', 'cd case', 'closet rod', 'coffee kettle',
    'structure', 'shower head', 'keyboard piano', 'case of water bottles', 'coat rack',
    'storage organizer', 'folded chair', 'fire alarm', 'power strip', 'calendar', 'poster',
    'potted plant', 'luggage', 'mattress',
)
