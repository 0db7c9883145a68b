"""A long stream through the merging rule stays as small and as fast as it was."""

import argparse

import pytest

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/soak')


def soak(*words: str) -> dict:
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    return benchmark.run(parser.parse_args([*words]))


def test_every_object_is_one_track(capsys):
    report = soak('--frames', '60', '--stored', '12', '--objects', '6')
    assert report['num_tracks'] == 6
    assert report['num_ledger_bytes'] > 0
    assert '6 tracks of 6 objects' in capsys.readouterr().out


def test_too_short_a_stream_is_refused():
    with pytest.raises(ValueError, match='five rounds'):
        soak('--frames', '20', '--stored', '10')


@pytest.mark.slow
def test_memory_and_time_of_a_frame_do_not_grow():
    report = soak('--frames', '2500', '--stored', '100')
    assert report['num_tracks'] == 20
    assert report['bytes_per_frame'] < 1000
    assert report['time_ratio'] < 1.25  # other programs take turns; documented is the full run
