"""Which frames an extraction reads, in what batches, and how an image is decoded.

Enters: a data root in the layout of docs/data.md, perhaps a list of scenes. Leaves: frames in a
fixed order, batches of them, and (H, W, 3) uint8 images at the encoder's input size.

Batches are cut once, from the whole list, and dealt out whole: whichever rank computes a batch,
and after however many interruptions, the same images go through the encoder together. A frame's
features therefore are the same bytes however the work was shared out.
"""

import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from oneformer3d.clip.encoder import prepare_images
from oneformer3d.clip.extraction_settings import ExtractionSettings
from oneformer3d.data.infos import read_infos, resolve_in_root, validate_scene_name
from oneformer3d.data.posed_rgbd import MISSING_DEPTH
from oneformer3d.lifting.camera import is_valid_pose

MAX_LISTED = 20
_UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)  # as PIL raises
_T = TypeVar('_T')


@dataclass(frozen=True)
class SceneSource:
    """A scene as its infos describe it; sizes are (H, W), intrinsics (3, 3) float64."""

    name: str
    points_path: Path
    image_size: tuple[int, int]
    intrinsics: NDArray[np.float64]
    depth_intrinsics: NDArray[np.float64]
    depth_size: tuple[int, int] | None


@dataclass(frozen=True)
class FrameSource:
    """One image: its files, its pose (4, 4) `world_from_cam`, and why it cannot be used if so."""

    scene: SceneSource
    name: str
    image_path: Path
    depth_path: Path | None
    world_from_cam: NDArray[np.float64]
    fault: str | None = None

    @property
    def key(self) -> str:
        """`scene/frame`, as in the store."""
        return f'{self.scene.name}/{self.name}'


@dataclass(frozen=True)
class DecodedFrame:
    """A frame with its image, or the reason why there is none.

    Attributes:
        frame: what was read.
        image: (H, W, 3) at the encoder's size, uint8 or float32 0–1, None where it cannot be
            read.
        depth: (h, w) float32 metres where asked for and there.
        fault: why the image is None.
        depth_fault: why the depth is, where the frame should have one.
        seconds: of decoding.
    """

    frame: FrameSource
    image: NDArray[np.uint8] | NDArray[np.float32] | None = None
    depth: NDArray[np.float32] | None = None
    fault: str | None = None
    depth_fault: str | None = None
    seconds: float = 0.0


def list_frames(settings: ExtractionSettings) -> list[FrameSource]:
    """The frames that the settings name, scene by scene.

    Raises:
        FileNotFoundError: no scenes file, or no infos in the data root.
        ValueError: scenes that the infos do not have (all are named), or scenes without images.
    """
    root = find_data_root(settings.scenes_file, settings.data_root)
    scenes = _read_scenes(root)
    names = list(scenes) if settings.scenes_file is None else read_scene_list(settings.scenes_file)
    absent = [name for name in names if name not in scenes]
    if absent:
        raise ValueError(f'{root}: no infos of {len(absent)} scenes: {_listed(absent)}')
    frames = [
        _frame_source(root, source, image)
        for source, images in (scenes[name] for name in names)
        for image in select_frames(
            images,
            settings.frames_per_scene,
            settings.frame_select,
            zlib.crc32(source.name.encode()) ^ settings.seed,
        )
    ]
    if not frames:
        raise ValueError(f'{root}: its {len(names)} scenes have no images')
    return frames


def check_point_files(frames: Sequence[FrameSource]) -> None:
    """Raise FileNotFoundError, naming them all, for scenes without a point file."""
    paths = {str(frame.scene.points_path) for frame in frames}
    missing = sorted(path for path in paths if not Path(path).is_file())
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} scenes have no points for the valid-projection rate (rate_points 0 '
            f'does without): {_listed(missing)}'
        )


def find_data_root(scenes_file: str | None, data_root: str | None) -> Path:
    """The data root given, else the folder above the scenes file that holds infos.

    Raises:
        FileNotFoundError: the scenes file or the infos are missing.
    """
    if scenes_file is not None and not Path(scenes_file).is_file():
        raise FileNotFoundError(f'{scenes_file}: no such file with scenes')
    if data_root is not None:
        if not _infos_of(Path(data_root)):
            raise FileNotFoundError(f'{data_root}: holds no oneformer3d_infos_<split>.json')
        return Path(data_root)
    folders = list(Path(scenes_file).resolve().parents)[:2]
    for folder in folders:
        if _infos_of(folder):
            return folder
    raise FileNotFoundError(
        f'{scenes_file}: no oneformer3d_infos_<split>.json in {" or ".join(map(str, folders))}; '
        'give the data root'
    )


