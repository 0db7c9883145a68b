"""A small scene that every test of the viewer shows: a floor, a chair, a lamp, and two texts."""

import numpy as np

from oneformer3d.open_vocabulary.index import SceneIndex
from oneformer3d.open_vocabulary.vectors import MaskViews
from oneformer3d.store.examples import STAMP
from oneformer3d.structures import Segmentation
from oneformer3d.structures.instances import make_instance
from oneformer3d.viewer.scene import AskedTexts

CLASSES = ('floor', 'chair', 'lamp')
PALETTE = np.array([[60, 120, 60], [220, 40, 40], [40, 60, 230]], np.uint8)
HARMFUL = '</script><img src=x onerror=alert(1)>&"\''


def block(low, high, count, rng):
    """(count, 3) points within a box."""
    return rng.uniform(low, high, (count, 3))


def small_segmentation() -> Segmentation:
    """2,000 points of floor, 600 of a chair, 400 of a lamp; 4 × 3 × 1.5 m."""
    rng = np.random.default_rng(0)
    parts = [
        block((0, 0, 0), (4, 3, 0.02), 2000, rng),
        block((0.5, 0.5, 0), (1.1, 1.1, 0.9), 600, rng),
        block((3, 2, 0), (3.3, 2.3, 1.5), 400, rng),
    ]
    xyz = np.concatenate(parts)
    semantic = np.repeat([0, 1, 2], [2000, 600, 400])
    rgb = np.repeat([[200, 200, 200], [90, 60, 30], [250, 240, 120]], [2000, 600, 400], axis=0)
    points = np.concatenate([xyz, rgb], axis=1).astype(np.float32)
    instances = (
        make_instance('chair', 1, 0.9, np.arange(2000, 2600), xyz),
        make_instance('lamp', 2, 0.6, np.arange(2600, 3000), xyz),
    )
    panoptic = np.repeat([0, 1, 2], [2000, 600, 400])
    return Segmentation(
        points, semantic, panoptic, semantic, instances, CLASSES, (1, 2, 3), PALETTE,
        np.eye(3, dtype=np.float32),
    )  # fmt: skip


def small_asked() -> AskedTexts:
    """'a chair' finds the chair; the other text, which means harm, finds nothing."""
    result = small_segmentation()
    boxes = [(*one.box.centre, *one.box.size, one.box.yaw) for one in result.instances]
    boxes.append((2, 1.5, 0.01, 4, 3, 0.02, 0))
    index = SceneIndex(
        np.eye(3, dtype=np.float32),
        np.repeat([2, 0, 1], [2000, 600, 400]),
        ('chair', 'lamp', 'floor'),
        np.array([0.9, 0.6, 0], np.float32),
        np.array(boxes, np.float32),
        ('first', HARMFUL),
        MaskViews(
            np.array([[0, 1], [1, -1], [0, -1]]),
            np.full((3, 2, 2), 7.0, np.float32),
            np.ones((3, 2), np.int64),
        ),
        STAMP,
    )
    texts = np.array([[1, 0, 0], [0, 0, 0]], np.float32)
    answers = index.query(texts, np.array([[0.6, 0, 0.8]], np.float32))
    return AskedTexts(index, ('a chair', HARMFUL), answers)
