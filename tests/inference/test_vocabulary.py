"""Scans named by words: whose word counts, what has no name, and the whole way from a folder."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from oneformer3d import Inferencer
from oneformer3d.inference.vocabulary import TextNamer, Vocabulary, rename_all
from tests.helpers.clip_files import write_small_clip
from tests.viewer.scenes import small_asked, small_segmentation

AXES = {'chair': 0, 'lamp': 1, 'piano': 1, 'rug': 2, 'nothing': 3}


def namer(*words: str) -> TextNamer:
    """Words on the axes of a small space; "nothing" is what is nothing in particular."""

    def encode(texts):
        return torch.eye(4)[[AXES[text] for text in texts]]

    reader = SimpleNamespace(clip=SimpleNamespace(clip=SimpleNamespace(encode_text=encode)))
    return TextNamer(Vocabulary(words, ('nothing',)), reader)


def index_of(*rows):
    """Masks chair, lamp and a piece of floor that look like these rows."""
    index = small_asked().index
    vectors = np.array(rows, np.float32)
    return SimpleNamespace(directions=vectors, names=index.names, mask_of_point=index.mask_of_point)


def test_words_name_what_looks_like_them():
    index = index_of([1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0])
    words = namer('rug', 'piano', 'chair')
    names, fits = words.name(index, ('floor', 'lamp'))
    assert names.tolist() == [2, -1, 0]
    assert fits[0] > 0.99
    assert fits[1] == 0

    renamed = rename_all(small_segmentation(), index, names, fits, words.vocabulary.words)
    assert renamed.class_names == ('rug', 'piano', 'chair')
    assert [one.name for one in renamed.instances] == ['chair']
    np.testing.assert_array_equal(renamed.semantic, np.repeat([0, 2, 3], [2000, 600, 400]))
    np.testing.assert_array_equal(renamed.panoptic, np.repeat([0, 3, -1], [2000, 600, 400]))


def test_a_trained_class_among_the_words_stays_unless_another_word_fits_better():
    """The chair looks like a lamp, which the model knows too: it has chosen. The lamp looks like
    a piano, which the model cannot say."""
    index = index_of([0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1])
    classes = ('floor', 'chair', 'lamp')
    assert namer('chair', 'lamp').name(index, classes)[0].tolist() == [0, 1, -1]
    # piano and lamp are one direction here: what fits no better does not win
    assert namer('chair', 'lamp', 'piano').name(index, classes)[0].tolist() == [2, 1, -1]


def test_scores_rank_by_name_and_mask():
    index = index_of([0.7, 0.1, 0, 0.7], [0, 1, 0, 0], [0, 0, 1, 0])
    names, fits = namer('chair', 'lamp').name(index, ())
    renamed = rename_all(small_segmentation(), index, names, fits, ('chair', 'lamp'))
    scores = [one.score for one in renamed.instances]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize('words', [(), ('a', 'a'), ('a', ' '), ('a',) * 2000])
def test_what_is_no_vocabulary_is_refused(words):
    with pytest.raises(ValueError, match='vocabulary'):
        Vocabulary(words)


def test_a_folder_is_named_by_words(tiny_rooms, tmp_path):
    weights = str(write_small_clip(tmp_path / 'clip.pth'))
    words = ['a piano', 'a chair', 'the wall']
    inferencer = Inferencer(clip={'weights': weights}, vocabulary=words, max_views=4, device='cpu')
    folder = min((tiny_rooms / 'posed_images').iterdir())
    result = inferencer(folder, out_dir=tmp_path / 'out')
    assert result.class_names == tuple(words)
    assert set(np.unique(result.semantic)) <= {0, 1, 2, 3}
    assert {one.name for one in result.instances} <= set(words)
    assert inferencer.key(folder) != Inferencer(device='cpu').key(folder)

    with pytest.raises(ValueError, match='images'):
        inferencer(result.points)


def test_words_need_a_clip():
    with pytest.raises(ValueError, match='vocabulary'):
        Inferencer(vocabulary=['a chair'], device='cpu')
