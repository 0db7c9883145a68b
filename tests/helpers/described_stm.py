"""The sampling as it is described, from the benchmark that measures against it."""

from tests.helpers.load_tool import load_tool

benchmark = load_tool('benchmarks/stm')
described_mhaq3d = benchmark.described_mhaq3d
described_sample4d = benchmark.described_sample4d
