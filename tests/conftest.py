"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

import oneformer3d  # noqa: F401  (before mmdet3d, whose import needs it where mmcv has no ops)

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(autouse=True)
def _fixed_seed() -> None:
    """Every test draws the same random numbers, whatever ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope='session')
def shared_dir() -> Path:
    """Folder beside the repository with reference values and real scans; skips when absent."""
    path = REPOSITORY.parent / 'shared'
    if not path.is_dir():
        pytest.skip('no folder with reference values beside the repository')
    return path


@pytest.fixture(scope='session')
def real_frames() -> Path:
    """Five frames of a real room, 640×480, in the layout of 7-Scenes."""
    return REPOSITORY / 'tests' / 'fixtures' / 'slambook2_ch5'


@pytest.fixture(scope='session')
def tiny_rooms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root with four training rooms and one validation room, small and sparse."""
    from oneformer3d.data.synthetic.generate import generate_dataset
    from oneformer3d.data.synthetic.settings import tiny_settings

    root = tmp_path_factory.mktemp('tiny_rooms')
    generate_dataset(
        root,
        num_train=4,
        num_val=1,
        seed=0,
        num_workers=1,
        progress=False,
        settings=tiny_settings(),
    )
    return root
