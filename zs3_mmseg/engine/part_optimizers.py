"""An optimiser for each part of a model that names its parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from mmengine.optim import OptimWrapperDict, build_optim_wrapper
from mmseg.registry import OPTIM_WRAPPER_CONSTRUCTORS

from zs3_mmseg.utils.checkpoint import unwrap
from zs3_mmseg.utils.config_check import ConfigError

__all__ = ['PartsOptimWrapperConstructor']


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class PartsOptimWrapperConstructor:
    """Builds the optimisers of a model whose ``parts()`` learn by losses of their own.

    The config has an ordinary ``optim_wrapper`` under the name of each part; keys of
    its ``paramwise_cfg`` count within the part. ``param_scheduler`` is then a dict with
    a list for each of these names, or one list for all. A part of which nothing learns
    is passed over.

    Args:
        optim_wrapper_cfg: configs by the name of the part.
        paramwise_cfg: must not be set: it belongs to the parts.

    Raises:
        ConfigError: if it is.
    """

    def __init__(
        self,
        optim_wrapper_cfg: Mapping[str, Any],
        paramwise_cfg: Mapping[str, Any] | None = None,
    ) -> None:
        if paramwise_cfg:
            raise ConfigError(
                'optim_wrapper.paramwise_cfg belongs to the optimiser of a part: set '
                f'optim_wrapper.{next(iter(optim_wrapper_cfg))}.paramwise_cfg'
            )
        self.configs = optim_wrapper_cfg

    def __call__(self, model: nn.Module) -> OptimWrapperDict:
        """Build one wrapper for each part.

        Raises:
            ConfigError: if the model names no parts, or the config not the same.
        """
        parts = getattr(unwrap(model), 'parts', None)
        if parts is None:
            raise ConfigError(
                'optim_wrapper.constructor: PartsOptimWrapperConstructor is for models '
                f'with parts(), such as CaGNet, and {type(model).__name__} has none'
            )
        found = parts()
        missing = [name for name in found if name not in self.configs]
        if missing:
            raise ConfigError(
                f'optim_wrapper.{missing[0]} is missing: {type(model).__name__} has an '
                f'optimiser each for {", ".join(found)}'
            )
        return OptimWrapperDict(
            **{
                name: build_optim_wrapper(part, self.configs[name])
                for name, part in found.items()
            }
        )
