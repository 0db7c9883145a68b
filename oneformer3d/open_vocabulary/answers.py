"""Answers as files: what was found, ranked, and a cloud with the scores of each text.

Enters: a ``QueryResult`` of T texts, the ``SceneIndex`` that gave it and its points (N, 3). Leaves:
``answers.json``, a PLY per text, and a picture of all. Texts name no file: they come from outside.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.plain import Json
from oneformer3d.files.ply import write_ply
from oneformer3d.lifting.shapes import expect_shape

from .index import SceneIndex
from .query import QueryResult
from .vectors import NO_VIEW

MAX_RANKED = 20


@dataclass(frozen=True)
class RankedMask:
    """A mask that fits a text.

    Attributes:
        mask: its row.
        score: 0…1.
        name: that a trained head gave, '' without.
        num_points: of which it is the best mask.
        box: centre and size in metres, yaw in radians, as in the index.
        views: frames that show it best, each with the pixel (u, v) of one of its points.
    """

    mask: int
    score: float
    name: str
    num_points: int
    box: tuple[float, ...]
    views: tuple[tuple[str, tuple[float, float]], ...]

    def to_json(self) -> dict[str, Json]:
        """Plain values; a view is a ``frame`` and its ``uv``."""
        return {
            'mask': self.mask,
            'score': self.score,
            'name': self.name,
            'num_points': self.num_points,
            'box': [*self.box],
            'views': [{'frame': frame, 'uv': [*uv]} for frame, uv in self.views],
        }


def write_answers(
    out: str | Path,
    index: SceneIndex,
    result: QueryResult,
    texts: tuple[str, ...],
    xyz: NDArray[np.float32],
    max_ranked: int = MAX_RANKED,
) -> None:
    """Write what a query found.

    ``answers.json`` holds one record per text, see ``ranked_answer``; ``answer_0000.ply`` and so
    on, in the order of the texts, hold the points with the property ``score``.

    Args:
        out: folder, made where it is missing.
        index: that was asked.
        result: of T texts.
        texts: T of them.
        xyz: (N, 3) metres, the points of the index.
        max_ranked: masks listed per text.

    Raises:
        ValueError: another number of texts or points than the result has; nothing is written.
    """
    num_points = len(result.mask_of_point)
    expect_shape('xyz', xyz, 'N 3', N=num_points)
    expect_shape('result.scores', result.scores, 'T K', T=len(texts), K=len(index.names))

    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    answers = []
    for row, text in enumerate(texts):
        cloud = f'answer_{row:04d}.ply'
        write_ply(out / cloud, xyz, labels={'score': result.point_scores(row)})
        answers.append(
            {'text': text, 'cloud': cloud, **ranked_answer(index, result, row, max_ranked)}
        )

    # last, so that every cloud it names is there
    content = json.dumps(answers, indent=1, ensure_ascii=False, allow_nan=False)
    atomic_write_bytes(out / 'answers.json', content.encode())


def ranked_answer(
    index: SceneIndex, result: QueryResult, text: int, max_ranked: int = MAX_RANKED
) -> dict[str, Json]:
    """One answer in plain values: ``found``, and ``masks``, each as ``RankedMask.to_json``."""
    masks = ranked_masks(index, result, text, max_ranked)
    return {'found': bool(result.found[text]), 'masks': [mask.to_json() for mask in masks]}


def ranked_masks(
    index: SceneIndex, result: QueryResult, text: int, max_ranked: int = MAX_RANKED
) -> tuple[RankedMask, ...]:
    """The masks that fit a text best, the best first; none where nothing was found."""
    if not result.found[text]:
        return ()
    in_mask = result.mask_of_point[result.mask_of_point >= 0]
    sizes = np.bincount(in_mask, minlength=len(index.names))

    ranked = []
    for mask in result.ranked(text)[:max_ranked].tolist():
        seen = zip(index.views.view[mask].tolist(), index.views.uv[mask].tolist())
        views = tuple((index.frames[view], (u, v)) for view, (u, v) in seen if view != NO_VIEW)
        score, box = float(result.scores[text, mask]), tuple(index.boxes[mask].tolist())
        ranked.append(RankedMask(mask, score, index.names[mask], int(sizes[mask]), box, views))
    return tuple(ranked)
