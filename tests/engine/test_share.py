"""Shares are disjoint and together hold everything."""

import pytest

from oneformer3d.engine.share import Share, read_share, share_of


@pytest.mark.parametrize('count', [1, 2, 3, 7, 20])
def test_shares_part_the_work(count):
    pieces = list(range(13))
    shares = [Share(index, count).of(pieces) for index in range(count)]
    assert sorted(piece for share in shares for piece in share) == pieces
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


@pytest.mark.parametrize('text', ['', '1', '2/2', '-1/2', '1/0', 'a/b', '1/2/3', '0.5/2'])
def test_a_share_that_is_none(text):
    with pytest.raises(ValueError, match='I'):
        read_share(text)


def test_the_argument_wins_over_torchrun():
    environment = {'RANK': '1', 'WORLD_SIZE': '2'}
    assert share_of(None, environment) == Share(1, 2)
    assert share_of('0/3', environment) == Share(0, 3)
    assert share_of(None, {}) == Share()
