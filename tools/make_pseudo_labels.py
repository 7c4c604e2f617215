"""Label the surest pixels of unseen classes in training images, for self-training.

    python tools/make_pseudo_labels.py CONFIG CHECKPOINT --out-dir FOLDER --top 25

Every image of the config's training data gets a PNG with the pixels that the model
gives to an unseen class and is surest of; all others are left without label. A sidecar,
pseudo_labels.json, names model and settings. Labels of the data set are not read. Train
with train_dataloader.dataset.pseudo_label_dir=FOLDER.
"""

from __future__ import annotations

import argparse
import hashlib
from collections import Counter
from pathlib import Path

from _arguments import add_config_options


def parse_args() -> argparse.Namespace:
    summary, _, rest = (__doc__ or '').partition('\n')
    parser = argparse.ArgumentParser(
        description=summary,
        epilog=rest,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('config', help='whose training images and test pipeline')
    parser.add_argument('checkpoint', type=Path, help='weights of its model')
    parser.add_argument('--out-dir', required=True, type=Path, metavar='FOLDER')
    parser.add_argument(
        '--top',
        type=float,
        default=25.0,
        metavar='PERCENT',
        help='share of the pixels predicted unseen that is kept (default: 25)',
    )
    parser.add_argument(
        '--ranking',
        metavar='class|image',
        default='class',
        help='among the pixels of its class in the image, or among all of the image '
        'that are predicted unseen (default: class)',
    )
    parser.add_argument('--device', default='cpu', help='such as cpu or cuda:0')
    parser.add_argument(
        '--force', action='store_true', help='replace maps that are there'
    )
    add_config_options(parser)
    return parser.parse_args()


def main() -> None:
    arguments = parse_args()
    from zs3_mmseg.engine.launch import one_line_errors

    with one_line_errors(OSError, ValueError, KeyError):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    from rich.console import Console
    from rich.progress import track
    from rich.table import Table
    from rich.text import Text

    from zs3_mmseg.apis import init_segmentor
    from zs3_mmseg.apis.pseudo_labels import (
        PseudoLabelChoice,
        count_training_images,
        make_pseudo_labels,
    )
    from zs3_mmseg.datasets.labels import SIDECAR
    from zs3_mmseg.engine.launch import require_keys
    from zs3_mmseg.utils.config_check import read_config, require_config_files

    choice = PseudoLabelChoice(arguments.top, arguments.ranking)
    sidecar = arguments.out_dir / SIDECAR
    if sidecar.exists() and not arguments.force:
        raise FileExistsError(f'{sidecar} is there already; --force replaces it')
    config = read_config(arguments.config, arguments.cfg_options)
    require_keys(config, 'model', 'train_dataloader')
    # The weights are those of the checkpoint.
    config.load_from = None
    require_config_files(config, ['train_dataloader'])
    model = init_segmentor(config, arguments.checkpoint, arguments.device)
    with arguments.checkpoint.open('rb') as stream:
        digest = hashlib.file_digest(stream, 'sha256').hexdigest()
    name = Path(arguments.config).stem
    source = dict(
        model=f'{name} with {arguments.checkpoint.name}',
        config=name,
        checkpoint_sha256=digest,
    )
    pixels: Counter[str] = Counter()
    images: Counter[str] = Counter()
    number = count_training_images(config)
    made = make_pseudo_labels(model, config, arguments.out_dir, choice, source=source)
    for counts in track(
        made, 'Labelling', total=number, console=Console(stderr=True), transient=True
    ):
        pixels.update(counts)
        images.update({key: int(value > 0) for key, value in counts.items()})
    table = Table(title=Text(f'{number} maps in {arguments.out_dir}'))
    for heading in ('unseen class', 'images', 'pixels'):
        table.add_column(heading, justify='left' if heading[0] == 'u' else 'right')
    for key in pixels:
        table.add_row(Text(key), str(images[key]), str(pixels[key]))
    Console().print(table)


if __name__ == '__main__':
    main()
