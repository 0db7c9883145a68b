"""A scene as one HTML file: no network, no server, no other file.

Enters: a ``ViewedScene``. Leaves: a page of a few megabytes with its own small WebGL code. Points
are 16-bit steps of the scene's extent, labels 8 or 16 bits, all compressed; texts of users
and names of files are data that the page shows as text and never as HTML.
"""

import base64
import html
import json
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.plain import Json
from oneformer3d.visualization.features import similarity_colors

from .scene import NONE, ViewedAnswer, ViewedClass, ViewedScene

PAGE = 'scene.html'
_STEPS = 0xFFFF  # of an axis
_ALONE = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'"
_SERVED = f"{_ALONE}; img-src 'self'; connect-src 'self'"
_CODE = ('camera.js', 'drawing.js', 'tools.js', 'objects.js', 'colors.js', 'page.js')
_LIVE_CODE = ('pictures.js', 'editing.js', 'rendering.js', 'live.js')
_HERE = Path(__file__).parent


def write_page(path: str | Path, scene: ViewedScene) -> None:
    """Write a scene as one self-contained HTML file, whole or not at all."""
    atomic_write_bytes(path, page_of(scene).encode())


def page_of(scene: ViewedScene, live: dict[str, Json] | None = None) -> str:
    """The text of the page.

    Args:
        scene: to show.
        live: what a server answers besides, see ``live.py``; None for a page by itself.
    """
    content = {**scene_json(scene), 'live': live}
    # within a script element nothing but its end tag has a meaning, and "<" can begin one
    data = json.dumps(content, ensure_ascii=True, allow_nan=False)
    policy = _ALONE if live is None else _SERVED
    parts = {
        '%POLICY%': policy,
        '%TITLE%': html.escape(scene.title),
        '%STYLE%': _read('page.css'),
        '%SCRIPT%': ''.join(map(_read, _CODE if live is None else (*_CODE, *_LIVE_CODE))),
        '%SCENE%': data.replace('<', '\\u003c'),
    }
    page = _read('page.html')
    before, *rest = _split_at(page, tuple(parts))
    return before + ''.join(parts[name] + text for name, text in zip(parts, rest))


def scene_json(scene: ViewedScene) -> dict[str, Json]:
    """All that the page knows; what is not drawn is not in it."""
    low, high = scene.xyz.min(0), scene.xyz.max(0)
    extent = np.maximum(high - low, 1e-6)
    steps = np.rint((scene.xyz - low) / extent * _STEPS).astype(np.uint16)  # (n, 3)

    return {
        'title': scene.title,
        'num_points': scene.num_points,
        'low': _rounded(low),
        'extent': _rounded(extent),
        'ceiling': scene.ceiling,
        'focus': _focus(scene),
        'threshold': scene.threshold,
        'heat': _packed(similarity_colors(np.linspace(0, 1, 256))),
        'xyz': _packed(steps),
        'rgb': _packed(scene.rgb),
        **labels_json(scene),
        'mask': _packed_labels(scene.mask),
        'num_whole': scene.num_whole,
        'pieces': scene.pieces.tolist(),
        'features': scene.features.tolist(),
        'truth': None if scene.truth is None else _packed_labels(scene.truth),
        'truth_classes': _classes_json(scene.truth_classes),
        'answers': [answer_json(one) for one in scene.answers],
    }


def labels_json(scene: ViewedScene) -> dict[str, Json]:
    """What a correction of labels may change."""
    return {
        'semantic': _packed_labels(scene.semantic),
        'instance': _packed_labels(scene.instance),
        'panoptic': _packed_labels(scene.panoptic),
        'panoptic_colors': scene.panoptic_colors.tolist(),
        'verdict': None if scene.verdict is None else _packed_labels(scene.verdict),
        'classes': _classes_json(scene.classes),
        'objects': [
            {
                'name': one.name,
                'label': one.label,
                'score': round(one.score, 4),
                'count': one.num_points,
                'box': _rounded(np.array(one.box)),
                'color': list(one.color),
            }
            for one in scene.objects
        ],
    }


def _classes_json(classes: tuple[ViewedClass, ...]) -> list[Json]:
    return [
        {'name': one.name, 'color': list(one.color), 'count': one.num_points} for one in classes
    ]


def _focus(scene: ViewedScene) -> list[Json]:
    """Centre and size of what the camera looks at first: stray points and the ceiling are not."""
    shown = scene.xyz if scene.ceiling is None else scene.xyz[scene.xyz[:, 2] <= scene.ceiling]
    low, high = np.percentile(shown, [2, 98], axis=0)
    return [*_rounded((low + high) / 2), *_rounded(high - low)]


def answer_json(answer: ViewedAnswer) -> dict[str, Json]:
    """An answer as the page reads it."""
    return {
        'text': answer.text,
        'found': answer.found,
        'scores': _packed(np.rint(255 * answer.scores).astype(np.uint8)),
        'ranked': [mask.to_json() for mask in answer.ranked],
    }


def _packed(values: NDArray[np.unsignedinteger]) -> dict[str, Json]:
    """An array as the page unpacks it: bits per value, and compressed little-endian values."""
    little = values.astype(values.dtype.newbyteorder('<'))
    data = base64.b64encode(zlib.compress(little.tobytes(), 9)).decode()
    return {'bits': 8 * values.dtype.itemsize, 'data': data}


def _packed_labels(labels: NDArray[np.int64]) -> dict[str, Json]:
    """Labels in as few bits as they need; the greatest number of so many bits is none."""
    dtype = np.uint8 if labels.max(initial=0) < np.iinfo(np.uint8).max else np.uint16
    none = np.iinfo(dtype).max
    if labels.max(initial=0) >= none:
        raise ValueError(f'a page holds labels below {none}, got {labels.max()}')
    return _packed(np.where(labels == NONE, none, labels).astype(dtype))


def _rounded(values: NDArray[np.floating]) -> list[Json]:
    return [round(float(value), 5) for value in values]


def _split_at(page: str, names: tuple[str, ...]) -> list[str]:
    """The page's pieces between placeholders, which come once each and in this order."""
    pieces = []
    for name in names:
        before, _, page = page.partition(name)
        pieces.append(before)
    return [*pieces, page]


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding='utf-8')
