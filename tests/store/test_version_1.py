"""A store of version 1, kept as it was written then, is read to the last bit."""

import shutil

import numpy as np
import pytest

from oneformer3d.store import (
    FeatureStore,
    FeatureStoreWriter,
    merge_stores,
    read_manifest,
    verify_store,
)
from oneformer3d.store.export import export_npz, import_store
from tests.helpers.store_v1 import STAMP_FIELDS_V1, STORE_V1, frames_v1, stamp_v1

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


def test_a_stamp_of_today_fits_a_store_of_then(store_v1):
    assert read_manifest(store_v1).stamp.schema_version == 1
    assert_same_frames(FeatureStore(store_v1, stamp_v1()), frames_v1())


def test_merging_writes_it_anew(store_v1, tmp_path):
    assert merge_stores([store_v1], tmp_path / 'out') == 4
    assert merge_stores([store_v1], tmp_path / 'out') == 0
    store = FeatureStore(tmp_path / 'out', stamp_v1())
    assert store.stamp == stamp_v1()
    assert store.stamp.schema_version == 2
    assert_same_frames(store, frames_v1())
    assert verify_store(tmp_path / 'out') == []
    assert {record[4] for _, record, _ in store.records()} == {2}


def test_exporting_reads_it(store_v1, tmp_path):
    assert export_npz(store_v1, tmp_path / 'npz') == 4
    assert import_store(tmp_path / 'npz', tmp_path / 'out') == 4
    assert_same_frames(FeatureStore(tmp_path / 'out'), frames_v1())


@pytest.mark.parametrize('rank', [0, 1, 2])
def test_a_run_goes_on_in_it(store_v1, rank):
    """Its shards keep their records; what is new is of version 2 in a store stamped 1."""
    expected = frames_v1()
    new = {'feat': expected['room0/00000']['feat'] + 5}
    with FeatureStoreWriter(store_v1, stamp_v1(), rank) as writer:
        for key, arrays in expected.items():
            assert writer.has(*key.split('/'))
            assert not writer.put(*key.split('/'), arrays)
        with pytest.raises(ValueError, match='room0/00000 is there with other content'):
            writer.put('room0', '00000', new)
        assert writer.put('room9', '00000', new)
    assert verify_store(store_v1) == []
    assert_same_frames(FeatureStore(store_v1, stamp_v1()), {**expected, 'room9/00000': new})


def test_doubles_of_two_versions_are_one(store_v1, tmp_path):
    """Two writers at once may both write a frame: here one of each version did."""
    stamp, shard = read_manifest(store_v1).stamp, 'features.r0002.lmdb'
    FeatureStoreWriter(store_v1, stamp, rank=2).close()
    with FeatureStoreWriter(tmp_path / 'same', stamp, rank=2) as writer:
        for key, arrays in frames_v1().items():
            writer.put(*key.split('/'), arrays)
    (tmp_path / 'same' / shard).replace(store_v1 / shard)
    assert verify_store(store_v1) == []
    assert_same_frames(FeatureStore(store_v1), frames_v1())

    with FeatureStoreWriter(tmp_path / 'other', stamp, rank=2) as writer:
        writer.put('room1', '00000', frames_v1()['room0/00000'])
    (tmp_path / 'other' / shard).replace(store_v1 / shard)
    (problem,) = verify_store(store_v1)
    assert 'room1/00000 is in features.r0001.lmdb too, with other content' in problem
