"""Memory that does not grow: with the scan, with the number of rooms, with the records of a store.

Each runs in a process of its own and asks the system for the most it ever held.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.store_samples import STAMP
from tests.tools.conftest import ENVIRONMENT, REPOSITORY

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
GIGABYTE = 1 << 30
SOAK_SECONDS = float(os.environ.get('ONEFORMER3D_SOAK_SECONDS', '300'))

PEAK = """
import json, resource, sys
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
def now():
    return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()
"""


def in_process(code: str, *words: str | Path) -> dict:
    """What a program prints as JSON in its last line."""
    result = subprocess.run(
        [sys.executable, '-c', PEAK + code, *map(str, words)],
        cwd=REPOSITORY,
        env={**os.environ, **ENVIRONMENT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    return json.loads(result.stdout.splitlines()[-1])


INFER = """
import runpy
sys.argv = ['tools/infer.py', sys.argv[1], '--out', sys.argv[2], '--device', 'cpu']
runpy.run_path('tools/infer.py', run_name='__main__')
print(json.dumps({'peak': peak()}))
"""


def write_hall(path: Path, num_points: int) -> Path:
    """Floor and pillars of a hall that grows with its points, 20,000 per square metre."""
    rng, side = np.random.default_rng(0), (num_points / 20_000) ** 0.5
    vertices = np.zeros(
        num_points,
        [(name, '<f4') for name in 'xyz'] + [(name, 'u1') for name in ('red', 'green', 'blue')],
    )
    vertices['x'], vertices['y'] = rng.uniform(0, side, (2, num_points))
    standing = rng.random(num_points) < 0.2
    for axis in 'xy':
        vertices[axis][standing] = np.round(vertices[axis][standing] / 3) * 3
    vertices['z'] = np.where(standing, rng.uniform(0, 2.5, num_points), 0.01)
    vertices['red'] = np.where(standing, 200, 90)
    properties = ''.join(f'property float {name}\n' for name in 'xyz')
    properties += ''.join(f'property uchar {name}\n' for name in ('red', 'green', 'blue'))
    head = f'ply\nformat binary_little_endian 1.0\nelement vertex {num_points}\n{properties}'
    with path.open('wb') as file:
        file.write(f'{head}end_header\n'.encode())
        vertices.tofile(file)
    return path


@pytest.mark.parametrize(('millions', 'most'), [(5, 2.0), (20, 6.0)])
def test_scans_are_segmented_in_memory_that_the_tiles_bound(tmp_path, millions, most):
    """The network sees a tile at a time; beside it stay the points, thinned, and their labels."""
    cloud = write_hall(tmp_path / 'hall.ply', millions * 1_000_000)
    found = in_process(INFER, cloud, tmp_path / 'out')
    assert found['peak'] < most * GIGABYTE, found['peak'] / GIGABYTE


EVALUATE = """
import numpy as np, torch
from oneformer3d.metrics.unified import UnifiedSegMetric
from tests.metrics.test_unified import TABLE, random_sample
metric, held = UnifiedSegMetric(TABLE), []
for number in range(1000):
    metric.process({}, [random_sample(number, 20_000)])
    if number % 100 == 99:
        held.append(now())
scores = metric.evaluate(1000)
print(json.dumps({'held': held, 'mIoU': scores['semantic/mIoU']}))
"""


def test_a_thousand_rooms_are_evaluated_at_flat_memory():
    """A room leaves counts and sorted scores, not its points."""
    found = in_process(EVALUATE)
    assert 0 < found['mIoU'] < 1
    growth = found['held'][-1] - found['held'][1]  # over 800 rooms of 20,000 points
    assert growth < 60e6, found['held']


SOAK = """
import random, time
from oneformer3d.store import FeatureStore
store, rng = FeatureStore(sys.argv[1]), random.Random(0)
opened, names, held, ends = now(), list(store), [], time.monotonic() + float(sys.argv[2])
count = 0
while time.monotonic() < ends:
    for key in rng.choices(names, k=2000):
        assert store.get(*key.split('/'))['feat'].shape == (4, 3, 5)
    count += 2000
    files = sum(1 for _ in __import__('os').scandir('/proc/self/fd'))
    private = sum(int(line.split()[1]) for line in open('/proc/self/smaps_rollup')
                  if line.startswith('Private_'))
    held.append((private * 1024, files))
print(json.dumps({'opened': opened, 'held': held, 'count': count, 'records': len(names)}))
"""


def test_a_store_of_100_000_records_is_sampled_without_growth(tmp_path):
    """Memory of its own and open files stay as they were, whatever is read, for five minutes."""
    from oneformer3d.store import FeatureStoreWriter

    feat = np.zeros((STAMP.channels, *STAMP.grid), np.float16)
    with FeatureStoreWriter(tmp_path / 'store', STAMP) as writer:
        for number in range(100_000):
            feat[0, 0, 0] = number % 1000
            writer.put(f'scene{number // 100:04d}_00', f'{number % 100:05d}', {'feat': feat})

    found = in_process(SOAK, tmp_path / 'store', SOAK_SECONDS)
    assert found['records'] == 100_000
    early = found['held'][len(found['held']) // 10]
    assert found['held'][-1][0] - early[0] < 10e6, (early, found['held'][-1])
    assert found['held'][-1][1] == early[1]
