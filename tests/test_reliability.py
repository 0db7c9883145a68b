"""docs/reliability.md names tests that exist, one at least for each fault."""

import ast
import re

from .conftest import REPOSITORY

PAGE = (REPOSITORY / 'docs' / 'reliability.md').read_text(encoding='utf-8')


def test_every_promise_names_tests_that_exist():
    rows = [
        line for line in PAGE.splitlines() if line.startswith('| ') and '| promise |' not in line
    ]
    assert len(rows) > 30
    missing = []
    for row in rows:
        named = re.findall(r'`(tests/[\w/]+\.py)::(\w+)`', row)
        if not named:
            missing.append(row)
        for path, name in named:
            tree = ast.parse((REPOSITORY / path).read_text(encoding='utf-8'))
            functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
            if name not in functions:
                missing.append(f'{path}::{name}')
    assert missing == []
