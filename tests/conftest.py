"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

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
