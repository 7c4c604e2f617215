"""A mutation fuzzer of every reader of files: ``python tests/fuzz/fuzz.py``.

Whole files are made, damaged and read, in processes that split off. A reader may
return, or raise an ``OSError`` or ``ValueError`` that names the file; anything else is
a finding, and so are a crash, more than a gigabyte and more than five seconds.
"""

from __future__ import annotations

import argparse
import io
import json
import logging
import multiprocessing
import random
import resource
import struct
import sys
import tarfile
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

from zs3_mmseg.datasets.captions import LoadCaptions
from zs3_mmseg.datasets.folder import read_palette
from zs3_mmseg.datasets.panoptic import PanopticDataset
from zs3_mmseg.datasets.preparation.archives import open_archive
from zs3_mmseg.datasets.preparation.labels import read_label_png, read_mat
from zs3_mmseg.datasets.splits import resolve_split
from zs3_mmseg.datasets.splits.name_files import read_names
from zs3_mmseg.models.class_embeddings.sources import TensorSource, WordVectorSource
from zs3_mmseg.models.segmentors import Vocabulary
from zs3_mmseg.utils.checkpoint import load_into, safe_load
from zs3_mmseg.utils.image_io import decode_image, decode_mask
from zs3_mmseg.utils.names import read_json

ALLOWED = (OSError, ValueError)
SECONDS, MEGABYTES = 5.0, 1024
NAMES = ['ant', 'bee', 'cat']
SPLIT = dict(name='toy', classes=NAMES, unseen=['bee'])
CAPTIONS = dict(
    images=[dict(id=7, file_name='train/a.jpg')],
    annotations=[dict(image_id=7, caption='an ant'), dict(image_id=7, caption='x')],
)
PANOPTIC = dict(
    images=[dict(id=7, file_name='a.jpg')],
    categories=[dict(id=n, name=name) for n, name in enumerate(NAMES)],
    annotations=[
        dict(
            image_id=7,
            file_name='a.png',
            segments_info=[
                dict(id=256, category_id=1, iscrowd=0),
                dict(id=9, category_id=2, iscrowd=1),
            ],
        )
    ],
)
#: What the first check of every reader refuses.
NO_FILE = (b'', bytes(999))
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1)


@dataclass(frozen=True)
class Target:
    """A reader and whole files for it; what is read is ``read(path)``.

    ``own`` makes a damaged file of its own kind, which passes the first checks.
    """

    name: str
    suffix: str
    seeds: Sequence[bytes]
    read: Callable[[Path], object]
    own: Callable[[random.Random], bytes] | None = None


@dataclass
class Findings:
    """What came of the cases of one target."""

    cases: int = 0
    read: int = 0
    #: Lines of the package that have refused a file, and how many.
    places: Counter[str] = field(default_factory=Counter)
    #: How many no line has refused that refuses what is no file of the kind at all.
    past: int = 0
    raw: list[str] = field(default_factory=list)
    slowest: float = 0
    megabytes: int = 0


# ------------------------------------------------------------------------ damage


def damage(data: bytes, draws: random.Random) -> bytes:
    """Cut, flip, overwrite, repeat and mix bytes, once to three times."""
    raw = bytearray(data)
    for _ in range(draws.randint(1, 3)):
        if not raw:
            break
        place = draws.randrange(len(raw))
        kind = draws.randrange(6)
        if kind == 0:
            del raw[place:]
        elif kind == 1:
            raw[place] ^= 1 << draws.randrange(8)
        elif kind == 2:
            size, order = draws.choice((1, 2, 4, 8)), draws.choice(('little', 'big'))
            value = draws.choice(EXTREMES) % 256**size
            raw[place : place + size] = value.to_bytes(size, order)  # type: ignore[arg-type]
        elif kind == 3:
            end = place + draws.randint(1, 64)
            raw[place:place] = raw[place:end] * draws.choice((1, 3, 100))
        elif kind == 4:
            del raw[place : place + draws.randint(1, 64)]
        else:
            raw[place : place + 8] = draws.randbytes(8)
    return bytes(raw)


