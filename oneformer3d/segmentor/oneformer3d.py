"""The OneFormer3D segmentor: one model for semantic, instance and panoptic labels of points.

    points → encoder → superpoint pooling → query decoder → criterion      (training)
                                                          → post-processing (prediction)

Enters: ``inputs = dict(points=[(N, F)], …)`` and data samples. Leaves: losses, or data samples
with ``pred_pts_seg``. Letters as in ``structures``. Datasets differ by settings only; the
published type names are factories that preset them (``published``).
"""

from collections.abc import Sequence

import torch
from mmdet3d.structures import Det3DDataSample, PointData
from mmengine.model import BaseModel
from torch import Tensor, nn

from oneformer3d.backbones.voxelize import pool_superpoints
from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.registry import MODELS
from oneformer3d.structures import (
    DecoderScene,
    PointFeatures,
    PosedViews,
    QueryOutput,
    SceneTargets,
    split_queries,
)

from .postprocess import PostprocessSettings, ScenePrediction, segment_scene
from .targets import superpoint_targets
from .weights import adapt_sparse_conv_layout

ENCODER_PREFIX = 'encoder.'


@MODELS.register_module()
class OneFormer3D(BaseModel):
    """Unified segmentation of indoor point clouds (Kolodiazhnyi et al., CVPR 2024).

    In state dicts the encoder's parameters have no ``encoder.`` in front of them: these are the
    names of the published checkpoints.

    Args:
        encoder: settings of a module ``encoder(inputs, data_samples) -> PointFeatures``. It may
            have a method ``auxiliary_losses(PointFeatures, data_samples) -> dict`` of further
            losses, and of metrics, whose names do not contain "loss". If what the encoder returns
            has ``without_views`` (sum N, D), training decodes every sample twice, the second time
            with these features and no views, and the losses are means over both.
        decoder: settings of a query decoder.
        criterion: settings of a criterion.
        num_semantic_classes: C.
        stuff_classes: semantic classes that are stuff in the panoptic result.
        instance_classes: the semantic class of each instance class; by default all classes if
            the decoder predicts C, else those that are not stuff.
        use_superpoints: pool features over ``gt_pts_seg.sp_pts_mask``; False pools over voxels.
        query_thr: in training, the smallest fraction of superpoints that become queries; each
            sample draws a fraction between this and 1.
        train_cfg: has no keys, kept for the configuration format.
        test_cfg: keys of ``PostprocessSettings``.
        data_preprocessor: settings of the data preprocessor.
        init_cfg: settings of weight initialisation.
    """

    def __init__(
        self,
        encoder: dict,
        decoder: dict,
        criterion: dict,
        num_semantic_classes: int,
        stuff_classes: Sequence[int],
        instance_classes: Sequence[int] | None = None,
        use_superpoints: bool = True,
        query_thr: float = 0.5,
        train_cfg: dict | None = None,
        test_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        # Built here: the base class would look the name up in mmengine's own registry.
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
        self.encoder = MODELS.build(encoder)
        taken = {'encoder', 'decoder', 'criterion', 'data_preprocessor'}
        if taken & dict(self.encoder.named_children()).keys():
            raise ValueError(f'{type(self.encoder).__name__}: a part has one of the names {taken}')
        self.decoder = MODELS.build(decoder)
        self.criterion = MODELS.build(criterion)
        self.num_semantic_classes = num_semantic_classes
        self.stuff_classes = _checked_classes(stuff_classes, num_semantic_classes)
        self.instance_classes = _instance_classes(
            instance_classes,
            self.decoder.num_instance_classes,
            num_semantic_classes,
            self.stuff_classes,
        )
        self.use_superpoints = use_superpoints
        self.query_thr = query_thr
        self.test_settings = _postprocess_settings(test_cfg or {})
        self._register_state_dict_hook(_drop_encoder_prefix)
        self.register_load_state_dict_pre_hook(_read_published_state_dict)

    def forward(
        self,
        inputs: dict,
        data_samples: list[Det3DDataSample] | None = None,
        mode: str = 'tensor',
    ) -> dict | list[Det3DDataSample] | QueryOutput:
        """``loss``, ``predict`` or, with mode 'tensor', the decoder's output."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            points, superpoints, features = self._encode(inputs, data_samples)
            views = _views_of(inputs, points)
            return self.decode(features, self._scenes(inputs['points'], superpoints, views))
        raise ValueError(f'mode: expected loss, predict or tensor, got {mode!r}')

    def loss(self, inputs: dict, data_samples: list[Det3DDataSample]) -> dict[str, Tensor]:
        """Training losses.

        Args:
            inputs: ``points`` [(N, F)] and what the encoder reads besides.
            data_samples: with ``gt_pts_seg`` holding ``pts_semantic_mask``, ``pts_instance_mask``
                and, with superpoints, ``sp_pts_mask``.
        """
        points, superpoints, features = self._encode(inputs, data_samples)
        targets = self.build_targets(superpoints, data_samples)
        xyz, views = list(inputs['points']), _views_of(inputs, points)
        if getattr(points, 'without_views', None) is not None:
            # every sample once more, as it is without images
            features = features + pool_superpoints(points.without_views, superpoints)
            superpoints, targets, xyz = superpoints * 2, targets * 2, xyz * 2
            views = views + [None] * len(views)
        queries, targets = self.select_queries(features, targets)
        query_ids = [target.query_ids for target in targets]
        scenes = self._scenes(xyz, superpoints, views, query_ids)
        outputs = self.decoder(features, queries, **scenes)
        losses = self.criterion(outputs, targets)
        if hasattr(self.encoder, 'auxiliary_losses'):
            losses.update(self.encoder.auxiliary_losses(points, data_samples))
        return losses

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
        points, superpoints, features = self._encode(inputs, data_samples)
        views = _views_of(inputs, points)
        outputs = self.decode(features, self._scenes(inputs['points'], superpoints, views))
        if data_samples is None:
            data_samples = [Det3DDataSample() for _ in superpoints]
        return [
            _with_prediction(sample, self.postprocess(outputs, i, ids))
            for i, (sample, ids) in enumerate(zip(data_samples, superpoints))
        ]

    def extract_feat(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None = None
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Superpoint features, per sample (S, D), and the superpoint of each point (N,)."""
        _, superpoints, features = self._encode(inputs, data_samples)
        return features, superpoints

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
            ids = None if data_samples is None else _label(data_samples[i], 'sp_pts_mask')
            if ids is None or len(ids) != num_points:
                got = 'none' if ids is None else f'{len(ids)}'
                raise ValueError(
                    f'sample {i}: expected gt_pts_seg.sp_pts_mask with {num_points} superpoint '
                    f'ids, got {got}'
                )
            superpoints.append(torch.as_tensor(ids, device=points.features.device).long())
        return superpoints

    def build_targets(
        self, superpoints: Sequence[Tensor], data_samples: list[Det3DDataSample]
    ) -> list[SceneTargets]:
        """Ground truth of every sample on its superpoints.

        Raises:
            ValueError: a sample has no semantic or instance labels.
        """
        targets = []
        for i, (ids, sample) in enumerate(zip(superpoints, data_samples)):
            labels = []
            for name in ('pts_semantic_mask', 'pts_instance_mask'):
                label = _label(sample, name)
                if label is None:
                    raise ValueError(f'sample {i}: gt_pts_seg has no {name}')
                labels.append(torch.as_tensor(label, device=ids.device).long())
            targets.append(
                superpoint_targets(ids, *labels, self.num_semantic_classes, self.instance_classes)
            )
        return targets

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
            queries.append(x[query_ids])
            query_targets.append(target.with_queries(query_ids))
        return queries, query_targets

    def decode(self, features: Sequence[Tensor], scenes: dict | None = None) -> QueryOutput:
        """The last layer's predictions, every superpoint a query unless queries are learned.

        Args:
            features: per sample (S, D).
            scenes: ``dict(scenes=[DecoderScene, …])`` for a decoder that reads views.
        """
        queries = None if self.decoder.learned_queries else features
        return self.decoder(features, queries, keep_aux=False, **(scenes or {}))

    def _encode(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None
    ) -> tuple[PointFeatures, list[Tensor], list[Tensor]]:
        """Point features, the superpoint of each point, and superpoint features."""
        points: PointFeatures = self.encoder(inputs, data_samples)
        superpoints = self.superpoints_of(points, data_samples)
        return points, superpoints, pool_superpoints(points.features, superpoints)

    def _scenes(
        self,
        points: Sequence[Tensor],
        superpoints: Sequence[Tensor],
        views: Sequence[PosedViews | None],
        query_ids: Sequence[Tensor | None] | None = None,
    ) -> dict[str, list[DecoderScene]]:
        """What a decoder is given besides features; nothing unless it reads views.

        Args:
            points: per sample (N, F).
            superpoints: per sample (N,).
            views: per sample.
            query_ids: per sample (Q,) the superpoints that are queries; by default all are.
        """
        if not self.decoder.reads_views:
            return {}
        if query_ids is None:
            query_ids = [None] * len(superpoints)
            if not self.decoder.learned_queries:
                query_ids = [
                    torch.arange(int(ids.max()) + 1, device=ids.device) for ids in superpoints
                ]
        return {
            'scenes': [DecoderScene(*row) for row in zip(points, superpoints, views, query_ids)]
        }

    def postprocess(self, outputs: QueryOutput, i: int, superpoints: Tensor) -> ScenePrediction:
        """Labels of the points of sample ``i``, whose superpoints are (N,) int64."""
        instances, semantics = split_queries(outputs, self.decoder.num_semantic_queries)
        if outputs['sem_preds'] is not None:
            semantic_logits = outputs['sem_preds'][i][:, : self.num_semantic_classes]
        else:
            semantic_logits = semantics['masks'][i].T
        return segment_scene(
            cls_logits=instances['cls_preds'][i],
            mask_logits=instances['masks'][i],
            mask_scores=None if instances['scores'] is None else instances['scores'][i],
            semantic_logits=semantic_logits,
            superpoints=superpoints,
            stuff_classes=self.stuff_classes,
            instance_classes=self.instance_classes,
            settings=self.test_settings,
        )


def _views_of(inputs: dict, points: PointFeatures) -> list[PosedViews | None]:
    """Views of every sample; an encoder that computes maps returns the views with them."""
    views = getattr(points, 'views', None) or inputs.get('views')
    return list(views or [None] * len(points.num_points))


def _label(sample: Det3DDataSample, name: str):
    """A field of ``gt_pts_seg``, or None."""
    return sample.gt_pts_seg.get(name) if 'gt_pts_seg' in sample else None


def _with_prediction(sample: Det3DDataSample, prediction: ScenePrediction) -> Det3DDataSample:
    predicted = sample.new()
    predicted.pred_pts_seg = PointData(
        pts_semantic_mask=[prediction.semantic, prediction.panoptic_semantic],
        pts_instance_mask=[prediction.instance_masks, prediction.panoptic_ids],
        instance_labels=prediction.instance_labels,
        instance_scores=prediction.instance_scores,
    )
    return predicted


def _checked_classes(classes: Sequence[int], num_semantic_classes: int) -> tuple[int, ...]:
    classes = tuple(classes)
    if not classes or min(classes) < 0 or max(classes) >= num_semantic_classes:
        raise ValueError(
            f'expected at least one class in 0…{num_semantic_classes - 1}, got {classes}'
        )
    return classes


def _instance_classes(
    given: Sequence[int] | None, num_instance: int, num_semantic: int, stuff: Sequence[int]
) -> tuple[int, ...]:
    """The semantic class of each of ``num_instance`` instance classes."""
    things = tuple(c for c in range(num_semantic) if c not in stuff)
    if given is None:
        given = tuple(range(num_semantic)) if num_instance == num_semantic else things
    if len(given) != num_instance:
        raise ValueError(
            f'the decoder predicts {num_instance} instance classes, but {len(given)} of '
            f'{num_semantic} semantic classes have instances ({len(stuff)} are stuff)'
        )
    return _checked_classes(given, num_semantic)


def _postprocess_settings(test_cfg: dict) -> PostprocessSettings:
    unknown = set(test_cfg) - set(PostprocessSettings.__dataclass_fields__)
    if unknown:
        raise ValueError(f'test_cfg: unknown keys {sorted(unknown)}')
    return PostprocessSettings(**test_cfg)


def _drop_encoder_prefix(module: nn.Module, state_dict: dict, prefix: str, metadata: dict) -> None:
    """State dict hook: ``encoder.unet.…`` is saved as ``unet.…``."""
    long = prefix + ENCODER_PREFIX
    for key in [key for key in state_dict if key.startswith(long)]:
        state_dict[prefix + key.removeprefix(long)] = state_dict.pop(key)


def _read_published_state_dict(module: nn.Module, state_dict: dict, prefix: str, *_) -> None:
    """Load hook: the inverse of ``_drop_encoder_prefix``, and either sparse-conv layout."""
    names = [key.removeprefix(prefix) for key in state_dict if key.startswith(prefix)]
    model_state = module.state_dict()
    given = adapt_sparse_conv_layout(
        {name: state_dict[prefix + name] for name in names}, model_state
    )
    encoder_names = set(module.encoder.state_dict())
    for name, value in given.items():
        del state_dict[prefix + name]
        long = ENCODER_PREFIX + name if name in encoder_names else name
        state_dict[prefix + long] = value