def read_scene_list(path: str | Path) -> list[str]:
    """Scene names of a text file, one per line, each once.

    Raises:
        ValueError: no scenes, or a name that is not safe.
    """
    try:
        names = Path(path).read_text(encoding='utf-8').split()
        names = [validate_scene_name(name) for name in names]
    except ValueError as error:
        raise ValueError(f'{path}: {error}') from error
    if not names:
        raise ValueError(f'{path}: names no scenes')
    return list(dict.fromkeys(names))


def select_frames(images: Sequence[_T], count: int, how: str, seed: int = 0) -> list[_T]:
    """`count` of the images in their order: the first, evenly spread, or drawn; 0 takes all."""
    if count == 0 or count >= len(images):
        return list(images)
    if how == 'uniform':
        chosen = np.linspace(0, len(images) - 1, count).round().astype(int)
    elif how == 'random':
        chosen = np.sort(np.random.default_rng(seed).choice(len(images), count, replace=False))
    else:
        chosen = np.arange(count)
    return [images[index] for index in chosen]


def cut_batches(frames: Sequence[FrameSource], batch_size: int) -> list[list[FrameSource]]:
    """The frames in batches; the same for every rank and every run."""
    return [list(frames[i : i + batch_size]) for i in range(0, len(frames), batch_size)]


def decoded_batches(
    batches: Sequence[Sequence[FrameSource]],
    decode: Callable[[FrameSource], DecodedFrame],
    workers: int,
    prefetch: int = 2,
) -> Iterator[list[DecodedFrame]]:
    """Decode batches in threads, in order, at most `prefetch` of them ahead of the caller."""
    with ThreadPoolExecutor(workers, thread_name_prefix='decode') as pool:
        waiting: deque[list[Future[DecodedFrame]]] = deque()
        remaining = iter(batches)
        try:
            while True:
                while len(waiting) <= prefetch and (batch := next(remaining, None)) is not None:
                    waiting.append([pool.submit(decode, frame) for frame in batch])
                if not waiting:
                    return
                yield [future.result() for future in waiting.popleft()]
        finally:
            pool.shutdown(cancel_futures=True)


def decode_frame(
    frame: FrameSource, size: tuple[int, int], with_depth: bool, exact: bool = False
) -> DecodedFrame:
    """Image at the encoder's size and, if asked for, depth; faults are returned, not raised."""
    start = time.perf_counter()
    if frame.fault is not None:
        return DecodedFrame(frame, fault=frame.fault)
    reader = read_image_exactly if exact else read_image
    image, fault = _attempt(reader, frame.image_path, size, frame.scene.image_size)
    depth, depth_fault = None, None
    if with_depth and frame.depth_path is not None and fault is None:
        depth, depth_fault = _attempt(read_depth, frame.depth_path, frame.scene.depth_size)
    seconds = time.perf_counter() - start
    return DecodedFrame(frame, image, depth, fault, depth_fault, seconds)


def read_image(
    path: str | Path, size: tuple[int, int], expected_size: tuple[int, int] | None = None
) -> NDArray[np.uint8]:
    """An image squashed to a size; a JPEG of twice the size or more is decoded at 1/2, 1/4 or 1/8.

    Args:
        path: JPEG or PNG.
        size: (H, W) of the result.
        expected_size: (H, W) that the file must have.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        OSError, ValueError: missing, damaged, cut short or of another size; names the file.
    """
    try:
        with Image.open(path) as image:
            _check_size(image, expected_size)
            image.draft('RGB', (size[1], size[0]))
            pixels = image.convert('RGB')
            if pixels.size != (size[1], size[0]):
                pixels = pixels.resize((size[1], size[0]), Image.Resampling.BICUBIC)
            return np.asarray(pixels)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such image') from error
    except _UNREADABLE as error:
        raise ValueError(f'{path}: {error}') from error


