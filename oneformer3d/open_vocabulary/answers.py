"""Answers as files: what was found, ranked, and a cloud with the scores of each text.

Enters: a ``QueryResult`` of T texts, the ``SceneIndex`` that gave it and its points (N, 3). Leaves:
``answers.json``, a PLY per text, and a picture of all. Texts name no file: they come from outside.
"""

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.ply import write_ply
from oneformer3d.lifting.shapes import expect_shape

from .index import SceneIndex
from .query import QueryResult
from .vectors import NO_VIEW

MAX_RANKED = 20


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
) -> dict[str, bool | list[dict[str, object]]]:
    """One answer in plain values.

    Returns:
        ``found``, and ``masks``, the best first and none where nothing was found: each with
        ``mask`` (its row), ``score``, ``name``, ``num_points``, ``box`` (7 numbers as in the index)
        and ``views`` (``frame`` and pixel ``uv`` of those that show it best).
    """
    found = bool(result.found[text])
    ranked = result.ranked(text)[:max_ranked] if found else ()
    in_mask = result.mask_of_point[result.mask_of_point >= 0]
    sizes = np.bincount(in_mask, minlength=len(index.names))

    masks = [
        {
            'mask': int(mask),
            'score': float(result.scores[text, mask]),
            'name': index.names[mask],
            'num_points': int(sizes[mask]),
            'box': index.boxes[mask].tolist(),
            'views': _views(index, int(mask)),
        }
        for mask in ranked
    ]
    return {'found': found, 'masks': masks}


def _views(index: SceneIndex, mask: int) -> list[dict[str, object]]:
    """Frame and pixel of the views that show a mask best."""
    rows = zip(index.views.view[mask].tolist(), index.views.uv[mask].tolist())
    return [{'frame': index.frames[view], 'uv': uv} for view, uv in rows if view != NO_VIEW]
