"""Videos of one bright square each as folders of frames, with annotations as AVA writes them."""

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (64, 64)  # of the frames
NUM_FRAMES, FPS = 12, 4.0


def write_clip_folder(root: Path, num_videos: int = 3) -> tuple[Path, Path]:
    """Folder of frames and CSV: action 1 goes right, action 2 goes left, at seconds 1 and 2."""
    rows = []
    for number in range(num_videos):
        folder = root / 'frames' / f'video{number}'
        folder.mkdir(parents=True)
        action = 1 + number % 2
        for t in range(NUM_FRAMES):
            left = 4 + 3 * (t if action == 1 else NUM_FRAMES - 1 - t)
            image = np.full((*SIZE, 3), 60, dtype=np.uint8)
            image[20:40, left : left + 20] = 230
            Image.fromarray(image).save(folder / f'{t:05d}.png')
            if t % FPS == 0 and t:
                box = f'{left / 64:.6f},{20 / 64:.6f},{(left + 20) / 64:.6f},{40 / 64:.6f}'
                rows.append(f'video{number},{t / FPS:.3f},{box},{action},0')
                rows.append(f'video{number},{t / FPS:.3f},{box},3,0')  # everyone also stands
    path = root / 'train.csv'
    path.write_text('\n'.join(rows) + '\n')
    return root / 'frames', path
