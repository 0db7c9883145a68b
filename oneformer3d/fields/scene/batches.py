"""Rays with what they should show: random pixels of a scene's views.

Enters: a ``FieldScene`` and the views to draw from. Leaves: ``RayBatch``es; batch number ``step``
depends on the seed and ``step`` alone, so a fit that was interrupted draws what it would have
drawn.

As many views as a byte budget holds are in memory. If all fit, every batch mixes all of them;
else the views go through memory in random order, a few at a time for some steps each.

Letters: R rays, V views, H × W pixels, h × w cells of a feature map, D its width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting import Camera

from ..rendering.rays import Rays, pixel_rays
from .scene import FieldScene, ViewContent, check_labels

STEPS_PER_TURN = 50  # of the same views, when not all of them fit
SEED_STRIDE = 1_000_003


@dataclass(frozen=True, eq=False)
class RayBatch:
    """R rays and their targets.

    Attributes:
        rays: in world coordinates.
        view: (R,) int64, of the scene.
        row: (R,) int64, the view's place among those that are drawn from.
        uv: (R, 2) pixels.
        targets: 'rgb' (R, 3) 0–1; 'depth' (R,) z-depth in metres, 0 for missing; 'semantics'
            (R,) int64 with ``IGNORE``; 'instances' (R,) int64 with -1; 'features' (R, D) float32;
            'language' (R, D) of a crop of random size and 'crop_angle' (R,), its side in metres
            for each metre of distance; each only where the scene has it.
    """

    rays: Rays
    view: Tensor
    row: Tensor
    uv: Tensor
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.rays)

    def __getitem__(self, index: slice | Tensor) -> 'RayBatch':
        """Some of the rays."""
        targets = {name: values[index] for name, values in self.targets.items()}
        return RayBatch(
            self.rays[index], self.view[index], self.row[index], self.uv[index], targets
        )


class RayPool:
    """Draws batches.

    Args:
        scene: what to draw from.
        views: indices of views, at least one.
        seed: of all batches.
        byte_budget: of the views in memory.
        device: of the batches; the pool itself stays where images are read.
    """

    def __init__(
        self,
        scene: FieldScene,
        views: Sequence[int],
        seed: int = 0,
        byte_budget: int = 2 << 30,
        device: torch.device | str = 'cpu',
    ) -> None:
        if not views:
            raise ValueError(f'{scene.name}: no view to draw rays from')
        self.scene, self.views, self.seed = scene, list(views), seed
        self.device = torch.device(device)
        first = self._read(self.views[0])
        fitting = max(1, byte_budget // content_bytes(first))
        self.views_in_memory = min(len(self.views), fitting)
        self._flat: FlatViews | None = None
        self._turn: int | None = None

    def batch(
        self,
        step: int,
        num_rays: int,
        single_view: bool = False,
        with_features: bool = True,
    ) -> RayBatch:
        """Batch number ``step``.

        Args:
            step: counts from 0.
            num_rays: R.
            single_view: all rays of one view, as losses over ids of one image need.
            with_features: whether features and language are read, which takes longest.
        """
        flat = self._views_of(step)
        generator = torch.Generator().manual_seed(self.seed * SEED_STRIDE + step)
        if single_view:
            row = torch.randint(len(flat.views), (1,), generator=generator)
            begin, end = flat.starts[row], flat.starts[row + 1]
            pixel = begin + (torch.rand(num_rays, generator=generator) * (end - begin)).long()
        else:
            pixel = torch.randint(int(flat.starts[-1]), (num_rays,), generator=generator)
        return flat.take(pixel, self.scene.camera, self.device, generator, with_features)

    def _views_of(self, step: int) -> 'FlatViews':
        """The views in memory at a step."""
        turns = -(-len(self.views) // self.views_in_memory)
        turn = 0 if turns == 1 else step // STEPS_PER_TURN
        if turn != self._turn:
            chosen = self.views
            if turns > 1:
                lap, place = divmod(turn, turns)
                generator = torch.Generator().manual_seed(self.seed * SEED_STRIDE - 1 - lap)
                order = torch.randperm(len(self.views), generator=generator).tolist()
                first = place * self.views_in_memory
                chosen = [self.views[i] for i in order[first : first + self.views_in_memory]]
            contents = [self._read(view) for view in chosen]
            rows = [self.views.index(view) for view in chosen]
            self._flat = FlatViews(chosen, contents, self.scene.language_scales, rows)
            self._turn = turn
        return self._flat

    def _read(self, view: int) -> ViewContent:
        content = self.scene.read(view)
        if content.semantics is not None:
            source = f'{self.scene.name}/{self.scene.frames[view]}'
            check_labels(content.semantics, len(self.scene.class_names), source)
        return content


class FlatViews:
    """Contents of views with all pixels in one row, so that sizes may differ."""

    def __init__(
        self,
        views: Sequence[int],
        contents: Sequence[ViewContent],
        scales: Sequence[float] = (),
        rows: Sequence[int] | None = None,
    ) -> None:
        self.views = torch.tensor(views)
        self.rows = torch.arange(len(views)) if rows is None else torch.tensor(rows)
        sizes = torch.tensor([content.rgb.shape[:2] for content in contents])
        self.sizes = sizes
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), sizes.prod(-1).cumsum(0)])
        self.columns = {
            name: torch.cat([getattr(content, name).flatten(0, 1) for content in contents])
            for name in ('rgb', 'depth', 'semantics', 'instances')
            if all(getattr(content, name) is not None for content in contents)
        }
        self.features = None
        if all(content.features is not None for content in contents):
            self.features = FlatMaps([content.features for content in contents])
        self.scales = torch.tensor(scales)
        self.language = [
            FlatMaps([content.language[k] for content in contents]) for k in range(len(scales))
        ]

    def take(
        self,
        pixel: Tensor,
        camera: Camera,
        device: torch.device,
        generator: torch.Generator | None = None,
        with_features: bool = True,
    ) -> RayBatch:
        """The batch of some pixels (R,), counted over all views.

        Args:
            pixel: (R,).
            camera: of all views.
            device: of the batch.
            generator: draws the sizes of crops; None takes the one in the middle.
            with_features: whether features and language are read.
        """
        row = torch.searchsorted(self.starts, pixel, right=True) - 1
        width = self.sizes[row, 1]
        inside = pixel - self.starts[row]
        uv = torch.stack([inside % width, inside // width], dim=-1).float()
        view = self.views[row]
        rays = pixel_rays(camera, view, uv)
        targets = {'rgb': self.columns['rgb'][pixel].float() / 255}
        if 'depth' in self.columns:
            targets['depth'] = self.columns['depth'][pixel]
        for name in ('semantics', 'instances'):
            if name in self.columns:
                targets[name] = self.columns[name][pixel].long()
        if self.features is not None and with_features:
            targets['features'] = self.features.sample(row, uv, self.sizes[row])
        if self.language and with_features:
            targets['language'], scale = self._crop_embeddings(row, uv, generator)
            focal = camera.intrinsics.expand(*camera.batch_shape, 3, 3)[view, 1, 1]
            targets['crop_angle'] = scale * self.sizes[row, 0] / focal
        return RayBatch(
            rays.to(device),
            view.to(device),
            self.rows[row].to(device),
            uv.to(device),
            {name: values.to(device) for name, values in targets.items()},
        )

    def _crop_embeddings(
        self, row: Tensor, uv: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Unit vectors (R, D) between those of the two nearest scales, and the scales (R,)."""
        count = len(self.scales)
        place = torch.full((len(row),), (count - 1) / 2)
        if generator is not None:
            place = torch.rand(len(row), generator=generator) * (count - 1)
        low = place.floor().long().clamp(max=max(count - 2, 0))
        share = (place - low)[:, None]
        found = 0
        for k, maps in enumerate(self.language):
            weight = (low == k)[:, None] * (1 - share) + (low + 1 == k)[:, None] * share
            found = found + weight * maps.sample(row, uv, self.sizes[row])
        high = (low + 1).clamp(max=count - 1)
        scale = torch.lerp(self.scales[low], self.scales[high], share[:, 0])
        # between two unit vectors lies a shorter one
        return torch.nn.functional.normalize(found, dim=-1, eps=1e-8), scale


