"""The sampling as it is described, from the benchmark that measures against it."""

import importlib.util
from pathlib import Path

FILE = Path(__file__).resolve().parents[2] / 'tools' / 'benchmarks' / 'stm.py'
SPEC = importlib.util.spec_from_file_location('stm_benchmark', FILE)
benchmark = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(benchmark)
described_mhaq3d = benchmark.described_mhaq3d
described_sample4d = benchmark.described_sample4d
