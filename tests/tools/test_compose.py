"""tools/compose.py: a chain of small scripts, interrupted, changed and gone on with."""

import json
import shlex
from pathlib import Path

import pytest
import yaml

from oneformer3d.experiments.compose import (
    StageFailedError,
    StageTimes,
    finished_stages,
    run_stage,
    run_stages,
    seconds_together,
)
from oneformer3d.experiments.composition import read_composition, select_stages
from tests.helpers.load_tool import load_tool
from tests.tools.conftest import REPOSITORY

# Appends its first word to a log, and fails while a file "broken" is there.
SCRIPT = """
import sys
from pathlib import Path
name, folder, *more = sys.argv[1:]
folder = Path(folder)
if name == 'b' and (folder / 'broken').exists():
    sys.exit(3)
with open(folder / 'log.txt', 'a') as log:
    log.write(name + '\\n')
(folder / name).write_text(' '.join(more))
"""
CHAIN = """
variables:
  work_dir: {folder}
  word: first
  both: "{{word}} and more"
stages:
  - name: one
    run: {folder}/script.py a {{work_dir}} "{{both}}"
    makes: ["{{work_dir}}/a"]
  - name: two
    run: {folder}/script.py b {{work_dir}} "{{@{{work_dir}}/a}}"
    args: {{level: 3, list: [x, y], off: false, empty: null}}
    makes: ["{{work_dir}}/b"]
  - name: three
    run: {folder}/script.py c {{work_dir}}
    cfg_options: {{a.b: "{{word}}"}}
    makes: ["{{work_dir}}/c"]
"""
# Waits until its partner has begun; one that runs alone fails after ten seconds.
MEETING = """
import os, sys, time
from pathlib import Path
name, partner, folder = sys.argv[1:]
folder = Path(folder)
(folder / name).write_text(os.environ['OMP_NUM_THREADS'])
print('met by', name)
end = time.monotonic() + 10
while not (folder / partner).exists():
    if time.monotonic() > end:
        sys.exit(7)
    time.sleep(0.01)
"""
FORK = """
variables: {{work_dir: {folder}}}
stages:
  - {{name: root, run: {folder}/script.py a {folder}, makes: ["{folder}/a"]}}
  - {{name: left, run: {folder}/meeting.py l r {folder}, makes: ["{folder}/l"]}}
  - {{name: right, after: [root], run: {folder}/meeting.py r l {folder}, makes: ["{folder}/r"]}}
  - {{name: end, after: [left, right], run: {folder}/script.py b {folder}, makes: ["{folder}/b"]}}
"""


@pytest.fixture
def fork(tmp_path) -> Path:
    (tmp_path / 'script.py').write_text(SCRIPT)
    (tmp_path / 'meeting.py').write_text(MEETING)
    (tmp_path / 'fork.yaml').write_text(FORK.format(folder=tmp_path))
    return tmp_path / 'fork.yaml'


@pytest.fixture
def chain(tmp_path) -> Path:
    (tmp_path / 'script.py').write_text(SCRIPT)
    (tmp_path / 'chain.yaml').write_text(CHAIN.format(folder=tmp_path))
    return tmp_path / 'chain.yaml'


def run_all(path: Path, jobs: int = 1, **overrides: str) -> list[str]:
    """Names of the stages that ran."""
    lines = []
    composition = read_composition(path, overrides)
    run_stages(composition, composition.stages, announce=lines.append, jobs=jobs)
    return [line.split(':')[0].split()[-1] for line in lines if 'finished before' not in line]


def logged(chain: Path) -> str:
    return ''.join((chain.parent / 'log.txt').read_text().split())


def test_stages_run_once_in_order(chain):
    assert run_all(chain) == ['one', 'two', 'three']
    assert run_all(chain) == []
    assert logged(chain) == 'abc'
    assert (chain.parent / 'a').read_text() == 'first and more'
    assert (chain.parent / 'b').read_text() == 'first and more --level 3 --list x y'
    assert (chain.parent / 'c').read_text() == '--cfg-options a.b=first'


def test_a_changed_variable_repeats_all_that_depends_on_it(chain):
    run_all(chain)
    assert run_all(chain, word='second') == ['one', 'two', 'three']
    assert (chain.parent / 'b').read_text().startswith('second and more')


def test_a_missing_product_repeats_from_there(chain):
    run_all(chain)
    (chain.parent / 'b').unlink()
    assert run_all(chain) == ['two', 'three']


def test_a_failed_stage_is_gone_on_with(chain):
    (chain.parent / 'broken').touch()
    with pytest.raises(StageFailedError, match="'two' ended with status 3"):
        run_all(chain)
    (chain.parent / 'broken').unlink()
    assert run_all(chain) == ['two', 'three']
    assert logged(chain) == 'abc'


def test_stages_that_do_not_wait_for_each_other_run_side_by_side(fork, monkeypatch):
    monkeypatch.setenv('OMP_NUM_THREADS', '6')
    assert run_all(fork, jobs=2) == ['root', 'left', 'right', 'end']
    assert logged(fork) == 'ab'
    assert [(fork.parent / name).read_text() for name in 'lr'] == ['3', '3']
    assert (fork.parent / 'logs' / 'right.log').read_text() == 'met by r\n'
    assert not (fork.parent / 'logs' / 'left.log').exists()
    assert run_all(fork, jobs=2) == []


def test_one_job_runs_them_in_turn(fork):
    with pytest.raises(StageFailedError, match="'left' ended with status 7"):
        run_all(fork, jobs=1)
    with pytest.raises(ValueError, match='jobs'):
        run_all(fork, jobs=0)


def test_a_missing_product_repeats_only_what_waits_for_it(fork):
    run_all(fork, jobs=2)
    (fork.parent / 'r').unlink()
    assert run_all(fork, jobs=2) == ['right', 'end']


