"""Lifted image features for the OneFormer3D segmentor.

Enters: the points of a batch and ``PosedViews`` of each sample. Leaves: ``PointFeatures``. The
image half is MVPNet's, with the same names in state dicts, and so are weights trained there.

    views ─ image_net ─ lift ─ aggregator ─┬─ (concat) beside the colours, into the 3D encoder
    points ────────────── 3D encoder ──────┴─ (add) through a layer that starts at zero
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from oneformer3d.lifting.aggregation import build_aggregator
from oneformer3d.lifting.confidence import DECAY
from oneformer3d.registry import MODELS
from oneformer3d.structures import PointEncoder, PointFeatures, views_of

from .image_net import build_image_net
from .lift_views import lift_views


@MODELS.register_module()
class LiftingEncoder(PointEncoder):
    """Encoder of points and views; takes an encoder's place in a segmentor.

    Args:
        encoder_3d: settings of the 3D encoder; with mode 'concat' its ``in_channels`` counts
            the lifted features too.
        image_net: settings of ``FeaturePyramid``; None is its defaults, or with
            ``clip_channels`` no network at all.
        clip_channels: channels of maps that the views bring along from a feature store.
        mode: 'concat' to the points' own features, or 'add' to the encoder's.
        point_channels: with mode 'add', the width of the 3D encoder.
        lifted_channels: with mode 'concat', the lifted features are brought to this width.
        aggregator: name or settings of a ``ViewAggregator``.
        max_views: only the nearest views of a point; None takes all.
        distance_decay: metres over which the confidence in a view falls to 1/e.
        normal_voxel: metres of the voxels that normals are estimated from, for a confidence that
            also falls with the viewing angle; None leaves the angle out.
        map_store: with a frozen ``image_net``, folder for its maps.
        map_bytes: with a frozen ``image_net`` and no folder, memory for its maps.
    """

    def __init__(
        self,
        encoder_3d: dict,
        # where maps come from
        image_net: Mapping[str, Any] | None = None,
        clip_channels: int | None = None,
        # how they meet the points
        mode: str = 'concat',
        point_channels: int | None = None,
        lifted_channels: int = 32,
        # how the views of a point are aggregated
        aggregator: str | Mapping[str, Any] = 'confidence',
        max_views: int | None = 8,
        distance_decay: float = DECAY,
        normal_voxel: float | None = None,
        # where the maps of a frozen network stay
        map_store: str | None = None,
        map_bytes: int = 1 << 30,
    ) -> None:
        super().__init__()
        if mode not in ('concat', 'add'):
            raise ValueError(f"mode: expected 'concat' or 'add', got {mode!r}")
        if (mode == 'add') != (point_channels is not None):
            raise ValueError("point_channels is of mode 'add' and needed there")

        self.mode = mode
        self.max_views = max_views
        self.distance_decay = distance_decay
        self.normal_voxel = normal_voxel

        self.image_net, self._maps_of, channels = build_image_net(
            image_net, clip_channels, map_store, map_bytes
        )
        self.aggregator = build_aggregator(aggregator, channels)
        self.points_3d = MODELS.build(encoder_3d)
        self.out = nn.Linear(
            channels, lifted_channels if point_channels is None else point_channels
        )
        if mode == 'add':
            nn.init.zeros_(self.out.weight)
            nn.init.zeros_(self.out.bias)

    def forward(self, inputs: Mapping, data_samples: list | None = None) -> PointFeatures:
        """Features of all points.

        Args:
            inputs: ``points`` [(N, 6)], ``views`` [``PosedViews`` or None] or absent, and what
                the 3D encoder reads besides.
            data_samples: passed on to the 3D encoder.
        """
        points = inputs['points']
        lifted = lift_views(
            self._maps_of,
            self.aggregator,
            points,
            views_of(inputs),
            self.max_views,
            self.distance_decay,
            normal_voxel=self.normal_voxel,
        )
        features: Tensor = self.out(lifted.features)  # (sum N, width)

        if self.mode == 'add':
            base = self.points_3d(inputs, data_samples)
            return replace(base, features=base.features + features)

        # beside the colours, the 3D encoder reads them as it reads these
        by_sample = features.split([len(cloud) for cloud in points])
        wider = [torch.cat(pair, dim=1) for pair in zip(points, by_sample)]  # B × (N, 6 + width)
        return self.points_3d({**inputs, 'points': wider}, data_samples)
