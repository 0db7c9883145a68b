"""The pages that the package writes about itself, in reStructuredText.

Enters: the package. Leaves: a page per room with everything public in it, and a page of the types
that configs name, read from mmdet3d's registries.
"""

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import oneformer3d
import oneformer3d.register  # so that the registries hold every type
from oneformer3d import registry as oneformer3d_registry

PACKAGE = Path(oneformer3d.__file__).parent
FACES = ('bi_fusion_encoder', 'clip_utils', 'tiny_sa', 'bife_clip_loss', 'stm_decoder', 'registry')
REGISTRIES = (
    'MODELS',
    'TASK_UTILS',
    'DATASETS',
    'DATA_SAMPLERS',
    'TRANSFORMS',
    'METRICS',
    'HOOKS',
    'OPTIM_WRAPPERS',
)


# ------------------------------------------------------------------ pages of the rooms


def write_api_pages(folder: Path) -> None:
    """Write ``index.rst``, a page for the documented names, and one for every room."""
    folder.mkdir(exist_ok=True)
    rooms = sorted(path.parent.name for path in PACKAGE.glob('*/__init__.py'))
    for room in rooms:
        write(folder / f'{room}.rst', room_page(room))
    write(folder / 'names.rst', names_page())
    entries = ''.join(f'   {page}\n' for page in ('names', *rooms))
    write(
        folder / 'index.rst',
        heading('The package', '=')
        + 'A folder of the package is a room: one idea, its parts. '
        + ':doc:`../architecture` says which room may import which.\n\n'
        + f'.. toctree::\n   :maxdepth: 1\n\n{entries}',
    )


def names_page() -> str:
    """What ``import oneformer3d`` offers, and the faces: documented names, nothing inside."""
    names = '\n'.join(
        f'- :py:obj:`oneformer3d.{name} <{home}>`' for name, home in oneformer3d._HOMES.items()
    )
    faces = ''.join(face_section(f'oneformer3d.{face}') for face in FACES)
    return heading('Names to import', '=') + names + '\n\n' + faces


def face_section(name: str) -> str:
    """A module that only re-exports: what it says, and where its names are described."""
    title = name.removeprefix('oneformer3d.')
    return heading(title, '-') + f'.. automodule:: {name}\n\n' + exported_names(name)


def exported_names(module: str) -> str:
    """Links to what a module offers under its own name although it is defined elsewhere."""
    offered = vars(import_module(module))
    homes = (
        f':py:obj:`~{offered[name].__module__}.{name}`'
        for name in offered.get('__all__', ())
        if str(getattr(offered[name], '__module__', '')).startswith('oneformer3d.')
    )
    listed = ', '.join(homes)
    return f'Exports {listed}.\n\n' if listed else ''


def room_page(room: str) -> str:
    """A room: its README, what it exports, and its public modules."""
    text = heading(room, '=')
    if (PACKAGE / room / 'README.md').is_file():
        # without its title
        text += f'.. include:: ../../oneformer3d/{room}/README.md\n'
        text += '   :parser: myst_parser.sphinx_\n   :start-line: 1\n\n'

    own, *others = modules(room)
    text += f'.. automodule:: {own}\n\n' + exported_names(own)
    return text + ''.join(module_section(name) for name in others)


def modules(room: str) -> Iterator[str]:
    """The room's own module, then its public ones, folder by folder."""
    yield f'oneformer3d.{room}'
    for path in sorted(
        (PACKAGE / room).rglob('[!_]*.py'), key=lambda path: (len(path.parts), path)
    ):
        yield '.'.join(path.relative_to(PACKAGE.parent).with_suffix('').parts)


def module_section(name: str) -> str:
    title = name.removeprefix('oneformer3d.')
    return heading(title, '-') + f'.. automodule:: {name}\n   :members:\n   :show-inheritance:\n\n'


def keep_diagrams(app, what, name, obj, options, lines: list[str]) -> None:
    """Show indented paragraphs of a docstring as they are: diagrams, tables and equations.

    A paragraph is such a block when it is indented without a section of Google's style above it.
    """
    lines[:] = plain_blocks('\n'.join(lines)).split('\n')


SECTION = re.compile(r'(Args|Attributes|Raises|Returns|Yields|Example):$')


def plain_blocks(text: str) -> str:
    """Mark indented paragraphs outside Google's sections; indented rests of a sentence go flush.

    Norms such as |p − c| stay as they are written; a bar would begin a substitution.

    Example:
        >>> print(plain_blocks('Way:\\n\\n    a → b'))
        Way:
        <BLANKLINE>
        ::
        <BLANKLINE>
            a → b
    """
    result: list[str] = []
    section = ''
    in_block = in_table = False
    for line in text.split('\n'):
        before = result[-1] if result else ''
        in_table = bool(line) and (in_table or line.startswith('==='))
        if line and not line.startswith(' '):
            title = SECTION.match(line)
            section = title[1] if title else ''
            in_block = False
        elif line.startswith('    ') and not section and not in_block:
            if in_table:
                pass
            elif before and not before.endswith(':'):
                line = line.lstrip()
            else:
                result += [*([''] if before else []), '::', '']
                in_block = True
        result.append(line if in_block or section == 'Example' else escape_bars(line))
    return '\n'.join(result)


