"""What the store in ``tests/fixtures/store_v1`` holds: written once by records of version 1."""

from pathlib import Path

import numpy as np

from oneformer3d.store import StoreStamp

STORE_V1 = Path(__file__).resolve().parents[1] / 'fixtures' / 'store_v1'
STAMP_FIELDS_V1 = {
    'encoder': 'ViT-B-16',
    'weights_digest': '0123abcd',
    'layer': 'last',
    'mode': 'tokens',
    'attn_mode': 'vanilla',
    'input_size': (32, 48),
    'dtype': 'float16',
    'preprocessing': 'squash 32x48, clip mean and std',
    'channels': 6,
    'grid': (4, 6),
    'postprocessing': 'pixel_shuffle2',
}


def stamp_v1() -> StoreStamp:
    """The fixture's stamp as this program would make it: of its own schema version."""
    return StoreStamp(**STAMP_FIELDS_V1)


def frames_v1() -> dict[str, dict[str, np.ndarray]]:
    """Key → arrays, by shard: the first two frames are in rank 0's, the others in rank 1's."""
    frames = {}
    for number, key in enumerate(('room0/00000', 'room0/00010', 'room1/00000', 'room1/a.b-c')):
        feat = np.arange(6 * 4 * 6).reshape(6, 4, 6) / 16 - number  # exact in float16
        clip_global = (np.arange(8) - number) / 4
        frames[key] = {
            'feat': feat.astype(np.float16),
            'clip_global': clip_global.astype(np.float32),
        }

    frames['room0/00010'] |= {  # as features at points have them
        'uv_idx': np.arange(10, dtype=np.float32).reshape(5, 2) + 0.5,
        'valid': np.array([True, False, True, True, False]),
        'point': np.arange(5, dtype=np.int64) << 33,
        'nothing': np.zeros((0, 3), np.int32),
    }
    frames['room1/00000'] |= {  # as crop pyramids have them
        'scale0': np.full((6, 2, 3), 0.25, np.float16),
        'scale1': np.full((6, 1, 1), -65504, np.float16),
        'level': np.array(7, np.uint8),
        'weights': np.array([1e-300, np.pi]),
        'small': np.array([[-128], [127]], np.int8),
    }
    return frames
