"""tools/demo.py: its composition, its report, and once the whole way."""

import json

import pytest

from oneformer3d.experiments.compose import StageTimes
from oneformer3d.experiments.composition import read_composition
from tests.helpers.load_tool import load_tool
from tests.tools.conftest import REPOSITORY


@pytest.fixture
def stages(monkeypatch):
    """Words → stage → command, of the demo with these arguments."""
    monkeypatch.chdir(REPOSITORY)
    tool = load_tool('demo')

    def read(*words):
        overrides = tool.variables(tool.parse_args(list(words)))
        composition = read_composition('configs/demo.yaml', overrides)
        return {stage.name: ' '.join(stage.command) for stage in composition.stages}

    return read


def test_each_stage_is_a_tool(stages):
    commands = stages()
    assert list(commands) == [
        'data', 'points', 'clip', 'features', 'fused', 'test_points', 'test_fused', 'predict',
        'ask',
    ]  # fmt: skip
    for command in commands.values():
        assert (REPOSITORY / command.split()[0]).is_file()
    assert 'train_cfg.max_epochs=20' in commands['points']
    assert 'load_from={@work_dirs/demo/points/last_checkpoint}' in commands['fused']
    assert '--data-root data/synthetic' in commands['fused']
    assert '--clip-store work_dirs/demo/clip_feat' in commands['test_fused']
    assert '--text a chair a table' in commands['ask']
    assert '--clip-weights work_dirs/demo/clip/tiny_clip.pth' in commands['ask']


def test_arguments_change_the_composition(stages):
    commands = stages('--out', 'o', '--data', 'd', '--num-val', '3', '--epochs', '2')
    assert '--out d' in commands['data']
    assert '--num-val 3' in commands['data']
    for name in ('points', 'fused'):
        assert 'train_cfg.max_epochs=2' in commands[name]
        assert f'--work-dir o/{name}' in commands[name]
    quick = stages('--quick', '--num-train', '5')
    assert '--out work_dirs/demo_quick/rooms --num-train 5 --num-val 1' in quick['data']


def test_the_report_has_metrics_times_and_files(tmp_path):
    tool = load_tool('demo')
    for name, value in (('points', 0.5), ('fused', 0.625)):
        metrics = dict.fromkeys(tool.HEADLINES.values(), value)
        (tmp_path / f'metrics_{name}.json').write_text(json.dumps(metrics))
    for name in ('pictures/a.png', 'predict/room.ply'):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()

    times = {'points': StageTimes(0.0, 60.4, 90.0), 'test_points': StageTimes(60.0, 3.0, 4.0)}
    text = tool.write_report(tmp_path, times)
    assert text == (tmp_path / 'report.md').read_text()
    assert '| semantic mIoU | 50.0 | 62.5 |' in text
    assert '| test points | 3 | 4 |' in text
    assert '| **together** | 63 | 94 |' in text
    assert '![a](pictures/a.png)' in text
    assert '- `predict/room.ply`' in text
    assert '[scene.html](ask/scene.html)' in text


@pytest.mark.slow
def test_the_whole_way_on_three_rooms(run_tool, tmp_path):
    first = run_tool('tools/demo.py', '--quick', '--out', tmp_path)
    assert '8/9 predict: python' in first.stdout
    assert '| instance AP50 |' in (tmp_path / 'report.md').read_text()
    assert list(tmp_path.glob('predict/*'))
    assert (tmp_path / 'ask/scene.html').stat().st_size > 100_000
    again = run_tool('tools/demo.py', '--quick', '--out', tmp_path)
    assert again.stdout.count('finished before') == 9
