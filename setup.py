"""Build and installation of zs3_mmseg (tool settings are in pyproject.toml)."""

import os
import re
import shutil
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
PACKAGE = 'zs3_mmseg'
#: Beside the package in the repository, inside ``zs3_mmseg/.mim`` once installed: where
#: mmengine's hub and inferencer look for configs.
MIM_SOURCES = ('configs', 'tools', 'model-index.yml')
EXTRAS = (
    *('mm', 'upstream', 'pretrain', 'masks', 'tensorboard', 'datasets'),
    *('export', 'web', 'docs', 'test', 'test-slow', 'lint'),
)


def read_version() -> str:
    """Read the version without importing the package (which needs torch)."""
    text = (ROOT / PACKAGE / 'version.py').read_text(encoding='utf-8')
    found = re.search(r"^__version__ = '([^']+)'$", text, flags=re.MULTILINE)
    if found is None:
        raise RuntimeError(f'no __version__ line in {PACKAGE}/version.py')
    return found[1]


def read_requirements(name: str) -> list[str]:
    """Return the requirement lines of ``requirements/NAME.txt``."""
    text = (ROOT / 'requirements' / f'{name}.txt').read_text(encoding='utf-8')
    lines = (line.partition('#')[0].strip() for line in text.splitlines())
    return [line for line in lines if line]


class BuildWithMim(build_py):
    """Add ``zs3_mmseg/.mim``: links in an editable install, copies otherwise."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            self._link(ROOT / PACKAGE / '.mim')
        else:
            self._copy(Path(self.build_lib) / PACKAGE / '.mim')

    @staticmethod
    def _link(target: Path) -> None:
        target.mkdir(exist_ok=True)
        for name in MIM_SOURCES:
            link = target / name
            if link.is_symlink():
                link.unlink()
            # relative, so that the repository can be moved
            link.symlink_to(os.path.relpath(ROOT / name, target))

    @staticmethod
    def _copy(target: Path) -> None:
        # an earlier build may have left files that no longer exist
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        for name in MIM_SOURCES:
            source = ROOT / name
            if source.is_dir():
                ignore = shutil.ignore_patterns('__pycache__', '*.pyc')
                shutil.copytree(source, target / name, ignore=ignore)
            else:
                shutil.copy2(source, target / name)


extras = {name: read_requirements(name) for name in EXTRAS}
# Without masks, which excludes pretrain.
extras['all'] = [
    line
    for name in ('mm', 'pretrain', 'tensorboard', 'datasets', 'export', 'web')
    for line in extras[name]
]

setup(
    name=PACKAGE,
    version=read_version(),
    description='Zero-shot semantic segmentation for MMSegmentation 1.x',
    long_description=(ROOT / 'README.md').read_text(encoding='utf-8'),
    long_description_content_type='text/markdown',
    author='zs3_mmseg contributors',
    license='MIT',
    license_files=['LICENSE'],
    classifiers=[
        'Development Status :: 3 - Alpha',
        'Intended Audience :: Science/Research',
        'Operating System :: POSIX',
        'Programming Language :: Python :: 3.11',
        'Programming Language :: Python :: 3.12',
        'Topic :: Scientific/Engineering :: Image Recognition',
    ],
    python_requires='>=3.11,<3.13',
    py_modules=['zs3_cli'],
    entry_points={'console_scripts': ['zs3 = zs3_cli:main']},
    packages=find_packages(include=[PACKAGE, f'{PACKAGE}.*']),
    package_data={PACKAGE: ['py.typed', 'assets/**/*']},
    include_package_data=False,
    install_requires=read_requirements('runtime'),
    extras_require=extras,
    cmdclass={'build_py': BuildWithMim},
    zip_safe=False,
)
