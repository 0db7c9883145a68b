"""Posed images: of one sample, and of a batch stacked once.

Enters: what the data pipeline, or a caller, knows of the views of a sample (``PosedViews``).
Leaves: ``ViewBatch``, from which fusion, MVPNet and the STM decoder read. V views of a sample or
of all samples, P pairs, C channels of a map, h × w its grid.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from oneformer3d.lifting.camera import resize_pixels
from oneformer3d.lifting.pairs import PixelPairs
from oneformer3d.lifting.shapes import expect_shape, size_of

# (h, w) of the one view of a batch without views
EMPTY_MAP = (4, 4)
EMPTY_IMAGE = (64, 64)


@dataclass(frozen=True)
class PosedViews:
    """The views of one sample; V = 0 and P = 0 are legal. Everything is in original coordinates.

    Attributes:
        pairs: P visible pairs, ``uv`` in pixels of an image of ``image_size``.
        world_from_cam: (V, 4, 4) camera to world, metres, before augmentation.
        image_size: (H, W) that ``pairs.uv`` belongs to.
        num_points: N of the sample.
        scene_id: name of the scene, '' where it has none.
        frames: name of each view.
        feat: (V, C, h, w) frozen tokens of each view over its whole image, or None.
        clip_global: (V, D) embedding of each view, or None.
        images: (V, 3, H', W') uint8 colours, or None.
        intrinsics: (3, 3) or (V, 3, 3) of an image of ``image_size``, or None.
        augmented_from_original: (4, 4), what augmentation did to the points.
        pixels_masked: the network sees zeros in place of the features; poses and visibility
            stay, and so do the maps as targets of a loss.
        pair_objects: (P,) int64, the 2D object that each pair shows, different ids in different
            views, −1 for none; None without masks.
    """

    pairs: PixelPairs
    world_from_cam: Tensor
    image_size: tuple[int, int]
    num_points: int
    scene_id: str = ''
    frames: tuple[str, ...] = ()
    feat: Tensor | None = None
    clip_global: Tensor | None = None
    images: Tensor | None = None
    intrinsics: Tensor | None = None
    augmented_from_original: Tensor | None = None
    pixels_masked: bool = False
    pair_objects: Tensor | None = None

    @property
    def num_views(self) -> int:
        """V."""
        return len(self.world_from_cam)

    @property
    def augmented_from_cam(self) -> Tensor:
        """(V, 4, 4) camera to the augmented points; carries the scale and mirror of that."""
        if self.augmented_from_original is None:
            return self.world_from_cam
        return self.augmented_from_original @ self.world_from_cam

    def to(self, device: torch.device | str, non_blocking: bool = False) -> 'PosedViews':
        """The views on another device."""
        tensors = {
            name: value.to(device, non_blocking=non_blocking)
            for name, value in vars(self).items()
            if isinstance(value, Tensor)
        }
        return replace(self, pairs=self.pairs.to(device), **tensors)


def views_of(inputs: Mapping) -> list[PosedViews | None]:
    """Views of every sample of a segmentor's inputs, None for samples, or batches, without."""
    return list(inputs.get('views') or [None] * len(inputs['points']))