def swapped(node: Any, draws: random.Random, chance: float = 0.15) -> Any:
    """Return a tree in which some values have another type, or nest deeper."""
    if draws.random() < chance:
        return draws.choice(
            [
                *(None, 7, -1, 2.5, float('nan'), 'x', '', [], {}, [[]], True, 10**30),
                *(torch.zeros(0), torch.full((2, 2), float('nan')), torch.ones(())),
                *(torch.empty(3, 4, device='meta'), torch.zeros(1).expand(10**6)),
                *(torch.eye(3).to_sparse(), {1: 2}, [node], {'state_dict': node}),
            ]
        )
    if isinstance(node, dict):
        return {
            (draws.choice([1, None, 'y']) if draws.random() < chance / 4 else key): (
                swapped(value, draws, chance)
            )
            for key, value in node.items()
        }
    if isinstance(node, (list, tuple)):
        return [swapped(value, draws, chance) for value in node]
    return node


def _as_json(node: Any) -> Any:
    plain = isinstance(node, torch.Tensor) and node.layout == torch.strided
    return node[:9].tolist() if plain and not node.is_meta and node.ndim else 0


# ----------------------------------------------------------------------- targets


class _Words(torch.nn.Module):
    """The least that loads what a segmentor saves."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 3)
        self.vocabulary = Vocabulary(SPLIT, 'inductive', None)

    def get_extra_state(self) -> Any:
        raise NotImplementedError

    def set_extra_state(self, state: Any) -> None:
        self.vocabulary.load(state)


def _checkpoint() -> dict[str, Any]:
    rows = dict(
        split='toy',
        setting='inductive',
        classes=[*NAMES],
        unseen=['bee'],
        embeddings=torch.eye(3, 4),
        query_to_class=torch.arange(3),
        provenance=dict(tower_hash='0'),
    )
    state = dict(_Words.__base__.state_dict(_Words().layer, prefix='layer.'))
    return dict(meta=dict(iter=1), state_dict={**state, '_extra_state': rows})


def _saved(content: object, **options: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream, **options)
    return stream.getvalue()


def _repacked(draws: random.Random) -> bytes:
    """Damage one member of an archive that torch wrote, and pack it again."""
    whole, stream = zipfile.ZipFile(io.BytesIO(_saved(_checkpoint()))), io.BytesIO()
    chosen = draws.choice(whole.namelist())
    packing = draws.choice(
        (zipfile.ZIP_STORED, zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    )
    with zipfile.ZipFile(stream, 'w', packing) as archive:
        for name in whole.namelist():
            data = whole.read(name)
            archive.writestr(name, damage(data, draws) if name == chosen else data)
    return stream.getvalue()


def _own_checkpoint(draws: random.Random) -> bytes:
    if draws.random() < 0.4:
        return _repacked(draws)
    return _saved(swapped(_checkpoint(), draws, 0.08))


def _load(path: Path) -> object:
    return load_into(_Words(), safe_load(path), allow_missing=True, what=str(path))


def _npy(header: str, data: bytes = b'\0' * 64) -> bytes:
    text = header.encode('latin1') + b'\n'
    return b'\x93NUMPY\x01\x00' + struct.pack('<H', len(text)) + text + data


def _own_npy(draws: random.Random) -> bytes:
    shape = draws.choice(
        ['(4, 4)', '(10**12, 4)', '(999999999999, 4)', '(-1, 4)', '()']
    )
    kind = draws.choice(["'<f4'", "'|O'", "[('a', '<f4')]", "'<U4'", "'<c8'", '4'])
    text = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}"
    return _npy(
        text if draws.random() < 0.6 else damage(text.encode(), draws).decode('latin1')
    )


def _own_safetensors(draws: random.Random) -> bytes:
    header = {
        name: dict(dtype='F32', shape=[2, 2], data_offsets=[16 * i, 16 * i + 16])
        for i, name in enumerate(('weight', 'bias'))
    }
    if draws.random() < 0.7:
        entry = header[draws.choice([*header])]
        key = draws.choice([*entry])
        entry[key] = draws.choice(
            [
                *('F64', 'BF16', 'BOOL', 'X', [2, 2, 1], [4], [-1, 4], [2**62, 4], []),
                *([0, 8], [16, 0], [0, 2**63], [8, 24], None, 7, {}, [[]], 1e300),
            ]
        )
    else:
        header['__metadata__'] = swapped({'a': 'b'}, draws, 0.4)
    text = json.dumps(header, default=_as_json).encode()
    text += b' ' * (-len(text) % 8)
    length = len(text) if draws.random() < 0.9 else draws.choice(EXTREMES)
    return struct.pack('<Q', length) + text + bytes(draws.choice((32, 32, 32, 8, 64)))


def _array() -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.eye(3, 4, dtype=np.float32))
    return stream.getvalue()


def _rows(path: Path) -> object:
    return TensorSource(path).rows(NAMES, True, None)


def _vectors(path: Path) -> object:
    return WordVectorSource(path).rows(NAMES, True, None)


def _own_vectors(draws: random.Random) -> bytes:
    count, columns = (
        draws.choice(['3', '4', '0', '9' * 5000, '1' + '0' * 12]) for _ in '12'
    )
    return f'{count} {columns}\n'.encode() + damage(_TEXT_VECTORS, draws)


_TEXT_VECTORS = b''.join(f'{n} 0.5 -1 2e-1 3\n'.encode() for n in NAMES)
_BINARY_VECTORS = b'3 4\n' + b''.join(
    f'{n} '.encode() + np.arange(4, dtype='<f4').tobytes() for n in NAMES
)


def _picture(kind: str, mode: str = 'RGB') -> bytes:
    pixels = np.random.default_rng(0).integers(0, 3, (24, 32, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, kind)
    return stream.getvalue()


def _own_png(draws: random.Random) -> bytes:
    """Change the header or the data of a PNG, with sums that are right."""
    size = [draws.choice([1, 24, 2**15, 2**31 - 1]) for _ in range(2)]
    bits, colour = draws.choice([1, 8, 16, 3]), draws.choice([0, 2, 3, 4, 6, 7])
    header = struct.pack('>IIBBBBB', *size, bits, colour, 0, 0, draws.randrange(2))
    packed = zlib.compress(draws.choice([b'', b'\0' * 5000, draws.randbytes(500)]))
    chunks = [(b'IHDR', header), (b'IDAT', damage(packed, draws)), (b'IEND', b'')]
    if draws.random() < 0.5:
        chunks.insert(1, (b'PLTE', draws.randbytes(draws.choice([3, 5, 768]))))
    return b'\x89PNG\r\n\x1a\n' + b''.join(
        struct.pack('>I', len(data))
        + name
        + data
        + struct.pack('>I', zlib.crc32(name + data))
        for name, data in chunks
    )


def _own_jpeg(draws: random.Random) -> bytes:
    raw = bytearray(_picture('JPEG'))
    place = raw.index(b'\xff\xc0') + 5
    raw[place : place + 4] = struct.pack(
        '>HH', *(draws.choice([1, 24, 9000, 65535]) for _ in '12')
    )
    return bytes(raw)


def _palette(path: Path) -> object:
    path = path.rename(path.with_name(f'palette{path.suffix}'))
    return read_palette(path.parent, NAMES, 255)


def _split(path: Path) -> object:
    content = read_json(path)
    try:
        return resolve_split(content)
    except (KeyError, TypeError, ValueError) as error:
        known = isinstance(error, ValueError) or 'split' in str(error)
        raise (ValueError if known else type(error))(f'{path}: {error}') from error


def _captions(path: Path) -> object:
    return LoadCaptions(path).captions


def _panoptic(path: Path) -> object:
    return len(PanopticDataset(str(path), pipeline=[]))


def _own_json(content: Any) -> Callable[[random.Random], bytes]:
    def make(draws: random.Random) -> bytes:
        if draws.random() < 0.1:
            depth = draws.choice([50, 100_000])
            return b'[' * depth + b']' * depth
        return json.dumps(swapped(content, draws, 0.3), default=_as_json).encode()

    return make


def _mat(path: Path) -> object:
    return read_mat(path.read_bytes(), 'labels', str(path))


def _mats() -> list[bytes]:
    from scipy.io import savemat

    found = []
    for packed in (False, True):
        stream = io.BytesIO()
        labels = np.arange(12, dtype=np.uint16).reshape(3, 4)
        content = dict(labels=labels, more=dict(a='text', b=[1, 'x']))
        savemat(stream, content, do_compression=packed)
        found.append(stream.getvalue())
    return found


def _archive(path: Path) -> object:
    tree = open_archive(path)
    return [stream.read() for _, stream in tree.read({*tree.sizes})]


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr('a/b.txt', 'text ' * 50)
        archive.writestr('c.png', _picture('PNG'))
    return stream.getvalue()


def _tar(draws: random.Random | None = None) -> bytes:
    """Pack a tar, gzipped; with draws one whose headers are damaged and sum up."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as archive:
        for name in ('a/b.txt', 'n' * 150):
            entry = tarfile.TarInfo(name)
            entry.size = 200
            archive.addfile(entry, io.BytesIO(b'x' * 200))
    raw = bytearray(stream.getvalue())
    if draws is not None:
        start = 512 * draws.randrange(4)
        if draws.random() < 0.5:
            raw[start + 124 : start + 135] = b'%011o' % draws.choice(
                [0, 7, 8**11 - 1, 2**31]
            )
        else:
            raw[start + 156] = draws.choice(b'0123456789xgLKSX\0')
        raw[start + 148 : start + 156] = b' ' * 8
        total = sum(raw[start : start + 512])
        raw[start + 148 : start + 156] = b'%06o\0 ' % total
    return zlib.compress(bytes(raw), wbits=31)


