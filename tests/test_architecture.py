"""The house keeps its plan: every arrow between rooms is listed, and none points back up.

``docs/architecture.md`` draws the same list; a test compares the two.
"""

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

from tests.conftest import REPOSITORY

PACKAGE = REPOSITORY / 'oneformer3d'

# What each room imports, from the ground up; ``registry`` and ``version`` are open to all.
ARROWS = {
    'files': '',
    'lifting': '',
    'visualization': 'lifting',
    'structures': 'files lifting visualization',
    'store': 'files lifting',
    'clip': 'files lifting store',
    'data': 'files lifting structures store',
    'backbones': 'files lifting structures',
    'segmentor': 'files lifting structures data backbones',
    'fusion': 'files lifting structures store clip backbones',
    'metrics': 'lifting data',
    'engine': 'files visualization data metrics',
    'tiny_clip': 'files clip data',
    'mvpnet': 'lifting structures store clip data backbones engine',
    'stm': 'files lifting visualization structures store clip backbones segmentor',
    'open_vocabulary': 'files lifting store',
    'extraction': 'files lifting visualization store clip data fusion',
    'inference': 'files lifting visualization structures store data segmentor fusion '
    'open_vocabulary engine',
    'viewer': 'files lifting visualization structures open_vocabulary fields',
    'streaming': 'files lifting visualization structures data segmentor metrics inference',
    'fields': 'files lifting visualization store clip data metrics',
    'experiments': 'files engine store',
}
OPEN_TO_ALL = {'registry', 'version'}
# what importing the package does, and what registers its types
SEAMS = {'openmmlab', 'register'}
# the documented names at the top of the package: thin, and for users only
FACES = {'bi_fusion_encoder', 'bife_clip_loss', 'clip_utils', 'stm_decoder', 'tiny_sa'}
MAX_FACE_LINES = 40


def test_every_arrow_is_listed_and_every_listed_arrow_is_there():
    listed = {room: set(rooms.split()) for room, rooms in ARROWS.items()}
    found = {room: set(rooms) for room, rooms in arrows().items()}
    assert {room for room in found if found[room]} <= set(listed)
    for room, rooms in listed.items():
        where = {other: arrows()[room][other] for other in found.get(room, set()) - rooms}
        assert not where, f'{room} imports what it may not: {where}'
        assert rooms <= found.get(room, set()), f'{room} no longer needs all of {rooms}'


def test_no_ring_of_rooms_and_no_ring_of_modules():
    tuple(TopologicalSorter({room: set(rooms) for room, rooms in arrows().items()}).static_order())
    modules = defaultdict(set)
    for importer, imported in imports():
        if importer not in packages() and imported not in packages():
            modules[importer].add(imported)
    tuple(TopologicalSorter(modules).static_order())  # raises CycleError, naming the ring


def test_only_the_documented_names_stand_outside_the_rooms():
    loose = {path.stem for path in PACKAGE.glob('*.py')}
    assert loose == {'__init__', *SEAMS, *OPEN_TO_ALL, *FACES}


def test_faces_are_thin_and_nobody_inside_imports_them():
    for face in FACES:
        assert len((PACKAGE / f'{face}.py').read_text().splitlines()) <= MAX_FACE_LINES
    used = {imported for _, imported in imports() if room_of(imported) in FACES}
    assert not used


def test_architecture_draws_the_same_arrows():
    text = (REPOSITORY / 'docs' / 'architecture.md').read_text()
    rows = re.findall(r'^\| `(\w+)` \|[^|]*\|([^|]*)\|$', text, re.MULTILINE)
    drawn = {room: set(re.findall(r'`(\w+)`', rooms)) for room, rooms in rows}
    assert drawn == {room: set(rooms.split()) for room, rooms in ARROWS.items()}


def arrows() -> dict[str, dict[str, list[str]]]:
    """Room → room it imports → the modules that do."""
    found: dict[str, dict[str, list[str]]] = {}
    for importer, imported in imports():
        room, other = room_of(importer), room_of(imported)
        if room not in ('', other, *FACES, *SEAMS) and other not in ('', *OPEN_TO_ALL):
            found.setdefault(room, {}).setdefault(other, []).append(importer)
    return found


def imports() -> Iterator[tuple[str, str]]:
    """(importing module, imported module) of the package, imports inside functions too."""
    modules = {module_name(path) for path in PACKAGE.rglob('*.py')}
    for path in sorted(PACKAGE.rglob('*.py')):
        importer = module_name(path)
        package = importer if path.name == '__init__.py' else importer.rpartition('.')[0]
        for node in ast.walk(ast.parse(path.read_text())):
            for name in imported_names(node, package):
                # ``from package import name``: the name is a module, or something in the package
                module = name if name in modules else name.rpartition('.')[0]
                if module in modules and module != importer:
                    yield importer, module


def imported_names(node: ast.AST, package: str) -> Iterator[str]:
    """Absolute dotted names that an import statement takes."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        parents = package.split('.')[: len(package.split('.')) - node.level + 1]
        base = '.'.join([*(parents if node.level else []), *filter(None, [node.module])])
        yield from (f'{base}.{alias.name}' for alias in node.names)


def packages() -> set[str]:
    return {module_name(path) for path in PACKAGE.rglob('__init__.py')}


def module_name(path: Path) -> str:
    """``oneformer3d.files.atomic`` for its file; a package is named like its folder."""
    return '.'.join(path.relative_to(REPOSITORY).with_suffix('').parts).removesuffix('.__init__')


def room_of(module: str) -> str:
    """The room of a module, '' for the package itself."""
    return module.split('.')[1] if '.' in module else ''
