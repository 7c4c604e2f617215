"""The scope ``zs3_mmseg``: what mmengine writes into parts of an inherited config.

``_base_ = 'zs3_mmseg::...'`` puts ``_scope_='zs3_mmseg'`` into every part, and mmengine
then imports this module and looks for registries of that name. They are children of
mmseg's registries, in which all components of this package are, and empty.
"""

from __future__ import annotations

from typing import Any

import mmengine.registry
import mmseg.registry  # noqa: F401  (its registries join those of mmengine)
from mmengine.registry import Registry

SCOPE = 'zs3_mmseg'


class ScopeRegistry(Registry):
    """A registry that finds in its parents what it is asked for."""

    def get(self, key: str) -> type | None:
        """Return what is registered as ``NAME`` or ``zs3_mmseg.NAME``."""
        # With the scope before it, mmengine would look for a name here and no further.
        scope, _, name = key.rpartition('.')
        return super().get(name if scope == SCOPE else key)


def _add_scope(root: Registry) -> None:
    """Add our registry below that of mmseg to one of mmengine's."""
    if 'mmseg' not in root.children:
        # mmseg leaves out functions and strategies. mmengine warns of that whenever it
        # looks for one while mmseg is the default scope.
        Registry(root.name, parent=root, scope='mmseg', locations=['mmseg'])
    ours = ScopeRegistry(
        root.name, parent=root.children['mmseg'], scope=SCOPE, locations=[SCOPE]
    )
    # Other packages look for 'zs3_mmseg.NAME' among the children of the root alone.
    root.children[SCOPE] = ours


def find_class(registry: Registry, kind: Any) -> Any:
    """Return what ``type`` in a config means: a class already, or registered as such.

    None if nothing is registered under that name.
    """
    return registry.get(kind) if isinstance(kind, str) else kind


for _root in [*vars(mmengine.registry).values()]:
    if isinstance(_root, Registry):
        _add_scope(_root)
