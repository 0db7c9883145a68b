"""Plain values: what ``json.dumps`` takes and ``json.loads`` gives."""

from typing import TypeAlias

Json: TypeAlias = 'str | int | float | bool | None | list[Json] | dict[str, Json]'
