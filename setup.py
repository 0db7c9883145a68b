"""What pyproject.toml cannot say: a wheel carries configs and tools where OpenMMLab's mim looks."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
SHIPPED = ('configs', 'tools', 'requirements', 'weights', 'model-index.yml')
# these work on the repository itself
NOT_SHIPPED = {
    'configs': {'ablations', 'composer.yaml', 'demo.yaml'},
    'tools': {
        *('ablate.py', 'benchmark.py', 'benchmarks', 'check_gpu.sh', 'compose.py', 'demo.py'),
        *('demo.sh', 'run_tests.sh', 'setup.sh'),
    },
}


def not_shipped(folder: str, names: list[str]) -> set[str]:
    """Which names of a folder stay out of the wheel."""
    left_out = NOT_SHIPPED.get(Path(folder).relative_to(ROOT).as_posix(), set())
    return {'__pycache__', *left_out} & set(names)


class BuildWithConfigs(build_py):
    """Copies what stands beside the package into ``oneformer3d/.mim``."""

    def run(self) -> None:
        super().run()
        # an editable installation finds them in the repository
        if self.editable_mode:
            return

        for name in SHIPPED:
            target = Path(self.build_lib) / 'oneformer3d' / '.mim' / name
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, target, ignore=not_shipped, dirs_exist_ok=True)
            else:
                shutil.copy2(ROOT / name, target)


setup(cmdclass={'build_py': BuildWithConfigs})