def test_a_failure_waits_for_what_runs_beside_it(fork):
    (fork.parent / 'meeting.py').write_text(MEETING + "\nif name == 'r': sys.exit(3)\n")
    with pytest.raises(StageFailedError, match=r"'right' ended with status 3; .*logs/right\.log"):
        run_all(fork, jobs=2)
    assert list(finished_stages(read_composition(fork))) == ['root', 'left']
    (fork.parent / 'meeting.py').write_text(MEETING)
    assert run_all(fork, jobs=2) == ['right', 'end']


def test_told_to_end_it_ends_its_stages(fork):
    (fork.parent / 'r').touch()  # both stages have met before they begin
    (fork.parent / 'l').touch()
    (fork.parent / 'meeting.py').write_text(MEETING + '\ntime.sleep(60)\n')
    composition = read_composition(fork)

    def interrupt(line: str) -> None:
        if 'right' in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # returns at once: the sleeping process is gone
        run_stages(composition, composition.stages, announce=interrupt, jobs=2)
    assert list(finished_stages(composition)) == ['root']


def test_seconds_together_count_each_second_once():
    times = [StageTimes(5, 10, 1), StageTimes(0, 8, 1), StageTimes(6, 2, 1), StageTimes(50, 4, 1)]
    assert seconds_together(times) == 19
    assert seconds_together([]) == 0


def test_a_record_of_another_version_runs_again(chain):
    run_all(chain)
    path = chain.parent / 'compose.json'
    record = json.loads(path.read_text())
    del record['two']['began']
    path.write_text(json.dumps(record))
    assert run_all(chain) == ['two', 'three']


def test_a_repeated_stage_leaves_none_after_it_finished(chain):
    run_all(chain)
    composition = read_composition(chain)
    run_stage(composition, composition.stages[0])
    assert list(finished_stages(composition)) == ['one']


def test_times_count_the_work_of_a_stage_and_stay_with_it(tmp_path):
    path = tmp_path / 'chain.yaml'
    work = 'import time\nwhile time.process_time() < 0.3: pass'
    stage = {'name': 'work', 'run': shlex.join(['-c', work])}
    path.write_text(yaml.safe_dump({'variables': {'work_dir': str(tmp_path)}, 'stages': [stage]}))
    composition = read_composition(path)

    times = run_stage(composition, composition.stages[0])
    assert times.processor_seconds >= 0.3
    assert finished_stages(composition) == {'work': times}


def test_a_stage_that_does_not_make_what_it_promises_is_not_finished(chain):
    text = chain.read_text().replace('makes: ["{work_dir}/a"]', 'makes: ["{work_dir}/other"]')
    chain.write_text(text)
    with pytest.raises(StageFailedError, match='other'):
        run_all(chain)
    assert finished_stages(read_composition(chain)) == {}


def test_selection(chain):
    composition = read_composition(chain)

    def names(**chosen):
        return [stage.name for stage in select_stages(composition, **chosen)]

    assert names(first='two') == ['two', 'three']
    assert names(last='two') == ['one', 'two']
    assert names(only=['three', 'one']) == ['one', 'three']
    with pytest.raises(ValueError, match='four'):
        names(only=['four'])


@pytest.mark.parametrize(
    ('content', 'message'),
    [
        ('- 1', 'expected names with values'),
        ('stages: []', 'expected "variables"'),
        ('variables: {work_dir: x}\nstages: [{name: a, run: b, odd: 1}]', 'a stage has'),
        ('variables: {work_dir: x}\nstages: [{name: a, run: "{nothing}"}]', 'no variable'),
        ('variables: {work_dir: x}\nstages: [{name: a, run: b, after: [c]}]', 'after should list'),
        ('variables: {work_dir: x}\nstages: [{name: a, run: b, after: a}]', 'after should list'),
        ('variables: {work_dir: x}\nstages: [{name: a, run: b}, {name: a, run: c}]', 'before it'),
        ('variables: {work_dir: x}\nstages: []', 'at least one stage'),
        ('variables: {a: x}\nstages: [{name: a, run: b}]', 'work_dir'),
        ('variables: !!python/object/apply:os.getcwd []\nstages: []', 'not readable as YAML'),
    ],
)
def test_bad_files_are_refused(tmp_path, content, message):
    path = tmp_path / 'chain.yaml'
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_composition(path)


def test_an_override_of_no_variable_is_refused(chain):
    with pytest.raises(ValueError, match='no variables wrod'):
        read_composition(chain, {'wrod': 'x'})


def test_the_committed_chain_names_tools_and_settings_that_exist():
    composition = read_composition(REPOSITORY / 'configs' / 'composer.yaml', {'data': 'somewhere'})
    assert composition.stage_names() == [
        'data', 'clip', 'uv', 'extract', 'extract_text', 'train', 'test', 'pictures',
    ]  # fmt: skip
    for stage in composition.stages:
        assert (REPOSITORY / stage.command[0]).is_file()


def test_the_tool(chain, monkeypatch, capfd):
    monkeypatch.chdir(REPOSITORY)
    tool, config = load_tool('compose'), ['--config', str(chain)]
    tool.main([*config, '--list'])
    assert capfd.readouterr().out.count('to do') == 3
    tool.main([*config, '--until', 'one', '--set', 'word=other'])
    assert list(json.loads((chain.parent / 'compose.json').read_text())) == ['one']
    (chain.parent / 'broken').touch()
    with pytest.raises(StageFailedError, match="'two' ended with status 3"):
        tool.main([*config, '--set', 'word=other'])
    assert 'one: finished before' in capfd.readouterr().out
    with pytest.raises(ValueError, match='expected NAME=VALUE'):
        tool.main([*config, '--set', 'word'])
