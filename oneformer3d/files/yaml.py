"""Settings in YAML files, read without making objects.

Enters: a file. Leaves: a dictionary of plain values.
"""

from pathlib import Path
from typing import Any

import yaml

from .errors import one_line


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A flat mapping from a YAML file; tags that make objects are refused.

    Raises:
        FileNotFoundError: no such file.
        ValueError: not YAML, or not a mapping.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'{path}: no such config file')
    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f'{path}: not readable as YAML: {one_line(error)}') from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ValueError(f'{path}: expected names with values, got {type(content).__name__}')
    return content
