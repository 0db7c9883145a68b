"""Where a query of the STM decoder samples: its points and boxes, drawn on the views.

Enters: a segmentor with ``STMQueryDecoder`` and a sample. Leaves: ``QuerySamples``, one query in
one view, and pictures (H, W, 3) uint8. n points of a query in a view, A anchors.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import nn

from oneformer3d.visualization.palette import instance_colors

from .boxes import xyxy_from_xyzr
from .query_decoder import STMQueryDecoder
from .view_mixing import ViewMixing

ENLARGED = 3  # pictures are so much larger than the images, or points hide what is under them


@dataclass(frozen=True)
class QuerySamples:
    """One query in one view.

    Attributes:
        frame: name of the view.
        slot: 0 for the view that sees most of the query, then 1, …
        uv: (n, 2) sampled pixels, centre of the top-left pixel is (0, 0).
        group: (n,) group of channels of each.
        boxes: (A', 4) left, top, right, bottom in pixels of the anchors visible there.
        anchors: A' names.
    """

    frame: str
    slot: int
    uv: np.ndarray
    group: np.ndarray
    boxes: np.ndarray
    anchors: tuple[str, ...]


@torch.no_grad()
def samples_of_query(
    model: nn.Module, inputs: dict, data_samples: list, query: int, layer: int = -1
) -> list[QuerySamples]:
    """The views that one query of the first sample reads in a layer, best first.

    Args:
        model: a ``OneFormer3D`` with an ``STMQueryDecoder``, in evaluation mode.
        inputs: of a batch of one sample, with ``views``.
        data_samples: of it.
        query: row of the query.
        layer: of the decoder.

    Raises:
        ValueError: a decoder that reads no views, a sample without views, or no such query.
    """
    decoder = model.decoder
    if not isinstance(decoder, STMQueryDecoder):
        raise ValueError(f'{type(decoder).__name__} reads no views')
    views = (inputs.get('views') or [None])[0]
    if views is None or not views.num_views:
        raise ValueError('the sample has no views')

    # what the layer is given when the model runs
    caught = []
    mixing = decoder.view_layers[layer]
    assert isinstance(mixing, ViewMixing)
    handle = mixing.register_forward_pre_hook(lambda _, arguments: caught.append(arguments))
    try:
        model(inputs, data_samples, mode='tensor')
    finally:
        handle.remove()

    queries, query_views, pyramid = caught[0]
    if not 0 <= query < len(queries):
        raise ValueError(f'query: expected 0…{len(queries) - 1}, got {query}')

    # from the pyramid's canvas, edge-based, to pixels of the image
    points = mixing.sample_points(queries, query_views)
    rows, slots, anchors = query_views.valid.nonzero(as_tuple=True)
    scale = points.new_tensor(
        [to / from_ for to, from_ in zip(views.image_size[::-1], pyramid.canvas[::-1])]
    )
    boxes = xyxy_from_xyzr(query_views.xyzr[rows, slots, anchors]) * scale.repeat(2) - 0.5
    uv = points[..., :2] * scale - 0.5

    groups_per_anchor = mixing.num_groups // mixing.num_anchors
    in_anchor = torch.arange(groups_per_anchor).repeat_interleave(mixing.num_points)
    found = []
    for slot in range(query_views.valid.shape[1]):
        chosen = ((rows == query) & (slots == slot)).nonzero()[:, 0].tolist()
        if not chosen:
            continue

        image = int(query_views.image[query, slot]) - pyramid.first_image[0]
        group = [int(anchors[i]) * groups_per_anchor + in_anchor for i in chosen]
        found.append(
            QuerySamples(
                frame=views.frames[image] if views.frames else str(image),
                slot=slot,
                uv=uv[chosen].flatten(0, 1).cpu().numpy(),
                group=torch.cat(group).numpy(),
                boxes=boxes[chosen].cpu().numpy(),
                anchors=tuple(decoder.anchors[int(anchors[i])] for i in chosen),
            )
        )
    return found


def draw_samples(
    image: np.ndarray, samples: QuerySamples, visible: np.ndarray | None = None
) -> np.ndarray:
    """A view with the query's boxes and sampling points, a colour for every group.

    Args:
        image: (H, W, 3) uint8.
        samples: of a query in this view.
        visible: (P, 2) pixels of the instance's visible points, drawn as small white dots.

    Returns:
        (3 H, 3 W, 3) uint8.
    """
    height, width = image.shape[:2]
    picture = Image.fromarray(image).resize(
        (width * ENLARGED, height * ENLARGED), Image.Resampling.BILINEAR
    )
    draw = ImageDraw.Draw(picture)

    for u, v in _enlarged(visible if visible is not None else np.zeros((0, 2))):
        draw.point((u, v), fill='white')
    for box, anchor in zip(samples.boxes, samples.anchors):
        corners = _enlarged(box.reshape(2, 2)).clip(-10, 10 * max(picture.size)).flatten()
        draw.rectangle(tuple(corners), outline='white' if anchor == 'mask' else 'yellow', width=2)
        draw.text((corners[0] + 4, corners[1] + 2), anchor, 'white')

    colors = instance_colors(samples.group)
    for (u, v), color in zip(_enlarged(samples.uv), colors):
        dot = (u - 4, v - 4, u + 4, v + 4)
        draw.ellipse(dot, fill=tuple(int(c) for c in color), outline='black')
    return np.asarray(picture)


def query_of_mask(mask_logits: torch.Tensor, superpoints: torch.Tensor, mask: np.ndarray) -> int:
    """The query whose mask overlaps most with an instance.

    Args:
        mask_logits: (Q, S).
        superpoints: (N,) ids.
        mask: (N,) bool.
    """
    wanted = torch.as_tensor(mask, dtype=torch.float32, device=superpoints.device)
    num_superpoints = mask_logits.shape[1]
    size = torch.bincount(superpoints, minlength=num_superpoints).float()
    inside = torch.bincount(superpoints, wanted, minlength=num_superpoints)

    # IoU with each query's mask, weighted by the superpoints' sizes
    predicted = (mask_logits > 0).float().to(superpoints.device)
    overlap = predicted @ inside
    union = predicted @ size + wanted.sum() - overlap
    return int((overlap / union.clamp(min=1)).argmax())


def beside(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Pictures of one height in a row."""
    return np.concatenate(list(pictures), axis=1)


def _enlarged(uv: np.ndarray) -> np.ndarray:
    """Pixels of the image → of the picture, centres of pixels at whole numbers in both."""
    return (np.asarray(uv, dtype=np.float64) + 0.5) * ENLARGED - 0.5
