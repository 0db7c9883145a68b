"""MVPNet: image features of many views lifted to the points, then a network of points.

Enters: ``inputs = dict(points=[(N, 6)], views=[PosedViews])``. Leaves: a loss, or data samples
with ``pred_pts_seg``. Letters as in ``structures``.

    views ─ image_net ─ lift ─ aggregator ─┐
    points ─ colour, height ───────────────┴─ point_processor (PointNet++) ─ classes

Semantic classes only: of a prediction, every class is one segment and there are no instances.
After Jaritz, Gu and Su, Multi-view PointNet for 3D Scene Understanding (2019); without the views
it is PointNet++ on coloured points.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModel
from torch import Tensor, nn

from oneformer3d.backbones.fpn import FeaturePyramid
from oneformer3d.backbones.neighbourhoods import shuffled_rank
from oneformer3d.backbones.pointnet2 import Point3DProcessor
from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.lifting.aggregation import build_aggregator
from oneformer3d.lifting.confidence import DECAY
from oneformer3d.lifting.view_aggregator import ViewAggregator
from oneformer3d.registry import MODELS
from oneformer3d.structures import PosedViews, point_labels, views_of

from .image_net import build_image_net, check_feature_dims, named_settings
from .lift_views import LiftedPoints, MapsOf, lift_views
from .point_inputs import POINT_INPUTS, draw_points, point_features, views_of_points
from .point_labels import masked_cross_entropy, with_semantic_prediction


@MODELS.register_module(name=['MVPNet', 'FeatureLiftingSegmentation'])
class FeatureLiftingSegmentation(BaseModel):
    """Multi-view feature lifting, semantic segmentation.

    Args:
        backbone_2d: name of the image backbone, where ``image_net`` is not given; None is
            'resnet50'.
        feature_dims: channels of its four maps, which it knows itself: other numbers are an error.
        lifted_feature_dim: channels that the four scales are brought to, where ``image_net`` is
            not given; None is 256.
        num_classes: C; label C means unlabeled.
        image_net: all settings of ``FeaturePyramid``; None is its defaults with the three above,
            or with ``clip_channels`` no network at all.
        clip_channels: channels of maps that the views bring along from a feature store.
        use_images: False is the network of points alone.
        aggregator: name or settings of a ``ViewAggregator``.
        point_processor: settings of ``Point3DProcessor`` but for its channels and classes.
        point_inputs: what the points bring themselves, of 'color' and 'height' (above the
            lowest point, metres); nothing by default.
        max_views: only the nearest views of a point; None takes all.
        distance_decay: metres over which the confidence in a view falls to 1/e.
        normal_voxel: metres of the voxels that normals are estimated from, for a confidence that
            also falls with the viewing angle; None leaves the angle out.
        num_train_points: of each sample, drawn at random; None takes all.
        points_per_pass: in prediction, about so many points go through the point network at a
            time, each time spread over the whole scene, so that it sees the density it was
            trained on; None is all of them.
        chunk_size: points that are lifted at a time in prediction.
        map_store: with a frozen ``image_net``, folder for its maps.
        map_bytes: with a frozen ``image_net`` and no folder, memory for its maps.
        data_preprocessor: settings of the data preprocessor.
        init_cfg: settings of weight initialisation.
    """

    def __init__(
        self,
        backbone_2d: str | None = None,
        feature_dims: Sequence[int] | None = None,
        lifted_feature_dim: int | None = None,
        num_classes: int = 20,
        *,
        # where else maps come from
        image_net: Mapping[str, Any] | None = None,
        clip_channels: int | None = None,
        use_images: bool = True,
        # how the views of a point are aggregated
        aggregator: str | Mapping[str, Any] = 'attention',
        # points
        point_processor: Mapping[str, Any] | None = None,
        point_inputs: Sequence[str] = (),
        # which views count, and how much
        max_views: int | None = 8,
        distance_decay: float = DECAY,
        normal_voxel: float | None = None,
        # how many points at a time
        num_train_points: int | None = None,
        points_per_pass: int | None = None,
        chunk_size: int = 10000,
        # where the maps of a frozen network stay
        map_store: str | None = None,
        map_bytes: int = 1 << 30,
        # settings of the framework
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            SceneDataPreprocessor()
            if data_preprocessor is None
            else MODELS.build(data_preprocessor),
            init_cfg,
        )
        unknown = sorted(set(point_inputs) - set(POINT_INPUTS))
        if unknown:
            raise ValueError(
                f'point_inputs: expected a subset of {list(POINT_INPUTS)}, got {unknown}'
            )
        for name, value in (
            ('num_train_points', num_train_points),
            ('points_per_pass', points_per_pass),
            ('chunk_size', chunk_size),
        ):
            if value is not None and value < 1:
                raise ValueError(f'{name} must be positive, got {value}')

        self.num_classes = num_classes
        self.point_inputs = tuple(point_inputs)
        self.max_views = max_views
        self.distance_decay = distance_decay
        self.normal_voxel = normal_voxel
        self.num_train_points = num_train_points
        self.points_per_pass = points_per_pass
        self.chunk_size = chunk_size

        # images
        in_channels = sum(POINT_INPUTS[name] for name in point_inputs)
        self.image_net: FeaturePyramid | None = None
        self.aggregator: ViewAggregator | None = None
        self._maps_of: MapsOf | None = None
        if use_images:
            image_net = named_settings(backbone_2d, lifted_feature_dim, image_net)
            self.image_net, self._maps_of, lifted_channels = build_image_net(
                image_net, clip_channels, map_store, map_bytes
            )
            check_feature_dims(feature_dims, self.image_net)
            self.aggregator = build_aggregator(aggregator, lifted_channels)
            in_channels += lifted_channels

        # points
        if in_channels == 0:
            raise ValueError('the point network needs images or point_inputs')
        self.point_processor = Point3DProcessor(in_channels, num_classes, **(point_processor or {}))

    @property
    def num_semantic_classes(self) -> int:
        """C."""
        return self.num_classes

    @property
    def backbone_2d(self) -> nn.Module | None:
        """The image backbone, None without images."""
        return None if self.image_net is None else self.image_net.backbone_2d

    @property
    def projectors(self) -> nn.ModuleList | None:
        """1×1 convolutions of the four scales, None without them."""
        return None if self.image_net is None else self.image_net.projectors

    def forward(
        self,
        inputs: dict,
        data_samples: list[Det3DDataSample] | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[Det3DDataSample] | list[Tensor]:
        """``loss``, ``predict`` or, with mode 'tensor', the logits (N, C) of each sample."""
        if mode == 'loss':
            if data_samples is None:
                raise ValueError("mode 'loss' needs data samples with the ground truth")
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.logits(inputs)
        raise ValueError(f'mode: expected loss, predict or tensor, got {mode!r}')

    def loss(self, inputs: dict, data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Cross-entropy of the labeled points.

        Args:
            inputs: ``points`` [(N, 6)] and ``views`` [``PosedViews`` or None].
            data_samples: with ``gt_pts_seg.pts_semantic_mask`` (N,) in 0…C.

        Raises:
            ValueError: a sample without semantic labels.
        """
        points, views = list(inputs['points']), views_of(inputs)
        labels = point_labels(data_samples, 'pts_semantic_mask')
        if self.num_train_points is not None:
            drawn = [draw_points(cloud, self.num_train_points) for cloud in points]
            views = [views_of_points(sample, chosen) for sample, chosen in zip(views, drawn)]
            points = [cloud[chosen] for cloud, chosen in zip(points, drawn)]
            labels = [label[chosen] for label, chosen in zip(labels, drawn)]

        features, lifted = self.features(points, views)  # (sum N, F)
        xyz = torch.cat([cloud[:, :3] for cloud in points])
        logits = self.point_processor(features, xyz, [len(cloud) for cloud in points])

        target = torch.cat([label.to(logits.device) for label in labels])
        losses = {'loss_semantic': masked_cross_entropy(logits, target, self.num_classes)}
        if lifted is not None:
            losses['coverage'] = lifted.visible.float().mean()
        return losses

    @torch.no_grad()
    def predict(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None = None
    ) -> list[Det3DDataSample]:
        """Classes of every point.

        Returns:
            New data samples with, in addition, ``pred_pts_seg`` as the segmentors write it,
            ``pts_confidence`` (N,), the probability of the class, and, of a model with images,
            ``pts_view_agreement`` (N,), how far the views of a point show the same.
        """
        if data_samples is None:
            data_samples = [Det3DDataSample() for _ in inputs['points']]

        logits, agreement = self.logits_and_agreement(inputs)
        agreement = [None] * len(logits) if agreement is None else agreement
        return [
            with_semantic_prediction(sample, rows.softmax(1), agreed)
            for sample, rows, agreed in zip(data_samples, logits, agreement)
        ]

    def logits(self, inputs: dict) -> list[Tensor]:
        """Logits (N, C) of every point of each sample."""
        points, views = list(inputs['points']), views_of(inputs)
        features, _ = self.features(points, views)
        return self._of_samples(features, points)

    def logits_and_agreement(self, inputs: dict) -> tuple[list[Tensor], list[Tensor] | None]:
        """Logits (N, C) of each sample and ``view_agreement`` (N,), None without images."""
        points, views = list(inputs['points']), views_of(inputs)
        features, lifted = self.features(points, views, with_agreement=True)
        logits = self._of_samples(features, points)
        if lifted is None or lifted.agreement is None:
            return logits, None
        return logits, list(lifted.agreement.split([len(sample) for sample in points]))

    def _of_samples(self, features: Tensor, points: Sequence[Tensor]) -> list[Tensor]:
        """Logits (N, C) of each sample from its rows of features (sum N, F)."""
        by_sample = features.split([len(cloud) for cloud in points])
        return [self._in_passes(rows, cloud[:, :3]) for rows, cloud in zip(by_sample, points)]

    def features(
        self,
        points: Sequence[Tensor],
        views: Sequence[PosedViews | None],
        with_agreement: bool = False,
    ) -> tuple[Tensor, LiftedPoints | None]:
        """What enters the point network, (sum N, F), and the lifted part of it if there is one."""
        columns = [torch.cat([point_features(sample, self.point_inputs) for sample in points])]
        if self.aggregator is None or self._maps_of is None:
            return columns[0], None

        lifted = lift_views(
            self._maps_of,
            self.aggregator,
            points,
            views,
            self.max_views,
            self.distance_decay,
            self.chunk_size,
            self.normal_voxel,
            with_agreement,
        )
        return torch.cat((lifted.features, *columns), dim=1), lifted  # (sum N, F)

    def extract_maps(self, images: Tensor) -> dict[str, Tensor]:
        """Maps of images (V, 3, H, W) that cover them exactly: name → (V, C, h, w).

        Raises:
            ValueError: there is no image network, or the strides do not divide the sides.
        """
        if self.image_net is None:
            raise ValueError('this network has no image_net')

        # maps reach beyond images that are padded; here they end where the image does
        maps = self.image_net(images)
        cut = {}
        for x in maps.maps:
            stride = maps.covered[0] // x.shape[-2]
            height, width = images.shape[-2:]
            if height % stride or width % stride:
                raise ValueError(f'images of {(height, width)}: stride {stride} does not divide it')
            cut[f'feat_1/{stride}'] = x[..., : height // stride, : width // stride]
        return cut

    def classify_points(self, points: Tensor, features: Tensor) -> Tensor:
        """Logits (N, C) of points (N, 3 or 6) with aggregated image features (N, C').

        Raises:
            ValueError: the network reads colours, and the points have none.
        """
        if 'color' in self.point_inputs and points.shape[1] < 6:
            raise ValueError('this network reads colours: points must be (N, 6)')
        columns = point_features(points, self.point_inputs)
        return self._in_passes(torch.cat((features, columns), dim=1), points[:, :3])

    def _in_passes(self, features: Tensor, xyz: Tensor) -> Tensor:
        """Logits (N, C) of one sample, in subsets that are each spread over the scene."""
        num_points = len(xyz)
        if self.points_per_pass is None or num_points <= self.points_per_pass:
            return self.point_processor(features, xyz)

        num_passes = -(-num_points // self.points_per_pass)
        order = torch.argsort(shuffled_rank(torch.arange(num_points, device=xyz.device)))
        logits = features.new_zeros(num_points, self.num_classes)
        for chosen in order.tensor_split(num_passes):
            chosen = chosen.sort().values
            logits[chosen] = self.point_processor(features[chosen], xyz[chosen])
        return logits
