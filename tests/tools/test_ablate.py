"""tools/ablate.py: two small cells trained and tested for real, kept, made stale, reported."""

import json
import threading

import pytest
import torch
import yaml

from oneformer3d.experiments.ablation import cell_digest, in_order, read_table, result_path
from oneformer3d.experiments.ablation_report import group_iou, mean_and_deviation, update_report
from tests.helpers.load_tool import load_tool
from tests.tools.conftest import REPOSITORY
from tests.tools.test_train import CONFIG, SMALL_MODEL, assert_same_weights, weights


def table_file(folder, root, **changes):
    loaders = [f'{split}_dataloader' for split in ('train', 'val', 'test')]
    options = {f'{loader}.dataset.data_root': str(root) for loader in loaders}
    options |= {f'{loader}.num_workers': 0 for loader in loaders}
    options |= dict(item.split('=') for item in SMALL_MODEL)
    options |= {'train_cfg.max_epochs': 1, 'param_scheduler.end': 1, 'train_cfg.val_begin': 9}
    content = {
        'title': 'Two small cells',
        'seeds': [0, 1],
        'baseline': 'first',
        'options': options,
        'groups': {'flat': ['wall', 'floor']},
        'cells': {
            'second': {
                'config': CONFIG,
                'init': 'first',
                'options': {'optim_wrapper.optimizer.lr': 0.0},
                'tests': {'plain': {}, 'again': {'model.test_cfg.topk_insts': 5}},
            },
            'first': {'config': CONFIG, 'title': 'the first'},
        },
        **changes,
    }
    path = folder / 'small.yaml'
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def read(folder, cell, seed=0):
    return json.loads((folder / f'{cell}_seed{seed}.json').read_text())


def test_cells_train_are_kept_and_run_again_when_their_settings_change(
    run_tool, tiny_rooms, tmp_path, capsys
):
    path = table_file(tmp_path, tiny_rooms)
    folders = ['--out', tmp_path / 'out', '--work-dir', tmp_path / 'work']
    command = ['tools/ablate.py', path, *folders, '--docs', tmp_path / 'r.md', '--seeds', '0']
    run_tool(*command, '--jobs', '2')
    first, second = (read(tmp_path / 'out', cell) for cell in ('first', 'second'))
    assert 0 < first['cpu_minutes']['train'] < 5
    # The second starts from the first's weights and learns nothing: only what the norms have seen
    # since is another.
    before, after = (
        weights(tmp_path / 'work' / f'{cell}_seed0', 1) for cell in ('first', 'second')
    )
    learnt = [name for name in before if 'running' not in name and 'num_batches' not in name]
    assert_same_weights(
        {n: after[n] for n in learnt}, {n: before[n] for n in learnt}, rtol=0, atol=0
    )
    assert any(not torch.equal(after[name], before[name]) for name in before)
    scores = first['metrics']['default']
    assert 'semantic/IoU/wall' in scores
    assert second['metrics'].keys() == {'plain', 'again'}
    text = (tmp_path / 'r.md').read_text()
    assert f'| the first | {100 * scores["semantic/mIoU"]:.1f} |' in text
    assert '| second, again |' in text

    before = result_path(tmp_path / 'out', read_table(path).cells['first'], 0).stat().st_mtime_ns
    again = [str(word) for word in command[1:]]
    ablate = load_tool('ablate').main
    ablate(again)
    assert capsys.readouterr().out.count('done before') == 2
    assert (tmp_path / 'out' / 'first_seed0.json').stat().st_mtime_ns == before

    # a start that was interrupted is not one
    (tmp_path / 'work' / 'first_seed0' / 'trained.json').unlink()
    ablate(again)
    assert capsys.readouterr().out.count('done before') == 1
    assert (tmp_path / 'work' / 'first_seed0' / 'trained.json').is_file()

    # other weights to start from, as a retrained start has on another machine; and a moved folder
    (tmp_path / 'work').rename(tmp_path / 'moved')
    again = [word.replace(str(tmp_path / 'work'), str(tmp_path / 'moved')) for word in again]
    checkpoint = tmp_path / 'moved' / 'first_seed0' / 'epoch_1.pth'
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content['state_dict'].values())).add_(1)
    torch.save(content, checkpoint)
    ablate(again)
    assert capsys.readouterr().out.count('done before') == 1
    assert read(tmp_path / 'out', 'second')['init_weights'] != second['init_weights']
    assert len(list((tmp_path / 'moved').glob('second_seed0_*'))) == 1

    table_file(tmp_path, tiny_rooms, seeds=[0], title='Renamed')
    ablate([*again, '--list'])
    assert capsys.readouterr().out.count('done') == 2
    changed = read_table(path).cells['first'].options | {'optim_wrapper.optimizer.lr': 0.5}
    table_file(tmp_path, tiny_rooms, options=changed)
    ablate([*again, '--list'])
    assert capsys.readouterr().out.count('old settings') == 2


