"""Weights on the Hugging Face Hub: what is here already, and a quick no if none is."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

#: Seconds after which a hub that does not answer counts as out of reach; the hub's own
#: client tries each file six times.
_PATIENCE = 5.0


def cached_file(repo: str, names: Iterable[str]) -> Path | None:
    """Return the first of some files of a hub repository that lies in the cache."""
    from huggingface_hub import try_to_load_from_cache

    found = (try_to_load_from_cache(repo, name) for name in names)
    return next((Path(path) for path in found if isinstance(path, str)), None)


def hub_address(repo: str, name: str) -> str:
    """Return the address of a file of a hub repository."""
    return f'https://huggingface.co/{repo}/resolve/main/{name}'


def require_hub() -> None:
    """Ask once whether the hub is there.

    Raises:
        OSError: within seconds, if nobody answers or ``HF_HUB_OFFLINE`` is set.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise OSError('HF_HUB_OFFLINE is set')
    try:
        urlopen(Request(constants.ENDPOINT, method='HEAD'), timeout=_PATIENCE).close()
    except HTTPError:
        pass  # it answers
    except URLError as error:
        # The hub's own client may know other certificates.
        if not isinstance(error.reason, ssl.SSLError):
            raise


def require_timm_weights(options: Mapping[str, Any], key: str) -> None:
    """Check that the weights of a ``TIMMBackbone`` are cached or can be fetched.

    Args:
        options: its config.
        key: where that stands.

    Raises:
        ConnectionError: within seconds if they are not; timm would try for a minute.
    """
    import timm

    # The wrappers of mmseg and mmpretrain have different defaults.
    by_default = not str(options['type']).startswith('mmpretrain.')
    local = options.get('checkpoint_path') or options.get('pretrained_cfg_overlay')
    if local or not options.get('pretrained', by_default):
        return
    name = options['model_name']
    entry = timm.get_pretrained_cfg(name)
    if entry is None or not entry.hf_hub_id:
        return
    file = entry.hf_hub_filename or 'model.safetensors'
    if cached_file(entry.hf_hub_id, (file, 'pytorch_model.bin')) is not None:
        return
    try:
        require_hub()
    except OSError as error:
        raise ConnectionError(
            f"{key}: timm's weights of {name} are not in the local cache and could not "
            f'be downloaded ({error}). Without a network, bring '
            f'{hub_address(entry.hf_hub_id, file)} here and set '
            f'{key}.pretrained_cfg_overlay.file=/path/to/file'
        ) from error
