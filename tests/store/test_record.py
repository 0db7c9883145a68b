"""Stamps, keys and records: round trips, and every way that bytes can be wrong."""

import json
import struct
import zlib
from dataclasses import FrozenInstanceError, fields, replace

import numpy as np
import pytest

from oneformer3d.store import (
    CorruptRecordError,
    StampMismatchError,
    StoreStamp,
    stamp_from_dict,
)
from oneformer3d.store.record import (
    current_record,
    decode_record,
    encode_record,
    record_checksum,
    record_key,
    split_key,
)
from oneformer3d.store.stamp import check_feature, check_stamp
from oneformer3d.store.version1 import arrays_of_version_1
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
    'schema_version': 3,
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


def _crc32_bit_by_bit(content: bytes) -> int:
    remainder = 0xFFFFFFFF
    for byte in content:
        remainder ^= byte
        for _ in range(8):
            remainder = remainder >> 1 ^ (0xEDB88320 if remainder & 1 else 0)
    return remainder ^ 0xFFFFFFFF


def test_layout_is_the_documented_one():
    record = encode_record(b's/f', {'x': np.array([1.5, -2], np.float16)})
    assert record[:8] == struct.pack('<4sHH', b'O3DF', 2, 0)
    (num_bytes,) = struct.unpack('<Q', record[12:20])
    described = json.loads(record[20 : 20 + num_bytes])
    assert described == {'x': {'dtype': 'F16', 'shape': [2], 'data_offsets': [0, 4]}}
    assert record[20 + num_bytes :] == struct.pack('<2e', 1.5, -2)
    crc = _crc32_bit_by_bit(b's/f' + record[:8] + record[12:])
    assert struct.unpack('<I', record[8:12])[0] == crc == record_checksum(record)


def version_1(key: bytes, *arrays: tuple[bytes, bytes, np.ndarray]) -> bytes:
    """A record as version 1 wrote it, of (name, type, array), all arrays up to 16 bytes."""
    head = struct.pack('<4sHH', b'O3DF', 1, len(arrays))
    body = b''.join(
        struct.pack(f'<B1s2sB{array.ndim}I', 1, name, code, array.ndim, *array.shape)
        for name, code, array in arrays
    )
    body += bytes(-(12 + len(body)) % 16)
    body += b''.join(array.tobytes().ljust(16, b'\0') for _, _, array in arrays)
    return head + struct.pack('<I', _crc32_bit_by_bit(key + head + body)) + body


OLD = version_1(KEY, (b'a', b'i2', np.arange(6, dtype='i2')), (b'b', b'f4', np.array(2, 'f4')))
NEW = encode_record(KEY, {'a': np.arange(6, dtype=np.int16), 'b': np.float32(2)})


def test_records_of_version_1_are_read_and_rewritten():
    arrays = decode_record(KEY, OLD, 'here')
    np.testing.assert_array_equal(arrays['a'], np.arange(6, dtype=np.int16))
    assert (arrays['b'].shape, arrays['b'].dtype, arrays['b']) == ((), np.float32, 2)
    arrays['a'][0] = 5  # a copy
    assert current_record(KEY, OLD, 'here') == current_record(KEY, NEW, 'here') == NEW


@pytest.mark.parametrize('record', [OLD, NEW], ids=['version 1', 'version 2'])
def test_every_flipped_bit_is_noticed(record):
    decode_record(KEY, record, 'here')
    for position in range(len(record)):
        for bit in range(8):
            damaged = bytearray(record)
            damaged[position] ^= 1 << bit
            with pytest.raises(CorruptRecordError, match='here: scene0000_00/00000'):
                decode_record(KEY, damaged, 'here')


@pytest.mark.parametrize('record', [OLD, NEW], ids=['version 1', 'version 2'])
def test_every_shortened_record_and_a_moved_one_are_noticed(record):
    for length in range(len(record)):
        with pytest.raises(CorruptRecordError):
            decode_record(KEY, record[:length], 'here')
    with pytest.raises(CorruptRecordError, match='checksum'):
        decode_record(b'scene0000_00/00001', record, 'here')


def test_hostile_shapes_are_refused_before_anything_is_allocated():
    huge = struct.pack('<B1s2sB6I', 1, b'x', b'f8', 6, *[0xFFFFFFFF] * 6)
    with pytest.raises(CorruptRecordError, match='scene0000_00/00000: x reaches beyond'):
        decode_record(KEY, _signed(1, 1, huge.ljust(52, b'\0')), 'here')
    objects = struct.pack('<B1s2sBI', 1, b'x', b'O8', 1, 1)
    with pytest.raises(CorruptRecordError, match='header'):
        decode_record(KEY, _signed(1, 1, objects.ljust(52, b'\0')), 'here')
    with pytest.raises(ValueError, match='header'):
        arrays_of_version_1(b'O3DF\1\0\xff\xff\0\0\0\0')


@pytest.mark.parametrize(
    'described',
    [
        {'dtype': 'F64', 'shape': [0xFFFFFFFF] * 6, 'data_offsets': [0, 8]},
        {'dtype': 'F64', 'shape': [1], 'data_offsets': [0, 1 << 40]},
        {'dtype': 'BF16', 'shape': [4], 'data_offsets': [0, 8]},
        {'dtype': 'object', 'shape': [1], 'data_offsets': [0, 8]},
    ],
)
def test_hostile_safetensors_are_refused(described):
    text = json.dumps({'x': described}).encode()
    body = struct.pack('<Q', len(text)) + text + bytes(8)
    with pytest.raises(CorruptRecordError, match='here: scene0000_00/00000'):
        decode_record(KEY, _signed(2, 0, body), 'here')


def _signed(version: int, count: int, body: bytes) -> bytes:
    head = struct.pack('<4sHH', b'O3DF', version, count)
    return head + struct.pack('<I', zlib.crc32(KEY + head + body)) + body


@pytest.mark.parametrize(
    ('arrays', 'message'),
    [
        ({}, 'at least one'),
        ({'a b': np.zeros(1)}, 'not a name'),
        ({'': np.zeros(1)}, 'not a name'),
        ({'__metadata__': np.zeros(1)}, 'not a name'),
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
    check_stamp(replace(STAMP, schema_version=1), STAMP, 'store')  # the same features
    with pytest.raises(StampMismatchError, match="mode is 'tokens', expected 'clip'"):
        check_stamp(STAMP, {'encoder': 'ViT-B-16', 'mode': 'clip'}, 'store')
    with pytest.raises(ValueError, match='no field model'):
        check_stamp(STAMP, {'model': 'ViT-B-16'}, 'store')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ({'schema_version': 3}, 'schema version 3, this program reads 1 and 2'),
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
    for wrong in (feat[:3], feat[:, :2], feat[0]):
        with pytest.raises(ValueError, match=r'here: feat: expected .* C=4, h=3, w=5, got'):
            check_feature({'feat': wrong}, STAMP, 'here')
    with pytest.raises(ValueError, match='here: feat: expected float16, got float32'):
        check_feature({'feat': feat.astype(np.float32)}, STAMP, 'here')
    with pytest.raises(ValueError, match='feat: expected'):
        check_feature({'feat': feat[0]}, replace(STAMP, grid=None), 'here')


@pytest.mark.parametrize(
    ('postprocessing', 'factor'), [('none', 1), ('pixel_shuffle2', 2), ('pixel_shuffle4', 4)]
)
def test_the_stamp_says_how_far_the_map_was_shuffled(postprocessing, factor):
    assert replace(STAMP, postprocessing=postprocessing).shuffle_factor == factor
