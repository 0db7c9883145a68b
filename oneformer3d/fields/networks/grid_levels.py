"""The levels of a multi-resolution hash grid.

Enters: the grid's settings. Leaves: for each level its scale, nodes and rows of the table.
"""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class GridLevel:
    """One level of the grid: rows ``first … first + num_rows − 1`` of the table.

    Attributes:
        scale: positions in [0, 1] are multiplied by it, and shifted by half a node.
        num_nodes: along an axis.
        first, num_rows: where the level lies in the table.
    """

    scale: float
    num_nodes: int
    first: int
    num_rows: int

    @property
    def is_dense(self) -> bool:
        """Whether every node has a row of its own."""
        return self.num_nodes**3 <= self.num_rows


def grid_levels(
    num_levels: int, log2_hashmap_size: int, base_resolution: int, per_level_scale: float
) -> tuple[GridLevel, ...]:
    """The levels' sizes, in float32 as tiny-cuda-nn works them out.

    Raises:
        ValueError: sizes that are not positive.
    """
    if num_levels < 1 or not 0 < log2_hashmap_size < 31 or base_resolution < 2:
        raise ValueError(
            f'a grid needs levels, 2^1 to 2^30 rows and a base resolution of 2, got {num_levels}, '
            f'2^{log2_hashmap_size} and {base_resolution}'
        )

    levels, first = [], 0
    log2_scale = np.log2(np.float32(per_level_scale))
    for level in range(num_levels):
        # scale_l = N_min b^l − 1
        scale = np.exp2(np.float32(level) * log2_scale) * np.float32(base_resolution)
        scale = np.float32(scale - np.float32(1))
        num_nodes = int(np.ceil(scale)) + 1

        # rows_l = min(⌈nodes³⌉₈, 2^T)
        num_rows = min(-(-(num_nodes**3) // 8) * 8, 2**log2_hashmap_size)
        levels.append(GridLevel(float(scale), num_nodes, first, num_rows))
        first += num_rows
    return tuple(levels)
