"""Small helpers that every other sub-package may import."""


def register_all_modules(init_default_scope: bool = True) -> None:
    """Register all components, as ``mmengine.hub`` asks of every package.

    Importing the package has done so already.

    Args:
        init_default_scope: build what names no scope in that of this package, too.
    """
    if init_default_scope:
        from mmengine.registry import init_default_scope as use_scope

        from zs3_mmseg.registry import SCOPE

        use_scope(SCOPE)
