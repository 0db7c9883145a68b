"""A store of version 1, kept as it was written then, is read to the last bit."""

import shutil

import numpy as np
import pytest

from oneformer3d.store.reader import FeatureStore, verify_store
from tests.helpers.store_v1 import STAMP_FIELDS_V1, STORE_V1, frames_v1

CHECKSUMS_V1 = {
    'room0/00000': 535288536,
    'room0/00010': 1822509700,
    'room1/00000': 1621507343,
    'room1/a.b-c': 1377619989,
}


@pytest.fixture
def store_v1(tmp_path):
    return shutil.copytree(STORE_V1, tmp_path / 'store_v1')


def assert_same_frames(store, expected):
    assert list(store) == list(expected)
    for key, arrays in expected.items():
        found = store.get(*key.split('/'))
        assert found.keys() == arrays.keys()
        for name, array in arrays.items():
            assert found[name].dtype == array.dtype
            assert found[name].shape == array.shape
            np.testing.assert_array_equal(found[name], array)


def test_every_value_comes_back(store_v1):
    store = FeatureStore(store_v1, STAMP_FIELDS_V1)
    assert_same_frames(store, frames_v1())
    assert store.checksums() == CHECKSUMS_V1
    assert verify_store(store_v1) == []
    assert store.stats()['records'] == 4
    assert store.stats()['shapes']['valid'] == {'bool (5,)': 1}
