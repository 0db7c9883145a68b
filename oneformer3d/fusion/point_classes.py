"""Classes of single points as a further loss on fused features.

Enters: fused features of the points that some view sees, and their labels. Leaves: a dict of one
scalar. n points, C semantic classes (label C means unlabeled).

The decoder's losses reach the layers that read the maps only through its queries, which is a long
way in a short training. A linear classifier of every point reaches them directly.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from oneformer3d.registry import MODELS


@MODELS.register_module()
class PointSemanticCriterion(nn.Module):
    """Cross entropy of a linear classifier of fused features.

    Args:
        num_classes: C.
        in_channels: of the fused features.
        loss_weight: of the loss.
    """

    def __init__(self, num_classes: int, in_channels: int = 96, loss_weight: float = 0.5) -> None:
        super().__init__()
        if num_classes < 1 or loss_weight < 0:
            raise ValueError('num_classes must be positive and loss_weight not negative')
        self.head = nn.Linear(in_channels, num_classes)
        self.loss_weight = loss_weight

    def forward(self, fused: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """The loss; 0, with a gradient of 0, where no point has a label.

        Args:
            fused: (n, in_channels).
            labels: (n,) int64, 0…C.
        """
        num_classes = self.head.out_features
        total = F.cross_entropy(self.head(fused), labels, ignore_index=num_classes, reduction='sum')
        num_labeled = (labels != num_classes).sum().clamp(min=1)
        return {'point_semantic_loss': self.loss_weight * total / num_labeled}
