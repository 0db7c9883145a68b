"""Package metadata; ``tools/setup.sh`` installs the pinned environment around it."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(
    r"__version__ = '(.+)'", (ROOT / 'oneformer3d' / 'version.py').read_text(encoding='utf-8')
)[1]

setup(
    name='oneformer3d',
    version=VERSION,
    description='Segmentation of indoor 3D scenes from point clouds and posed images',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    license='Apache-2.0',
    packages=find_packages(include=['oneformer3d', 'oneformer3d.*']),
    package_data={'oneformer3d': ['data/*.json', 'py.typed']},
    python_requires='>=3.11,<3.12',
)
