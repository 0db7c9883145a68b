"""The pages: links lead somewhere, every type of a config is described, Sphinx has no complaint."""

import doctest
import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from mmdet3d import registry as mmdet3d_registry
from mmengine.registry import Registry

from tests.conftest import REPOSITORY

DOCS = REPOSITORY / 'docs'
WRITTEN = [
    *(REPOSITORY / name for name in ('README.md', 'CONTRIBUTING.md', 'CHANGELOG.md')),
    *sorted(path for path in DOCS.rglob('*.md') if 'api' not in path.parts),
    *sorted((REPOSITORY / 'oneformer3d').rglob('README.md')),
]
LINK = re.compile(r'\]\(([^)\s]+)\)')


@pytest.fixture(scope='module')
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location('docs_generate', DOCS / 'generate.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as repository sites and MyST make them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


@pytest.mark.parametrize('page', WRITTEN, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_links_between_pages_lead_somewhere(page):
    for link in LINK.findall(page.read_text()):
        path, _, anchor = link.partition('#')
        if '://' in link:
            continue
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_in_the_menu():
    menu = (DOCS / 'index.md').read_text()
    pages = {
        str(path.relative_to(DOCS).with_suffix('')) for path in WRITTEN if DOCS in path.parents
    }
    listed = {
        line
        for block in re.findall(r'```\{toctree\}(.+?)```', menu, re.S)
        for line in block.split()
    }
    assert pages - {'index'} <= listed


def test_every_config_is_in_the_table_of_trainings():
    text = (DOCS / 'training.md').read_text()
    named = {name for word in re.findall(r'`([\w{},/]+\.py)`', text) for name in expand(word)}
    folder = REPOSITORY / 'configs'
    paths = [*folder.glob('*.py'), *folder.glob('published/*.py')]
    assert {path.relative_to(folder).as_posix() for path in paths} == named


def expand(word: str) -> list[str]:
    """``a_{b,c}.py`` → a_b.py, a_c.py, as a shell does."""
    match = re.search(r'\{(.+?)\}', word)
    if match is None:
        return [word]
    return [word.replace(match[0], part) for part in match[1].split(',')]


def test_the_page_of_types_has_every_registered_one_with_its_arguments(generate, tmp_path):
    registries = {r.name: r for r in vars(mmdet3d_registry).values() if isinstance(r, Registry)}
    ours = {
        name
        for registry in registries.values()
        for name, kind in registry.module_dict.items()
        if kind.__module__.startswith('oneformer3d.')
    }
    generate.write_config_types(tmp_path / 'types.rst')
    text = (tmp_path / 'types.rst').read_text()
    described = set(re.findall(r'^(\w+)\n~+$', text, re.MULTILINE))
    assert described == ours
    assert len(ours) > 50

    # an argument of its own, one with a default, and one that its base takes
    section = text.split('\nSTMQueryDecoder\n~')[1].split('\n~')[0]
    assert '``pyramid``\n     - \n' in section
    assert '``num_view_points``\n     - ``8``' in section
    assert '``num_heads``' in section


def test_diagrams_of_docstrings_stay_as_they_are(generate):
    result = doctest.testmod(generate)
    assert result.attempted > 0
    assert result.failed == 0
    args = 'Length |x|.\n\nArgs:\n    x: a\n        vector.'
    assert generate.plain_blocks(args) == args.replace('|', r'\|')


@pytest.mark.slow
def test_sphinx_builds_without_a_warning(tmp_path):
    pytest.importorskip('sphinx')
    # beside the sources it would write the generated pages
    for name in ('docs', 'oneformer3d'):
        shutil.copytree(REPOSITORY / name, tmp_path / name)
    for name in ('CONTRIBUTING.md', 'CHANGELOG.md'):
        shutil.copy(REPOSITORY / name, tmp_path)

    command = [sys.executable, '-m', 'sphinx', '-W', '--keep-going', '-n', '-q', 'docs', 'html']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for page in WRITTEN:
        if DOCS in page.parents:
            built = tmp_path / 'html' / page.relative_to(DOCS).with_suffix('.html')
            assert '<h1>' in built.read_text()
    assert 'class="sig-name descname"' in (tmp_path / 'html/api/inference.html').read_text()
