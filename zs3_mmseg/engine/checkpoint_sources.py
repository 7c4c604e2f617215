"""Every place mmengine takes weights from, read through ``safe_load``."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import urlparse

import torch

from mmengine.dist import barrier, get_dist_info
from mmengine.runner import CheckpointLoader
from mmengine.runner.checkpoint import (
    _get_mmengine_home,
    get_deprecated_model_names,
    get_external_models,
    get_mmcls_models,
    get_torchvision_models,
)

from zs3_mmseg.utils.checkpoint import (
    CheckpointError,
    MapLocation,
    safe_load,
    state_dict_of,
)
from zs3_mmseg.utils.names import did_you_mean

_MMCLS = 'mmcls://'


def read_checkpoint(source: str, map_location: MapLocation = 'cpu') -> dict:
    """Read a local file, a URL or one of mmengine's model names, safely.

    Args:
        source: a path, ``http(s)://``, ``open-mmlab://``, ``torchvision://`` or
            ``mmcls://`` name, as in ``load_from`` and ``init_cfg`` of any config.
        map_location: where the tensors go.

    Raises:
        CheckpointError: if the source is of another kind or the file cannot be read.
        FileNotFoundError: if there is no such file.
        KeyError: if there is no model of that name.
    """
    checkpoint = safe_load(_local_file(source), map_location)
    if source.startswith(_MMCLS):
        # Classifiers of mmcls: their backbone only, as in mmengine.
        prefix = 'backbone.'
        weights = state_dict_of(checkpoint, source)
        return {
            'state_dict': {
                key.removeprefix(prefix): value
                for key, value in weights.items()
                if key.startswith(prefix)
            }
        }
    return checkpoint


def route_mmengine_loading() -> None:
    """Send every checkpoint that mmengine loads in this process through our reader.

    mmengine's own loader unpickles a file with code as soon as the safe way fails, and
    it serves more than the runner: ``init_cfg=dict(type='Pretrained', ...)``, the
    ``init_weights`` of backbones, publishing hooks. A library must not change that
    for the process it happens to be imported into. Our command-line tools own their
    process, so they call this once, before a model is built.
    """
    # The keys are patterns of sources; plug-ins may have added some, so none is named.
    for prefix in list(CheckpointLoader._schemes):
        CheckpointLoader.register_scheme(prefix, load_from_safely, force=True)


# mmengine logs a loader by its name without the first ten letters.
def load_from_safely(filename: str, map_location: MapLocation | None = None) -> dict:
    """Read for mmengine's ``CheckpointLoader``; see :func:`read_checkpoint`."""
    return read_checkpoint(filename, 'cpu' if map_location is None else map_location)


def _local_file(source: str) -> str:
    scheme, found, name = source.partition('://')
    if not found:
        return source
    if scheme in ('http', 'https'):
        return _download(source)
    if scheme in ('torchvision', 'modelzoo'):
        return _download(_look_up(name, get_torchvision_models(), source))
    if scheme in ('open-mmlab', 'openmmlab'):
        name = get_deprecated_model_names().get(name, name)
        place = _look_up(name, get_external_models(), source)
        if place.startswith(('http://', 'https://')):
            return _download(place)
        return os.path.join(_get_mmengine_home(), place)
    if f'{scheme}://' == _MMCLS:
        return _download(_look_up(name, get_mmcls_models(), source))
    raise CheckpointError(
        f'{source}: cannot read from {scheme}://. Download the file and give its path'
    )


def _look_up(name: str, table: dict[str, str], source: str) -> str:
    if name not in table:
        raise KeyError(f'{source}: no model of that name.{did_you_mean(name, table)}')
    return table[name]


def _download(url: str) -> str:
    """Return the cached file of a URL; one rank of a machine fetches it."""
    folder = Path(torch.hub.get_dir()) / 'checkpoints'
    file = folder / os.path.basename(urlparse(url).path)
    rank, _ = get_dist_info()
    # Machines of one run need not share their disks.
    if int(os.environ.get('LOCAL_RANK', rank)) == 0 and not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        prefix = torch.hub.HASH_REGEX.search(file.name)
        try:
            torch.hub.download_url_to_file(
                url, str(file), prefix.group(1) if prefix else None, progress=True
            )
        except (OSError, RuntimeError) as error:
            raise CheckpointError(
                f'{url} could not be downloaded ({error}). Put the file at {file} by '
                'hand, or give its path'
            ) from error
    barrier()
    return str(file)
