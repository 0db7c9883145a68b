"""Which scans a call means, where their results go, and which of them are finished.

Enters: paths of scans, and of folders that hold scans. Leaves: a ``ScanJob`` each; for a result the
key of everything it was made from.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from oneformer3d.data.clouds.read import CLOUD_SUFFIXES
from oneformer3d.data.layouts import is_recording
from oneformer3d.files.names import safe_scene_name
from oneformer3d.version import __version__

RESULTS = Path('work_dirs') / 'infer'
RESULT_FILE = 'summary.json'  # written last, so it vouches for a finished result


@dataclass(frozen=True)
class ScanJob:
    """A scan and the folder of its result."""

    source: Path
    out: Path


def list_jobs(sources: Sequence[str | Path], out: str | Path | None = None) -> tuple[ScanJob, ...]:
    """The scans that paths mean, each with a folder of its own.

    Args:
        sources: files and folders of scans, and roots, see ``list_scans``.
        out: folder of the results, by default ``work_dirs/infer``; with ``out`` the result of one
            scan that is named itself lies in it, every other in ``out/NAME``.

    Raises:
        FileNotFoundError: no such path, or a root without scans.
        ValueError: two scans of one name in folders of one name.
    """
    scans = [scan for source in sources for scan in list_scans(source, out)]
    if out is not None and [Path(source) for source in sources] == scans and len(scans) == 1:
        return (ScanJob(scans[0], Path(out)),)

    folder = RESULTS if out is None else Path(out)
    return tuple(ScanJob(scan, folder / name) for scan, name in zip(scans, name_scans(scans)))


def list_scans(source: str | Path, out: str | Path | None = None) -> list[Path]:
    """The scan of a path; of a folder that is none itself those that lie in it, by name.

    Args:
        source: a file, a folder of posed images, or a root of such files and folders.
        out: a folder that is left out, as are hidden ones and results.

    Raises:
        FileNotFoundError: no such path, or nothing in it.
    """
    source = Path(source)
    if not source.exists():
        raise FileNotFoundError(f'{source}: no such file or folder')
    if source.is_file() or is_recording(source):
        return [source]

    inside = [path for path in sorted(source.iterdir()) if _may_be_scan(path)]
    if out is not None:
        inside = [path for path in inside if path.resolve() != Path(out).resolve()]
    if not inside:
        raise FileNotFoundError(
            f'{source}: no posed images that make a scan, and no scans in it (folders, '
            f'{", ".join(CLOUD_SUFFIXES)})'
        )
    return inside


def _may_be_scan(path: Path) -> bool:
    """By its name: whether it is one is found out when it is read."""
    if path.name.startswith('.'):
        return False
    if path.is_dir():
        return not (path / RESULT_FILE).exists()
    return path.suffix.lower() in CLOUD_SUFFIXES


def name_scans(scans: Sequence[Path]) -> list[str]:
    """A name for each scan: its own, with its parent's where several have the same.

    Raises:
        ValueError: these are the same, too.
    """
    names = [path.resolve().name if path.is_dir() else path.stem for path in scans]
    names = [safe_scene_name(name) for name in names]
    num_same = Counter(names)
    names = [
        safe_scene_name(f'{path.resolve().parent.name}_{name}') if num_same[name] > 1 else name
        for path, name in zip(scans, names)
    ]

    for name, count in Counter(names).items():
        if count > 1:
            raise ValueError(f'{name}: {count} scans have this name; give each a call of its own')
    return names


def result_key(source: str | Path, checkpoint: str | Path, settings: Mapping[str, object]) -> str:
    """What a result is made from, in one number: another scan, weights or setting changes it.

    Args:
        source: of the scan; its files are known by name, size and time of the last change.
        checkpoint: known likewise.
        settings: everything else; ``repr`` of the values tells them apart.
    """
    source = Path(source)
    files = [source] if source.is_file() else sorted(p for p in source.rglob('*') if p.is_file())
    stats = [(path, path.stat()) for path in (*files, Path(checkpoint))]

    content = {
        'files': [(str(p.resolve()), stat.st_size, stat.st_mtime_ns) for p, stat in stats],
        'settings': {name: repr(value) for name, value in settings.items()},
        'version': __version__,
    }
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def is_finished(out: Path, key: str, files: Sequence[str] = ()) -> bool:
    """Whether a folder holds the whole result of that key, and these files of it as well."""
    try:
        summary = json.loads((out / RESULT_FILE).read_text('utf-8'))
    except (OSError, ValueError):
        return False
    if not isinstance(summary, dict):
        return False
    written = summary.get('files', [])
    return summary.get('key') == key and all((out / name).exists() for name in (*written, *files))
