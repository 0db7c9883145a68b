"""Stamps, keys and records: round trips, and every way that bytes can be wrong."""

import json
import struct
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from oneformer3d.store.format import (
    CorruptRecordError,
    StampMismatchError,
    StoreStamp,
    check_feature,
    check_stamp,
    decode_record,
    describe_record,
    encode_record,
    record_key,
    split_key,
    stamp_from_dict,
)
from tests.helpers.store_samples import STAMP, arrays_of

KEY = b'scene0000_00/00000'
OTHER_VALUES = {
    'encoder': 'RN50',
    'weights_digest': 'ffff',
    'layer': '9',
    'mode': 'clip',
    'attn_mode': 'sclip',
    'input_size': (336, 224),
    'dtype': 'float32',
    'preprocessing': 'crop',
    'channels': 5,
    'grid': None,
    'postprocessing': 'pixel_shuffle2',
    'schema_version': 2,
}


@pytest.mark.parametrize('dtype', ['?', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8'])
def test_integers_come_back(dtype):
    array = np.arange(24).astype(dtype).reshape(2, 3, 4)
    found = decode_record(KEY, encode_record(KEY, {'a': array}), 'here')['a']
    assert found.dtype == array.dtype
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize('dtype', ['f2', 'f4', 'f8', '>f4'])
@pytest.mark.parametrize('shape', [(), (0,), (1,), (3, 0, 2), (5, 7), (2, 1, 3, 1)])
def test_floats_of_any_shape_come_back(dtype, shape):
    array = np.random.default_rng(0).standard_normal(shape).astype(dtype)
    found = decode_record(KEY, encode_record(KEY, {'a': array}), 'here')['a']
    assert found.shape == shape
    assert found.dtype == array.dtype.newbyteorder('<')
    np.testing.assert_array_equal(found, array)


def test_views_are_stored_as_what_they_show():
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    for view in (array.transpose(2, 0, 1), array[:, ::2, 1:], array[::-1]):
        np.testing.assert_array_equal(
            decode_record(KEY, encode_record(KEY, {'a': view}), '')['a'], view
        )


def test_equal_content_is_equal_bytes_in_any_order():
    arrays = arrays_of('a', 'b')
    assert encode_record(KEY, arrays) == encode_record(KEY, dict(reversed(arrays.items())))
    assert encode_record(KEY, arrays) != encode_record(b'scene0000_00/00001', arrays)


def test_layout_is_the_documented_one():
    record = encode_record(b's/f', {'x': np.array([1.5, -2], np.float16)})
    header = struct.pack('<4sHH', b'O3DF', 1, 1)
    described = struct.pack('<B1s2sBI', 1, b'x', b'f2', 1, 2)
    assert record[:8] == header
    assert record[12:21] == described
    assert record[21:32] == bytes(11)
    assert record[32:36] == struct.pack('<2e', 1.5, -2)
    assert len(record) == 48
    crc = _crc32_bit_by_bit(b's/f' + record[:8] + record[12:])
    assert struct.unpack('<I', record[8:12])[0] == crc


def _crc32_bit_by_bit(content: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def test_every_flipped_bit_is_noticed():
    record = encode_record(KEY, {'a': np.arange(6, dtype=np.int16), 'b': np.float32(2)})
    decode_record(KEY, record, 'here')
    for position in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptRecordError, match='here: scene0000_00/00000'):
                decode_record(KEY, damaged, 'here')


def test_every_shortened_record_and_a_moved_one_are_noticed():
    record = encode_record(KEY, arrays_of('a', 'b'))
    for length in range(len(record)):
        with pytest.raises(CorruptRecordError):
            decode_record(KEY, record[:length], 'here')
    with pytest.raises(CorruptRecordError, match='checksum'):
        decode_record(b'scene0000_00/00001', record, 'here')


def test_hostile_shapes_are_refused_before_anything_is_allocated():
    record = bytearray(64)
    record[:12] = struct.pack('<4sHHI', b'O3DF', 1, 1, 0)
    record[12:40] = struct.pack('<B1s2sB6I', 1, b'x', b'f8', 6, *[0xFFFFFFFF] * 6)
    with pytest.raises(CorruptRecordError, match='reaches beyond'):
        decode_record(KEY, record, 'here')
    record[12:17] = struct.pack('<B1s2sB', 1, b'x', b'O8', 1)
    with pytest.raises(CorruptRecordError, match='header'):
        decode_record(KEY, record, 'here')


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({}, 'at least one'),
        ({'a b': np.zeros(1)}, 'not a name'),
        ({'': np.zeros(1)}, 'not a name'),
        ({'a': np.array(['text'])}, 'cannot be stored'),
        ({'a': np.array([None])}, 'cannot be stored'),
        ({'a': np.zeros(1, np.complex64)}, 'cannot be stored'),
        ({'a': np.array([1, np.nan])}, 'inf or nan'),
        ({'a': np.array([1, -np.inf], np.float32)}, 'inf or nan'),
        ({'a': np.array([1, np.inf], np.float16)}, r'inf or nan \(float16\)'),
        ({'a': np.array([np.nan], np.float16)}, 'inf or nan'),
    ],
)
def test_unfit_arrays_are_refused(arrays, message):
    with pytest.raises(ValueError, match=f'scene0000_00/00000.*{message}'):
        encode_record(KEY, arrays)


