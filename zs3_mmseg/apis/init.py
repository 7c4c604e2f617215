"""From a config and a checkpoint to a segmentor that is ready for pictures."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, MODELS

from zs3_mmseg.datasets.wrappers import leaves
from zs3_mmseg.engine.launch import require_no_learning
from zs3_mmseg.engine.protocol import require_fitting_parts
from zs3_mmseg.registry import find_class
from zs3_mmseg.utils.checkpoint import load_into, safe_load
from zs3_mmseg.utils.config_check import (
    drop_timm_weights,
    merge_options,
    read_config,
    require_config_files,
)
from zs3_mmseg.utils.config_keys import naming_keys
from zs3_mmseg.utils.palette import default_palette
from zs3_mmseg.utils.shipped import find_config

#: What is used when nobody names a config.
DEFAULT_CONFIG = 'clip_dense/shapes_tiny_gate'


def load_config(
    config: str | os.PathLike | Config, cfg_options: dict | None = None
) -> Config:
    """Return a config of one's own to change, with options merged into it.

    Args:
        config: a path, the name of a shipped config, or a config object, which is
            copied.
        cfg_options: dotted keys to values, as after ``--cfg-options``.

    Raises:
        FileNotFoundError: there is no such config.
        TypeError: ``config`` is something else.
    """
    if isinstance(config, Config):
        loaded = copy.deepcopy(config)
        merge_options(loaded, cfg_options or {})
        return loaded
    if isinstance(config, str | os.PathLike):
        return read_config(find_config(config), cfg_options)
    raise TypeError(
        'expected the path or name of a config, or a Config, got '
        f'{type(config).__name__}'
    )


def tested_dataset(config: Config) -> Mapping[str, Any]:
    """Return the config of the data set that is tested on, without its wrappers.

    It is empty if the config tests on nothing, or on several data sets at once.
    """
    found = [*leaves((config.get('test_dataloader') or {}).get('dataset') or {})]
    return found[0] if len(found) == 1 else {}


def _check_device(device: str | torch.device) -> torch.device:
    """Return the device if tensors can be made on it."""
    try:
        chosen = torch.device(device)
        torch.empty(1, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f'device {str(device)!r} can not be used on this machine: {reason}'
        ) from error
    return chosen


def _adopt_meta(model: Any, checkpoint: dict, config: Config) -> None:
    """Give the model the class names and colours of its checkpoint, or of the data.

    A model that knows its names takes colours only, and only for these names.
    """
    meta = checkpoint.get('meta') or {}
    saved = meta.get('dataset_meta') or {}
    # As mmseg 0.x saved them.
    former = {'classes': meta.get('CLASSES'), 'palette': meta.get('PALETTE')}
    own = getattr(model, 'dataset_meta', None)
    for named in (saved, former, _meta_of_data(config)):
        classes = tuple(named.get('classes') or ())
        if classes and (own is None or classes == tuple(own['classes'])):
            model.dataset_meta = {
                'classes': classes,
                'palette': named.get('palette') or default_palette(len(classes)),
            }
            return
    if own is None:
        raise ValueError(
            'neither the checkpoint (meta.dataset_meta) nor the data set of '
            f'{config.filename or "the config"} names the classes of the model'
        )


def _meta_of_data(config: Config) -> dict:
    """Return class names and colours of the data set the config tests on, if any."""
    found = find_class(DATASETS, tested_dataset(config).get('type'))
    return dict(getattr(found, 'METAINFO', None) or {})


def init_segmentor(
    config: str | os.PathLike | Config,
    checkpoint: str | os.PathLike | None = None,
    device: str | torch.device = 'cpu',
    cfg_options: dict | None = None,
    *,
    allow_missing: bool = False,
) -> nn.Module:
    """Build a segmentor, load its weights and put it in eval mode.

    It stands in for mmseg's ``init_model``, and the result works with mmseg's
    ``inference_model`` and ``show_result_pyplot``, too. It differs in three ways:
    nothing in a checkpoint is executed, keys that don't fit are an error, and a model
    with anything untrained in it is refused.

    Args:
        config: path of a config, name of a shipped one such as
            ``clip_dense/shapes_tiny``, or a config object, which is left unchanged.
        checkpoint: weights, ``.pth`` or ``.safetensors``. It may be left out only if
            nothing in the model learns.
        device: where the model goes.
        cfg_options: dotted keys to values that replace those of the config.
        allow_missing: load the checkpoint although keys don't fit.

    Returns:
        the segmentor, with the config as ``cfg`` and class names, palette and the
        like as ``dataset_meta``.

    Raises:
        FileNotFoundError: the config, the checkpoint, or a file the config names does
            not exist.
        ValueError: no checkpoint where one is needed, one that is unsafe, damaged or
            does not fit (``CheckpointError``), or a device that does not exist.
    """
    chosen_device = _check_device(device)
    cfg = load_config(config, cfg_options)
    if 'model' not in cfg:
        raise ValueError(f'the config {cfg.filename or ""} has no model')
    # As in mmseg's init_model: initial values for training are not wanted here.
    cfg.model.train_cfg = None
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    loaded = None if checkpoint is None else safe_load(checkpoint)
    if loaded is None:
        require_config_files(cfg, [])
    elif not allow_missing:
        drop_timm_weights(cfg)
    require_fitting_parts(cfg.model)
    with naming_keys(cfg):
        model = MODELS.build(cfg.model)
    if loaded is None:
        require_no_learning(model, f'Name that of {cfg.filename or "this config"}')
    else:
        load_into(model, loaded, allow_missing=allow_missing, what=str(checkpoint))
    _adopt_meta(model, loaded or {}, cfg)
    model.cfg = cfg
    return model.to(chosen_device).eval()
