"""What the command-line tools share: their arguments, and errors of one line.

Enters: the words of a command line. Leaves: parsed arguments; a process exit status. Nothing heavy
is imported, so that ``--help`` and wrong arguments answer at once.
"""

import os
import signal
import sys
import threading
from argparse import Action, ArgumentError, ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from oneformer3d.files.left_out import LossRules, LostPartsError
from oneformer3d.files.shipped import CHECKPOINT, CONFIG, find_checkpoint, find_config

LAUNCHERS = ('none', 'pytorch', 'slurm', 'mpi')
UNITS = ('m', 'dm', 'cm', 'mm', 'ft', 'in')  # that data/clouds knows
TRACEBACK_VARIABLE = 'ONEFORMER3D_TRACEBACK'
USER_ERRORS = (ValueError, TypeError, KeyError, OSError, ImportError)
FOLDERS = ('data_root', 'clip_store')  # options that are set wherever a config has them


def run_tool(main: Callable[[], object], errors: tuple[type[Exception], ...] = USER_ERRORS) -> None:
    """Run a tool's ``main``; expected errors become one line on stderr and exit status 2.

    Status 1 says that the input could be read and too much of it is unusable. SIGTERM ends a tool
    with status 143 and SIGINT with 130, both without half-written files.

    Set ``ONEFORMER3D_TRACEBACK=1`` to see where an error came from.
    """
    try:
        with _ended_by_sigterm():
            main()
    except errors as error:
        if os.environ.get(TRACEBACK_VARIABLE):
            raise
        print(one_line(error), file=sys.stderr)  # noqa: T201 (this is the tools' stderr)
        sys.exit(1 if isinstance(error, LostPartsError) else 2)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)  # noqa: T201
        sys.exit(130)


@contextmanager
def _ended_by_sigterm() -> Iterator[None]:
    """SIGTERM unwinds the program, so that temporary files go; by itself it would leave them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
        # whatever a library with a bare ``except`` made of the exit
        if received:
            sys.exit(128 + received[0])


class ToolParser(ArgumentParser):
    """Arguments of a tool: options are spelled with dashes, and with underscores as well.

    Example:
        >>> parser = ToolParser(description='Look at a folder.')
        >>> _ = parser.add_argument('--data-root')
        >>> parser.parse_args(['--data_root', 'rooms']).data_root
        'rooms'
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{'formatter_class': RawDescriptionHelpFormatter, **options})

    def parse_known_args(
        self, args: Sequence[str] | None = None, namespace: Namespace | None = None
    ) -> tuple[Namespace, list[str]]:
        words = sys.argv[1:] if args is None else args
        given = Namespace() if namespace is None else namespace
        return super().parse_known_args(list(dashed(words)), given)


def dashed(words: Sequence[str]) -> Iterator[str]:
    """The words of a command line with the names of options spelled with dashes."""
    is_name = True
    for word in words:
        is_name = is_name and word != '--'
        name, equals, value = word.partition('=')
        if is_name and name.startswith('--'):
            word = name.replace('_', '-') + equals + value
        yield word


class KeyValues(Action):
    """``KEY=VALUE ...`` → a dictionary of texts, which ``load_config`` reads as mmengine does."""

    def __call__(
        self,
        parser: ArgumentParser,
        namespace: Namespace,
        values: str | Sequence[Any] | None,
        option_string: str | None = None,
    ) -> None:
        words = [values] if isinstance(values, str) else list(values or ())
        wrong = [word for word in words if not word.partition('=')[1]]
        if wrong:
            raise ArgumentError(self, f'expected KEY=VALUE, got {wrong[0]}')
        earlier = getattr(namespace, self.dest) or {}
        given = dict(word.split('=', 1) for word in words)
        setattr(namespace, self.dest, {**earlier, **given})


