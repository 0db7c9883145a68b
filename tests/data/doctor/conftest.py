"""A sound walk through a room, for the doctor to look at."""

from pathlib import Path

import pytest

from tests.helpers.walk_scenes import write_walk


@pytest.fixture(scope='session')
def walk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of ten frames in the layout of 7-Scenes, with noise; not to be changed."""
    return write_walk(tmp_path_factory.mktemp('walks') / 'walk', 10)
