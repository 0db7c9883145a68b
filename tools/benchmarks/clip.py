"""Extraction of CLIP features end to end against the encoder's bare forward pass.

Images are drawn and written as JPEG files with 16-bit depth beside them. Measured in turns, so that
a machine shared with others slows all parts alike: the forward pass alone on a batch in memory, and
the whole extraction (decode, forward pass, store, valid-projection rate) of the same number of
images at the same batch size and type. The ratio is of the medians of the images per second.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.data.infos import write_infos
from oneformer3d.extraction.report import ExtractionReport
from oneformer3d.extraction.run import build_encoder, encode_batch, extract_features, shuffle_factor
from oneformer3d.extraction.settings import DTYPES, ExtractionSettings, make_settings
from tools.benchmarks._measure import add_integers, clocked, read_integers

CEILING_FLOP = 35.13e9  # of one image through ViT-B/16 at 224 pixels, open_clip's profile
OPTIONS = {
    'num-images': (48, 'of each turn'),
    'turns': (3, 'of the bare pass, the extraction and the bare pass'),
    'batch-size': (16, 'images of a forward pass'),
    'workers': (2, 'threads that decode'),
    'num-points': (100_000, 'of the scene'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add this benchmark's options."""
    add_integers(parser, OPTIONS)
    parser.add_argument('--model', default='ViT-B-16', help='(%(default)s)')
    parser.add_argument('--weights', default='none', help='tag, file or none (%(default)s)')
    parser.add_argument('--dtype', choices=DTYPES, default='fp16', help='stored (%(default)s)')
    parser.add_argument('--compute-dtype', choices=DTYPES, help='computed in')
    parser.add_argument('--device', default='auto', help='(%(default)s)')
    parser.add_argument('--image-size', type=int, nargs=2, default=(480, 640), metavar=('H', 'W'))
    parser.add_argument('--peak-tflops', type=float, help='of the device, for the share of it')


def run(args: argparse.Namespace) -> dict:
    """Measure; returns the numbers printed."""
    read_integers(args, tuple(OPTIONS))
    if args.num_images < args.batch_size:
        raise ValueError('expected at least one batch of images')

    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_scene(root / 'data', args.num_images, tuple(args.image_size), args.num_points)
        settings = make_settings(
            {
                'data_root': str(root / 'data'),
                'output_dir': str(root / 'out'),
                'model': args.model,
                'weights': args.weights,
                'batch_size': args.batch_size,
                'workers': args.workers,
                'dtype': args.dtype,
                'compute_dtype': args.compute_dtype,
                'device': args.device,
            }
        )

        encoder = build_encoder(settings)
        bare_rate(encoder, settings, args.batch_size)  # warm-up
        bare, reports = [], []
        for turn in range(args.turns):
            bare.append(bare_rate(encoder, settings, args.num_images))
            target = make_settings({**vars(settings), 'output_dir': str(root / f'out{turn}')})
            reports.append(extract_features(target, encoder))
            bare.append(bare_rate(encoder, settings, args.num_images))
    return show(args, encoder, bare, reports)


def bare_rate(encoder: ClipEncoder, settings: ExtractionSettings, num_images: int) -> float:
    """Images per second of the encoder on batches that lie decoded in memory."""
    height, width = encoder.input_size
    rng = np.random.default_rng(0)
    batch = rng.integers(0, 256, (settings.batch_size, height, width, 3), dtype=np.uint8)
    factor = shuffle_factor(settings, encoder)
    num_batches = -(-num_images // settings.batch_size)

    def encode() -> None:
        for _ in range(num_batches):
            encode_batch(encoder, list(batch), factor)

    return num_batches * settings.batch_size / clocked(encode)[1]['seconds']


def write_scene(root: Path, num_images: int, size: tuple[int, int], num_points: int) -> None:
    """A data root with one scene: smooth noise as colour, a plane as depth, points on it."""
    rng = np.random.default_rng(0)
    height, width = size
    intrinsics = [[0.9 * width, 0, (width - 1) / 2], [0, 0.9 * width, (height - 1) / 2], [0, 0, 1]]
    folder = root / 'posed_images' / 'scene'
    folder.mkdir(parents=True)

    images = []
    for index in range(num_images):
        small = rng.integers(0, 256, (height // 16, width // 16, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)
        noise = rng.normal(0, 6, (height, width, 1))
        picture = np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8)
        Image.fromarray(picture).save(folder / f'{index:05d}.jpg', quality=92)

        depth = np.full(size, 2000, dtype=np.uint16) + rng.integers(0, 10, size, dtype=np.uint16)
        Image.fromarray(depth).save(folder / f'{index:05d}.png')

        pose = np.eye(4)
        pose[0, 3] = 0.01 * index
        images.append(
            {
                'frame': f'{index:05d}',
                'img_path': f'scene/{index:05d}.jpg',
                'depth_path': f'scene/{index:05d}.png',
                'world_from_cam': pose.tolist(),
            }
        )

    (root / 'points').mkdir()
    points = rng.uniform(-3, 3, (num_points, 6)).astype(np.float32)
    points[:, 2:] = 2
    points.tofile(root / 'points' / 'scene.bin')

    scene = {
        'scene_id': 'scene',
        'lidar_points': {'num_pts_feats': 6, 'lidar_path': 'scene.bin'},
        'image_size': list(size),
        'depth_size': list(size),
        'cam2img': intrinsics,
        'depth2img': intrinsics,
        'images': images,
    }
    write_infos(root / 'oneformer3d_infos_test.json', {'metainfo': {}, 'data_list': [scene]})


def show(
    args: argparse.Namespace,
    encoder: ClipEncoder,
    bare: list[float],
    reports: list[ExtractionReport],
) -> dict:
    """Print the table; returns its numbers."""
    whole = [report.images_per_second for report in reports]
    middle = sorted(reports, key=lambda r: r.images_per_second)[len(reports) // 2]
    loop = middle.loop_seconds

    result = {
        'model': encoder.name,
        'batch_size': args.batch_size,
        'dtype': args.dtype,
        'computed_in': str(encoder.compute_dtype).removeprefix('torch.'),
        'device': str(encoder.mean.device),
        'threads': torch.get_num_threads(),
        'bare_images_per_second': statistics.median(bare),
        'extraction_images_per_second': statistics.median(whole),
        'ratio': statistics.median(whole) / statistics.median(bare),
        'model_share': middle.model_seconds / loop,
        'waited_for_decoding_share': middle.wait_decode_seconds / loop,
        'waited_for_writing_share': middle.wait_write_seconds / loop,
        'decode_work_per_image_ms': 1000 * middle.decode_seconds / middle.num_encoded,
        'write_work_per_image_ms': 1000 * middle.write_seconds / middle.num_encoded,
        'store_bytes_per_image': middle.store_bytes / middle.num_encoded,
    }

    if args.peak_tflops is not None:
        ceiling = args.peak_tflops * 1e12 / CEILING_FLOP
        for side in ('bare', 'extraction'):
            result[f'{side}_share_of_ceiling'] = result[f'{side}_images_per_second'] / ceiling

    for name, value in result.items():
        print(f'{name:32}{value:>12.3f}' if isinstance(value, float) else f'{name:32}{value:>12}')
    return result
