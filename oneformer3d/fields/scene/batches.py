"""Rays with what they should show: random pixels of a scene's views.

Enters: a ``FieldScene`` and the views to draw from. Leaves: ``RayBatch``es; batch number ``step``
depends on the seed and ``step`` alone, so a fit that was interrupted draws what it would have
drawn.

As many views as a byte budget holds are in memory. If all fit, every batch mixes all of them;
else the views go through memory in random order, a few at a time for ``STEPS_PER_TURN`` steps each.

Letters: R rays, V views, H × W pixels, h × w cells of a feature map, D its width, S crop scales.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from oneformer3d.lifting import Camera
from oneformer3d.lifting.camera import resize_coordinate

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
        row: (R,) int64, the view's index among those that are drawn from.
        uv: (R, 2) pixels.
        targets: 'rgb' (R, 3) 0–1; 'depth' (R,) z-depth in metres, 0 for missing; 'semantics'
            (R,) int64 with ``IGNORE``; 'instances' (R,) int64 with -1; 'features_<type>' (R, D)
            float32; 'language' (R, D) of a crop of random size and 'crop_angle' (R,), its side in
            metres for each metre of distance; each only where the scene has it.
    """

    rays: Rays
    view: Tensor
    row: Tensor
    uv: Tensor
    targets: dict[str, Tensor]

    def __len__(self) -> int:
        return len(self.rays)

    def __getitem__(self, index: slice | Tensor) -> 'RayBatch':
        """A subset of the rays."""
        targets = {name: values[index] for name, values in self.targets.items()}
        return RayBatch(
            self.rays[index], self.view[index], self.row[index], self.uv[index], targets
        )

    def to(self, device: torch.device | str) -> 'RayBatch':
        """The batch on another device."""
        targets = {name: values.to(device) for name, values in self.targets.items()}
        return RayBatch(
            self.rays.to(device),
            self.view.to(device),
            self.row.to(device),
            self.uv.to(device),
            targets,
        )


