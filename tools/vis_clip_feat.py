"""Look at stored CLIP features: PCA, t-SNE or similarity to text, on images and on the cloud.

    python tools/vis_clip_feat.py outputs/clip_feat --data_root data/synthetic
    python tools/vis_clip_feat.py outputs/clip_text --data_root data/synthetic \
        --text chair "a picture on the wall" --weights work_dirs/tiny_clip/tiny_clip.pth

Writes PNG and PLY files, one folder per scene. Text needs features extracted with --mode clip, and
the same weights.
"""

import argparse
from pathlib import Path

from oneformer3d.engine.cli import ToolParser, run_tool
from oneformer3d.extraction.settings import FRAME_SELECTIONS, VIS_METHODS, make_settings


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('store', help='folder of the feature store')
    parser.add_argument('--data-root', help='data root (default: above the scenes file)')
    parser.add_argument('--scenes-file', help='text file, one scene per line')
    parser.add_argument('--scenes', nargs='+', help='only these (default: the first in the store)')
    parser.add_argument('--output-dir', default='outputs/clip_vis', help='(%(default)s)')
    parser.add_argument('--frames-per-scene', type=int, default=0, help='0 takes all')
    parser.add_argument('--frame-select', choices=FRAME_SELECTIONS, default='uniform')
    parser.add_argument(
        '--method', nargs='*', choices=VIS_METHODS, help='(default: pca without text)'
    )
    parser.add_argument('--text', nargs='+', default=[], help='prompts')
    parser.add_argument('--model', default='ViT-B-16', help='of the prompts (%(default)s)')
    parser.add_argument('--weights', default='laion2b_s34b_b88k', help='of the prompts')
    parser.add_argument('--uv-index', help='folder of tools/build_uv_index.py')
    parser.add_argument('--no-cloud', action='store_true', help='images only')
    return parser.parse_args(argv)


if __name__ == '__main__':
    run_tool(parse_args)  # help and wrong arguments are answered before anything heavy is imported

from tqdm import tqdm

from oneformer3d.clip.encoder import ClipEncoder
from oneformer3d.extraction.frames import list_frames
from oneformer3d.extraction.pictures import TextRelevancy, draw_scene
from oneformer3d.extraction.uv_index import by_scene, read_uv_index
from oneformer3d.store import FeatureStore


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    names = ('data_root', 'scenes_file', 'frames_per_scene', 'frame_select')
    settings = make_settings({name: getattr(args, name) for name in names})
    store = FeatureStore(args.store)
    scenes = by_scene([f for f in list_frames(settings) if store.has(f.scene.name, f.name)])
    if not scenes:
        raise ValueError(f'{args.store}: holds no frame of these scenes')
    chosen = args.scenes or list(scenes)[:1]
    absent = [name for name in chosen if name not in scenes]
    if absent:
        raise ValueError(f'{args.store}: holds no frames of {", ".join(absent)}')
    relevancy = None
    if args.text:
        encoder = ClipEncoder(args.model, args.weights)
        relevancy = TextRelevancy(encoder, args.text, store.stamp)
    methods = args.method if args.method is not None else ([] if args.text else ['pca'])
    with tqdm(desc='pictures', unit='file') as bar:
        for name in chosen:
            index = None
            if args.uv_index is not None and not args.no_cloud:
                index = read_uv_index(Path(args.uv_index) / f'{name}.npz')
            draw_scene(
                store,
                scenes[name],
                args.output_dir,
                methods,
                relevancy,
                with_cloud=not args.no_cloud,
                index=index,
                on_picture=lambda path: bar.update(),
            )
    print('\n'.join(str(Path(args.output_dir) / name) for name in chosen))


if __name__ == '__main__':
    run_tool(main)
