"""A small untrained CLIP in a file, for whatever reads weights from files."""

from pathlib import Path

from oneformer3d.tiny_clip.train import TinyClipSettings, build_tiny_clip, save_tiny_clip

SETTINGS = TinyClipSettings(crop_size=64, width=8)
CHANNELS, GRID, EMBED_DIM = 128, (4, 4), 128  # of layer3 at 64 pixels


def write_small_clip(path: Path) -> Path:
    """Weights of a ResNet tower with 128-channel maps of 4×4, random by a fixed seed."""
    save_tiny_clip(path, build_tiny_clip(SETTINGS), SETTINGS, {}, {})
    return path
