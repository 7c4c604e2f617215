"""Strip a checkpoint for publication: ``publish_model.py SRC DST``."""

from __future__ import annotations

import argparse
import hashlib
import io
from pathlib import Path


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description='Keep the weights and meta data of a checkpoint. Optimiser, logs, '
        'random states and averaging go; the first eight digits of the SHA-256 of '
        'the new file become part of its name.'
    )
    parser.add_argument('source', type=Path, metavar='SRC', help='checkpoint to strip')
    parser.add_argument('target', type=Path, metavar='DST', help='e.g. zegclip_voc.pth')
    return parser.parse_args()


def publish(source: Path, target: Path) -> Path:
    """Write the stripped checkpoint and return its path."""
    import torch

    from zs3_mmseg.utils.cache import atomic_write
    from zs3_mmseg.utils.checkpoint import safe_load, state_dict_of

    checkpoint = safe_load(source)
    kept = {
        'meta': checkpoint.get('meta', {}),
        'state_dict': state_dict_of(checkpoint, str(source)),
    }
    stream = io.BytesIO()
    torch.save(kept, stream)
    raw = stream.getvalue()
    digest = hashlib.sha256(raw).hexdigest()[:8]
    final = target.with_name(f'{target.stem}-{digest}{target.suffix}')
    return atomic_write(final, lambda out: out.write(raw))


def main() -> None:
    arguments = parse_args()
    from zs3_mmseg.engine.launch import one_line_errors

    with one_line_errors(OSError, ValueError):
        final = publish(arguments.source, arguments.target)
    print(f'Written: {final}')


if __name__ == '__main__':
    main()
