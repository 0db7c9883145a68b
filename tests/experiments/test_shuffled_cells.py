from dataclasses import replace

import numpy as np
import pytest

from oneformer3d.experiments.shuffled_cells import copy_as_cells
from oneformer3d.store import FeatureStore, FeatureStoreWriter
from oneformer3d.store.examples import STAMP


def test_the_arrays_stay_and_no_reader_takes_tokens_back(tmp_path):
    stamp = replace(STAMP, grid=(4, 6), postprocessing='pixel_shuffle2')
    feat = np.random.default_rng(0).normal(size=(4, 4, 6)).astype(np.float16)
    with FeatureStoreWriter(tmp_path / 'features', stamp) as writer:
        writer.put('room', '00000', {'feat': feat})

    assert copy_as_cells(tmp_path / 'features', tmp_path / 'cells') == 1
    assert copy_as_cells(tmp_path / 'features', tmp_path / 'cells') == 0
    cells = FeatureStore(tmp_path / 'cells')
    assert cells.get('room', '00000')['feat'].tobytes() == feat.tobytes()
    assert (cells.stamp.token_channels, cells.stamp.token_grid) == (4, (4, 6))
    assert FeatureStore(tmp_path / 'features').stamp.token_channels == 16


def test_maps_without_a_shuffle_are_refused(tmp_path):
    with FeatureStoreWriter(tmp_path / 'features', STAMP) as writer:
        writer.put('room', '00000', {'feat': np.zeros((4, 3, 5), np.float16)})
    with pytest.raises(ValueError, match='no pixel shuffle'):
        copy_as_cells(tmp_path / 'features', tmp_path / 'cells')
