"""Answers on disk: the ranking, the scores of points, and texts that mean harm."""

import json

import numpy as np
import pytest

from oneformer3d.files.ply import read_ply
from oneformer3d.open_vocabulary.answers import write_answers
from tests.open_vocabulary.test_index import make_index

TEXTS = ('a chair', '../../etc/<script>alert(1)</script>\n')


def ask():
    index = make_index(20, width=64)
    # the second text is the negative itself: all masks score 0.5 for it, up to rounding
    negatives = index.directions[[9]]
    return index, index.query(index.directions[[4, 9]], negatives, threshold=0.55)


def test_answers_list_the_best_first_and_abstain(tmp_path):
    index, result = ask()
    xyz = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    write_answers(tmp_path / 'out', index, result, TEXTS, xyz, max_ranked=5)

    first, second = json.loads((tmp_path / 'out' / 'answers.json').read_text())
    assert (first['text'], second['text']) == TEXTS
    assert first['found']
    assert first['masks'][0]['mask'] == 4
    scores = [mask['score'] for mask in first['masks']]
    assert len(scores) == 5
    assert scores == sorted(scores, reverse=True)
    assert first['masks'][0]['num_points'] == (index.mask_of_point == 4).sum()
    assert len(first['masks'][0]['views']) == (index.views.view[4] >= 0).sum()
    assert not second['found']
    assert second['masks'] == []


def test_clouds_hold_the_score_of_each_points_mask(tmp_path):
    index, result = ask()
    xyz = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    write_answers(tmp_path, index, result, TEXTS, xyz)

    back, _, extra = read_ply(tmp_path / 'answer_0000.ply')
    np.testing.assert_allclose(back, xyz, atol=1e-6)
    expected = [0 if mask < 0 else result.scores[0, mask] for mask in index.mask_of_point]
    np.testing.assert_allclose(extra['score'], expected, atol=1e-6)


def test_texts_name_no_file(tmp_path):
    index, result = ask()
    write_answers(tmp_path / 'out', index, result, TEXTS, np.zeros((200, 3), np.float32))
    names = sorted(path.name for path in tmp_path.rglob('*') if path.is_file())
    assert names == ['answer_0000.ply', 'answer_0001.ply', 'answers.json']


def test_other_points_or_texts_write_nothing(tmp_path):
    index, result = ask()
    with pytest.raises(ValueError, match='xyz'):
        write_answers(tmp_path / 'out', index, result, TEXTS, np.zeros((199, 3), np.float32))
    with pytest.raises(ValueError, match='scores'):
        write_answers(tmp_path / 'out', index, result, TEXTS[:1], np.zeros((200, 3), np.float32))
    assert not (tmp_path / 'out').exists()
