"""The query decoder whose queries also sample the posed images.

Enters: superpoint features, queries, and a ``DecoderScene`` of each sample. Leaves: a
``QueryOutput``. Each layer: mask attention to superpoints, attention among queries, sampling and
mixing of the views (``ViewMixing``) behind a gate that starts at zero, FFN. With a gate of zero,
without views or where no view sees a query it is the plain ``QueryDecoder``, whose weights it
loads.

Letters as in ``structures``; K views that a query reads, A anchors.

A query samples around its anchors. 'mask' is the mask it predicts at this layer: superpoints above
one half, weighted by their probability. 'own' is the superpoint that it came from; learned queries
have none. Each anchor has its share of the groups of channels.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.registry import MODELS
from oneformer3d.segmentor.query_decoder import QueryDecoder, ReadViews
from oneformer3d.structures import DecoderScene

from .pyramids import ViewPyramid
from .view_boxes import MODES, SuperpointViews, encode_boxes, query_boxes, superpoint_views
from .view_mixing import QueryViews, ViewMixing, best_views

ANCHORS = ('mask', 'own')


@MODELS.register_module()
class STMQueryDecoder(QueryDecoder):
    """Query decoder with adaptive sampling and mixing of the views.

    Args:
        pyramid: settings of the pyramid, e.g. ``MapPyramid``.
        num_view_points: P, points sampled per group and view.
        num_view_slots: K, the views that a query reads.
        num_view_groups: G.
        out_multiplier: points after mixing over points before.
        anchors: of 'mask' and 'own'.
        box_mode: 'extent' projects the 3D centre and extent, 'pixels' takes the visible pixels.
        **query_decoder: of ``QueryDecoder``.

    Raises:
        ValueError: unknown anchors or modes, or settings without predictions of every layer.
    """

    def __init__(
        self,
        pyramid: dict,
        # sampling and mixing
        num_view_points: int = 8,
        num_view_slots: int = 4,
        num_view_groups: int = 4,
        out_multiplier: int = 4,
        # boxes
        anchors: Sequence[str] = ANCHORS,
        box_mode: str = 'extent',
        **query_decoder,
    ) -> None:
        super().__init__(**query_decoder)
        if not self.iter_pred:
            raise ValueError('STMQueryDecoder: masks of every layer are needed: iter_pred=True')
        if not anchors or set(anchors) - set(ANCHORS) or len(set(anchors)) < len(anchors):
            raise ValueError(f'anchors: expected a subset of {ANCHORS}, got {tuple(anchors)}')
        if self.learned_queries and 'own' in anchors:
            raise ValueError("anchors: learned queries have no superpoint of their 'own'")
        if box_mode not in MODES:
            raise ValueError(f'box_mode: expected one of {MODES}, got {box_mode!r}')

        self.anchors = tuple(anchors)
        self.box_mode = box_mode
        self.num_view_slots = num_view_slots
        self.view_pyramid = MODELS.build({**pyramid, 'num_groups': num_view_groups})

        # a reading of the views for each layer, behind a gate that starts at zero
        d_model = self.out_norm.normalized_shape[0]
        num_layers = len(self.cross_attn_layers)
        self.view_layers = nn.ModuleList(
            ViewMixing(
                d_model,
                self.view_pyramid.channels,
                num_view_points,
                num_view_slots,
                num_view_groups,
                len(anchors),
                out_multiplier,
            )
            for _ in range(num_layers)
        )
        self.view_gates = nn.ParameterList(
            nn.Parameter(torch.zeros(d_model)) for _ in range(num_layers)
        )

    def _view_readers(
        self, features: Sequence[Tensor], scenes: Sequence[DecoderScene | None]
    ) -> list[ReadViews | None]:
        """Sampling and mixing of the views of each sample."""
        views = [None if scene is None else scene.views for scene in scenes]
        pyramid = self.view_pyramid(views, features[0].device)

        readers: list[ReadViews | None] = []
        for i, x in enumerate(features):
            seen_by = views[i]
            scene = None if seen_by is None or not seen_by.num_views else scenes[i]
            readers.append(self._view_reader(scene, len(x), pyramid, pyramid.first_image[i]))
        return readers

    def _view_reader(
        self,
        scene: DecoderScene | None,
        num_superpoints: int,
        pyramid: ViewPyramid,
        first_image: int,
    ) -> ReadViews:
        """What the layers of one sample do with the views."""
        sums = None if scene is None else superpoint_views(scene)
        if sums is not None and len(sums.count) != num_superpoints:
            raise ValueError(
                f'{num_superpoints} superpoint features, but superpoints of points up to '
                f'{len(sums.count)}'
            )

        def read_views(layer: int, queries: Tensor, mask_logits: Tensor) -> Tensor:
            if sums is None or scene is None:
                views = self._nowhere(queries)
            else:
                views = self.query_views(mask_logits, scene, sums, pyramid, first_image)
            update = self.view_layers[layer](queries, views, pyramid)  # (Q, D)
            return queries + self.view_gates[layer] * update

        return read_views

    def query_views(
        self,
        mask_logits: Tensor,
        scene: DecoderScene,
        sums: SuperpointViews,
        pyramid: ViewPyramid,
        first_image: int = 0,
    ) -> QueryViews:
        """The K views of each query and its boxes there, from its mask (Q, S)."""
        visible, xyzr = [], []
        for anchor in self.anchors:
            weights = anchor_weights(anchor, mask_logits, scene.query_ids)  # (Q, S)
            boxes = query_boxes(weights, sums, self.box_mode)
            visible.append(boxes.visible)
            xyzr.append(encode_boxes(boxes, sums, pyramid.canvas))
        return best_views(
            torch.stack(visible, dim=-1), torch.stack(xyzr, dim=2), first_image, self.num_view_slots
        )

    def _nowhere(self, queries: Tensor) -> QueryViews:
        shape = (len(queries), self.num_view_slots)
        device, num_anchors = queries.device, len(self.anchors)
        return QueryViews(
            torch.zeros(shape, dtype=torch.int64, device=device),
            torch.zeros(*shape, num_anchors, 4, device=device),
            torch.zeros(*shape, num_anchors, dtype=torch.bool, device=device),
        )


def anchor_weights(anchor: str, mask_logits: Tensor, query_ids: Tensor | None) -> Tensor:
    """Weights (Q, S) of the superpoints around which a query samples; without gradient.

    Args:
        anchor: 'mask' or 'own'.
        mask_logits: (Q, S).
        query_ids: (Q,) the superpoint of each query, or None.

    Raises:
        ValueError: 'own' without superpoints of queries.
    """
    num_queries, num_superpoints = mask_logits.shape
    origin = None
    if query_ids is not None:
        if len(query_ids) != num_queries:
            raise ValueError(f'{num_queries} queries but {len(query_ids)} query_ids')
        origin = F.one_hot(query_ids, num_superpoints).float()  # (Q, S)

    if anchor == 'own':
        if origin is None:
            raise ValueError("anchor 'own' needs query_ids")
        return origin

    # of an empty mask the superpoint that the query came from, or else all by their probability
    share = mask_logits.detach().float().sigmoid()
    weights = torch.where(share >= 0.5, share, 0.0)
    empty = ~(weights > 0).any(dim=-1, keepdim=True)
    return torch.where(empty, share if origin is None else origin, weights)
