"""What an extraction did: counts, times, sizes, valid-projection rates and frames left out.

Enters: numbers noted while extracting. Leaves: an ``ExtractionReport``, its table as text and as
JSON.
"""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from oneformer3d.files.atomic import atomic_write_bytes
from oneformer3d.files.left_out import LeftOut, LossRules

_LISTED_SCENES = 40
_LISTED_FRAMES = 20


@dataclass
class ExtractionReport:
    """Numbers of one rank's share.

    Attributes:
        rank: whose share.
        num_frames: frames of the share; num_present were in the store before, num_encoded went
            through the encoder, num_new of these were new to the store.
        seconds: wall time; loop_seconds of it after the start-up.
        decode_seconds, write_seconds: work of the threads that decode and write.
        model_seconds: of the encoder; wait_decode_seconds and wait_write_seconds are what it
            stood still for the others. The three together make up loop_seconds.
        peak_memory_bytes: of the process; peak_gpu_bytes allocated on the GPU.
        store_bytes: of the store at the end, all ranks' shards; file_bytes of the files for
            single frames that were written.
        scenes: name → rates, see ``extraction_points.ValidRates``.
        skipped: ``scene/frame`` → reason.
        without_depth: ``scene/frame`` → reason; features are stored, rates and files are not.
    """

    rank: int = 0
    num_frames: int = 0
    num_present: int = 0
    num_encoded: int = 0
    num_new: int = 0
    seconds: float = 0.0
    loop_seconds: float = 0.0
    decode_seconds: float = 0.0
    model_seconds: float = 0.0
    write_seconds: float = 0.0
    wait_decode_seconds: float = 0.0
    wait_write_seconds: float = 0.0
    peak_memory_bytes: int = 0
    peak_gpu_bytes: int = 0
    store_bytes: int = 0
    file_bytes: int = 0
    scenes: dict[str, dict[str, float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    without_depth: dict[str, str] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        """Encoded images per second, start-up left out."""
        return self.num_encoded / self.loop_seconds if self.loop_seconds else 0.0

    def check_lost(self, where: str | Path, rules: LossRules) -> None:
        """Raise LostPartsError if more frames were left out than the rules allow."""
        LeftOut(str(where), rules, reasons=dict(self.skipped)).check(self.num_frames)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionary for JSON."""
        return {**asdict(self), 'images_per_second': self.images_per_second}

    def write(self, path: str | Path) -> None:
        """Write as JSON, whole or not at all."""
        text = json.dumps(self.to_dict(), indent=1) + '\n'
        atomic_write_bytes(path, text.encode('utf-8'))

    def table(self) -> str:
        """The report as text for a terminal."""
        loop = self.loop_seconds or 1.0
        rows = [
            ('frames', f'{self.num_frames}'),
            ('  in the store before', f'{self.num_present}'),
            ('  encoded', f'{self.num_encoded} ({self.num_new} new in the store)'),
            ('  left out', f'{len(self.skipped)}'),
            ('time', f'{self.seconds:.1f} s, {self.loop_seconds:.1f} s without start-up'),
            ('images/s', f'{self.images_per_second:.1f}'),
            ('model', f'{self.model_seconds:.1f} s ({self.model_seconds / loop:.0%} of the time)'),
            ('waited for decoding', _share(self.wait_decode_seconds, loop, self.decode_seconds)),
            ('waited for writing', _share(self.wait_write_seconds, loop, self.write_seconds)),
            ('memory, peak', _megabytes(self.peak_memory_bytes)),
            ('GPU memory, peak', _megabytes(self.peak_gpu_bytes)),
            ('store', _megabytes(self.store_bytes)),
            ('files of single frames', _megabytes(self.file_bytes)),
        ]

        lines = [f'{name:24}{value}' for name, value in rows]
        lines += self._scene_lines()
        lines += _reasons('left out:', self.skipped)
        lines += _reasons('without depth (their features are stored):', self.without_depth)
        return '\n'.join(lines)

    def _scene_lines(self) -> list[str]:
        if not self.scenes:
            return []

        lines = ['', f'{"scene":24}{"frames":>7}{"in view":>9}{"valid":>8}{"covered":>9}']
        shown = list(self.scenes.items())[:_LISTED_SCENES]
        rows = [*shown, (f'mean of {len(self.scenes)}', _mean(list(self.scenes.values())))]
        for name, rate in rows:
            lines.append(
                f'{name:24}{rate["frames"]:7.0f}{rate["in_view"]:9.1%}{rate["valid"]:8.1%}'
                f'{rate["covered"]:9.1%}'
            )
        if len(self.scenes) > len(shown):
            lines.insert(-1, f'… and {len(self.scenes) - len(shown)} more')

        lines.append('in view, valid: share of the points that a frame has in its frustum, and')
        lines.append('that its depth confirms; covered: that any of the frames sees')
        return lines


def _reasons(title: str, reasons: dict[str, str]) -> list[str]:
    if not reasons:
        return []
    shown = list(reasons.items())[:_LISTED_FRAMES]
    lines = ['', title, *(f'  {key}: {reason}' for key, reason in shown)]
    if len(reasons) > len(shown):
        lines.append(f'  … and {len(reasons) - len(shown)} more')
    return lines


def _mean(rates: list[dict[str, float]]) -> dict[str, float]:
    return {key: sum(rate[key] for rate in rates) / len(rates) for key in rates[0]}


def _share(waited: float, loop: float, work: float) -> str:
    return f'{waited:.1f} s ({waited / loop:.0%}); its threads worked {work:.1f} s'


def _megabytes(num_bytes: int) -> str:
    return f'{num_bytes / 1e6:.1f} MB'