def test_order_puts_the_start_first(tmp_path):
    table = read_table(table_file(tmp_path, tmp_path))
    assert [cell.name for cell in in_order(table)] == ['first', 'second']
    assert [cell.name for cell in in_order(table, ['second'])] == ['first', 'second']
    assert cell_digest(table, table.cells['first']) != cell_digest(table, table.cells['second'])
    with pytest.raises(ValueError, match=r'no cell third; there are second, first'):
        in_order(table, ['third'])


def test_the_order_of_settings_does_not_matter(tmp_path):
    options = {'train_cfg.max_epochs': 3, 'param_scheduler.end': 3}
    tables = [
        read_table(table_file(tmp_path, tmp_path, options=changed))
        for changed in (options, dict(reversed(options.items())), {**options, 'optim_wrapper.a': 1})
    ]
    same, turned, other = (cell_digest(table, table.cells['first']) for table in tables)
    assert same == turned != other


def test_a_cell_waits_for_the_one_that_it_starts_from_and_for_no_other(tmp_path, monkeypatch):
    """The second cell of seed 0 ends the first one of seed 1: neither waits for a whole wave."""
    table = read_table(table_file(tmp_path, tmp_path))
    tool, log, second_runs = load_tool('ablate'), [], threading.Event()

    def run(table, cell, seed, *_):
        log.append(('starts', cell.name, seed))
        if (cell.name, seed) == ('first', 1):
            assert second_runs.wait(60)
        if (cell.name, seed) == ('second', 0):
            second_runs.set()
        log.append(('ends', cell.name, seed))
        metrics = {'default': {'semantic/mIoU': 0.0}}
        return {'cell': cell.name, 'seed': seed, 'metrics': metrics, 'cpu_minutes': {}}

    monkeypatch.setattr(tool, 'run_cell', run)
    tool.run_cells(table, in_order(table), [0, 1], tmp_path / 'out', tmp_path / 'work', 2, 1)
    assert len(log) == 8
    for seed in (0, 1):
        assert log.index(('ends', 'first', seed)) < log.index(('starts', 'second', seed))


