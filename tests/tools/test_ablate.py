"""tools/ablate.py: two small cells trained and tested for real, kept, made stale, reported."""

import shutil
import threading

import pytest
import torch
import yaml

from oneformer3d.experiments.ablation_report import group_iou, mean_and_deviation, update_report
from oneformer3d.experiments.ablation_results import read_results, write_result
from oneformer3d.experiments.ablation_table import cell_digest, in_order, read_table
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


def command(folder, path):
    """Words for tools/ablate.py: one seed of a table, with everything it leaves in a folder."""
    words = [path, '--out', folder / 'out.jsonl', '--work-dir', folder / 'work']
    return [str(word) for word in (*words, '--docs', folder / 'r.md', '--seeds', 0)]


@pytest.fixture(scope='module')
def finished(run_tool, tiny_rooms, tmp_path_factory):
    """Folder with small.yaml, its checkpoints in work/, out.jsonl and r.md; not to be changed."""
    folder = tmp_path_factory.mktemp('ablation')
    path = table_file(folder, tiny_rooms)
    run_tool('tools/ablate.py', *command(folder, path), '--jobs', '2')
    return folder


@pytest.fixture
def again(finished, tmp_path, capsys):
    """A copy of it, and a function that runs the table there and returns what was printed."""
    folder = tmp_path / 'copy'
    shutil.copytree(finished, folder)

    def run(*more):
        load_tool('ablate').main([*command(folder, folder / 'small.yaml'), *more])
        return capsys.readouterr().out

    return folder, run


def test_cells_are_trained_tested_and_reported(finished):
    results = read_results(finished / 'out.jsonl')
    assert list(results) == [('first', 0), ('second', 0)]
    first, second = results.values()
    assert 0 < first['cpu_minutes']['train'] < 5
    assert 'semantic/IoU/wall' in first['metrics']['default']
    assert second['metrics'].keys() == {'plain', 'again'}

    text, miou = (finished / 'r.md').read_text(), first['metrics']['default']['semantic/mIoU']
    assert f'| the first | {100 * miou:.1f} |' in text
    assert '| second, again |' in text


def test_a_cell_starts_from_the_weights_of_another(finished):
    """The second learns nothing, so that only the norms' running statistics change."""
    before, after = (
        weights(finished / 'work' / f'{cell}_seed0', 1) for cell in ('first', 'second')
    )
    learnt = [name for name in before if 'running' not in name and 'num_batches' not in name]
    assert_same_weights(
        {n: after[n] for n in learnt}, {n: before[n] for n in learnt}, rtol=0, atol=0
    )
    assert any(not torch.equal(after[name], before[name]) for name in before)


def test_what_is_done_is_not_run_again(again):
    folder, run = again
    before = (folder / 'out.jsonl').stat().st_mtime_ns
    assert run().count('done before') == 2
    assert (folder / 'out.jsonl').stat().st_mtime_ns == before


def test_a_start_whose_training_was_interrupted_is_trained_to_its_end(again):
    folder, run = again
    record = folder / 'work' / 'first_seed0' / 'trained.json'
    record.unlink()
    assert run().count('done before') == 1
    assert record.is_file()


def test_other_weights_to_start_from_train_a_cell_anew(again):
    """As a start that was trained again on another machine has them."""
    folder, run = again
    checkpoint = folder / 'work' / 'first_seed0' / 'epoch_1.pth'
    content = torch.load(checkpoint, weights_only=True)
    next(iter(content['state_dict'].values())).add_(1)
    torch.save(content, checkpoint)

    before = read_results(folder / 'out.jsonl')
    assert run().count('done before') == 1
    after = read_results(folder / 'out.jsonl')
    assert after['second', 0]['init_weights'] != before['second', 0]['init_weights']
    assert after['first', 0] == before['first', 0]
    assert len(list((folder / 'work').glob('second_seed0_*'))) == 1


def test_a_new_title_changes_nothing_and_new_settings_all(again, tiny_rooms):
    folder, run = again
    path = table_file(folder, tiny_rooms, seeds=[0], title='Renamed')
    assert run('--list').count('done') == 2
    options = read_table(path).cells['first'].options | {'optim_wrapper.optimizer.lr': 0.5}
    table_file(folder, tiny_rooms, options=options)
    assert run('--list').count('old settings') == 2


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
    tool.run_cells(table, in_order(table), [0, 1], tmp_path / 'out.jsonl', tmp_path / 'work', 2, 1)
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
        tool.run_cells(
            table, in_order(table), [0, 1], tmp_path / 'out.jsonl', tmp_path / 'work', 1, 1
        )
    assert started == [('first', 0)]


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'cells': {'a': {'init': 'b', 'config': CONFIG}}, 'baseline': 'a'}, 'no such cell'),
        ({'cells': {'a': {'options': {}}}, 'baseline': 'a'}, 'cell a: expected config'),
        ({'cells': {'../a': {'config': CONFIG}}}, r'\.\./a'),
        ({'baseline': 'other'}, 'none of the cells'),
        ({'sceds': [1]}, 'a subset of'),
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
            write_result(tmp_path / 'out.jsonl', content)
    report = tmp_path / 'results.md'
    report.write_text('# Mine\n\nBefore.\n\n<!-- small -->\nold\n<!-- /small -->\n\nAfter.\n')
    update_report(report, table, tmp_path / 'out.jsonl')
    text = report.read_text()
    assert text.startswith('# Mine\n\nBefore.')
    assert text.endswith('After.\n')
    assert 'old' not in text
    # sd of 50 and 60 is 7.1
    assert '| the first | 55.0 ± 7.1 | – | 30.0 ± 0.0 | 2.0 | 0 1 |' in text
    assert '| second, plain | 75.0 ± 7.1 | +20.0 | 30.0 ± 0.0 | 2.0 | 0 1 |' in text
    update_report(report, table, tmp_path / 'out.jsonl')
    assert report.read_text() == text
    report.write_text('<!-- small -->')
    with pytest.raises(ValueError, match='without'):
        update_report(report, table, tmp_path / 'out.jsonl')


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
            write_result(tmp_path / 'out.jsonl', content)
    update_report(tmp_path / 'results.md', table, tmp_path / 'out.jsonl')
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
    out = REPOSITORY / 'docs' / 'results' / f'{table.name}.jsonl'
    if not out.is_file():
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
