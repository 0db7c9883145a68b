"""A small feature store of the generated rooms."""

from pathlib import Path

import numpy as np
import pytest

from oneformer3d.store import FeatureStoreWriter
from tests.helpers.view_samples import STAMP, infos_of


@pytest.fixture(scope='module')
def store(tiny_rooms, tmp_path_factory) -> Path:
    """Features of all frames but the last one of each scene; the map holds the frame's number."""
    path = tmp_path_factory.mktemp('views') / 'store'
    with FeatureStoreWriter(path, STAMP) as writer:
        for scene in infos_of(tiny_rooms):
            for number, image in enumerate(scene['images'][:-1]):
                arrays = {
                    'feat': np.full((4, 6, 8), number + 1, np.float16),
                    'clip_global': np.full(5, number + 1, np.float32),
                }
                writer.put(scene['scene_id'], image['frame'], arrays)
    return path
