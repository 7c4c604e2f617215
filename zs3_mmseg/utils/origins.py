"""Where the files come from that configs name and that nobody can ship."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .hub import hub_address
from .names import type_name

#: What ``tools/prepare_data.py`` calls the benchmarks that a data set class reads.
PREPARED = {
    'ADE20KDataset': ('ade20k',),
    'COCOObjectsDataset': ('coco20i', 'coco20i_2017'),
    'COCOStuffDataset': ('cocostuff164k',),
    'CityscapesDataset': ('cityscapes',),
    'PascalContextDataset': ('pascal_context',),
    'PascalContextDataset59': ('pascal_context',),
    'PascalVOCDataset': ('voc12',),
}
#: The official rows of ZegCLIP.
ZEGCLIP_ROWS = (
    'https://github.com/ZiqinZhou66/ZegCLIP, folder '
    'configs/_base_/datasets/text_embedding'
)
#: Those of OTSeg, several of each class, and those that only Cascade-CLIP has.
OTSEG_ROWS = 'https://github.com/cubeyoung/OTSeg'
CASCADE_ROWS = 'https://github.com/HVision-NKU/Cascade-CLIP'
_ZS3 = 'https://github.com/valeoai/ZS3/releases, see configs/zs3net/README.md'
_SEGFORMER = 'https://download.openmmlab.com/mmsegmentation/v0.5/pretrain/segformer'


def _prepared(benchmark: str, *others: str) -> str:
    """Return how to prepare a benchmark, or others that fit as well."""
    listed = ''.join(f' (or {other})' for other in others)
    return (
        f'python tools/prepare_data.py {benchmark}{listed} --source FOLDER makes '
        'it of the official files; without --source it lists their addresses'
    )


#: Files by their published names, as regular expressions.
_PUBLISHED = {
    r'(voc12_single|coco_single|coco_multi)\.npy': ZEGCLIP_ROWS,
    r'(voc12|coco|context)_otseg\.npy': OTSEG_ROWS,
    r'context-59_multi\.npy': CASCADE_ROWS,
    r'GoogleNews-vectors-negative300\.bin': (
        'https://code.google.com/archive/p/word2vec'
    ),
    r'glove\.6B\.\d+d\.txt': 'https://nlp.stanford.edu/data/glove.6B.zip',
    r'resnet101_imagenet_wo_pascal(voc|context)\.pth': _ZS3,
    r'resnet101_caffe\.pth': (
        'open-mmlab://detectron2/resnet101_caffe of mmseg; see configs/cagnet/README.md'
    ),
    # Folders too, of data that is read as its authors left it.
    r'resnet101_spnet_cocostuff\.pth|coco_stuff164k|context33': (
        'see configs/cagnet/README.md'
    ),
    # And of data that a config reads under other names than those of its class.
    'ADEChallengeData2016': _prepared('ade20k'),
    'VOC2010': _prepared('pascal_context'),
    'coco': 'https://cocodataset.org/#download, see docs/datasets/coco_panoptic.md',
    r'crawl-300d-2M\.vec': 'https://fasttext.cc/docs/en/english-vectors.html',
    r'mit_b0\.pth': f'{_SEGFORMER}/mit_b0_20220624-7e0fe6dd.pth',
}
#: What can stand in the place of a file of rows.
_ROWS = (
    'a file of your own, or none with class_embeddings.source='
    "dict(type='clip_text', arch=..., pretrained=...)"
)


def origin_of_data(dataset: object) -> str | None:
    """Return how to get the benchmark that a data set class (or its name) reads.

    None if it reads none.
    """
    benchmarks = PREPARED.get(type_name(dataset))
    return None if benchmarks is None else _prepared(*benchmarks)


def origin_of_file(path: str, arch: object = None) -> str | None:
    """Return where weights or vectors are published, or None if that is unknown.

    ``arch`` stands beside the path in the config if it is the weights of a CLIP.
    """
    name = Path(path).name
    for pattern, origin in _PUBLISHED.items():
        if re.fullmatch(pattern, name):
            return origin
    if isinstance(arch, str):
        return origin_of_tower(arch, name)
    return _ROWS if name.endswith('.npy') else None


def origin_of_tower(arch: str, name: str) -> str | None:
    """Return where open_clip finds a file of weights, or which tags need no file.

    None if open_clip has no weights for the model.
    """
    import open_clip

    tags = open_clip.list_pretrained_tags_by_model(arch)
    for tag in tags:
        address = tag_address(open_clip.get_pretrained_cfg(arch, tag))
        if address.endswith(f'/{name}'):
            return address
    listed = ', '.join(f"pretrained='{tag}'" for tag in tags)
    return f'open_clip fetches weights for {listed}' if tags else None


def hub_file(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return repository and file of open_clip's entry for a tag on the hub."""
    from open_clip.constants import HF_WEIGHTS_NAME

    repo, _, file = entry['hf_hub'].rpartition('/')
    return repo, file or HF_WEIGHTS_NAME


def tag_address(entry: Mapping[str, Any]) -> str:
    """Return the address of the file behind open_clip's entry for a pretrained tag."""
    return entry.get('url') or hub_address(*hub_file(entry))


def origin_of_checkpoint(path: str, config: str | None) -> str | None:
    """Return the training that writes ``work_dirs/METHOD/NAME/FILE``.

    None for other paths. Its config, ``METHOD/NAME.py``, is looked for beside the one
    that names the checkpoint.
    """
    top, *run = Path(path).parent.parts or ('',)
    if top != 'work_dirs' or not run:
        return None
    writer = Path(*run[:-1], f'{run[-1]}.py')
    folders = Path(config or '').parents
    beside = folders[len(run) - 1] / writer if len(folders) >= len(run) else writer
    return f'python tools/train.py {beside if beside.is_file() else writer}'
