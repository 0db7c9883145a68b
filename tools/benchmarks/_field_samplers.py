"""Where samples lie along rays: proposal networks against even samples refined once.

Enters: the small room without its depth, which is where proposals are the default. Leaves: for
either way its seconds, rays, PSNR over the steps, and errors in the views held out, whose true
depth is known here.
"""

from collections.abc import Mapping
from dataclasses import replace

from oneformer3d.fields.asking.evaluate import evaluate_views
from oneformer3d.fields.fitting.settings import FitSettings, make_fit_settings
from oneformer3d.fields.scene.scene import FieldScene, ViewContent
from tools.benchmarks._field_fits import CONFIG, MEASURE, fit, time_to
from tools.benchmarks._measure import clocked, print_table

SAMPLERS = {
    'proposals': {'proposals': 'always'},
    'two rounds': {'proposals': 'never', 'coarse_samples': 32, 'fine_samples': 32},
}
COMMON = {
    'surface_pixels': 0, 'guided': False, 'depth_of_points': False, 'batch_rays': 1024, 'far': 4.5,
    'view_coarse_samples': 32, 'view_fine_samples': 32,
}  # fmt: skip


def without_depth(scene: FieldScene) -> FieldScene:
    """The scene as a folder of photos would be."""

    def read(view: int) -> ViewContent:
        return replace(scene.read(view), depth=None)

    return replace(scene, has_depth=False, read=read)


def measure_samplers(scene: FieldScene, settings: Mapping, device: str) -> dict:
    """Fit with either sampler, print a table and return the numbers.

    Args:
        scene: with depth, for the errors.
        settings: of both fits, beside ``COMMON``.
        device: cpu | cuda.

    Returns:
        Per sampler 'seconds', 'cpu_seconds', 'rays_per_second' that are learnt from and rendered,
        'history', 'held_out'; 'psnr_both', the best that both reached, and 'speedup' of proposals
        in the time to it.
    """
    clock, result = 'seconds' if device == 'cuda' else 'cpu_seconds', {}
    photos, held_out = (
        without_depth(scene),
        scene.split(sampler_settings(settings, {}).holdout_every)[1],
    )
    for side, changes in SAMPLERS.items():
        fitted = fit(photos, sampler_settings(settings, changes), side, device)
        views, numbers = clocked(evaluate_views, fitted, scene, held_out)
        height, width = scene.camera.image_size
        result[side] = {
            'seconds': fitted.report['seconds'],
            'cpu_seconds': fitted.report['cpu_seconds'],
            'rays_per_second': fitted.step * fitted.settings.batch_rays / fitted.report[clock],
            'rendered_rays_per_second': len(held_out) * height * width / numbers[clock],
            'history': fitted.report['history'],
            'held_out': views,
        }

    best = [max(row[MEASURE] for row in result[side]['history']) for side in SAMPLERS]
    result['psnr_both'] = min(best)
    times = [time_to(result[side]['history'], min(best), clock) for side in SAMPLERS]
    result['speedup'] = times[1] / times[0]
    _show(result)
    return result


def sampler_settings(settings: Mapping, changes: Mapping) -> FitSettings:
    """Settings of one side."""
    made = make_fit_settings(CONFIG, {**COMMON, **settings, **changes})
    kept = {k: w for k, w in made.loss_weights.items() if k not in ('depth', 'empty')}
    return replace(made, loss_weights=kept)


def _show(result: dict) -> None:
    columns = {
        'CPU s': '.1f', 'rays/s': '.0f', 'rendered rays/s': '.0f', 'held-out PSNR': '.2f',
        'aligned': '.2f', 'mIoU': '.1f', 'depth error': '.3f', 'median': '.3f',
    }  # fmt: skip
    names = ('psnr', 'psnr_aligned', 'miou', 'depth_error', 'depth_error_median')
    rows = {}
    for side in SAMPLERS:
        row = result[side]
        rates = [row[x] for x in ('cpu_seconds', 'rays_per_second', 'rendered_rays_per_second')]
        rows[side] = [*rates, *(row['held_out'].get(name) for name in names)]
    print_table(columns, rows)
    print(
        f'proposals reach {result["psnr_both"]:.2f} dB {result["speedup"]:.2f} times as fast '
        'as two rounds'
    )
