"""Weights on the Hugging Face Hub: what is here already, and a quick no if none is."""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from pathlib import Path
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