def read_image_exactly(
    path: str | Path, size: tuple[int, int], expected_size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """As `read_image`, but (H, W, 3) float32 0–1, resized as the encoder resizes whole images."""
    whole = read_image(path, expected_size or image_size(path), expected_size).copy()
    pixels = torch.from_numpy(whole).permute(2, 0, 1)[None]
    resized = prepare_images(pixels, size, mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))
    return resized[0].permute(1, 2, 0).contiguous().numpy()


def image_size(path: str | Path) -> tuple[int, int]:
    """(H, W) of an image file, from its header."""
    with Image.open(path) as image:
        return image.height, image.width


def read_depth(
    path: str | Path, expected_size: tuple[int, int] | None = None
) -> NDArray[np.float32]:
    """Depth (h, w) in metres, 0 for missing, from a 16-bit image in millimetres.

    Raises:
        OSError, ValueError: missing, damaged, of another kind or size; names the file.
    """
    try:
        with Image.open(path) as image:
            _check_size(image, expected_size)
            depth = np.asarray(image)
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path}: no such depth image') from error
    except _UNREADABLE as error:
        raise ValueError(f'{path}: {error}') from error
    if depth.ndim != 2 or depth.dtype == np.uint8:
        raise ValueError(f'{path}: expected 16-bit depth, got {depth.dtype} {depth.shape}')
    return np.where(depth == MISSING_DEPTH, 0, depth).astype(np.float32) / 1000


def _attempt(read: Callable[..., _T], *args: object) -> tuple[_T | None, str | None]:
    """What a reader returns, or None with the reason in one line."""
    try:
        return read(*args), None
    except _UNREADABLE as error:
        return None, ' '.join(str(error).split())


def _check_size(image: Image.Image, expected: tuple[int, int] | None) -> None:
    if expected is not None and image.size != (expected[1], expected[0]):
        raise ValueError(
            f'is {image.height}×{image.width} pixels, the infos say {expected[0]}×{expected[1]}'
        )


def _infos_of(root: Path) -> list[Path]:
    return sorted(root.glob('oneformer3d_infos_*.json'))


def _read_scenes(root: Path) -> dict[str, tuple[SceneSource, list[dict]]]:
    """Every scene with images in any infos of a data root."""
    scenes: dict[str, tuple[SceneSource, list[dict]]] = {}
    for path in _infos_of(root):
        for info in read_infos(path)['data_list']:
            images = info.get('images')
            if not isinstance(images, list):
                images = []
            if images and (info.get('image_size') is None or info.get('cam2img') is None):
                raise ValueError(f'{path}: {info["scene_id"]}: images without size or cam2img')
            scenes.setdefault(info['scene_id'], (_scene_source(root, info), images))
    return scenes


def _scene_source(root: Path, info: dict) -> SceneSource:
    depth_size = info.get('depth_size')
    intrinsics = np.asarray(info.get('cam2img', np.eye(3)), dtype=np.float64)
    return SceneSource(
        name=info['scene_id'],
        points_path=resolve_in_root(root / 'points', info['lidar_points']['lidar_path']),
        image_size=tuple(int(side) for side in info.get('image_size', (1, 1))),
        intrinsics=intrinsics,
        depth_intrinsics=np.asarray(info.get('depth2img', intrinsics), dtype=np.float64),
        depth_size=None if depth_size is None else tuple(int(side) for side in depth_size),
    )


def _frame_source(root: Path, scene: SceneSource, image: dict) -> FrameSource:
    folder = root / 'posed_images'
    pose = np.asarray(image['world_from_cam'], dtype=np.float64)
    depth_path = image.get('depth_path')
    rigid = bool(is_valid_pose(torch.from_numpy(pose)))
    return FrameSource(
        scene=scene,
        name=image['frame'],
        image_path=resolve_in_root(folder, image['img_path']),
        depth_path=None if depth_path is None else resolve_in_root(folder, depth_path),
        world_from_cam=pose,
        fault=None if rigid else 'the pose is not a rigid motion',
    )


def _listed(names: Sequence[str]) -> str:
    more = f' and {len(names) - MAX_LISTED} more' if len(names) > MAX_LISTED else ''
    return ', '.join(names[:MAX_LISTED]) + more
