"""What the measurements of fields share: the small room, a fit with a progress bar, times.

Enters: settings and a scene. Leaves: a fitted field, seconds to a quality.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from oneformer3d.data.synthetic.generate import generate_dataset
from oneformer3d.data.synthetic.settings import RoomSettings
from oneformer3d.fields.fitting.fitted import FittedField
from oneformer3d.fields.fitting.loop import fit_field
from oneformer3d.fields.fitting.settings import FitSettings
from oneformer3d.fields.scene.folder import load_field_scene
from oneformer3d.fields.scene.scene import FieldScene

CONFIG = Path(__file__).resolve().parents[2] / 'configs' / 'fields' / 'semantic_nerf.yaml'
MEASURE = 'held_out_psnr_aligned'
ROOM = RoomSettings(
    room_width=(3.0, 3.2), room_depth=(2.8, 3.0), num_doors=(1, 1), num_panels=(2, 3),
    num_boxes=(1, 2), num_bookshelves=(0, 1), num_beds=(0, 0), num_tables=(1, 1),
    num_chairs=(2, 2), num_lamps=(1, 1), num_clutter=(0, 0), num_views=64, image_size=(120, 160),
    field_of_view=(70.0, 70.0),
)  # fmt: skip


def make_room(root: Path, seed: int, max_side: int | None = None) -> FieldScene:
    """One small room, 64 views of 160 × 120 pixels, read no larger than ``max_side``."""
    folder = root / 'posed_images' / 'room0000_00'
    if not folder.is_dir():
        generate_dataset(
            root, num_train=1, num_val=0, seed=seed, num_workers=1, progress=False, settings=ROOM
        )
    return load_field_scene(folder, max_side=max_side)


def fit(scene: FieldScene, settings: FitSettings, side: str, device: str) -> FittedField:
    """One fit with a progress bar."""
    with tqdm(total=settings.steps, desc=side, unit='step', file=sys.stderr) as bar:

        def progress(step: int, values: dict[str, float]) -> None:
            bar.update(step - bar.n)
            if MEASURE in values:
                bar.set_postfix(held_out=f'{values[MEASURE]:.2f} dB', refresh=False)

        return fit_field(scene, settings, device=device, on_step=progress)


def time_to(history: Sequence[dict], psnr: float, clock: str) -> float | None:
    """Seconds until a PSNR was first measured, None where it never was."""
    return next((row[clock] for row in history if row[MEASURE] >= psnr), None)
