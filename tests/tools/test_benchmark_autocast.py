"""tools/benchmarks/autocast.py compares the same results and tells the ratio."""

import argparse

import pytest

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/autocast')


def test_both_sides_are_compared(monkeypatch, capsys):
    monkeypatch.setattr(benchmark, 'WIDTHS', (8,))
    parser = argparse.ArgumentParser()
    benchmark.add_arguments(parser)
    report = benchmark.run(parser.parse_args(['--voxels', '800', '--repeats', '1']))
    for name in ('layer of 8, forward', 'layer of 8, both', 'Res16UNet34C, forward'):
        part = report[name]
        assert part['speedup'] == pytest.approx(part['float32_ms'] / part['autocast_ms'])
        assert (part['error'] > 0) == report['has_instructions']
        assert part['error'] < 0.1
    assert 'autocast ms' in capsys.readouterr().out
