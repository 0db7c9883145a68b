"""What a page shows of a scene, as arrays.

Enters: points (N, 3) with z up and their colours, a segmentation, an index with its answers; all
but the points may be missing. Leaves: a ``ViewedScene`` of at most ``MAX_DRAWN`` points, whose
counts are those of the whole cloud.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.open_vocabulary.answers import RankedMask, ranked_masks
from oneformer3d.open_vocabulary.index import SceneIndex
from oneformer3d.open_vocabulary.query import QueryResult
from oneformer3d.structures import Segmentation
from oneformer3d.visualization.features import PcaColors
from oneformer3d.visualization.palette import instance_colors
from oneformer3d.visualization.views import below_ceiling

MAX_DRAWN = 300_000  # more points make a browser without a GPU stutter
NONE = -1
UNKNOWN, RIGHT, WRONG = 0, 1, 2  # verdicts on the class of a point
_LEAST_ROWS = 3  # of features, for three components
_DARKEST = 60.0  # of their colours: on black ground black says nothing


@dataclass(frozen=True)
class ViewedClass:
    """A class and how many points of the whole cloud have it."""

    name: str
    color: tuple[int, int, int]
    num_points: int


@dataclass(frozen=True)
class ViewedObject:
    """An object: its class 0…C−1, its box (centre, size, yaw; metres, radians), its colour."""

    name: str
    label: int
    score: float
    num_points: int
    box: tuple[float, ...]
    color: tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class ViewedAnswer:
    """How well each mask fits a text.

    Attributes:
        text: as it was asked.
        found: whether a mask exceeds the threshold.
        scores: (M,) float32 in 0…1.
        ranked: the best masks first, none where nothing was found.
    """

    text: str
    found: bool
    scores: NDArray[np.float32]
    ranked: tuple[RankedMask, ...]


@dataclass(frozen=True, eq=False)
class ViewedScene:
    """A scene to look at.

    Attributes:
        title: of the page.
        num_points: N of the whole cloud.
        rows: (n,) int64 which of them are drawn, ascending.
        xyz: (n, 3) float32 metres, z up.
        rgb: (n, 3) uint8.
        ceiling: height in metres from which a ceiling hides the room, None without one.
        semantic: (n,) class 0…C−1, −1 for none.
        instance: (n,) row of the object, −1 for none.
        panoptic: (n,) row of ``panoptic_colors``.
        panoptic_colors: (S, 3) uint8.
        mask: (n,) mask that the answers speak of, −1 for none.
        classes: C of them.
        objects: K of them, the best first.
        answers: T of them.
        threshold: of a score to be found.
        pieces: (M, 3) uint8 colours of the masks.
        num_whole: so many of the first masks are whole objects, the others pieces.
        features: (M, 3) uint8 principal components of what the masks look like, (0, 3) if unknown.
        truth: (n,) row of ``truth_classes``, −1 for none; None without ground truth.
        truth_classes: as the ground truth names them.
        verdict: (n,) ``UNKNOWN``, ``RIGHT`` or ``WRONG``, None without truth or classes.
    """

    title: str
    num_points: int
    rows: NDArray[np.int64]
    xyz: NDArray[np.float32]
    rgb: NDArray[np.uint8]
    ceiling: float | None
    semantic: NDArray[np.int64]
    instance: NDArray[np.int64]
    panoptic: NDArray[np.int64]
    panoptic_colors: NDArray[np.uint8]
    mask: NDArray[np.int64]
    classes: tuple[ViewedClass, ...] = ()
    objects: tuple[ViewedObject, ...] = ()
    answers: tuple[ViewedAnswer, ...] = ()
    threshold: float = 0.5
    pieces: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    num_whole: int = 0
    features: NDArray[np.uint8] = field(default_factory=lambda: np.zeros((0, 3), np.uint8))
    truth: NDArray[np.int64] | None = None
    truth_classes: tuple[ViewedClass, ...] = ()
    verdict: NDArray[np.int64] | None = None


@dataclass(frozen=True, eq=False)
class GroundTruth:
    """True classes of the N points of a cloud: row (N,) of C names and colours, −1 for none."""

    semantic: NDArray[np.int64]
    class_names: tuple[str, ...]
    palette: NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class AskedTexts:
    """An index, the T texts that it was asked, its answers, and the threshold of these."""

    index: SceneIndex
    texts: tuple[str, ...]
    result: QueryResult
    threshold: float = 0.5


@dataclass(frozen=True, eq=False)
class SceneLabels:
    """Labels of the N points of a cloud; the default is a cloud without any."""

    semantic: NDArray[np.int64]
    instance: NDArray[np.int64]
    panoptic: NDArray[np.int64]
    panoptic_colors: NDArray[np.uint8]
    classes: tuple[ViewedClass, ...] = ()
    objects: tuple[ViewedObject, ...] = field(default=())


def view_scene(
    title: str,
    upright: NDArray[np.float32],
    rgb: NDArray[np.uint8],
    segmentation: Segmentation | None = None,
    asked: AskedTexts | None = None,
    mask_of_point: NDArray[np.int64] | None = None,
    truth: GroundTruth | None = None,
    directions: NDArray[np.float32] | None = None,
    max_drawn: int = MAX_DRAWN,
) -> ViewedScene:
    """What to show of a scene.

    Args:
        title: of the page; shown as it is, whatever characters it has.
        upright: (N, 3) metres, z up.
        rgb: (N, 3) uint8.
        segmentation: of these points.
        asked: texts that were asked, and the index of these points that answered.
        mask_of_point: (N,) masks to ask later, −1 for none; None takes those of ``asked``.
        truth: of these points.
        directions: (M, D) what these masks look like; None takes those of ``asked``.
        max_drawn: an even selection of so many points is drawn.

    Raises:
        ValueError: no points, or labels of another cloud.
    """
    num_points = expect_shape('upright', upright, 'N 3')[0]
    expect_shape('rgb', rgb, 'N 3', N=num_points)
    if not num_points:
        raise ValueError(f'{title}: there is no point to show')
    if segmentation is not None:
        expect_shape('segmentation.points', segmentation.points, 'N 6', N=num_points)
    mask = np.full(num_points, NONE) if mask_of_point is None else mask_of_point
    if asked is not None:
        mask, directions = asked.index.mask_of_point, asked.index.directions
    expect_shape('mask_of_point', mask, 'N', N=num_points)

    # drawn points are random ones: regular steps would draw lines of a scanner's pattern
    rows = np.arange(num_points)
    if num_points > max_drawn:
        rows = np.sort(np.random.default_rng(0).choice(num_points, max_drawn, replace=False))

    labels = _no_labels(num_points) if segmentation is None else _labels_of(segmentation)
    low = below_ceiling(upright)
    scene = ViewedScene(
        title,
        num_points,
        rows,
        upright[rows],
        rgb[rows],
        None if low.all() else float(upright[low, 2].max()),
        labels.semantic[rows],
        labels.instance[rows],
        labels.panoptic[rows],
        labels.panoptic_colors,
        mask[rows],
        labels.classes,
        labels.objects,
        () if asked is None else _answers_of(asked),
        0.5 if asked is None else asked.threshold,
        instance_colors(np.arange(mask.max() + 1)),
        len(labels.objects),
        _component_colors(directions),
    )
    return scene if truth is None else _with_truth(scene, truth)


def _with_truth(scene: ViewedScene, truth: GroundTruth) -> ViewedScene:
    """The scene beside the ground truth of all its points, judged where it has classes."""
    expect_shape('truth.semantic', truth.semantic, 'N', N=scene.num_points)
    known = truth.semantic >= 0
    counts = np.bincount(truth.semantic[known], minlength=len(truth.class_names))
    classes = tuple(
        ViewedClass(name, _triple(color), int(count))
        for name, color, count in zip(truth.class_names, truth.palette, counts)
    )
    drawn = truth.semantic[scene.rows]  # (n,)
    if not scene.classes:
        return replace(scene, truth=drawn, truth_classes=classes)

    # tables may list the same names in another order: names are compared, '' is none
    true_names = np.array([*truth.class_names, ''])[drawn]
    names = np.array([*(one.name for one in scene.classes), ''])[scene.semantic]
    verdict = np.where(true_names == '', UNKNOWN, np.where(names == true_names, RIGHT, WRONG))
    return replace(scene, truth=drawn, truth_classes=classes, verdict=verdict)


def _component_colors(directions: NDArray[np.float32] | None) -> NDArray[np.uint8]:
    """Colours (M, 3) of masks by what they look like, (0, 3) where too few are seen."""
    if directions is None or directions.any(1).sum() < _LEAST_ROWS:
        return np.zeros((0, 3), np.uint8)
    colors = PcaColors(directions)(directions)
    return (_DARKEST + colors.astype(float) * (1 - _DARKEST / 255)).astype(np.uint8)


def _no_labels(num_points: int) -> SceneLabels:
    none = np.full(num_points, NONE)
    return SceneLabels(none, none, none, np.zeros((0, 3), np.uint8))


def _labels_of(result: Segmentation) -> SceneLabels:
    num_classes = len(result.class_names)
    known = (result.semantic >= 0) & (result.semantic < num_classes)
    semantic = np.where(known, result.semantic, NONE)  # (N,)
    counts = np.bincount(semantic[known], minlength=num_classes)
    classes = tuple(
        ViewedClass(name, _triple(color), int(count))
        for name, color, count in zip(result.class_names, result.palette, counts)
    )

    colors = instance_colors(np.arange(len(result.instances)))
    objects = tuple(
        ViewedObject(
            one.name,
            one.label,
            one.score,
            one.num_points,
            (*one.box.centre, *one.box.size, one.box.yaw),
            _triple(color),
        )
        for one, color in zip(result.instances, colors)
    )

    segments, panoptic = np.unique(result.panoptic, return_inverse=True)
    return SceneLabels(
        semantic, result.instance, panoptic, instance_colors(segments), classes, objects
    )


def _answers_of(asked: AskedTexts) -> tuple[ViewedAnswer, ...]:
    return tuple(
        ViewedAnswer(
            text,
            bool(asked.result.found[row]),
            asked.result.scores[row],
            ranked_masks(asked.index, asked.result, row),
        )
        for row, text in enumerate(asked.texts)
    )


def _triple(color: NDArray[np.uint8]) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in color)
    return red, green, blue