def targets() -> list[Target]:
    """Return every reader with whole files of its kind."""
    pictures = [
        _picture(kind) for kind in ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP')
    ]
    masks = [_picture('PNG', mode) for mode in ('P', 'L', 'RGBA', '1')]
    lines = b'0 0 0 ant\n255 0 0 bee\n0 255 0 cat\n9 9 9 void\n'
    colours = {'ant': [0, 0, 0], 'bee': [255, 0, 0], 'cat': [0, 255, 0]}
    rows = dict(embeddings=torch.eye(3, 4), names=NAMES)
    new, old = (
        _saved(_checkpoint()),
        _saved(_checkpoint(), _use_new_zipfile_serialization=False),
    )
    state = {'layer.weight': torch.eye(3, 4), 'layer.bias': torch.zeros(3)}
    return [
        Target('checkpoint', '.pth', [new, old], _load, _own_checkpoint),
        Target('safetensors', '.safetensors', [save(state)], _load, _own_safetensors),
        Target('npy', '.npy', [_array()], _rows, _own_npy),
        Target(
            'tensor file',
            '.pt',
            [_saved(rows), _saved(torch.eye(3, 4))],
            _rows,
            lambda draws: _saved(swapped(rows, draws, 0.4)),
        ),
        Target('word vectors', '.txt', [_TEXT_VECTORS], _vectors, _own_vectors),
        Target('binary vectors', '.bin', [_BINARY_VECTORS], _vectors, _own_vectors),
        Target('picture', '.png', pictures, decode_image, _own_png),
        Target('JPEG', '.jpg', pictures[1:2], decode_image, _own_jpeg),
        Target('mask', '.png', masks, decode_mask, _own_png),
        Target(
            'label PNG',
            '.png',
            masks[:2],
            lambda path: read_label_png(path.read_bytes(), str(path)),
            _own_png,
        ),
        Target('palette lines', '.txt', [lines], _palette),
        Target(
            'palette',
            '.json',
            [json.dumps(colours).encode()],
            _palette,
            _own_json(colours),
        ),
        Target(
            'class names',
            '.txt',
            ['\n'.join(NAMES).encode(), json.dumps(NAMES).encode()],
            read_names,
            _own_json(NAMES),
        ),
        Target(
            'split', '.json', [json.dumps(SPLIT).encode()], _split, _own_json(SPLIT)
        ),
        *(
            Target(name, '.json', [json.dumps(whole).encode()], read, _own_json(whole))
            for name, whole, read in (
                ('captions', CAPTIONS, _captions),
                ('panoptic file', PANOPTIC, _panoptic),
            )
        ),
        Target('MATLAB file', '.mat', _mats(), _mat),
        Target('zip', '.zip', [_zip()], _archive),
        Target('tar', '.tar.gz', [_tar()], _archive, _tar),
    ]


