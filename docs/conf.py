"""Sphinx configuration: ``sphinx-build -W -n docs build/docs`` writes the site, without a network.

The pages are written in Markdown and read as well without Sphinx. What the package knows about
itself is generated: ``generate.py`` writes a page per room of the package and one of the types that
configs name, into ``docs/api`` (not kept in the repository).
"""

import os
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
REPOSITORY = HERE.parent
sys.path[:0] = [str(REPOSITORY), str(HERE)]
os.environ.setdefault('MPLBACKEND', 'Agg')

import generate  # noqa: E402

from oneformer3d.version import __version__  # noqa: E402

project = 'oneformer3d'
release = version = __version__
copyright = 'the authors of oneformer3d, Apache-2.0'
extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.napoleon',
]
exclude_patterns = ['results/**']
smartquotes = False  # 'late' is what a config says

myst_enable_extensions = ['dollarmath', 'colon_fence']
myst_heading_anchors = 4
# examples of Python leave out with … what does not matter
suppress_warnings = ['misc.highlighting_failure']

autodoc_member_order = 'bysource'
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
autodoc_inherit_docstrings = False
add_module_names = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_custom_sections = [('Attributes', 'params_style')]
toc_object_entries_show_parents = 'hide'

nitpick_ignore_regex = [
    # what other libraries document is not linked: the pages are built without a network
    (r'py:.*', r'(?!oneformer3d\.).*'),
    # type variables and private bases
    (r'py:.*', r'oneformer3d\..*\.(_?T|Item|_\w+)'),
]

html_theme = 'furo'
html_title = 'oneformer3d'
html_show_sphinx = False
html_copy_source = False


def link_rooms(app, docname, source):
    """Links to a room's README, as a reader of the repository follows them, lead to its page."""
    source[0] = re.sub(
        r'\]\(((?:\.\./)*)\.\./oneformer3d/(\w+)/README\.md\)', r'](\1api/\2.rst)', source[0]
    )


def write_pages(app):
    generate.write_api_pages(HERE / 'api')
    generate.write_config_types(HERE / 'api' / 'config_types.rst')
    for name in ('CONTRIBUTING.md', 'CHANGELOG.md'):
        generate.write_repository_page(name, HERE / 'api')


def setup(app):
    app.connect('builder-inited', write_pages)
    app.connect('source-read', link_rooms)
    app.connect('autodoc-process-docstring', generate.keep_diagrams, priority=400)
