"""CLIP embeddings of an image's crops at several sizes: what a language field learns from.

Enters: images and a CLIP. Leaves: per image one map (h, w, D) of unit vectors for each crop size; a
cell holds the embedding of the crop around its centre. Maps go to a feature store of their own,
stamped with the encoder and the sizes.

Where Language Embedded Radiance Fields (Kerr et al., ICCV 2023) say "scale", this is a crop's side
as a share of the image's height; seen from t metres such a crop is ``scale · H · t / f_y`` metres
wide, the patch size that the field is queried with.

Letters: S scales, h × w cells of a scale's map, D width of the text space, B crops at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.lifting.shapes import expect_shape
from oneformer3d.store import FeatureStore, FeatureStoreWriter, StoreStamp

from .scene import FieldScene, ViewContent

LERF_SCALES = tuple(0.05 + 0.075 * k for k in range(7))
_SIDES = 'crop sides as shares of the height: '
_STRIDE = 0.5  # cells per crop side
_BATCH = 64


@torch.no_grad()
def crop_pyramid(
    encoder: Callable[[Tensor], Tensor],
    image: Tensor,
    scales: Sequence[float] = LERF_SCALES,
    crop_size: int | tuple[int, int] = 224,
    batch_size: int = _BATCH,
) -> list[Tensor]:
    """Embeddings of square crops all over an image.

    Args:
        encoder: crops ``(B, 3, *crop_size)`` float 0–1 → embeddings (B, D).
        image: (H, W, 3) uint8.
        scales: S sides as a share of the height, ascending.
        crop_size: that each crop is resized to.
        batch_size: B.

    Returns:
        S maps (h, w, D) float32 of unit vectors, each over the whole image; crops at the border
        are moved inside.
    """
    height, width, _ = expect_shape('image', image, 'H W 3')
    check_scales(scales)
    size = (crop_size, crop_size) if isinstance(crop_size, int) else crop_size
    pixels = image.permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)

    maps = []
    for scale in scales:
        side = min(max(scale * height, 2.0), width)
        boxes, grid = crop_boxes((height, width), side)
        rows = []
        for begin in range(0, len(boxes), batch_size):
            crops = [_resized(pixels, box, size) for box in boxes[begin : begin + batch_size]]
            rows.append(F.normalize(encoder(torch.cat(crops)).float(), dim=-1, eps=1e-8))
        maps.append(torch.cat(rows).reshape(*grid, -1))  # (h, w, D)
    return maps


def crop_boxes(
    image_size: tuple[int, int], side: float
) -> tuple[list[tuple[int, int, int, int]], tuple[int, int]]:
    """Crops (top, left, bottom, right) around the centres of a grid over an image, row by row.

    Returns:
        The boxes and the grid's (h, w).
    """
    num_rows, num_columns = (max(1, round(extent / (_STRIDE * side))) for extent in image_size)
    grid = (num_rows, num_columns)

    spans = []  # of the rows, of the columns
    for extent, cells in zip(image_size, grid):
        whole = max(1, min(round(side), extent))
        centres = [(cell + 0.5) * extent / cells for cell in range(cells)]
        first = [min(max(round(centre - whole / 2), 0), extent - whole) for centre in centres]
        spans.append([(begin, begin + whole) for begin in first])

    rows, columns = spans
    return [(top, left, bottom, right) for top, bottom in rows for left, right in columns], grid


def write_pyramids(
    scene: FieldScene,
    encoder: ClipEncoder,
    folder: str | Path,
    scales: Sequence[float] = LERF_SCALES,
    on_view: Callable[[], object] | None = None,
) -> FeatureStore:
    """Write the maps of all views, as far as they are not there; can be run again.

    Args:
        scene: its images are read.
        encoder: CLIP; crops go through it at its input size.
        folder: of the feature store.
        scales: S.
        on_view: called after each view.

    Raises:
        StampMismatchError: the store is of another encoder or of other scales.
    """
    stamp = pyramid_stamp(encoder, scales)
    device = next(encoder.parameters()).device

    def embed(crops: Tensor) -> Tensor:
        return encoder(crops.to(device)).clip_global.cpu()  # (B, D)

    with FeatureStoreWriter(folder, stamp) as writer:
        for view, frame in enumerate(scene.frames):
            if not writer.has(scene.name, frame):
                image = scene.read(view).rgb
                maps = crop_pyramid(embed, image, scales, encoder.input_size)
                arrays = [feature_map.movedim(-1, 0).half().numpy() for feature_map in maps]
                named = {f'scale{k}': array for k, array in enumerate(arrays)}  # (D, h, w) each
                writer.put(scene.name, frame, {'feat': arrays[0], **named})
            if on_view is not None:
                on_view()
    return FeatureStore(folder, stamp)


def with_language(scene: FieldScene, store: FeatureStore) -> FieldScene:
    """The scene with ``language`` in the content of its views.

    Args:
        scene: as it was when the maps were made.
        store: of ``write_pyramids``.

    Raises:
        ValueError: a store of something else.
    """
    if not store.stamp.postprocessing.startswith(_SIDES):
        raise ValueError(f'{store.path}: holds no crop embeddings ({store.stamp.postprocessing})')
    scales = tuple(map(float, store.stamp.postprocessing.removeprefix(_SIDES).split(', ')))

    def read(view: int) -> ViewContent:
        arrays = store.get(scene.name, scene.frames[view])
        maps = (torch.from_numpy(arrays[f'scale{k}']) for k in range(len(scales)))
        language = tuple(feature_map.movedim(0, -1).contiguous() for feature_map in maps)
        return replace(scene.read(view), language=language)

    return replace(scene, read=read, language_stamp=store.stamp, language_scales=scales)


def pyramid_stamp(encoder: ClipEncoder, scales: Sequence[float]) -> StoreStamp:
    """The encoder's stamp with what is special to crops."""
    check_scales(scales)
    sides = ', '.join(f'{scale:.6g}' for scale in scales)
    return replace(
        encoder.stamp(),
        layer='crops',
        mode='clip',
        dtype='float16',
        channels=encoder.embed_dim,
        grid=None,
        postprocessing=f'{_SIDES}{sides}',
    )


def check_scales(scales: Sequence[float]) -> None:
    """ValueError unless ascending and within 0…1."""
    ascending = all(a < b for a, b in pairwise(scales))
    if not scales or not ascending or scales[0] <= 0 or scales[-1] > 1:
        raise ValueError(f'scales: expected ascending shares of the height, got {scales}')


def _resized(pixels: Tensor, box: tuple[int, int, int, int], size: tuple[int, int]) -> Tensor:
    top, left, bottom, right = box
    crop = pixels[:, :, top:bottom, left:right]
    return F.interpolate(crop, size, mode='bilinear', align_corners=False, antialias=True)
