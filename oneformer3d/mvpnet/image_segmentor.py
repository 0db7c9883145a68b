"""A network of pictures alone: trained on pixels, tested by voting at the points.

Enters, in training: ``inputs = dict(view_images=[(V, 3, H, W)], view_labels=[(V, H, W)])``; in
prediction: ``points`` and ``views`` with images. Leaves: a loss, or data samples with
``pred_pts_seg``. The first stage of MVPNet, whose ``image_net`` has the same names here.

Points that no view sees take the class of the nearest point that one does.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmdet3d.structures import Det3DDataSample
from mmengine.model import BaseModel
from scipy.spatial import KDTree
from torch import Tensor

from oneformer3d.backbones.fpn import FeaturePyramid, ImageMaps, padded_size
from oneformer3d.data.samples.preprocessor import SceneDataPreprocessor
from oneformer3d.lifting.sampling import gather_pairs
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.registry import MODELS
from oneformer3d.structures import PosedViews, views_of

from .lift_views import image_pixels, images_of
from .point_labels import masked_cross_entropy, with_semantic_prediction

VOTES = ('soft', 'hard', 'entropy')
_BATCH = 8


@MODELS.register_module(name=['MVPNet2D', 'ViewSegmentation'])
class ViewSegmentation(BaseModel):
    """Semantic segmentation of images, and of points by the votes of the views that see them.

    Args:
        image_net: settings of ``FeaturePyramid``; its classifier has ``num_classes``.
        num_classes: C; label C means unlabeled.
        vote: 'soft' sums the views' probabilities, 'hard' counts their labels, 'entropy' weighs
            the probabilities of a view by how certain they are.
        data_preprocessor: settings of the data preprocessor.
        init_cfg: settings of weight initialisation.
    """

    def __init__(
        self,
        image_net: Mapping[str, Any],
        num_classes: int = 20,
        vote: str = 'soft',
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(
            SceneDataPreprocessor()
            if data_preprocessor is None
            else MODELS.build(data_preprocessor),
            init_cfg,
        )
        if vote not in VOTES:
            raise ValueError(f'vote: expected one of {VOTES}, got {vote!r}')
        self.num_classes = num_classes
        self.vote = vote
        self.image_net = FeaturePyramid(**{**image_net, 'num_classes': num_classes})

    @property
    def num_semantic_classes(self) -> int:
        """C."""
        return self.num_classes

    def forward(
        self,
        inputs: dict,
        data_samples: list[Det3DDataSample] | None = None,
        mode: str = 'tensor',
    ) -> dict | list[Det3DDataSample] | Tensor:
        """``loss``, ``predict`` or, with mode 'tensor', the logits (V, C, h, w) of all images."""
        if mode == 'loss':
            return self.loss(inputs, data_samples)
        if mode == 'predict':
            return self.predict(inputs, data_samples)
        if mode == 'tensor':
            return self.image_net.classify(self.image_net(torch.cat(list(inputs['view_images']))))
        raise ValueError(f'mode: expected loss, predict or tensor, got {mode!r}')

    def loss(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None = None
    ) -> dict[str, Tensor]:
        """Cross-entropy of pixels, at the centres of the cells of the map.

        Raises:
            ValueError: labels of another size than their images.
        """
        images = torch.cat(list(inputs['view_images']))  # (V, 3, H, W)
        labels = torch.cat(list(inputs['view_labels']))  # (V, H, W)
        num_views, _, height, width = images.shape
        expect_shape('view_labels', labels, 'V H W', V=num_views, H=height, W=width)

        logits = self.image_net.classify(self.image_net(images))  # (V, C, h, w)
        rows, labels = _labeled_cells(logits, labels, height)
        labeled = labels < self.num_classes
        correct = (rows.argmax(1) == labels)[labeled].float().sum() / labeled.sum().clamp(min=1)
        return {
            'loss_pixels': masked_cross_entropy(rows, labels, self.num_classes),
            'pixel_accuracy': correct,
        }

    @torch.no_grad()
    def predict(
        self, inputs: dict, data_samples: list[Det3DDataSample] | None = None
    ) -> list[Det3DDataSample]:
        """Classes of every point by the votes of its views; ``pred_pts_seg`` as in MVPNet."""
        if data_samples is None:
            data_samples = [Det3DDataSample() for _ in inputs['points']]
        return [
            with_semantic_prediction(sample, self.vote_points(cloud[:, :3], views))
            for sample, cloud, views in zip(data_samples, inputs['points'], views_of(inputs))
        ]

    def vote_points(self, xyz: Tensor, views: PosedViews | None) -> Tensor:
        """Class probabilities (N, C); uniform where no point is visible at all."""
        uniform = xyz.new_full((len(xyz), self.num_classes), 1 / self.num_classes)
        if views is None or len(views.pairs) == 0:
            return uniform

        # what the cells vote
        images = images_of(views)  # (V, 3, H, W)
        maps = torch.cat([self._probabilities(chunk) for chunk in images.split(_BATCH)])
        maps = maps.contiguous(memory_format=torch.channels_last)  # (V, C, h, w)
        covered = padded_size(images)

        # Σ over the views of a point, then over the nearest point that has any
        pairs = image_pixels(views.pairs, views)
        votes, weight = gather_pairs(maps, pairs, covered, num_points=len(xyz), reduce='sum')
        probabilities = votes / votes.sum(1, keepdim=True).clamp(min=1e-12)  # (N, C)
        return fill_from_nearest(probabilities, weight > 0, xyz)

    def _probabilities(self, images: Tensor) -> Tensor:
        """What each cell votes, (V, C, h, w)."""
        maps: ImageMaps = self.image_net(images)
        probabilities = self.image_net.classify(maps).softmax(1)
        if self.vote == 'hard':
            labels = probabilities.argmax(1)
            return F.one_hot(labels, self.num_classes).permute(0, 3, 1, 2).float()
        if self.vote == 'entropy':
            # weight = 1 − H(p) / log C
            entropy = -(probabilities * probabilities.clamp(min=1e-12).log()).sum(1, keepdim=True)
            return probabilities * (1 - entropy / math.log(self.num_classes)).clamp(min=1e-3)
        return probabilities


def train_image_net(
    network: FeaturePyramid,
    loader: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    num_epochs: int,
    learning_rate: float,
) -> None:
    """Train a pyramid in place on pixels of (images (B, 3, H, W), classes (B, H, W)).

    A 1×1 classifier beside it learns along and is dropped.

    Raises:
        ValueError: a pyramid whose maps are not summed, or labels of another size.
    """
    if network.fuse != 'sum':
        raise ValueError("the pixel classifier reads the summed map: image_net fuse='sum'")
    device = next(network.parameters()).device
    classifier = torch.nn.Conv2d(network.out_channels, num_classes, 1).to(device)
    parameters = [*network.parameters(), *classifier.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=learning_rate)

    network.train()
    for _ in range(num_epochs):
        for images, labels in loader:
            batch, _, height, width = images.shape
            expect_shape('labels', labels, 'B H W', B=batch, H=height, W=width)
            (summed,) = network(images.to(device)).maps
            rows, cells = _labeled_cells(classifier(summed), labels.to(device), height)
            loss = masked_cross_entropy(rows, cells, num_classes)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()


def _labeled_cells(logits: Tensor, labels: Tensor, height: int) -> tuple[Tensor, Tensor]:
    """Rows (cells, C) of maps (V, C, h, w) and the label at the centre of each cell.

    Cells of the padding have none.
    """
    step = (height + -height % 32) // logits.shape[-2]
    labels = labels[:, step // 2 :: step, step // 2 :: step]
    logits = logits[:, :, : labels.shape[1], : labels.shape[2]]
    return logits.permute(0, 2, 3, 1).reshape(-1, logits.shape[1]), labels.reshape(-1)


def fill_from_nearest(values: Tensor, visible: Tensor, xyz: Tensor) -> Tensor:
    """Rows (N, C) where points that are not visible take the row of the nearest visible one."""
    targets = (~visible).nonzero()[:, 0]
    sources = visible.nonzero()[:, 0]
    if len(targets) == 0 or len(sources) == 0:
        return values

    tree = KDTree(xyz[sources].cpu().numpy())
    nearest = tree.query(xyz[targets].cpu().numpy())[1]
    rows = sources[torch.as_tensor(nearest, device=xyz.device)]
    return values.index_copy(0, targets, values[rows])