class RayPool:
    """Draws batches; the views of one turn are in memory until the next.

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

        fitting = max(1, byte_budget // self._read(self.views[0]).num_bytes)
        self.views_in_memory = min(len(self.views), fitting)
        self.num_turns = -(-len(self.views) // self.views_in_memory)
        self._turn: int | None = None
        self._flat: FlatViews | None = None

    def batch(
        self,
        step: int,
        num_rays: int,
        single_view: bool = False,
        with_features: bool = True,
    ) -> RayBatch:
        """Draw batch number ``step``.

        Args:
            step: counts from 0.
            num_rays: R.
            single_view: all rays of one view, as losses over ids of one image need.
            with_features: whether features and language are read, which takes longest.
        """
        flat = self._views_at(step)
        generator = torch.Generator().manual_seed(self.seed * SEED_STRIDE + step)
        if single_view:
            row = torch.randint(len(flat.views), (1,), generator=generator)
            begin, end = flat.starts[row], flat.starts[row + 1]
            pixel = begin + (torch.rand(num_rays, generator=generator) * (end - begin)).long()
        else:
            pixel = torch.randint(int(flat.starts[-1]), (num_rays,), generator=generator)  # (R,)
        return flat.take(pixel, self.scene.camera, generator, with_features).to(self.device)

    def _views_at(self, step: int) -> 'FlatViews':
        """The views in memory at a step, read where another turn begins."""
        turn = 0 if self.num_turns == 1 else step // STEPS_PER_TURN
        if self._flat is not None and turn == self._turn:
            return self._flat

        rows = self._rows_of(turn)
        views = [self.views[row] for row in rows]
        contents = [self._read(view) for view in views]
        self._flat = FlatViews(views, contents, self.scene.language_scales, rows)
        self._turn = turn
        return self._flat

    def _rows_of(self, turn: int) -> list[int]:
        """Indices of the views of a turn; every lap of turns has another random order."""
        if self.num_turns == 1:
            return list(range(len(self.views)))
        lap, number = divmod(turn, self.num_turns)
        generator = torch.Generator().manual_seed(self.seed * SEED_STRIDE - 1 - lap)
        order = torch.randperm(len(self.views), generator=generator).tolist()
        return order[number * self.views_in_memory :][: self.views_in_memory]

    def _read(self, view: int) -> ViewContent:
        content = self.scene.read(view)
        if content.semantics is not None:
            source = f'{self.scene.name}/{self.scene.frames[view]}'
            check_labels(content.semantics, len(self.scene.class_names), source)
        return content


class FlatViews:
    """Contents of views with all pixels in one row, so that sizes may differ.

    Args:
        views: V indices in the scene.
        contents: V.
        scales: S crop sides of the language maps.
        rows: V indices among the views that are drawn from; None counts them.
    """

    def __init__(
        self,
        views: Sequence[int],
        contents: Sequence[ViewContent],
        scales: Sequence[float] = (),
        rows: Sequence[int] | None = None,
    ) -> None:
        self.views = torch.tensor(views)
        self.rows = torch.arange(len(views)) if rows is None else torch.tensor(rows)
        self.sizes = torch.tensor([content.rgb.shape[:2] for content in contents])  # (V, 2)
        self.starts = _starts(self.sizes)

        self.columns = {}
        for name in ('rgb', 'depth', 'semantics', 'instances'):
            maps = [getattr(content, name) for content in contents]
            if all(values is not None for values in maps):
                self.columns[name] = torch.cat([values.flatten(0, 1) for values in maps])
        self.features = {
            kind: FlatMaps([content.features[kind] for content in contents])
            for kind in contents[0].features
            if all(kind in content.features for content in contents)
        }
        self.scales = torch.tensor(scales)
        crops = [content.language for content in contents if content.language is not None]
        self.language = [FlatMaps([maps[k] for maps in crops]) for k in range(len(scales))]

    def take(
        self,
        pixel: Tensor,
        camera: Camera,
        generator: torch.Generator | None = None,
        with_features: bool = True,
    ) -> RayBatch:
        """The batch of some pixels, counted over all views.

        Args:
            pixel: (R,).
            camera: of all views of the scene.
            generator: draws the sizes of crops; None takes the one in the middle.
            with_features: whether features and language are read.
        """
        row = torch.searchsorted(self.starts, pixel, right=True) - 1  # (R,)
        size, inside = self.sizes[row], pixel - self.starts[row]
        uv = torch.stack([inside % size[:, 1], inside // size[:, 1]], dim=-1).float()  # (R, 2)
        view = self.views[row]

        targets = {name: values[pixel] for name, values in self.columns.items()}
        targets['rgb'] = targets['rgb'].float() / 255
        for name in ('semantics', 'instances'):
            if name in targets:
                targets[name] = targets[name].long()
        if with_features:
            for kind, maps in self.features.items():
                targets[f'features_{kind}'] = maps.sample(row, uv, size)
        if self.language and with_features:
            targets['language'], scale = self._crop_embeddings(row, uv, generator)
            # metres per metre of distance: scale · H / f_y
            focal = camera.intrinsics.expand(*camera.batch_shape, 3, 3)[view, 1, 1]
            targets['crop_angle'] = scale * size[:, 0] / focal
        return RayBatch(pixel_rays(camera, view, uv), view, self.rows[row], uv, targets)

    def _crop_embeddings(
        self, row: Tensor, uv: Tensor, generator: torch.Generator | None
    ) -> tuple[Tensor, Tensor]:
        """Unit vectors (R, D) between those of the two nearest scales, and the scales (R,)."""
        last = len(self.scales) - 1
        position = torch.full((len(row),), last / 2)  # among the scales
        if generator is not None:
            position = torch.rand(len(row), generator=generator) * last
        low = position.floor().long().clamp(max=max(last - 1, 0))
        share = (position - low)[:, None]

        terms = []
        for k, maps in enumerate(self.language):
            weight = (low == k)[:, None] * (1 - share) + (low + 1 == k)[:, None] * share
            terms.append(weight * maps.sample(row, uv, self.sizes[row]))  # (R, D)
        mixed = torch.stack(terms).sum(0)
        high = (low + 1).clamp(max=last)
        scale = torch.lerp(self.scales[low], self.scales[high], share[:, 0])
        # between two unit vectors lies a shorter one
        return torch.nn.functional.normalize(mixed, dim=-1, eps=1e-8), scale


class FlatMaps:
    """Feature maps (h, w, D) of any sizes with their cells in one row, read bilinearly."""

    def __init__(self, maps: Sequence[Tensor]) -> None:
        if len({feature_map.shape[-1] for feature_map in maps}) != 1:
            raise ValueError('feature maps of different widths')
        self.sizes = torch.tensor([feature_map.shape[:2] for feature_map in maps])  # (V, 2)
        self.starts = _starts(self.sizes)
        self.cells = torch.cat([feature_map.flatten(0, 1) for feature_map in maps])  # (Σ h·w, D)

    def sample(self, row: Tensor, uv: Tensor, image_size: Tensor) -> Tensor:
        """Features (R, D) float32 at pixels, as ``lifting.sample_map`` reads a map's border.

        Args:
            row: (R,) map of each pixel.
            uv: (R, 2) pixels.
            image_size: (R, 2) H and W of each pixel's image.
        """
        size = self.sizes[row]  # (R, 2)
        yx = resize_coordinate(uv.flip(-1), image_size, size)
        yx = torch.minimum(yx.clamp(min=0), (size - 1).to(yx.dtype))
        low = yx.floor().long()
        high = torch.minimum(low + 1, size - 1)
        share = yx - low

        # Σ of the four corners, w = w_y · w_x
        result = 0
        for y, wy in ((low[:, 0], 1 - share[:, 0]), (high[:, 0], share[:, 0])):
            for x, wx in ((low[:, 1], 1 - share[:, 1]), (high[:, 1], share[:, 1])):
                cell = self.starts[row] + y * size[:, 1] + x
                result = result + self.cells[cell].float() * (wy * wx)[:, None]
        return result


def _starts(sizes: Tensor) -> Tensor:
    """Where each of V images of sizes (V, 2) begins in one row of pixels, and the end: (V + 1,)."""
    return torch.cat([torch.zeros(1, dtype=torch.int64), sizes.prod(-1).cumsum(0)])