# --------------------------------------------------------------------------- runs


def cases(target: Target, count: int, seed: int) -> Iterator[tuple[int, bytes]]:
    """Yield numbered files; the same seed makes the same files."""
    for number in range(count):
        draws = random.Random(f'{target.name} {seed} {number}')
        if target.own is not None and draws.random() < 0.6:
            yield number, target.own(draws)
        elif draws.random() < 0.02:  # a file of another kind under this name
            yield number, draws.choice(_everything())
        else:
            yield number, damage(draws.choice(target.seeds), draws)


def _everything() -> list[bytes]:
    return [
        _array(),
        _zip(),
        _tar(),
        _picture('PNG'),
        _BINARY_VECTORS,
        b'',
        b'\0' * 999,
    ]


def read_case(target: Target, data: bytes, folder: Path, found: Findings) -> str | None:
    """Read one file; return what is wrong with the way it was refused."""
    path = folder / f'case{target.suffix}'
    path.write_bytes(data)
    try:
        target.read(path)
        found.read += 1
    except ALLOWED as error:
        text = str(error)
        found.places[_place(error)] += 1
        if folder.name not in text:
            return f'the message does not name the file: {type(error).__name__}: {text}'
        if 'weights_only' in text:
            return f'the message advises to load unsafely: {text}'
    except Exception as error:  # noqa: BLE001
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f'{type(error).__name__}: {error} ({last.filename}:{last.lineno})'[:300]
    finally:
        for left in folder.iterdir():
            left.unlink()
    return None


