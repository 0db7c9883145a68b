"""Look at a scene in the browser, ask it with words, and see which images saw a point.

    python tools/view.py SCAN_FOLDER              (segmented first, with its images)
    python tools/view.py RESULT --clip-weights CLIP
    python tools/view.py SCAN_FOLDER --config CONFIG --checkpoint WEIGHTS --clip-weights CLIP
    python tools/view.py room.ply --without-model (the cloud and its pieces)

SCAN_FOLDER holds posed RGB-D images, RESULT is a folder that tools/infer.py wrote. Prints the
address of the page, which this machine alone can open; from another one: ssh -L 7007:localhost:7007
HOST. --html writes the page to a file instead. See docs/explore.md.
"""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from oneformer3d.engine.cli import (
    ToolParser,
    add_model_arguments,
    add_recording_arguments,
    add_scan_arguments,
    model_files,
    recording_options,
    run_tool,
    tell,
)
from oneformer3d.engine.progress import show_progress

if TYPE_CHECKING:
    from oneformer3d.inference.opened_scene import OpenedScene
    from oneformer3d.inference.scan_images import ScanFrames
    from oneformer3d.viewer.images import SceneImages
    from oneformer3d.viewer.live import LiveScene, TextAsker

NEGATIVES = ('object', 'things', 'stuff', 'texture')
FIELD_FILE = 'field.pth'


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    parser = ToolParser(description=__doc__)
    parser.add_argument('input', help='scan, cloud, or result of tools/infer.py')
    parser.add_argument('--html', metavar='FILE', help='write the page to a file, serve nothing')
    parser.add_argument(
        '--out', default='outputs/view', help='for what is made of a scan (default: %(default)s)'
    )

    # what segments, and what reads texts
    add_model_arguments(parser)
    parser.add_argument(
        '--without-model', action='store_true', help='segment nothing: the cloud and its pieces'
    )
    parser.add_argument('--clip-weights', help='CLIP that reads text and images (file or tag)')
    parser.add_argument('--clip-model', help='open_clip model, where the weights do not tell')
    parser.add_argument(
        '--negatives', nargs='+', default=list(NEGATIVES), help='what nothing is (%(default)s)'
    )
    parser.add_argument('--temperature', type=float, default=0.1, help='of scores (%(default)s)')
    parser.add_argument(
        '--threshold', type=float, default=0.5, help='of a score to be found (%(default)s)'
    )

    # the scene
    parser.add_argument('--images', help='folder of the posed images of a cloud or result')
    parser.add_argument(
        '--max-views', type=int, default=64, help='images of a folder (default: %(default)s)'
    )
    parser.add_argument('--up', choices=('x', 'y', 'z', '-x', '-y', '-z'), help='axis of a scan')
    parser.add_argument('--device', default='cpu', help='cpu, cuda, ... (default: %(default)s)')
    add_scan_arguments(parser)
    add_recording_arguments(parser)

    # the server
    parser.add_argument(
        '--host',
        default='127.0.0.1',
        help='address to listen at; another than this one lets in everybody who reaches it',
    )
    parser.add_argument('--port', type=int, default=7007, help='0: any free one (%(default)s)')
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    args = parse_args(argv)
    check(args)
    live = make_live(args)
    if args.html is not None:
        from oneformer3d.viewer.page import write_page

        write_page(args.html, live.scene)
        print(f'page: {args.html}')
        return
    serve(live, args.host, args.port)


def check(args: argparse.Namespace) -> None:
    """What can be wrong is found before anything slow is loaded."""
    path = Path(args.input)
    if not path.exists():
        raise FileNotFoundError(f'{args.input}: no such file or folder')
    if path.suffix == '.pth' or (path / FIELD_FILE).is_file():
        raise ValueError(f'{args.input}: is a field; tools/query.py asks it')
    if not 0 < args.threshold < 1 or not args.temperature > 0 or args.max_views < 1:
        raise ValueError(
            '--threshold lies between 0 and 1, --temperature and --max-views are positive'
        )
    if args.without_model and args.config is not None:
        raise ValueError('--without-model and --config contradict each other')
    model_files(args)
    if not all(text.strip() for text in args.negatives):
        raise ValueError('--negatives: an empty text')


