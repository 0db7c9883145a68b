"""Images that are too large, cut short or of another kind."""

import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from oneformer3d.files.images import (
    image_size,
    open_image,
    read_depth,
    read_ids,
    read_image,
    to_rgb,
)


def png_that_claims(path, width, height):
    """A PNG of a few bytes whose header names a size."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack('>I', len(content)) + kind + content + struct.pack('>I', checksum)

    header = struct.pack('>IIBBBBB', width, height, 8, 0, 0, 0, 0)
    rows = zlib.compress(bytes(1000))
    content = chunk(b'IHDR', header) + chunk(b'IDAT', rows) + chunk(b'IEND', b'')
    path.write_bytes(b'\x89PNG\r\n\x1a\n' + content)
    return path


@pytest.mark.parametrize('read', [lambda p: read_image(p, (8, 8)), read_depth, read_ids])
@pytest.mark.parametrize('limit', [None, 89_478_485])
def test_too_many_pixels_are_refused_by_the_header_whatever_the_process_allows(
    tmp_path, monkeypatch, read, limit
):
    monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)  # importing nuscenes switches it off
    path = png_that_claims(tmp_path / 'bomb.png', 30_000, 30_000)
    with pytest.raises(ValueError, match=r'bomb\.png: .*(30000×30000 pixels, more than|900000000)'):
        read(path)


def test_the_limit_holds_where_nuscenes_is_imported(tmp_path):
    path = png_that_claims(tmp_path / 'bomb.png', 30_000, 30_000)
    code = (
        'import oneformer3d, nuscenes.utils.map_mask\n'
        'from PIL import Image\n'
        'from oneformer3d.files.images import image_size\n'
        'assert Image.MAX_IMAGE_PIXELS is None or Image.MAX_IMAGE_PIXELS > 1e9\n'
        f'image_size({str(path)!r})\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert 'ValueError: is 30000×30000 pixels, more than the 12 million' in result.stderr


@pytest.mark.parametrize('share', [0.1, 0.5, 0.9])
def test_images_that_were_cut_are_errors_and_never_half_a_picture(tmp_path, share):
    pixels = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    for name, image in (('a.jpg', pixels), ('a.png', pixels[..., 0]), ('b.png', pixels)):
        Image.fromarray(image).save(tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(share * len(whole))])
        assert image_size(tmp_path / name) == (240, 320)
        with pytest.raises(ValueError, match=name):
            read_image(tmp_path / name, (240, 320))
    with pytest.raises(ValueError, match=r'a\.png: not a readable image'):
        read_ids(tmp_path / 'a.png')


def test_ids_are_of_one_channel(tmp_path):
    Image.fromarray(np.full((4, 5), 40_000, np.uint16)).save(tmp_path / 'ids.png')
    assert read_ids(tmp_path / 'ids.png').tolist() == [[40_000] * 5] * 4
    Image.fromarray(np.zeros((4, 5, 3), np.uint8)).save(tmp_path / 'colour.png')
    with pytest.raises(ValueError, match=r'colour\.png: not an image of ids'):
        read_ids(tmp_path / 'colour.png')
    with pytest.raises(FileNotFoundError, match=r'absent\.png: no such image'):
        read_ids(tmp_path / 'absent.png')


@pytest.mark.parametrize('mode', ['RGBA', 'L', 'P', 'I;16'])
def test_colours_of_any_kind_become_rgb(tmp_path, mode):
    levels = np.linspace(0, 255, 64).astype(np.uint8).reshape(8, 8)
    grey = Image.fromarray(levels)
    image = (
        Image.fromarray(levels.astype(np.uint16) * 257) if mode == 'I;16' else grey.convert(mode)
    )
    image.save(tmp_path / 'a.png')
    with open_image(tmp_path / 'a.png') as opened:
        rgb = np.asarray(to_rgb(opened))
    np.testing.assert_array_equal(rgb, np.repeat(levels[..., None], 3, axis=2))