def one_line(error: Exception) -> str:
    """``error: <what>``: the last line, where a data worker's message holds the cause."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines else type(error).__name__
    if isinstance(error, KeyError):
        text = text.strip('\'"')
    return f'error: {text} (set {TRACEBACK_VARIABLE}=1 for the traceback)'


def add_common_arguments(parser: ArgumentParser) -> None:
    """Arguments that training and testing share (mmdet3d's names)."""
    parser.add_argument('--work-dir', help='where logs, checkpoints and results go')
    add_folder_arguments(parser)
    add_config_options(parser)
    parser.add_argument('--launcher', choices=LAUNCHERS, default='none', help='job launcher')
    parser.add_argument(
        '--allow-pickle',
        action='store_true',
        help='read .pkl infos (a pickle can run code: only for files you trust)',
    )
    parser.add_argument(
        '--max-lost',
        type=float,
        metavar='SHARE',
        help="share of the data's frames that a feature store may lack (default: 0.2)",
    )
    parser.add_argument('--local-rank', type=int, default=0, help='set by torchrun')


def add_config_options(parser: ArgumentParser) -> None:
    """The argument that overrides single settings of a config."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=KeyValues,
        default={},
        metavar='KEY=VALUE',
        help='override settings, e.g. train_cfg.max_epochs=3 model.decoder.num_layers=2 '
        'test_dataloader.dataset.pipeline.LoadPosedViews.hide=pixels',
    )


def add_model_arguments(parser: ArgumentParser) -> None:
    """Which trained model; without them the one that comes with the package."""
    parser.add_argument(
        '--config',
        help=f'config the model was trained with (default: {CONFIG}, shipped)',
    )
    parser.add_argument('--checkpoint', help=f'trained weights (default: {CHECKPOINT}, shipped)')


def model_files(args: Namespace) -> tuple[Path, Path]:
    """Config and checkpoint that the arguments name.

    Raises:
        ValueError: one without the other.
        FileNotFoundError: no such file.
    """
    if (args.config is None) != (args.checkpoint is None):
        raise ValueError('--config and --checkpoint belong together: give both or neither')
    return find_config(args.config or CONFIG), find_checkpoint(args.checkpoint or CHECKPOINT)


def add_folder_arguments(parser: ArgumentParser) -> None:
    """Arguments for the folders that a config reads."""
    parser.add_argument(
        '--data-root', metavar='DIR', help="the data's folder, everywhere in the config"
    )
    parser.add_argument(
        '--clip-store', metavar='DIR', help='the feature store, everywhere in the config'
    )


def add_scan_arguments(parser: ArgumentParser) -> None:
    """What a user may know better about a cloud than its file tells."""
    parser.add_argument(
        '--unit',
        choices=UNITS,
        help='of the coordinates of a cloud (default: metres, unless they can be nothing but '
        'another unit)',
    )
    parser.add_argument(
        '--columns', nargs='+', metavar='NAME', help='of .bin and .npy files: x y z r g b ...'
    )


def tell(warnings: Sequence[str], treatment: str) -> None:
    """Show what was assumed on stderr, or raise it as a ValueError with ``treatment`` 'error'."""
    if warnings and treatment == 'error':
        raise ValueError('; '.join(warnings))
    for warning in warnings:
        sys.stderr.write(f'warning: {warning}\n')


def add_recording_arguments(parser: ArgumentParser, max_lost: float = 0.2) -> None:
    """What a user may know better about a folder of posed frames than its files tell.

    Args:
        parser: that gets them.
        max_lost: default of the share of unusable frames that is an error.
    """
    parser.add_argument(
        '--convention',
        choices=('opencv', 'opengl', 'opencv-w2c', 'opengl-w2c'),
        help='of the poses of RGB-D frames: axes, camera to world or (-w2c) back (default: as the '
        'layout has them)',
    )
    parser.add_argument(
        '--depth-scale',
        type=float,
        help='units of the depth images per metre (default: as the layout has them)',
    )
    parser.add_argument(
        '--intrinsics',
        metavar='"FX FY CX CY"',
        help='of the colour images in pixels, or a file (default: those in the folder)',
    )

    # how much may be unusable or doubtful
    parser.add_argument(
        '--warnings',
        choices=('show', 'error'),
        default='show',
        help='what was assumed while reading is shown, or ends the program (default: %(default)s)',
    )
    add_loss_arguments(parser, max_lost)


def add_loss_arguments(parser: ArgumentParser, max_lost: float = 0.2) -> None:
    """How many frames may be unusable; the others are left out, counted and named."""
    parser.add_argument('--strict', action='store_true', help='end at the first unusable frame')
    parser.add_argument(
        '--max-lost',
        type=float,
        default=max_lost,
        metavar='SHARE',
        help='share of unusable frames above which the exit status is 1 (default: %(default)s)',
    )


def loss_rules(args: Namespace) -> LossRules:
    """These arguments, and ``--warnings`` where there is one, as readers of frames take them."""
    return LossRules(args.strict, args.max_lost, vars(args).get('warnings') == 'error')


def recording_options(args: Namespace) -> dict[str, Any]:
    """These arguments as ``load_posed_rgbd`` takes them."""
    return {
        'convention': args.convention,
        'depth_scale': args.depth_scale,
        'intrinsics': args.intrinsics,
        'rules': loss_rules(args),
    }


def folder_options(args: Namespace) -> dict[str, str]:
    """Those of the folders that were given, as options of ``load_config``."""
    given = {name: getattr(args, name) for name in FOLDERS}
    return {name: folder for name, folder in given.items() if folder is not None}
