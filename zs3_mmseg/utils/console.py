"""Text on consoles and pipes that know few characters."""

from __future__ import annotations

import codecs
import io
import os
import sys
import unicodedata

_REPLACE = 'zs3_mmseg.replace'


def in_ascii(text: str) -> str:
    """Return what stands for a text where only ASCII can be: ``e`` for ``é``.

    Letters without a relative in ASCII become ``\\u8349``, so that names stay apart.
    """
    plain = [
        unicodedata.normalize('NFKD', letter).encode('ascii', 'ignore')
        or letter.encode('ascii', 'backslashreplace')
        for letter in text
    ]
    return b''.join(plain).decode('ascii')


def _replacement(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return in_ascii(error.object[error.start : error.end]), error.end


def show_any_text() -> None:
    """Let ``print``, rich and logging write any text to this process's console.

    What its encoding lacks is replaced; file names that are no valid text, too. It
    changes the streams of the process, so it is for tools, not for libraries.
    """
    codecs.register_error(_REPLACE, _replacement)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=_REPLACE)


def typed_text(text: str) -> str:
    """Return an argument as it was typed, in UTF-8, where the locale knows less."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return os.fsencode(text).decode(errors='replace')
    return text
