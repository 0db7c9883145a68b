"""The OneFormer3D segmentor: one model for semantic, instance and panoptic labels of points.

    points → encoder → superpoint pooling → query decoder → criterion      (training)
                                                          → post-processing (prediction)

Enters: ``inputs = dict(points=[(N, F)], …)`` and data samples. Leaves: losses, or data samples
with ``pred_pts_seg``. Letters as in ``structures``. Datasets differ by settings only; the
published type names are factories that preset them (``published``).
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from mmdet3d.structures import Det3DDataSample, PointData
from mmengine.model import BaseModel
from torch import Tensor, nn

from oneformer3d.backbones.voxelize import pool_superpoints
from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.registry import MODELS
from oneformer3d.structures import (
    DecoderScene,
    MaskDecoder,
    PointEncoder,
    PointFeatures,
    PosedViews,
    QueryOutput,
    SceneTargets,
    expect_contract,
    find_point_labels,
    hide_prefix,
    point_labels,
    split_queries,
    views_of,
)

from .classes import checked_classes, instance_class_table
from .postprocess import PostprocessSettings, SceneLogits, ScenePrediction, segment_scene
from .targets import superpoint_targets
from .weights import adapt_sparse_conv_layout


@MODELS.register_module()
class OneFormer3D(BaseModel):
    """Unified segmentation of indoor point clouds (Kolodiazhnyi et al., CVPR 2024).

    In state dicts the encoder's parameters have no ``encoder.`` in front of them: these are the
    names of the published checkpoints.

    Args:
        encoder: settings of a ``PointEncoder``.
        decoder: settings of a ``MaskDecoder``.
        criterion: settings of a criterion.
        num_semantic_classes: C.
        stuff_classes: semantic classes that are stuff in the panoptic result. There may be none
            (all classes are things), or all of them (a semantic model, whose decoder predicts 0
            instance classes).
        instance_classes: the semantic class of each instance class; by default all classes if
            the decoder predicts C, else those that are not stuff.
        use_superpoints: pool features over ``gt_pts_seg.sp_pts_mask``; False pools over voxels.
        query_thr: in training, the smallest fraction of superpoints that become queries; each
            sample draws a fraction between this and 1.
        train_cfg: has no keys, kept for the configuration format.
        test_cfg: keys of ``PostprocessSettings``.
        data_preprocessor: settings of the data preprocessor.
        init_cfg: settings of weight initialisation.

    Attributes:
        iteration: of training, which ``IterationHook`` keeps up to date and losses that warm up
            read; None outside of a training run.

    Raises:
        TypeError: an encoder or a decoder of another class.
        ValueError: unknown keys, or classes that do not fit the decoder.
    """

    def __init__(
        self,
        # parts
        encoder: dict,
        decoder: dict,
        criterion: dict,
        # classes
        num_semantic_classes: int,
        stuff_classes: Sequence[int],
        instance_classes: Sequence[int] | None = None,
        # superpoints and queries
        use_superpoints: bool = True,
        query_thr: float = 0.5,
        # settings of the framework
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # built here: the base class would look the name up in mmengine's own registry
        super().__init__(
            SceneDataPreprocessor()
            if data_preprocessor is None
            else MODELS.build(data_preprocessor),
            init_cfg,
        )
        if train_cfg:
            raise ValueError(f'train_cfg: unknown keys {sorted(train_cfg)}')
        if not 0 <= query_thr <= 1:
            raise ValueError(f'query_thr: expected a number in 0…1, got {query_thr}')

        self.encoder: PointEncoder = MODELS.build(encoder)
        self.decoder: MaskDecoder = MODELS.build(decoder)
        self.criterion = MODELS.build(criterion)
        expect_contract(self.encoder, PointEncoder, 'an encoder')
        expect_contract(self.decoder, MaskDecoder, 'a decoder')

        self.num_semantic_classes = num_semantic_classes
        self.stuff_classes = checked_classes(stuff_classes, num_semantic_classes)
        self.instance_classes = instance_class_table(
            instance_classes,
            self.decoder.num_instance_classes,
            num_semantic_classes,
            self.stuff_classes,
        )
        self.use_superpoints = use_superpoints
        self.query_thr = query_thr
        self.test_settings = PostprocessSettings.of(test_cfg or {})
        self.iteration: int | None = None

        self.register_load_state_dict_pre_hook(_read_either_layout)
        hide_prefix(self, 'encoder')

    def forward(
        self,
        inputs: dict,
        data_samples: list[Det3DDataSample] | None = None,
        mode: str = 'tensor',
    ) -> dict[str, Tensor] | list[Det3DDataSample] | QueryOutput:
        """``loss``, ``predict`` or, with mode 'tensor', the decoder's output."""
        if mode == 'loss':
            if data_samples is None:
                raise ValueError("mode 'loss' needs data samples with the ground truth")
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            outputs, _ = self.decode_all(inputs, data_samples)
            return outputs
        raise ValueError(f'mode: expected loss, predict or tensor, got {mode!r}')

    def loss(self, inputs: dict, data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Training losses.

        Args:
            inputs: ``points`` [(N, F)] and what the encoder reads besides.
            data_samples: with ``gt_pts_seg`` holding ``pts_semantic_mask``, ``pts_instance_mask``
                and, with superpoints, ``sp_pts_mask``.
        """
        points, superpoints, features = self._encode(inputs, data_samples)  # B × (S, D)
        targets = self.build_targets(superpoints, data_samples)
        clouds, views = list(inputs['points']), _views_of(inputs, points)

        # every sample once more, as it is without images
        if points.without_views is not None:
            features = features + pool_superpoints(points.without_views, superpoints)
            superpoints, targets, clouds = superpoints * 2, targets * 2, clouds * 2
            views = views + [None] * len(views)

        queries, targets = self.select_queries(features, targets)  # B × (Q, D)
        query_ids = [target.query_ids for target in targets]
        scenes = [DecoderScene(*row) for row in zip(clouds, superpoints, views, query_ids)]
        outputs = self.decoder(features, queries, scenes=scenes)

        losses = self.criterion(outputs, targets)
        return losses | self.encoder.auxiliary_losses(points, data_samples, self.iteration)

    @torch.no_grad()
    def predict(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None = None
    ) -> list[Det3DDataSample]:
        """Labels of every point.

        Returns:
            New data samples with, in addition, ``pred_pts_seg``: ``pts_semantic_mask`` =
            [semantic, panoptic semantic], ``pts_instance_mask`` = [(K, N) bool masks, panoptic
            ids], ``instance_labels`` and ``instance_scores`` (K,), all numpy arrays.
        """
        outputs, superpoints = self.decode_all(inputs, data_samples)
        if data_samples is None:
            data_samples = [Det3DDataSample() for _ in superpoints]

        return [
            with_prediction(sample, self.postprocess(outputs, i, ids))
            for i, (sample, ids) in enumerate(zip(data_samples, superpoints))
        ]

    def extract_feat(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Superpoint features, per sample (S, D), and the superpoint of each point (N,)."""
        _, superpoints, features = self._encode(inputs, data_samples)
        return features, superpoints

    def _encode(
        self, inputs: Mapping, data_samples: list[Det3DDataSample] | None
    ) -> tuple[PointFeatures, list[Tensor], list[Tensor]]:
        """Point features, the superpoint of each point, and superpoint features."""
        points: PointFeatures = self.encoder(inputs, data_samples)  # (sum N, D)
        superpoints = self.superpoints_of(points, data_samples)  # B × (N,)
        return points, superpoints, pool_superpoints(points.features, superpoints)

    def superpoints_of(
        self, points: PointFeatures, data_samples: list[Det3DDataSample] | None
    ) -> list[Tensor]:
        """Per sample (N,) int64 dense ids: the given superpoints, or else the voxels.

        Raises:
            ValueError: superpoints are needed but missing, or are not those of the points.
        """
        if not self.use_superpoints:
            voxels = points.voxel_of_point.split(list(points.num_points))
            return [ids - ids.min() for ids in voxels]

        superpoints = []
        for i, num_points in enumerate(points.num_points):
            ids = None
            if data_samples is not None:
                ids = find_point_labels(data_samples[i], 'sp_pts_mask')
            if ids is None or len(ids) != num_points:
                got = 'none' if ids is None else f'{len(ids)}'
                raise ValueError(
                    f'sample {i}: expected gt_pts_seg.sp_pts_mask with {num_points} superpoint '
                    f'ids, got {got}'
                )
            superpoints.append(ids.to(points.features.device))
        return superpoints

    def build_targets(
        self, superpoints: Sequence[Tensor], data_samples: list[Det3DDataSample]
    ) -> list[SceneTargets]:
        """Ground truth of every sample on its superpoints.

        Raises:
            ValueError: a sample has no semantic or instance labels.
        """
        device = superpoints[0].device
        semantic = point_labels(data_samples, 'pts_semantic_mask', device)
        instance = point_labels(data_samples, 'pts_instance_mask', device)
        return [
            superpoint_targets(*labels, self.num_semantic_classes, self.instance_classes)
            for labels in zip(superpoints, semantic, instance)
        ]

    def select_queries(
        self, features: Sequence[Tensor], targets: Sequence[SceneTargets]
    ) -> tuple[list[Tensor] | None, list[SceneTargets]]:
        """Random superpoints as queries of training, none for a decoder that learns queries."""
        if self.decoder.learned_queries:
            return None, list(targets)

        queries, query_targets = [], []
        for x, target in zip(features, targets):
            fraction = (1 - self.query_thr) * torch.rand(1).item() + self.query_thr
            num_queries = max(1, int(fraction * len(x)))
            query_ids = torch.randperm(len(x), device=x.device)[:num_queries]
            queries.append(x[query_ids])  # (Q, D)
            query_targets.append(target.with_queries(query_ids))
        return queries, query_targets

    def decode_all(
        self, inputs: Mapping, data_samples: list[Det3DDataSample] | None
    ) -> tuple[QueryOutput, list[Tensor]]:
        """The last layer's predictions with all superpoints as queries, and the superpoints."""
        points, superpoints, features = self._encode(inputs, data_samples)
        views = _views_of(inputs, points)
        query_ids = [None] * len(features)
        if not self.decoder.learned_queries:
            query_ids = [torch.arange(len(x), device=x.device) for x in features]

        scenes = [
            DecoderScene(*row) for row in zip(inputs['points'], superpoints, views, query_ids)
        ]
        return self.decode(features, scenes), superpoints

    def decode(
        self, features: Sequence[Tensor], scenes: Sequence[DecoderScene] | None = None
    ) -> QueryOutput:
        """The last layer's predictions, every superpoint a query unless queries are learned.

        Args:
            features: per sample (S, D).
            scenes: per sample; None is a batch without views.
        """
        queries = None if self.decoder.learned_queries else features
        return self.decoder(features, queries, keep_aux=False, scenes=scenes)

    def postprocess(self, outputs: QueryOutput, i: int, superpoints: Tensor) -> ScenePrediction:
        """Labels of the points of sample ``i``, whose superpoints are (N,) int64."""
        return self.label_points(self.scene_logits(outputs, i), superpoints)

    def scene_logits(self, outputs: QueryOutput, i: int) -> SceneLogits:
        """What the queries say of sample ``i``."""
        instances, semantics = split_queries(outputs, self.decoder.num_semantic_queries)
        if outputs['sem_preds'] is not None:
            semantic = outputs['sem_preds'][i][:, : self.num_semantic_classes]  # (S, C)
        else:
            semantic = semantics['masks'][i].T  # (S, C), a semantic query is a class

        scores = instances['scores']
        return SceneLogits(
            classes=instances['cls_preds'][i],
            masks=instances['masks'][i],
            scores=None if scores is None else scores[i],
            semantic=semantic,
        )

    def label_points(self, logits: SceneLogits, superpoints: Tensor) -> ScenePrediction:
        """Labels of the points whose superpoints are (N,) int64."""
        return segment_scene(
            cls_logits=logits.classes,
            mask_logits=logits.masks,
            mask_scores=logits.scores,
            semantic_logits=logits.semantic,
            superpoints=superpoints,
            stuff_classes=self.stuff_classes,
            instance_classes=self.instance_classes,
            settings=self.test_settings,
        )


def _views_of(inputs: Mapping, points: PointFeatures) -> list[PosedViews | None]:
    """Views of every sample; an encoder that computes maps returns the views with them."""
    return views_of(inputs) if points.views is None else list(points.views)


def with_prediction(sample: Det3DDataSample, prediction: ScenePrediction) -> Det3DDataSample:
    """A copy of the sample with ``pred_pts_seg``; see ``OneFormer3D.predict``."""
    predicted = cast(Det3DDataSample, sample.new())  # of its own type, declared as its base
    predicted.pred_pts_seg = PointData(
        pts_semantic_mask=[prediction.semantic, prediction.panoptic_semantic],
        pts_instance_mask=[prediction.instance_masks, prediction.panoptic_ids],
        instance_labels=prediction.instance_labels,
        instance_scores=prediction.instance_scores,
    )
    return predicted


def _read_either_layout(module: nn.Module, state_dict: dict, prefix: str, *_: object) -> None:
    """Load hook: published checkpoints and our own differ in the layout of sparse convolutions."""
    given = {
        key.removeprefix(prefix): value
        for key, value in state_dict.items()
        if key.startswith(prefix)
    }
    for name, value in adapt_sparse_conv_layout(given, module.state_dict()).items():
        state_dict[prefix + name] = value