class FlatMaps:
    """Feature maps (h, w, D) of any sizes with their cells in one row, read bilinearly."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        if len({feature_map.shape[-1] for feature_map in maps}) != 1:
            raise ValueError('feature maps of different widths')
        self.sizes = torch.tensor([feature_map.shape[:2] for feature_map in maps])
        ends = self.sizes.prod(-1).cumsum(0)
        self.starts = torch.cat([torch.zeros(1, dtype=torch.int64), ends])
        self.cells = torch.cat([feature_map.flatten(0, 1) for feature_map in maps])

    def sample(self, row: Tensor, uv: Tensor, image_size: Tensor) -> Tensor:
        """Features (R, D) float32 at pixels, as ``lifting.sample_map`` reads a map's border.

        Args:
            row: (R,) map of each pixel.
            uv: (R, 2) pixels.
            image_size: (R, 2) H and W of each pixel's image.
        """
        size = self.sizes[row]
        yx = (uv.flip(-1) + 0.5) * size / image_size - 0.5
        yx = torch.minimum(yx.clamp(min=0), (size - 1).to(yx.dtype))
        low = yx.floor().long()
        high = torch.minimum(low + 1, size - 1)
        share = yx - low
        result = 0
        for y, wy in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
            for x, wx in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
                cell = self.starts[row] + y * size[:, 1] + x
                result = result + self.cells[cell].float() * (wy * wx)[:, None]
        return result


def view_batch(scene: FieldScene, view: int, content: ViewContent | None = None) -> RayBatch:
    """All pixels of one view, row by row."""
    content = scene.read(view) if content is None else content
    flat = FlatViews([view], [content], scene.language_scales)
    return flat.take(torch.arange(int(flat.starts[-1])), scene.camera, torch.device('cpu'))


def content_bytes(content: ViewContent) -> int:
    """Bytes of a view in memory."""
    tensors = [content.rgb, content.depth, content.semantics, content.instances, content.features]
    tensors += content.language or ()
    return sum(t.numel() * t.element_size() for t in tensors if t is not None)
