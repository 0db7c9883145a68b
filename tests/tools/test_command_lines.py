"""Every tool answers help and wrong arguments without importing anything heavy, in one spelling."""

import json
import re
import subprocess
import sys

import pytest

from oneformer3d.data.clouds.scale import METRES
from oneformer3d.engine.cli import UNITS
from oneformer3d.lifting.visibility import Visibility
from oneformer3d.tiny_clip.train import TinyClipSettings
from tests.conftest import REPOSITORY
from tests.helpers.load_tool import load_tool

TOOLS = sorted(path.stem for path in (REPOSITORY / 'tools').glob('*.py'))
HEAVY = ('torch', 'numpy', 'mmengine', 'mmcv', 'mmdet3d', 'open_clip', 'scipy', 'cv2')

# Runs one tool after the other in one process; once something heavy is imported it stays.
ASK = f"""
import contextlib, io, json, runpy, sys
answers = {{}}
for tool in {TOOLS}:
    for argument in ('--help', '--no-such-option'):
        sys.argv, text, status = [f'tools/{{tool}}.py', argument], io.StringIO(), None
        with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text):
            try:
                runpy.run_path(sys.argv[0], run_name='__main__')
            except SystemExit as ending:
                status = ending.code
        heavy = [name for name in {HEAVY} if name in sys.modules]
        answers[f'{{tool}} {{argument}}'] = (status, heavy, text.getvalue())
print(json.dumps(answers))
"""


@pytest.fixture(scope='module')
def answers() -> dict[str, list]:
    """What each tool said: its exit status, the heavy modules imported so far, its words."""
    result = subprocess.run(
        [sys.executable, '-c', ASK], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout)


def test_nothing_heavy_is_imported_before_the_arguments_are_right(answers):
    assert len(answers) == 2 * len(TOOLS) > 30
    for question, (status, heavy, _) in answers.items():
        assert status == (0 if question.endswith('--help') else 2), question
        assert not heavy, f'{question}: imports {heavy}'


def test_options_are_spelled_with_dashes(answers):
    for question, (_, _, text) in answers.items():
        listed = re.findall(r'^\s+(--[\w-]+)', text, re.MULTILINE)
        assert not [name for name in listed if '_' in name], question


def test_the_underscored_spelling_of_the_documents_is_read_too():
    tool = load_tool('build_uv_index')
    dashes, underscores = (
        tool.parse_args(
            [f'--data{x}root', 'rooms', f'--frames{x}per{x}scene=3', f'--edge{x}reject']
        )
        for x in '-_'
    )
    assert vars(dashes) == vars(underscores)
    assert (dashes.data_root, dashes.frames_per_scene) == ('rooms', 3)


def test_defaults_that_are_shown_are_those_of_the_records(answers):
    args = load_tool('train_tiny_clip').parse_args([])
    usual = TinyClipSettings()
    for name in ('steps', 'batch_size', 'crop_size', 'seed'):
        assert getattr(args, name) == getattr(usual, name)

    text = answers['build_uv_index --help'][2]
    assert f'metres (default: {Visibility().abs_tol})' in text
    assert f'(default: {Visibility().rel_tol})' in text


def test_units_are_those_that_clouds_know():
    assert tuple(METRES) == UNITS


def test_methods_of_fields_are_those_that_have_a_config():
    from oneformer3d.fields.fitting.settings import METHODS

    assert sorted(METHODS) == load_tool('fit_field').METHODS
