"""Zero-shot semantic segmentation for MMSegmentation 1.x.

Importing this package registers all of its components in mmseg's registries, so
``custom_imports = dict(imports=['zs3_mmseg'])`` is all that a config needs.
"""

from zs3_mmseg.utils.package_check import (
    check_packages,
    import_mmseg,
    name_modules_for_mmengine,
)
from zs3_mmseg.version import __version__

# Before anything imports mmseg: its own errors do not name their cause.
check_packages()
name_modules_for_mmengine()
import_mmseg()

from zs3_mmseg import (  # noqa: E402
    apis,
    datasets,
    engine,
    evaluation,
    models,
    registry,
    visualization,
)

__all__ = [
    '__version__',
    'apis',
    'datasets',
    'engine',
    'evaluation',
    'models',
    'registry',
    'visualization',
]
