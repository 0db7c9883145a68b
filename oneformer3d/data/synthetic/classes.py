"""Classes of the synthetic rooms: constants only, nothing is imported.

Raw ids on disk are 1…C in the order of ``SYNTHETIC_CLASSES``; 0 is unlabeled (clutter). Names are
ScanNet's where ScanNet has them. The classes of one *pattern group* share their shapes, sizes,
positions and colours; only a printed pattern of 4 to 6 cm period, which images resolve and points
five centimetres apart do not, tells them from each other.
"""

SYNTHETIC_STUFF = ('wall', 'floor', 'ceiling')

SYNTHETIC_CLASSES = (
    *SYNTHETIC_STUFF,
    'cabinet',
    'bed',
    'chair',
    'sofa',
    'table',
    'door',
    'window',
    'bookshelf',
    'picture',
    'desk',
    'refrigerator',
    'whiteboard',
    'lamp',
)

SYNTHETIC_PATTERN_GROUPS = (
    ('picture', 'window', 'whiteboard'),
    ('cabinet', 'refrigerator'),
    ('table', 'desk'),
)

# One RGB colour per class, in the order of SYNTHETIC_CLASSES.
SYNTHETIC_PALETTE = (
    (174, 199, 232),
    (152, 223, 138),
    (219, 219, 219),
    (31, 119, 180),
    (255, 187, 120),
    (188, 189, 34),
    (140, 86, 75),
    (255, 152, 150),
    (214, 39, 40),
    (197, 176, 213),
    (148, 103, 189),
    (196, 156, 148),
    (247, 182, 210),
    (255, 127, 14),
    (66, 188, 102),
    (255, 225, 25),
)


# Rooms scanned as real ones are have their own table; what no name fits is an instance of *other*.
ROOMS_STUFF = SYNTHETIC_STUFF

ROOMS_CLASSES = (
    *ROOMS_STUFF,
    'cabinet',
    'bed',
    'chair',
    'sofa',
    'table',
    'door',
    'window',
    'bookshelf',
    'picture',
    'counter',
    'desk',
    'curtain',
    'refrigerator',
    'toilet',
    'sink',
    'whiteboard',
    'lamp',
    'monitor',
    'box',
    'other',
)

_ROOMS_COLORS = {
    **dict(zip(SYNTHETIC_CLASSES, SYNTHETIC_PALETTE, strict=True)),
    'counter': (23, 190, 207),
    'curtain': (219, 219, 141),
    'toilet': (44, 160, 44),
    'sink': (112, 128, 144),
    'monitor': (80, 40, 140),
    'box': (160, 110, 60),
    'other': (120, 120, 120),
}

# One RGB colour per class, in the order of ROOMS_CLASSES.
ROOMS_PALETTE = tuple(_ROOMS_COLORS[name] for name in ROOMS_CLASSES)


def raw_id(name: str, classes: tuple[str, ...] = SYNTHETIC_CLASSES) -> int:
    """Id of a class on disk.

    Args:
        name: one of the classes.
        classes: ``SYNTHETIC_CLASSES`` or ``ROOMS_CLASSES``.

    Returns:
        1…C.

    Raises:
        ValueError: the name is no class.
    """
    return classes.index(name) + 1
