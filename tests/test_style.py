"""Air: long function bodies are written in paragraphs. Logs: no warning hides another. Readers: one
for each kind of file."""

import ast
from collections.abc import Iterator
from pathlib import Path

from tests.conftest import REPOSITORY

LONG_BODY = 20  # lines, without the docstring
MAX_DENSE = 0.05


def test_long_bodies_are_written_in_paragraphs():
    bodies = list(long_bodies())
    dense = [name for name, lines in bodies if not any(is_break(line) for line in lines)]
    assert len(bodies) > 100
    assert len(dense) <= MAX_DENSE * len(bodies), '\n'.join(dense)


def test_a_dense_body_is_found_and_an_airy_one_passes(tmp_path):
    dense = '\n'.join(['def f():', '    """Doc.', '', '    More.', '    """', *['    x = 1'] * 20])
    airy = dense.replace('    x = 1\n    x = 1', '    x = 1\n\n    x = 1', 1)
    for text, num_dense in ((dense, 1), (airy, 0)):
        (tmp_path / 'm.py').write_text(text)
        ((_, lines),) = bodies_of(tmp_path / 'm.py')
        assert (not any(is_break(line) for line in lines)) == num_dense


def long_bodies() -> Iterator[tuple[str, list[str]]]:
    for path in sorted((REPOSITORY / 'oneformer3d').rglob('*.py')):
        yield from bodies_of(path)


def bodies_of(path: Path) -> Iterator[tuple[str, list[str]]]:
    """``file:line name`` and the lines of every long body in a file."""
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = text.splitlines()[body[0].lineno - 1 : node.end_lineno] if body else []
            if len(lines) >= LONG_BODY:
                yield f'{path.name}:{node.lineno} {node.name}', lines


def is_break(line: str) -> bool:
    return not line.strip() or line.strip().startswith('#')


def test_warnings_are_formatted_before_they_are_logged():
    """mmengine's handler shows warnings of one template once: with arguments all others vanish."""
    paths = [p for room in ('oneformer3d', 'tools') for p in (REPOSITORY / room).rglob('*.py')]
    calls = [
        (path, node)
        for path in paths
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
    ]
    found = [f'{path}:{node.lineno}' for path, node in calls if is_templated_warning(node)]
    assert not found
    assert is_templated_warning(ast.parse("log.warning('%s is odd', path)").body[0].value)


def is_templated_warning(call: ast.Call) -> bool:
    return call.func.attr == 'warning' and len(call.args) > 1


# what reads files that could run code, or whose faults only one reader knows
READERS = {
    ('torch', 'load'): 'files/checkpoints.py',
    ('pickle', 'load'): '',
    ('pickle', 'loads'): '',
    ('yaml', 'load'): 'files/yaml.py',
    ('cv2', 'imread'): '',
}


def test_files_are_read_by_the_one_reader_of_their_kind():
    package = REPOSITORY / 'oneformer3d'
    found = [
        f'{path.relative_to(package)}: {room}.{name}'
        for path in sorted([*package.rglob('*.py'), *(REPOSITORY / 'tools').rglob('*.py')])
        for room, name in foreign_reads(path.read_text())
        if not (READERS[room, name] and path.match(f'oneformer3d/{READERS[room, name]}'))
    ]
    assert not found
    assert foreign_reads('import torch\ntorch.load(path)') == [('torch', 'load')]


def foreign_reads(text: str) -> list[tuple[str, str]]:
    """Calls of these readers in a program."""
    calls = [
        (node.value.id, node.attr)
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    ]
    return [call for call in calls if call in READERS]