def test_a_cell_that_fails_ends_the_run(tmp_path, monkeypatch):
    table = read_table(table_file(tmp_path, tmp_path))
    tool, started = load_tool('ablate'), []

    def run(table, cell, seed, *_):
        started.append((cell.name, seed))
        raise ValueError('no room')

    monkeypatch.setattr(tool, 'run_cell', run)
    with pytest.raises(ValueError, match='no room'):
        tool.run_cells(table, in_order(table), [0, 1], tmp_path / 'out', tmp_path / 'work', 1, 1)
    assert started == [('first', 0)]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'cells': {'a': {'init': 'b', 'config': CONFIG}}, 'baseline': 'a'}, 'no such cell'),
        ({'cells': {'a': {'options': {}}}, 'baseline': 'a'}, 'cell a: expected config'),
        ({'cells': {'../a': {'config': CONFIG}}}, r'\.\./a'),
        ({'baseline': 'other'}, 'none of the cells'),
        ({'sceds': [1]}, 'some of'),
    ],
)
def test_bad_tables_name_the_fault(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        read_table(table_file(tmp_path, tmp_path, **changes))


def test_cells_that_wait_for_each_other_are_refused(tmp_path):
    cells = {'a': {'config': CONFIG, 'init': 'b'}, 'b': {'config': CONFIG, 'init': 'a'}}
    table = read_table(table_file(tmp_path, tmp_path, cells=cells, baseline=None))
    with pytest.raises(ValueError, match='starts from itself'):
        in_order(table)


def test_a_table_of_tags_is_not_read(tmp_path):
    path = tmp_path / 'evil.yaml'
    path.write_text('title: !!python/object/apply:os.getcwd []\ncells: {}\n')
    with pytest.raises(ValueError, match=r'evil\.yaml: not readable as YAML'):
        read_table(path)


def test_report_has_means_of_hand_made_numbers_and_keeps_the_prose(tmp_path):
    table = read_table(table_file(tmp_path, tmp_path))
    for seed, miou in enumerate((0.5, 0.6)):
        for cell, tests in (('first', ['default']), ('second', ['plain', 'again'])):
            gain = 0.2 * (cell == 'second')
            metrics = {'semantic/mIoU': miou + gain, 'semantic/IoU/wall': 0.3}
            content = {
                'cell': cell,
                'seed': seed,
                'digest': '',
                'init': None if cell == 'first' else 'first',
                'cpu_minutes': {'train': 2.0},
                'metrics': dict.fromkeys(tests, metrics),
            }
            result_path(tmp_path, table.cells[cell], seed).write_text(json.dumps(content))
    report = tmp_path / 'results.md'
    report.write_text('# Mine\n\nBefore.\n\n<!-- small -->\nold\n<!-- /small -->\n\nAfter.\n')
    update_report(report, table, tmp_path)
    text = report.read_text()
    assert text.startswith('# Mine\n\nBefore.')
    assert text.endswith('After.\n')
    assert 'old' not in text
    # sd of 50 and 60 is 7.1
    assert '| the first | 55.0 ± 7.1 | – | 30.0 ± 0.0 | 2.0 | 0 1 |' in text
    assert '| second, plain | 75.0 ± 7.1 | +20.0 | 30.0 ± 0.0 | 2.0 | 0 1 |' in text
    update_report(report, table, tmp_path)
    assert report.read_text() == text
    report.write_text('<!-- small -->')
    with pytest.raises(ValueError, match='without'):
        update_report(report, table, tmp_path)


def test_gain_is_between_cells_that_started_from_the_same_weights(tmp_path):
    cells = {name: {'config': CONFIG, 'init': 'start'} for name in ('points', 'fused')}
    cells = {'start': {'config': CONFIG}, **cells}
    table = read_table(table_file(tmp_path, tmp_path, cells=cells, baseline='points'))
    for cell, mious in (('start', (0.1, 0.2)), ('points', (0.3, 0.4)), ('fused', (0.8, 0.5))):
        for seed, miou in enumerate(mious):
            content = {
                'cell': cell,
                'seed': seed,
                'digest': '',
                'init': None if cell == 'start' else 'start',
                'init_weights': 'elsewhere' if (cell, seed) == ('fused', 0) else 'here',
                'cpu_minutes': {'train': 2.0},
                'metrics': {'default': {'semantic/mIoU': miou}},
            }
            result_path(tmp_path, table.cells[cell], seed).write_text(json.dumps(content))
    update_report(tmp_path / 'results.md', table, tmp_path)
    rows = (tmp_path / 'results.md').read_text().splitlines()
    gains = {row.split(' | ')[0].strip('| '): row.split(' | ')[2] for row in rows if ' ± ' in row}
    assert gains == {'start': '-20.0', 'points': '–', 'fused': '+10.0'}


def test_small_statistics():
    assert mean_and_deviation([float('nan')]) == '–'
    assert mean_and_deviation([1.0, float('nan')]) == '1.0'
    assert group_iou({'semantic/IoU/a': 0.2, 'semantic/IoU/b': float('nan')}, ['a', 'b']) == 0.2


TABLES = sorted((REPOSITORY / 'configs' / 'ablations').glob('*.yaml'))


@pytest.mark.parametrize('path', TABLES, ids=lambda path: path.stem)
def test_report_in_the_documentation_is_that_of_the_numbers(path, tmp_path):
    table = read_table(path)
    out = REPOSITORY / 'docs' / 'results' / table.name
    if not out.is_dir():
        pytest.skip('not run yet')
    report = tmp_path / 'results.md'
    report.write_text((REPOSITORY / 'docs' / 'results.md').read_text())
    update_report(report, table, out)
    assert report.read_text() == (REPOSITORY / 'docs' / 'results.md').read_text()


def test_one_line_about_a_cell_tells_when_the_budget_is_exceeded(tmp_path):
    table = read_table(table_file(tmp_path, tmp_path))
    result = {
        'cell': 'first',
        'seed': 3,
        'cpu_minutes': {'train': 4.0, 'default': 1.5},
        'metrics': {'default': {'semantic/mIoU': 0.123}},
    }
    line = load_tool('ablate').summary(table, result)
    assert line == 'first seed 3: default mIoU 12.3; 5.5 CPU minutes (more than 5)'