def make_live(args: argparse.Namespace) -> 'LiveScene':
    """The scene with all that the arguments make of it; says what is missing."""
    from oneformer3d.inference.opened_scene import open_scene
    from oneformer3d.inference.scan_images import read_scan_frames
    from oneformer3d.inference.scene_index import pieces_of
    from oneformer3d.viewer.live import LiveScene
    from oneformer3d.viewer.scene import view_scene

    show_progress('read', 0, 1)
    options = {'unit': args.unit, 'columns': args.columns, 'up': args.up}
    scene = open_scene(args.input, args.images, **options, **recording_options(args))
    show_progress('read', 1, 1)
    tell(scene.warnings, args.warnings)
    if scene.segmentation is not None and args.config is not None:
        raise ValueError(f'{args.input}: is segmented already; leave --config out')
    if args.without_model and scene.segmentation is None:
        print('without a model there are no classes and objects, only the cloud and its pieces')
    elif scene.segmentation is None:
        scene = segmented(scene, args)

    images, asker, directions = None, None, None
    if scene.recording is not None:
        show_progress('images', 0, 1)
        images = kept_images(read_scan_frames(scene.recording, args.max_views))
        show_progress('images', 1, 1)
    if args.clip_weights is None or scene.recording is None:
        missing = '--clip-weights' if scene.recording is not None else 'images: see --images'
        print(f'no texts can be asked without {missing}')
        mask_of_point = pieces_of(scene)
    else:
        asker = text_asker(scene, args)
        mask_of_point, directions = asker.index.mask_of_point, asker.index.directions

    world = scene.points[:, :3].astype(float) + scene.origin  # (N, 3)
    rotation = scene.upright_from_scan
    return LiveScene(
        view_scene(
            Path(scene.path or args.input).resolve().name,
            scene.upright,
            scene.rgb,
            scene.segmentation,
            mask_of_point=mask_of_point,
            directions=directions,
        ),
        world,
        (rotation, -rotation @ scene.origin),
        asker,
        images,
        scene.segmentation,
    )


def segmented(scene: 'OpenedScene', args: argparse.Namespace) -> 'OpenedScene':
    """The scene with what a model says of it, kept as a result."""
    from oneformer3d.inference.opened_scene import scene_of_result, segment_scene

    config, checkpoint = model_files(args)
    clip = None
    if args.clip_weights is not None:
        model = {} if args.clip_model is None else {'model': args.clip_model}
        clip = {'weights': args.clip_weights, **model}
    result = segment_scene(scene, config, checkpoint, clip, args.device, show_progress)
    result.save(args.out)
    print(f'result: {args.out}')
    return scene_of_result(result, args.input, scene.recording)


def kept_images(frames: 'ScanFrames') -> 'SceneImages':
    """Images as the page shows them."""
    from oneformer3d.viewer.images import make_images

    return make_images(
        frames.frames, frames.colors, frames.camera, frames.depth, frames.depth_camera
    )


def text_asker(scene: 'OpenedScene', args: argparse.Namespace) -> 'TextAsker':
    """What answers texts, from an index that is made once."""
    from oneformer3d.inference.opened_scene import RESULT_FILE
    from oneformer3d.inference.scene_index import INDEX_NAME, load_or_index, text_image_reader
    from oneformer3d.viewer.live import TextAsker

    reader = text_image_reader(args.clip_weights, args.clip_model, args.max_views, args.device)
    is_result = (Path(args.input) / RESULT_FILE).is_file()
    home = Path(args.input if is_result else args.out)
    index = load_or_index(home / INDEX_NAME, scene, reader, show_progress)

    def encode(texts: list[str]):
        return reader.clip.clip.encode_text(texts).numpy()

    return TextAsker(index, encode, encode(args.negatives), args.temperature, args.threshold)


def serve(live: 'LiveScene', host: str, port: int) -> None:
    """Answer until the user ends it."""
    from oneformer3d.viewer.server import LOOPBACK, SceneServer

    try:
        server = SceneServer(live, host, port)
    except OSError as error:
        raise OSError(f'{host}:{port}: {error.strerror}; --port 0 takes a free one') from error
    if host not in LOOPBACK:
        print(f'warning: everybody who reaches {host} can see this scene')
    print(f'open {server.url} in a browser; Ctrl-C ends', flush=True)
    with server:
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print('ended')


if __name__ == '__main__':
    run_tool(main)
