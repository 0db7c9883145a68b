"""A segmented scan named anew, by the words of whoever asks.

    masks of the model, and the superpoints that none covers → text-space vectors from the images
    each mask → the word that fits it best, or none

Enters: a ``Segmentation`` and the images of its scan. Leaves: a ``Segmentation`` whose classes are
the words. A word that is a class of the model may also be said by the model: a mask of that class
keeps it unless another word, or nothing in particular, fits the mask better. N points, K masks,
W words.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from oneformer3d.data.class_tables import distinct_colors
from oneformer3d.data.layouts import PosedFolder
from oneformer3d.open_vocabulary.index import SceneIndex
from oneformer3d.open_vocabulary.phrases import NEGATIVES
from oneformer3d.open_vocabulary.query import NOTHING, name_masks
from oneformer3d.structures import Segmentation

from .clock import Progress
from .opened_scene import scene_of_result
from .scan_images import ScanImageReader
from .scene_index import index_scene

MAX_WORDS = 1000


@dataclass(frozen=True)
class Vocabulary:
    """The words of a scan.

    Attributes:
        words: W of them, each once.
        negatives: phrases for nothing in particular; a mask that fits one of them best has no name.

    Raises:
        ValueError: no words, too many, an empty one, or one twice.
    """

    words: tuple[str, ...]
    negatives: tuple[str, ...] = NEGATIVES

    def __post_init__(self) -> None:
        if not 1 <= len(self.words) <= MAX_WORDS or len(set(self.words)) != len(self.words):
            raise ValueError(
                f'vocabulary: expected 1 to {MAX_WORDS} different words, got {len(self.words)}'
            )
        if not all(word.strip() for word in (*self.words, *self.negatives)):
            raise ValueError('vocabulary: an empty word')
        if not self.negatives:
            raise ValueError('vocabulary: expected at least one negative')


class TextNamer:
    """Names the masks of scans by a vocabulary.

    Args:
        vocabulary: of all scans.
        reader: of images, in the space of text; see ``text_image_reader``.
    """

    def __init__(self, vocabulary: Vocabulary, reader: ScanImageReader) -> None:
        self.vocabulary = vocabulary
        self.reader = reader
        encode = reader.clip.clip.encode_text
        self.words = encode(vocabulary.words).numpy()  # (W, D)
        self.negatives = encode(vocabulary.negatives).numpy()

    def __call__(
        self, result: Segmentation, recording: PosedFolder | None, progress: Progress | None = None
    ) -> Segmentation:
        """The same points and objects under the names of the vocabulary.

        Args:
            result: of a model.
            recording: images of the same scan.
            progress: see ``OneFormer3DInferencer``.

        Raises:
            ValueError: no images.
        """
        scene = scene_of_result(result, result.info.source, recording)
        index = index_scene(scene, self.reader, progress or _silent)
        names, fits = self.name(index, result.class_names)
        return rename_all(result, index, names, fits, self.vocabulary.words)

    def name(
        self, index: SceneIndex, class_names: Sequence[str]
    ) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The word of each mask (K,), −1 for none, and how likely it is among the words (K,).

        Args:
            index: K masks with the names that the model gave.
            class_names: all names that it gives.
        """
        named, likely = name_masks(index.directions, self.words, self.negatives)  # (K,), (K, W)
        position = {word: k for k, word in enumerate(self.vocabulary.words)}
        own = np.array([position.get(name, NOTHING) for name in index.names])  # (K,)

        # the model has chosen among its own classes; only words it does not know can differ
        known = np.isin(self.vocabulary.words, class_names)
        rivals = np.where(known, 0, likely).argmax(1) if len(own) else own
        rows = np.arange(len(own))
        loses = ~known.all() & (likely[rows, rivals] > likely[rows, own])
        named = np.where(own == NOTHING, named, np.where(loses, rivals, own))
        return named, likely[rows, named] * (named != NOTHING)


def rename_all(
    result: Segmentation,
    index: SceneIndex,
    names: NDArray[np.int64],
    fits: NDArray[np.float32],
    words: Sequence[str],
) -> Segmentation:
    """A segmentation under new names; objects and points of masks without one have none.

    Args:
        result: of K' instances.
        index: of K ≥ K' masks, the instances first.
        names: (K,) row of the words, −1 for none.
        fits: (K,) how likely the name is; scores of objects are multiplied by it.
        words: W names.
    """
    none = len(words)
    label_of_mask = np.append(np.where(names == NOTHING, none, names), none)
    semantic = label_of_mask[index.mask_of_point]  # (N,) 0…W

    instances = [
        replace(one, name=words[names[row]], label=int(names[row]), score=one.score * float(fit))
        for row, (one, fit) in enumerate(zip(result.instances, fits))
        if names[row] != NOTHING
    ]
    instances = sorted(instances, key=lambda one: -one.score)
    renamed = replace(
        result,
        semantic=semantic,
        panoptic_semantic=semantic,
        instances=tuple(instances),
        class_names=tuple(words),
        class_ids=tuple(range(1, none + 1)),
        palette=distinct_colors(none),
    )
    # objects stand above all words, so that no two segments share a number
    segments = np.where(semantic == none, -1, semantic)
    objects = renamed.instance
    return replace(renamed, panoptic=np.where(objects >= 0, none + objects, segments))


def _silent(step: str, done: int, total: int) -> None:
    """Where nobody looks."""
