"""Data workers end with the process that started them."""

import subprocess
import sys

from tests.conftest import REPOSITORY

# In a cycle of references, as mmengine's runner makes them, a loader is not collected before exit.
PROGRAM = """
from torch.utils.data import DataLoader
from oneformer3d.engine.data_workers import end_workers, seed_worker_from_torch

loader = DataLoader(
    range(8), num_workers=2, persistent_workers=True, worker_init_fn=seed_worker_from_torch
)
loader.cycle = [loader]
for _ in range(2):
    assert sum(int(batch) for batch in loader) == 28
    end_workers(loader)
"""


def test_a_process_ends_although_its_workers_outlive_a_signal():
    command = [sys.executable, '-W', 'ignore', '-c', PROGRAM]
    done = subprocess.run(command, cwd=REPOSITORY, timeout=240, check=False)
    assert done.returncode == 0