def escape_bars(line: str) -> str:
    parts = re.split(r'(``.+?``)', line)
    return ''.join(part if part.startswith('``') else part.replace('|', r'\|') for part in parts)


# ------------------------------------------------------------------ types of configs


@dataclass(frozen=True)
class ConfigType:
    """A type that a config may name."""

    registry: str
    name: str
    made_by: type

    @property
    def purpose(self) -> str:
        return paragraphs(self.made_by)[0]


def write_config_types(path: Path) -> None:
    """Write the page of every type of ours in mmdet3d's registries."""
    sections = []
    for registry in REGISTRIES:
        types = list(config_types(registry))
        sections.append(heading(registry, '-'))
        sections += [type_section(kind) for kind in types]
    intro = (
        'Every ``type`` of this package that a config may name, by the registry of mmdet3d that '
        'holds it. Arguments without a default are required.\n\n'
    )
    write(path, heading('Types of configs', '=') + intro + ''.join(sections))


def config_types(registry: str) -> Iterator[ConfigType]:
    """The types of this package in one of mmdet3d's registries, by name."""
    held = getattr(oneformer3d_registry, registry).module_dict
    for name, made_by in sorted(held.items()):
        if made_by.__module__.startswith('oneformer3d.'):
            yield ConfigType(registry, name, made_by)


def type_section(kind: ConfigType) -> str:
    """Name, purpose, where it is described, and a row for each argument."""
    home = f'{kind.made_by.__module__}.{kind.made_by.__qualname__}'
    shown = home.removeprefix('oneformer3d.')
    text = heading(kind.name, '~') + f'{kind.purpose} (:py:obj:`{shown} <{home}>`)\n\n'
    rows = list(arguments(kind.made_by))
    if not rows:
        return text + 'No arguments.\n\n'

    text += '.. list-table::\n   :header-rows: 1\n   :widths: 22 18 60\n\n'
    text += '   * - argument\n     - default\n     - meaning\n'
    for name, default, meaning in rows:
        shown = f'``{default}``' if default else ''
        text += f'   * - ``{name}``\n     - {shown}\n     - {meaning}\n'
    return text + '\n'


def arguments(made_by: type) -> Iterator[tuple[str, str, str]]:
    """Name, default and meaning of every argument; those passed on are the base class'."""
    meanings = {}
    for base in reversed(inspect.getmro(made_by) if inspect.isclass(made_by) else (made_by,)):
        meanings |= described_arguments(base)
    for parameter in passed_on(made_by):
        default = '' if parameter.default is parameter.empty else repr(parameter.default)
        yield parameter.name, default, meanings.get(parameter.name, '')


def passed_on(made_by: type) -> list[inspect.Parameter]:
    """The arguments of a type, with those of its base where it passes ``**arguments`` on."""
    own = [p for p in inspect.signature(made_by).parameters.values() if p.kind != p.VAR_POSITIONAL]
    named = [p for p in own if p.kind != p.VAR_KEYWORD]
    if len(named) == len(own) or not inspect.isclass(made_by):
        return named
    names = {p.name for p in named}
    return named + [p for p in passed_on(made_by.__mro__[1]) if p.name not in names]


def described_arguments(made_by: type) -> dict[str, str]:
    """What the docstring's ``Args:`` or ``Attributes:`` say, a line for each name."""
    text = inspect.getdoc(made_by) or ''
    section = re.search(r'^(?:Args|Attributes):\n((?:    .*\n?|\n)+)', text, re.MULTILINE)
    entries = re.split(r'^    (?=\S)', section[1], flags=re.MULTILINE)[1:] if section else []
    meanings = {}
    for entry in entries:
        names, _, meaning = entry.partition(': ')
        for name in names.split(','):
            meanings[name.strip(' *`')] = ' '.join(meaning.split())
    return meanings


def paragraphs(thing: object) -> list[str]:
    """The paragraphs of a docstring, each in one line."""
    text = inspect.getdoc(thing) or ''
    return [' '.join(block.split()) for block in text.split('\n\n')]


# ------------------------------------------------------------------ writing


def write_repository_page(name: str, folder: Path) -> None:
    """Write a page of the repository's top folder anew with links that lead from ``folder``."""
    text = (PACKAGE.parent / name).read_text(encoding='utf-8')
    text = text.replace('](docs/', '](../').replace('](CHANGELOG.md)', '](changelog.md)')
    write(folder / name.lower(), text)


def heading(text: str, line: str) -> str:
    return f'{text}\n{line * len(text)}\n\n'


def write(path: Path, text: str) -> None:
    """Write a page where it differs, so that Sphinx reads only what changed."""
    if not path.is_file() or path.read_text(encoding='utf-8') != text:
        path.write_text(text, encoding='utf-8')