def test_largest_half_is_finite():
    encode_record(KEY, {'a': np.array([65504, -65504], np.float16)})


def test_description_reads_the_header_alone():
    record = encode_record(KEY, arrays_of('a', 'b'))
    assert describe_record(bytes(record), 'here') == {
        'clip_global': 'float32 (8,)',
        'feat': 'float16 (4, 3, 5)',
    }


def test_keys_are_checked_and_fit_lmdb():
    longest = 'x' * 128
    assert len(record_key(longest, longest)) <= 511
    assert split_key(record_key('scene0000_00', '00003.b-c')) == ('scene0000_00', '00003.b-c')
    for scene, frame in [('../x', 'a'), ('a', ''), ('a/b', 'c'), ('a', 'é'), ('x' * 129, 'a')]:
        with pytest.raises(ValueError, match='not a scene name'):
            record_key(scene, frame)
    for key in ('noslash', b'a/b/c', b'\xff/a', '/a', 'a/'):
        with pytest.raises(ValueError, match='not a'):
            split_key(key)


def test_stamps_are_equal_by_fields_and_frozen():
    assert replace(STAMP) == STAMP
    assert StoreStamp(**{**STAMP.to_dict(), 'grid': (3, 5)}) == STAMP
    assert set(OTHER_VALUES) == {field.name for field in fields(STAMP)}
    with pytest.raises(FrozenInstanceError):
        STAMP.encoder = 'x'


def test_stamp_survives_json():
    for stamp in (STAMP, replace(STAMP, grid=None, input_size=None)):
        assert stamp_from_dict(json.loads(stamp.to_bytes()), 'here') == stamp


@pytest.mark.parametrize('name', sorted(OTHER_VALUES))
def test_each_differing_field_is_named_with_both_values(name):
    other = replace(STAMP, **{name: OTHER_VALUES[name]})
    assert other != STAMP
    with pytest.raises(StampMismatchError) as caught:
        check_stamp(STAMP, other, 'store')
    message = str(caught.value)
    assert message.startswith('store: ')
    assert f'{name} is {getattr(STAMP, name)!r}, expected {OTHER_VALUES[name]!r}' in message
    assert message.count(' is ') == 1


def test_some_fields_may_be_expected():
    check_stamp(STAMP, None, 'store')
    check_stamp(STAMP, STAMP, 'store')
    check_stamp(STAMP, {'encoder': 'ViT-B-16', 'grid': [3, 5]}, 'store')
    with pytest.raises(StampMismatchError, match="mode is 'tokens', expected 'clip'"):
        check_stamp(STAMP, {'encoder': 'ViT-B-16', 'mode': 'clip'}, 'store')
    with pytest.raises(ValueError, match='no field model'):
        check_stamp(STAMP, {'model': 'ViT-B-16'}, 'store')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'schema_version': 2}, 'schema version 2'),
        ({'channels': '4'}, 'channels'),
        ({'channels': True}, 'channels'),
        ({'channels': 0}, 'channels'),
        ({'grid': [3]}, 'grid'),
        ({'grid': [3, -5]}, 'grid'),
        ({'grid': 3}, 'grid'),
        ({'encoder': None}, 'encoder'),
        ({'dtype': 'object'}, 'dtype'),
        ({'dtype': 'no type'}, 'data type'),
        ({'extra': 1}, 'extra'),
    ],
)
def test_foreign_stamps_are_checked(change, message):
    with pytest.raises(ValueError, match=f'here.*{message}'):
        stamp_from_dict({**STAMP.to_dict(), **change}, 'here')


def test_missing_stamp_fields_are_named():
    values = STAMP.to_dict()
    del values['layer'], values['mode']
    with pytest.raises(ValueError, match='layer, mode'):
        stamp_from_dict(values, 'here')
    with pytest.raises(ValueError, match='should be an object'):
        stamp_from_dict([], 'here')


def test_the_map_must_be_what_the_stamp_says():
    feat = arrays_of('a', 'b')['feat']
    check_feature({'feat': feat}, STAMP, 'here')
    check_feature({'other': feat[0]}, STAMP, 'here')
    check_feature({'feat': feat[:, :2]}, replace(STAMP, grid=None), 'here')
    for wrong in (feat[:3], feat[:, :2], feat[0], feat.astype(np.float32)):
        with pytest.raises(ValueError, match=r'here: feat should be float16 \(4, 3, 5\), got'):
            check_feature({'feat': wrong}, STAMP, 'here')
    with pytest.raises(ValueError, match='feat should be'):
        check_feature({'feat': feat[0]}, replace(STAMP, grid=None), 'here')
