"""The wheel: what it holds and asks for, and that it works from any folder once installed."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

from tests.conftest import REPOSITORY
from tests.helpers.color_segmentor import two_block_scene

SOURCES = ('oneformer3d', 'configs', 'tools', 'requirements', 'weights')
FILES = ('pyproject.toml', 'setup.py', 'model-index.yml', 'README.md', 'LICENSE')
PROJECT = tomllib.loads((REPOSITORY / 'pyproject.toml').read_text())['project']


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> Path:
    """The wheel of a copy of the sources, because building writes beside them."""
    folder = tmp_path_factory.mktemp('sources')
    for name in SOURCES:
        ignored = shutil.ignore_patterns('__pycache__', '*.egg-info')
        shutil.copytree(REPOSITORY / name, folder / name, ignore=ignored)
    for name in FILES:
        shutil.copy2(REPOSITORY / name, folder / name)

    pip('wheel', '--no-build-isolation', '--wheel-dir', folder / 'dist', folder)
    return next((folder / 'dist').glob('*.whl'))


@pytest.fixture(scope='module')
def installed(wheel, tmp_path_factory) -> Path:
    """A folder with the wheel's content over the libraries that are here."""
    folder = tmp_path_factory.mktemp('installed')
    pip('install', '--target', folder, wheel)
    return folder


def pip(action: str, *words: str | Path) -> None:
    command = [sys.executable, '-m', 'pip', '--quiet', '--disable-pip-version-check', action]
    done = subprocess.run(
        [*command, '--no-deps', '--no-index', *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]


def run(
    installed: Path, folder: Path, *words: str | Path, status: int = 0
) -> subprocess.CompletedProcess:
    """Run a program of the installed package from a folder that knows nothing of the sources."""
    environment = {**os.environ, 'PYTHONPATH': str(installed), 'OMP_NUM_THREADS': '1'}
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == status, done.stderr[-2000:]
    return done


def test_the_wheel_holds_what_a_user_needs(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    shipped = {name.partition('.mim/')[2] for name in names if '.mim/' in name}
    configs = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / 'configs').rglob('*.py')}
    assert {name for name in configs if 'ablations' not in name} <= shipped
    assert {'tools/infer.py', 'tools/dist_train.sh', 'model-index.yml', 'configs/metafile.yml'} <= (
        shipped
    )
    assert 'weights/rooms_points.safetensors' in shipped
    assert 'tools/ablate.py' not in shipped
    assert 'oneformer3d/py.typed' in names

    # every module of the package is there, and nothing but the package
    modules = {str(path.relative_to(REPOSITORY)) for path in REPOSITORY.glob('oneformer3d/**/*.py')}
    assert modules <= names
    assert {name.split('/')[0] for name in names} == {
        'oneformer3d',
        f'oneformer3d-{version()}.dist-info',
    }


def version() -> str:
    text = (REPOSITORY / 'oneformer3d' / 'version.py').read_text()
    return re.search(r"__version__ = '(.+)'", text)[1]


def test_infer_runs_from_another_folder_with_the_shipped_model(installed, tmp_path):
    two_block_scene(0.2).tofile(tmp_path / 'scan.bin')
    command = installed / 'bin' / 'oneformer3d'
    said = run(installed, tmp_path, command, 'infer', 'scan.bin', '--out', 'out').stdout
    assert f'{len(two_block_scene(0.2))} points' in said
    assert (tmp_path / 'out' / 'segmentation.ply').is_file()


def test_configs_inherit_from_ours_in_any_folder(installed, tmp_path):
    (tmp_path / 'mine.py').write_text("_base_ = ['oneformer3d::oneformer3d_scannet.py']\n")
    (tmp_path / 'other.py').write_text(
        "_base_ = ['oneformer3d::_base_/default_runtime.py', 'mmdet3d::_base_/schedules/cosine.py']"
    )
    code = f"""
import oneformer3d
from mmengine.config import Config
from oneformer3d.engine.configs import load_config
assert oneformer3d.__file__.startswith({str(installed)!r})
mine, other = Config.fromfile('mine.py'), Config.fromfile('other.py')
assert mine.model == load_config('configs/oneformer3d_scannet.py').model
print(mine.model.type, other.default_scope, len(other.param_scheduler))
"""
    said = run(installed, tmp_path, '-c', code).stdout.split()
    assert said == ['OneFormer3D', 'mmdet3d', '2']


def test_the_command_lists_its_tools_and_refuses_others(installed, tmp_path):
    command = installed / 'bin' / 'oneformer3d'
    text = run(installed, tmp_path, command, '--help').stdout
    assert re.search(r'^  infer +Segment scans', text, re.MULTILINE)
    assert 'ablate' not in text

    wrong = run(installed, tmp_path, command, 'infre', status=1).stderr
    assert "no tool 'infre'" in wrong
    assert run(installed, tmp_path, command, '--version').stdout == f'oneformer3d {version()}\n'


def test_every_dependency_is_pinned_and_every_pin_satisfies_it():
    pins = dict(pinned('requirements.txt', *(f'requirements/{name}.txt' for name in EXTRAS)))
    wanted = [
        *PROJECT['dependencies'],
        *(spec for specs in PROJECT['optional-dependencies'].values() for spec in specs),
    ]
    for text in wanted:
        requirement = Requirement(text)
        assert requirement.specifier.contains(pins[plain(requirement.name)]), text

    # what is pinned for running is asked for
    names = {plain(Requirement(text).name) for text in PROJECT['dependencies']}
    assert {name for name, _ in pinned('requirements.txt')} == names


EXTRAS = ('cuda', 'dev', 'docs')


def pinned(*files: str):
    """Name and version of every pin in these files."""
    for file in files:
        for line in (REPOSITORY / file).read_text().splitlines():
            text = line.partition('#')[0].strip()
            if text:
                requirement = Requirement(text)
                yield plain(requirement.name), next(iter(requirement.specifier)).version


def plain(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def test_metafiles_name_every_config_once():
    index = yaml.safe_load((REPOSITORY / 'model-index.yml').read_text())
    models = [
        model
        for path in index['Import']
        for model in yaml.safe_load((REPOSITORY / path).read_text())['Models']
    ]
    configs = sorted(f'configs/{path.name}' for path in (REPOSITORY / 'configs').glob('*.py'))
    assert sorted(model['Config'] for model in models) == configs
    assert all(Path(model['Config']).stem == model['Name'] for model in models)


def test_the_zoo_and_the_metafile_have_the_same_results():
    metafile = yaml.safe_load((REPOSITORY / 'configs' / 'metafile.yml').read_text())
    listed = {
        (model['Config'], result['Dataset']): result['Metrics']
        for model in metafile['Models']
        for result in model.get('Results', ())
    }

    lines = (REPOSITORY / 'docs' / 'model_zoo.md').read_text().splitlines()
    table = [[cell.strip() for cell in line.split('|')[1:-1]] for line in lines if line[:1] == '|']
    columns, _, *rows = table
    shown = {}
    for _, config, weights, data, *values in rows:
        cells = zip(columns[4:], values, strict=True)
        metrics = {name: float(value) for name, value in cells if value != '–'}
        shown[config.strip('`'), data] = metrics
        if weights.startswith('shipped'):
            assert (REPOSITORY / weights.split('`')[1]).is_file()
    assert shown == listed
    assert len(shown) == 4
