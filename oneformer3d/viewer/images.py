"""The images of a scene, and which of them saw a point.

Enters: V images with their cameras and depth. Leaves: JPEGs, the pixel of any point in each image
that sees it, and the cameras as a page draws them.
"""

import io
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from oneformer3d.lifting.camera import Camera
from oneformer3d.lifting.pairs import project_pairs
from oneformer3d.lifting.shapes import expect_shape

MAX_SIDE = 640  # pixels of an image in the page
_QUALITY = 80


@dataclass(frozen=True)
class SeenPixel:
    """An image that sees a point: its row, its name, and the pixel as shares (0…1) of its sides."""

    view: int
    frame: str
    place: tuple[float, float]


@dataclass(frozen=True, eq=False)
class SceneImages:
    """V images of a scene.

    Attributes:
        frames: V names.
        jpegs: V files, no side longer than ``MAX_SIDE``.
        camera: of the images, in the coordinates of the recording.
        depth: (V, h, w) metres, 0 where missing.
        depth_camera: of the depth images.
    """

    frames: tuple[str, ...]
    jpegs: tuple[bytes, ...]
    camera: Camera
    depth: Tensor
    depth_camera: Camera

    def seeing(self, point: NDArray[np.floating], most: int = 6) -> list[SeenPixel]:
        """The images that see a point, the nearest first.

        Args:
            point: (3,) metres, in the coordinates of the recording.
            most: images at most.
        """
        xyz = torch.from_numpy(np.array(point, np.float32)[None])
        pairs = project_pairs(xyz, self.camera, self.depth, depth_camera=self.depth_camera)
        order = torch.argsort(pairs.depth_z)[:most]

        # the centre of the first pixel is 0, an image of width W covers −0.5 … W − 0.5
        height, width = self.camera.image_size
        shares = (pairs.uv[order] + 0.5) / torch.tensor([width, height])
        views = pairs.view[order].tolist()
        return [
            SeenPixel(view, self.frames[view], (round(u, 4), round(v, 4)))
            for view, (u, v) in zip(views, shares.tolist())
        ]


def make_images(
    frames: tuple[str, ...],
    colors: NDArray[np.uint8],
    camera: Camera,
    depth: Tensor,
    depth_camera: Camera,
) -> SceneImages:
    """Keep images as JPEGs.

    Args:
        frames: V names.
        colors: (V, H, W, 3) uint8.
        camera, depth, depth_camera: see ``SceneImages``.

    Raises:
        ValueError: another number of images than names.
    """
    expect_shape('colors', colors, 'V H W 3', V=len(frames))
    jpegs = []
    for pixels in colors:
        image = Image.fromarray(pixels)
        image.thumbnail((MAX_SIDE, MAX_SIDE))
        file = io.BytesIO()
        image.save(file, 'JPEG', quality=_QUALITY)
        jpegs.append(file.getvalue())
    return SceneImages(frames, tuple(jpegs), camera, depth, depth_camera)
