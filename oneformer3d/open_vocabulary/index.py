"""What a scan is about, in one small file: a vector per mask and a mask per point.

Enters: vectors of K masks, which points they have, what is known of them. Leaves: a ``SceneIndex``
that answers texts without a network, and its file (2 bytes per point, half-precision vectors).
"""

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.errors import one_line
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.store.stamp import StoreStamp, check_stamp, stamp_from_dict

from .members import NO_MASK
from .query import (
    NAME_TEMPERATURE,
    QueryResult,
    answer,
    merge_groups,
    name_masks,
    normalize,
    score_texts,
)
from .vectors import NO_VIEW, MaskViews

MAX_MASKS = 0xFFFF  # the last 2-byte number means that a point has no mask
FORMAT = 'oneformer3d scene index 1'
# With fewer masks their mean is more of the objects than of what they have in common.
MIN_MASKS_OF_OFFSET = 8
_HEADER_BYTES = 8


@dataclass(frozen=True, eq=False)
class SceneIndex:
    """K masks of a scan of N points, in the space of text.

    Attributes:
        vectors: (K, D) float32 unit vectors, 0 for masks that no view sees.
        mask_of_point: (N,) int64 the best mask of each point, −1 for none.
        names: K names that a trained head gave, '' where it gave none.
        scores: (K,) float32 of that head, 0 where there is none.
        boxes: (K, 7) float32 upright boxes: centre and size in metres, yaw in radians.
        frames: V names of the views.
        views: which of them show each mask best.
        stamp: of the encoder whose text space this is.
        made_of: digest of the points, masks and images that it was made of, '' where unknown.

    Raises:
        ValueError: shapes that do not fit, masks that do not exist, or more than 65,535 masks.
    """

    vectors: NDArray[np.float32]
    mask_of_point: NDArray[np.int64]
    names: tuple[str, ...]
    scores: NDArray[np.float32]
    boxes: NDArray[np.float32]
    frames: tuple[str, ...]
    views: MaskViews
    stamp: StoreStamp
    made_of: str = ''

    def __post_init__(self) -> None:
        num_masks = expect_shape('vectors', self.vectors, 'K D')[0]
        expect_shape('mask_of_point', self.mask_of_point, 'N')
        expect_shape('scores', self.scores, 'K', K=num_masks)
        expect_shape('boxes', self.boxes, 'K 7', K=num_masks)
        num_best = expect_shape('views.view', self.views.view, 'K B', K=num_masks)[1]
        expect_shape('views.uv', self.views.uv, 'K B 2', K=num_masks, B=num_best)
        expect_shape('views.num_new', self.views.num_new, 'K B', K=num_masks, B=num_best)

        if len(self.names) != num_masks:
            raise ValueError(f'names: {len(self.names)} for {num_masks} masks')
        if num_masks > MAX_MASKS:
            raise ValueError(f'an index holds at most {MAX_MASKS} masks, got {num_masks}')
        if not np.isfinite(self.vectors).all():
            raise ValueError('vectors: expected finite numbers')
        _check_range('mask_of_point', self.mask_of_point, NO_MASK, num_masks)
        _check_range('views.view', self.views.view, NO_VIEW, len(self.frames))

    @cached_property
    def directions(self) -> NDArray[np.float32]:
        """What tells the masks apart: (K, D) unit vectors without what they have in common.

        All pictures of one room share a direction that says nothing about any object in it.
        """
        seen = np.any(self.vectors, axis=1)  # (K,)
        if seen.sum() < MIN_MASKS_OF_OFFSET:
            return self.vectors
        apart = self.vectors - self.vectors[seen].mean(0)
        return np.where(seen[:, None], normalize(apart), np.float32(0))

    def unlike_all(self, text_vectors: NDArray[np.float32]) -> NDArray[np.float32]:
        """What texts that are unlike the masks' mean m gain when it is taken off, as a loss (T, K).

            (v_k − m) · x / |v_k − m|  exceeds  v_k · x / |v_k − m|  by  −m · x / |v_k − m|

        Of a text that all pictures of a room are like, that gain is below 0 and wanted: it says
        nothing about any object. One that none of them is like must not gain from it.

        Args:
            text_vectors: (T, D) unit.
        """
        seen = self.vectors.any(1)  # (K,)
        if seen.sum() < MIN_MASKS_OF_OFFSET or text_vectors.shape[-1:] != self.vectors.shape[1:]:
            return np.zeros((len(text_vectors), len(self.vectors)), np.float32)
        mean = self.vectors[seen].mean(0)
        length = np.linalg.norm(self.vectors - mean, axis=1).clip(1e-6)  # (K,)
        return np.minimum(text_vectors @ mean, 0)[:, None] / length

    def query(
        self,
        text_vectors: NDArray[np.float32],
        negatives: NDArray[np.float32],
        *,
        group: NDArray[np.int64] | None = None,
        temperature: float = 0.1,
        threshold: float = 0.5,
    ) -> QueryResult:
        """Find what texts are about.

        Args:
            text_vectors: (T, D) unit.
            negatives: (M, D) unit vectors of nothing in particular.
            group: (T,) int64 ids 0…G−1; texts of one group are one question, asked with the
                direction of their mean, and the result has a row per group. None asks each.
            temperature: of ``score_texts``.
            threshold: what a score must exceed for its text to be found; 0.5 is neutral.

        Raises:
            ValueError: as ``score_texts``.
        """
        if group is not None:
            text_vectors = merge_groups(text_vectors, group)
        scores = score_texts(
            self.directions, text_vectors, negatives, temperature, self.unlike_all(text_vectors)
        )  # (T, K)
        return answer(scores, self.mask_of_point, threshold)

    def name(
        self,
        names: NDArray[np.float32],
        negatives: NDArray[np.float32],
        temperature: float = NAME_TEMPERATURE,
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The most likely of C names of each mask, see ``name_masks``."""
        return name_masks(self.directions, names, negatives, temperature)

    def save(self, path: str | Path) -> None:
        """Write the index; what was there stays until the new one is whole."""
        metadata = {
            'format': FORMAT,
            'names': json.dumps(self.names),
            'frames': json.dumps(self.frames),
            'stamp': self.stamp.to_bytes().decode(),
            'made_of': self.made_of,
        }
        arrays = {
            'vectors': self.vectors.astype(np.float16),
            'mask_of_point': np.where(
                self.mask_of_point == NO_MASK, MAX_MASKS, self.mask_of_point
            ).astype(np.uint16),
            'scores': self.scores.astype(np.float32),
            'boxes': self.boxes.astype(np.float32),
            'views': self.views.view.astype(np.int32),
            'uv': self.views.uv.astype(np.float32),
            'num_new': self.views.num_new.astype(np.int32),
        }
        atomic_write_bytes(path, save(arrays, metadata))


def load_index(path: str | Path, stamp: StoreStamp | None = None) -> SceneIndex:
    """Read an index.

    Args:
        path: that ``SceneIndex.save`` wrote.
        stamp: of the text encoder that will ask it; None does not compare.

    Raises:
        FileNotFoundError: no such file.
        ValueError: damaged, or of another kind; names the file.
        StampMismatchError: another encoder made it.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such scene index')
    content = path.read_bytes()

    try:
        arrays = load(content)
        metadata = _metadata(content)
        if metadata.get('format') != FORMAT:
            raise ValueError(f'not a {FORMAT}')
        stored = stamp_from_dict(json.loads(metadata['stamp']), str(path))
        index = SceneIndex(
            vectors=normalize(arrays['vectors'].astype(np.float32)),
            mask_of_point=_from_two_bytes(arrays['mask_of_point']),
            names=_texts(metadata['names']),
            scores=arrays['scores'],
            boxes=arrays['boxes'],
            frames=_texts(metadata['frames']),
            views=MaskViews(arrays['views'].astype(np.int64), arrays['uv'], arrays['num_new']),
            stamp=stored,
            made_of=metadata.get('made_of', ''),
        )
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(f'{path}: not a whole scene index ({one_line(error)})') from error

    check_stamp(stored, stamp, str(path))
    return index


def _metadata(content: bytes) -> dict[str, str]:
    """The texts of a safetensors file that ``load`` has accepted."""
    size = int.from_bytes(content[:_HEADER_BYTES], 'little')
    header = json.loads(content[_HEADER_BYTES : _HEADER_BYTES + size])
    return header.get('__metadata__', {})


def _texts(encoded: str) -> tuple[str, ...]:
    texts = json.loads(encoded)
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ValueError('expected a list of texts')
    return tuple(texts)


def _from_two_bytes(mask_of_point: NDArray[np.uint16]) -> NDArray[np.int64]:
    masks = mask_of_point.astype(np.int64)
    return np.where(masks == MAX_MASKS, NO_MASK, masks)


def _check_range(name: str, rows: NDArray[np.int64], least: int, limit: int) -> None:
    if rows.size and not least <= rows.min() <= rows.max() < limit:
        raise ValueError(f'{name}: rows {rows.min()} … {rows.max()}, but there are {limit}')
