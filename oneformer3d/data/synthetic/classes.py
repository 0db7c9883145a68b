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


def raw_id(name: str) -> int:
    """Id of a class on disk.

    Args:
        name: one of ``SYNTHETIC_CLASSES``.

    Returns:
        1…C.

    Raises:
        ValueError: the name is no class.
    """
    return SYNTHETIC_CLASSES.index(name) + 1
