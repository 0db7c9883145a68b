"""Labels corrected in the page: checked wishes, a step back, and saved where they came from.

Enters: what a page asks, as plain values that nobody has checked. Leaves: the segmentation as it is
now, and what ``save`` says. K objects, C classes.
"""

import threading
from collections.abc import Callable, Mapping, Sequence

from oneformer3d.structures import Segmentation
from oneformer3d.structures.corrections import (
    delete_instance,
    merge_instances,
    rename_instance,
)

from .errors import BadQuestionError

MAX_STEPS = 50  # that can be taken back
MAX_MERGED = 100  # objects at once
KINDS = ('rename', 'merge', 'delete', 'undo')


class SceneEditor:
    """Corrects one scene; several threads may ask.

    Args:
        segmentation: as it was.
        names: class names that an object may get.
        save: keeps a segmentation and says where.
    """

    def __init__(
        self,
        segmentation: Segmentation,
        names: Sequence[str],
        save: Callable[[Segmentation], str],
    ) -> None:
        self.names = tuple(names)
        self._save = save
        self._steps = [segmentation]
        self._one_at_a_time = threading.Lock()

    @property
    def segmentation(self) -> Segmentation:
        """As it is now."""
        return self._steps[-1]

    @property
    def num_steps(self) -> int:
        """Corrections that can be taken back."""
        return len(self._steps) - 1

    def correct(self, wish: object) -> Segmentation:
        """Do what a page asks for.

        Args:
            wish: ``{'kind': 'rename', 'objects': [row], 'name': class}``, ``{'kind': 'merge',
                'objects': [row, row, ...]}``, ``{'kind': 'delete', 'objects': [row]}`` or
                ``{'kind': 'undo'}``.

        Raises:
            BadQuestionError: anything else.
        """
        if not isinstance(wish, Mapping) or wish.get('kind') not in KINDS:
            raise BadQuestionError(f'expected one of {", ".join(KINDS)}')
        with self._one_at_a_time:
            if wish['kind'] == 'undo':
                if not self.num_steps:
                    raise BadQuestionError('there is nothing to take back')
                self._steps = self._steps[:-1]
            else:
                corrected = self._corrected(wish)
                self._steps = [*self._steps, corrected][-MAX_STEPS - 1 :]
            return self.segmentation

    def save(self) -> str:
        """Keep the labels as they are now; says where."""
        with self._one_at_a_time:
            return self._save(self.segmentation)

    def _corrected(self, wish: Mapping[str, object]) -> Segmentation:
        result, rows = self.segmentation, self._rows(wish.get('objects'))
        if wish['kind'] == 'merge':
            if len(rows) < 2:
                raise BadQuestionError('expected two objects or more')
            return merge_instances(result, rows)

        if len(rows) != 1:
            raise BadQuestionError('expected one object')
        if wish['kind'] == 'delete':
            return delete_instance(result, rows[0])
        name = wish.get('name')
        if not isinstance(name, str) or name not in self.names:
            raise BadQuestionError('expected the name of a class')
        return rename_instance(result, rows[0], result.class_names.index(name))

    def _rows(self, rows: object) -> list[int]:
        """Checked rows of objects, each once."""
        num_objects = len(self.segmentation.instances)
        if not isinstance(rows, list) or not 1 <= len(rows) <= MAX_MERGED:
            raise BadQuestionError('expected numbers of objects')
        for row in rows:
            if type(row) is not int or not 0 <= row < num_objects:
                raise BadQuestionError('no such object')
        if len(set(rows)) != len(rows):
            raise BadQuestionError('an object is named twice')
        return rows