@dataclass(frozen=True)
class ViewBatch:
    """The views of all samples of a batch, one after another.

    A batch without views holds one view of zeros, masked, that no sample owns: so every parameter
    has a gradient in every batch, as distributed training asks.

    Attributes:
        maps: (V, C, h, w) float32 feature maps, or (V, 3, h, w) images as they were loaded.
        masked: (V,) bool, views that the network sees as zeros.
        pairs: of rows of the stacked points and rows of ``maps``; ``uv`` in cells of the h × w
            grid, since images of different samples may differ in size.
        num_points: N of each sample.
        num_views: V of each sample.
    """

    maps: Tensor
    masked: Tensor
    pairs: PixelPairs
    num_points: tuple[int, ...]
    num_views: tuple[int, ...]

    @classmethod
    def of_maps(
        cls,
        views: Sequence[PosedViews | None],
        channels: int,
        device: torch.device | str,
        num_points: Sequence[int] | None = None,
    ) -> 'ViewBatch':
        """Stack the feature maps that the views carry.

        Args:
            views: per sample, or None.
            channels: C that the network expects.
            device: of the result.
            num_points: N of each sample; by default what the views say, 0 for none.

        Raises:
            ValueError: views without maps, or of other channels, grids or points.
        """

        def maps_of(i: int, sample: PosedViews) -> Tensor:
            if sample.feat is None:
                raise ValueError(
                    f'{_name(i, sample)}: its {sample.num_views} views have no feature maps'
                )
            expect_shape(
                f'{_name(i, sample)}: maps', sample.feat, 'V C h w', V=sample.num_views, C=channels
            )
            return sample.feat.float()

        return cls._stack(views, maps_of, torch.zeros(1, channels, *EMPTY_MAP), device, num_points)

    @classmethod
    def of_images(
        cls,
        views: Sequence[PosedViews | None],
        device: torch.device | str,
        num_points: Sequence[int] | None = None,
    ) -> 'ViewBatch':
        """Stack the images of the views; arguments as of ``of_maps``.

        Raises:
            ValueError: views without images, or of other sizes or points.
        """

        def images_of(i: int, sample: PosedViews) -> Tensor:
            if sample.images is None:
                raise ValueError(
                    f'{_name(i, sample)}: its {sample.num_views} views have no images; '
                    'LoadPosedViews loads them without a store'
                )
            expect_shape(
                f'{_name(i, sample)}: images', sample.images, 'V 3 H W', V=sample.num_views
            )
            return sample.images

        empty = torch.zeros(1, 3, *EMPTY_IMAGE, dtype=torch.uint8)
        return cls._stack(views, images_of, empty, device, num_points)

    @property
    def grid(self) -> tuple[int, int]:
        """(h, w)."""
        return size_of(self.maps)

    @property
    def first_view(self) -> tuple[int, ...]:
        """Row of the first view of each sample."""
        return tuple(sum(self.num_views[:i]) for i in range(len(self.num_views)))

    def visible_maps(self) -> Tensor:
        """(V, C, h, w) what the network sees: zeros where masked."""
        return torch.where(self.masked[:, None, None, None], 0.0, self.maps)

    @classmethod
    def _stack(
        cls,
        views: Sequence[PosedViews | None],
        content_of: Callable[[int, PosedViews], Tensor],
        empty: Tensor,
        device: torch.device | str,
        num_points: Sequence[int] | None,
    ) -> 'ViewBatch':
        if num_points is None:
            num_points = [0 if sample is None else sample.num_points for sample in views]
        present = {i: s for i, s in enumerate(views) if s is not None and s.num_views}
        for i, sample in present.items():
            if sample.num_points != num_points[i]:
                raise ValueError(
                    f'{_name(i, sample)}: views of {sample.num_points} points, got {num_points[i]}'
                )

        content, masked = [], []
        for i, sample in present.items():
            content.append(content_of(i, sample).to(device))
            masked += [sample.pixels_masked] * sample.num_views
            if content[-1].shape[-2:] != content[0].shape[-2:]:
                raise ValueError(
                    f'{_name(i, sample)}: the views of a batch share one size, got '
                    f'{tuple(content[-1].shape[-2:])} and {tuple(content[0].shape[-2:])}'
                )
        if not present:
            content, masked = [empty.to(device)], [True]

        maps = torch.cat(content)  # (V, C, h, w)
        return cls(
            maps=maps,
            masked=torch.tensor(masked, device=device),
            pairs=_stack_pairs(views, num_points, size_of(maps), device),
            num_points=tuple(num_points),
            num_views=tuple(0 if sample is None else sample.num_views for sample in views),
        )


def _stack_pairs(
    views: Sequence[PosedViews | None],
    num_points: Sequence[int],
    grid: tuple[int, int],
    device: torch.device | str,
) -> PixelPairs:
    """The pairs of all samples, with rows of the batch and ``uv`` in cells of the grid."""
    none = torch.zeros(0, dtype=torch.int64, device=device)
    columns = [(none, none, torch.zeros(0, 2, device=device), torch.zeros(0, device=device))]
    first_point = first_view = 0
    for sample, count in zip(views, num_points):
        if sample is not None and sample.num_views:
            pairs = sample.pairs.to(device)
            uv = resize_pixels(pairs.uv, sample.image_size, grid)  # (P, 2)
            columns.append((pairs.point + first_point, pairs.view + first_view, uv, pairs.depth_z))
            first_view += sample.num_views
        first_point += count
    return PixelPairs(*(torch.cat(column) for column in zip(*columns)))


def _name(i: int, sample: PosedViews) -> str:
    return f'sample {i} ({sample.scene_id})' if sample.scene_id else f'sample {i}'