def _place(error: BaseException) -> str:
    """Return the innermost line of the package in the first cause of an error."""
    while error.__cause__ is not None:
        error = error.__cause__
    frames = traceback.extract_tb(error.__traceback__)
    own = [f'{f.filename}:{f.lineno}' for f in frames if 'zs3_mmseg' in f.filename]
    return own[-1] if own else 'elsewhere'


def run_target(target: Target, count: int, seed: int) -> Findings:
    """Read the cases in a process of its own; a crash is a finding."""
    fork = multiprocessing.get_context('fork')
    ours, theirs = fork.Pipe(duplex=False)

    def work() -> None:
        logging.disable(logging.CRITICAL)
        warnings.simplefilter('ignore')
        found = Findings()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        with tempfile.TemporaryDirectory(prefix='fuzz_') as name:
            first = Findings()
            for data in NO_FILE:
                read_case(target, data, Path(name), first)
            for number, data in cases(target, count, seed):
                theirs.send(number)
                start = time.perf_counter()
                wrong = read_case(target, data, Path(name), found)
                seconds = time.perf_counter() - start
                found.cases += 1
                found.slowest = max(found.slowest, seconds)
                if wrong is not None:
                    found.raw.append(f'case {number}: {wrong}')
        found.past = found.cases - sum(found.places[place] for place in first.places)
        after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found.megabytes = (after - before) // 1024
        theirs.send(found)

    child = fork.Process(target=work)
    child.start()
    theirs.close()
    last: int | Findings = -1
    try:
        while not isinstance(last, Findings):
            last = ours.recv()
    except EOFError:
        found = Findings(cases=int(last), raw=[f'case {last}: the process died'])
        child.join()
        return found
    child.join()
    return last


def problems(target: Target, found: Findings) -> list[str]:
    """Return what must not be: raw errors, crashes, too much memory or time."""
    wrong = [*found.raw]
    if found.slowest > SECONDS:
        wrong.append(f'a case of {found.slowest:.1f} s')
    if found.megabytes > MEGABYTES:
        wrong.append(f'{found.megabytes} MB')
    return [f'{target.name}: {text}' for text in wrong]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--cases', type=int, default=100_000, help='of all targets')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', help='the name of one target')
    arguments = parser.parse_args()
    listed = [t for t in targets() if arguments.only in (None, t.name)]
    bad = 0
    for target in listed:
        found = run_target(target, arguments.cases // len(listed), arguments.seed)
        wrong = problems(target, found)
        bad += len(wrong)
        print(
            f'{target.name}: {found.cases} cases, {len(wrong)} problems, '
            f'{found.past / max(found.cases, 1):.0%} past the first check, '
            f'{found.read / max(found.cases, 1):.0%} read, the others refused in '
            f'{len(found.places)} places, slowest {found.slowest:.2f} s, '
            f'+{found.megabytes} MB',
            flush=True,
        )
        kinds: dict[str, str] = {}
        for text in wrong:
            kinds.setdefault(text.split(': ', 2)[-1][:60], text)
        for text in [*kinds.values()][:8]:
            print(f'  {text}')
    sys.exit(bool(bad))


if __name__ == '__main__':
    main()
