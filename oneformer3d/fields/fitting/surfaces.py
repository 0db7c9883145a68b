"""The surfaces that a field's views observed: their points, and colours for what heads say there.

Enters: a ``FittedField``. Leaves: world points (N, 3), ``PcaColors`` by head, learnt cameras.
"""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.visualization.features import PcaColors

from ..scene.extent import Observations
from .fitted import FittedField

QUERY_SPACING = 0.02  # metres between the surface points that are asked where none are given
_PCA_POINTS = 5000


def with_colors(fitted: FittedField) -> FittedField:
    """The field with colours for each of its heads of features and instances."""
    names = drawn_heads(fitted)
    if not names or not len(surface_points(fitted)):
        return fitted
    return replace(fitted, colors={name: feature_colors_of(fitted, name) for name in names})


def drawn_heads(fitted: FittedField) -> list[str]:
    """Names of the heads whose vectors are drawn in colours: features and instances."""
    heads = fitted.field.head_nets
    return [name for name in heads if name == 'instances' or name.startswith('features')]


@torch.no_grad()
def feature_colors_of(fitted: FittedField, head: str = 'features') -> PcaColors:
    """Colours of a head's values, fitted to a seeded sample of the surfaces that views observed."""
    points = surface_points(fitted)
    generator = torch.Generator().manual_seed(fitted.settings.seed)
    chosen = points[torch.randperm(len(points), generator=generator)[:_PCA_POINTS]]
    field = fitted.field
    positions = field.scene_box.to_unit(chosen.to(field.unit_from_world))
    _, hidden = field.density(positions)
    return PcaColors(field.heads(hidden, positions, names=(head,))[head].float().cpu().numpy())


def surface_points(fitted: FittedField, spacing: float = 0.0) -> Tensor:
    """World points (N, 3) of the small depth maps that the views left behind.

    Args:
        fitted: the field.
        spacing: edge in metres of the cubes that keep one point each, the first one that fell
            there; 0 keeps all, also what many views saw alike.
    """
    observations = observations_of(fitted)
    depth = observations.depth  # (V, h, w)
    points = torch.stack([observations.camera[v].unproject(d) for v, d in enumerate(depth)])
    points = points[depth > 0]  # (N, 3)
    box = fitted.field.scene_box.to('cpu')
    points = points[box.contains(box.to_unit(points))]
    if not spacing:
        return points
    cells = (points / spacing).floor().long().numpy()
    first = np.unique(cells, axis=0, return_index=True)[1]
    return points[np.sort(first)]


def observations_of(fitted: FittedField) -> Observations:
    """What its views observed.

    Raises:
        ValueError: the field does not know.
    """
    if fitted.observations is None:
        raise ValueError('the field does not know what its views observed')
    return fitted.observations


def learnt_camera(fitted: FittedField, row: int) -> Camera:
    """Camera of a learnt view at the size of its image, or of its small map where that is gone."""
    camera = observations_of(fitted).camera[row]
    return camera if fitted.image_size is None else camera.resize(fitted.image_size)
