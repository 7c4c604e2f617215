"""What users and their files rely on, written down: ``record.py`` makes the data.

``python tests/frozen/record.py [PART ...]`` records anew what today's code does, below
``tests/data/frozen``; ``test_frozen.py`` compares later code to it. A part is recorded
again only where a change is wanted, and the CHANGELOG then tells of it.
"""

from __future__ import annotations

import gc
import gzip
import importlib
import inspect
import json
import multiprocessing
import os
import runpy
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mmengine.config import Config
from mmengine.registry import Registry, init_default_scope
from mmengine.utils import ManagerMixin
from mmseg import registry
from mmseg.structures import SegDataSample

import zs3_mmseg
from zs3_mmseg.apis import init_segmentor, shipped_configs
from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.models.towers import load_clip
from zs3_mmseg.utils.checkpoint import safe_load

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / 'tests/data/frozen'
TOOLS = ROOT / 'tools'
CONFIGS = ROOT / 'configs'

# ------------------------------------------------------------------ names and options


def public_names() -> dict[str, list[str]]:
    """Return the ``__all__`` of each package, by the package's dotted name."""
    folder = Path(zs3_mmseg.__file__).parent
    names = {}
    for file in sorted(folder.rglob('__init__.py')):
        if '.mim' in file.parts:
            continue
        dotted = '.'.join(file.parent.relative_to(folder.parent).parts)
        names[dotted] = sorted(getattr(importlib.import_module(dotted), '__all__', ()))
    return names


def registered_types() -> dict[str, dict[str, str]]:
    """Return the options of each registered class, by ``REGISTRY.Type``.

    An option is a keyword of the constructor with the text of its default; those of
    base classes are not followed through ``**kwargs``.
    """
    found = {}
    for kind, each in vars(registry).items():
        for name, part in each.module_dict.items() if is_registry(each) else ():
            if part.__module__.partition('.')[0] == 'zs3_mmseg':
                found[f'{kind}.{name}'] = options_of(part)
    return dict(sorted(found.items()))


def is_registry(value: object) -> bool:
    return isinstance(value, Registry)


def options_of(part: Callable[..., Any]) -> dict[str, str]:
    options = {}
    for name, option in inspect.signature(part).parameters.items():
        if option.kind in (option.VAR_POSITIONAL, option.VAR_KEYWORD):
            options[name] = str(option.kind)
        elif option.default is option.empty:
            options[name] = 'required'
        else:
            options[name] = repr(option.default)
    return options


# ------------------------------------------------------------------------- configs


def resolved_configs() -> dict[str, Any]:
    """Return all shipped configs with their bases merged, as JSON would give them."""
    return {name: plain(Config.fromfile(p)) for name, p in shipped_configs().items()}


def plain(config: Config) -> Any:
    text = json.dumps(config.to_dict(), sort_keys=True, default=repr)
    return json.loads(text.replace(str(ROOT), '<root>'))


# ---------------------------------------------------------------------- tiny models

SPLIT = 'shapes_a'
#: Its merges are those of the shipped tower, so its vocabulary is small, too.
TOWER = dict(
    embed_dim=8,
    vision_cfg=dict(image_size=32, patch_size=8, width=8, head_width=4, layers=3),
    text_cfg=dict(
        context_length=12,
        vocab_size=693,
        width=8,
        heads=2,
        layers=1,
        tokenizer_kwargs=dict(bpe_path='merges.txt.gz'),
    ),
)
#: Checkpoints are of this iteration; runs end at the other one.
HALF, END = 3, 6
WARMUP = [dict(type='WarmupPolyLR', power=0.9, warmup_steps=2, by_epoch=False)]
POLY = [dict(type='PolyLR', begin=0, end=END, by_epoch=False)]
PROTOCOL = dict(type='ProtocolCheckHook')
ONE_PROCESS = dict(num_workers=0, persistent_workers=False)
VECTORS = dict(
    normalize=False,
    source=dict(type='tensor', path='vectors.npy', names=get_split(SPLIT).classes),
)
GENERATOR = dict(type='GMMNGenerator', hidden_channels=12)
FEATURES = dict(in_channels=8, channels=8)
FILES = ('vectors.npy', 'tower.json', 'tower.safetensors', 'merges.txt.gz')
TOWER_FILES = dict(arch='tower.json', pretrained='tower.safetensors')
TINY_TOWER = {'model.backbone': TOWER_FILES}
TINY_TEXT = {'model.class_embeddings.source': TOWER_FILES}
TINY_ZEGCLIP = {
    **TINY_TOWER,
    **TINY_TEXT,
    'model.backbone.prompts': dict(num_tokens=3, depth=2, dropout=0.1),
    'model.decode_head.num_layers': 2,
    'model.decode_head.num_heads': 2,
}
#: A config of each method and what makes it tiny.
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    'dense': ('clip_dense/shapes_tiny_gate', {**TINY_TOWER, **TINY_TEXT}),
    'linear': (
        'baselines/shapes_tiny_linear',
        {**TINY_TOWER, **TINY_TEXT, 'param_scheduler': POLY},
    ),
    'zegclip': ('zegclip/shapes_tiny', {**TINY_ZEGCLIP, 'param_scheduler': WARMUP}),
    'zegclip_transductive': (
        'zegclip/shapes_tiny_transductive_ema',
        {
            **TINY_ZEGCLIP,
            'model.decode_head.deep_supervision': True,
            'param_scheduler': WARMUP,
            'custom_hooks': [
                PROTOCOL,
                dict(type='SelfTrainingHook', begin=2),
                dict(type='EMATeacherHook', momentum=0.1, begin=2),
            ],
        },
    ),
    'esda': (
        'esda/shapes_tiny',
        {
            **TINY_TOWER,
            **TINY_TEXT,
            'model.backbone.out_indices': (2,),
            'model.backbone.replace_cls': (1,),
            'model.backbone.priors': (0, 2),
            'model.decode_head.num_heads': 2,
            'model.decode_head.conv_channels': (4, 4, 4),
            'param_scheduler': WARMUP,
        },
    ),
    'cosine': (
        'zs3net/shapes_clip_cosine',
        {
            **TINY_TOWER,
            **TINY_TEXT,
            'model.decode_head.in_channels': 8,
            'model.decode_head.embed_dim': 8,
            'param_scheduler': POLY,
        },
    ),
    # The checkpoint is of the middle of the generator's phase.
    'zs3net': (
        'zs3net/shapes_clip',
        {
            **TINY_TOWER,
            'model.decode_head': FEATURES,
            'param_scheduler': POLY,
            'custom_hooks.1': dict(
                class_embeddings=dict(VECTORS, _delete_=True),
                generator=GENERATOR,
                segmentor_iters=2,
                generator_iters=2,
                samples_per_class=16,
            ),
        },
    ),
    # Pixels and graph, with the official code's choices.
    'zs3net_graph': (
        'zs3net/shapes_clip',
        {
            **TINY_TOWER,
            'model.decode_head': FEATURES,
            'param_scheduler': POLY,
            'train_dataloader.dataset': dict(
                setting='layout_oracle', unseen_policy='ignore'
            ),
            'custom_hooks': [
                PROTOCOL,
                dict(
                    type='GenerativeRetrainingHook',
                    class_embeddings=VECTORS,
                    setting='layout_oracle',
                    generator=GENERATOR,
                    graph=dict(loss_weight=0.1),
                    generator_step='class',
                    samples_per_class=16,
                    merge='pixel',
                    decide_on='downsampled',
                    reset_classifier='official',
                    segmentor_mode='train',
                ),
            ],
        },
    ),
}
TRAINED = tuple(name for name in METHODS if name != 'dense')


def write_config(name: str, target: Path) -> None:
    """Write the whole config of a tiny run; it no longer depends on ``configs``."""
    base, changes = METHODS[name]
    config = Config.fromfile(CONFIGS / f'{base}.py')
    if config.train_dataloader:
        config.train_dataloader.update(batch_size=4, **ONE_PROCESS)
        config.merge_from_dict(
            {
                'train_dataloader.dataset.dataset': dict(num_images=8, workers=1),
                'train_cfg': dict(max_iters=END, val_interval=2 * END),
            }
        )
    for phase in ('val', 'test'):
        loader = config[f'{phase}_dataloader']
        loader.update(batch_size=4, **ONE_PROCESS)
        loader.dataset.dataset.update(num_images=4, workers=1)
    for key, value in changes.items():
        if isinstance(value, list):  # merging would keep entries of the old one
            config[key] = value
        else:
            config.merge_from_dict({key: value})
    config.default_hooks.logger.interval = 1
    config.default_hooks.checkpoint.interval = HALF
    # Variables of the config files have been put where they belong.
    wanted = {
        *inspect.signature(zs3_mmseg.engine.SafeRunner).parameters,
        *('custom_imports', 'find_unused_parameters'),
    }
    Config({key: config[key] for key in config if key in wanted}).dump(target)


# ----------------------------------------------------------------------------- runs


def _forget_instances(manager: type = ManagerMixin) -> None:
    """Drop visualizers, loggers and hubs of the process that was forked."""
    for kind in manager.__subclasses__():
        kind._instance_dict.clear()
        _forget_instances(kind)


def _child(work: Callable[..., None], arguments: tuple, folder: Path) -> None:
    gc.freeze()
    os.chdir(folder)
    # Empty: making the text tower on the way draws random numbers.
    os.environ['ZS3_MMSEG_CACHE'] = str(folder / 'cache')
    # Stays open until the end of the process.
    stream = (folder / f'{os.getpid()}.log').open('w', buffering=1)
    os.dup2(stream.fileno(), 1)
    os.dup2(stream.fileno(), 2)
    sys.stdout = sys.stderr = stream
    _forget_instances()
    torch.manual_seed(0)
    try:
        work(*arguments)
    except BaseException:
        traceback.print_exc()
        raise


def in_child(folder: Path, work: Callable[..., None], *arguments: object) -> None:
    """Do something in a fork whose working directory is ``folder``.

    Raises:
        RuntimeError: with the output, if it failed.
    """
    child = multiprocessing.get_context('fork').Process(
        target=_child, args=(work, arguments, folder)
    )
    child.start()
    child.join(300)
    if child.exitcode != 0:
        child.kill()
        raise RuntimeError((folder / f'{child.pid}.log').read_text())


def tool(name: str, *arguments: object) -> None:
    """Run a command-line tool in this process."""
    sys.argv = [name, *map(str, arguments)]
    sys.path.insert(0, str((TOOLS / name).parent))
    runpy.run_path(str(TOOLS / name), run_name='__main__')


def prepare(folder: Path) -> Path:
    """Lay out what the tiny configs name by relative paths."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(DATA / name, folder)
    return folder


def resume(name: str, folder: Path) -> Path:
    """Resume a recorded run in ``folder``; return its work directory."""
    work_dir = folder / name
    work_dir.mkdir(parents=True)
    in_child(
        prepare(folder),
        tool,
        'train.py',
        DATA / f'{name}.py',
        *('--work-dir', name, '--resume', DATA / f'{name}.pth'),
    )
    return work_dir


# --------------------------------------------------------------------- what came out


def leaves(content: Any, place: str = '') -> Iterator[tuple[str, Any]]:
    """Yield whatever is in nested dicts and lists, by its place.

    A list of plain values is one of these.
    """
    pairs: Any = content.items() if isinstance(content, Mapping) else None
    if isinstance(content, list | tuple) and not is_plain(content):
        pairs = enumerate(content)
    if pairs is None:
        yield place, content
        return
    for key, value in pairs:
        yield from leaves(value, f'{place}/{key}' if place else str(key))


def is_plain(content: Any) -> bool:
    if isinstance(content, list | tuple):
        return all(map(is_plain, content))
    return content is None or isinstance(content, str | bytes | int | float)


def contents(checkpoint: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors, and all else in it as text, by their places.

    What differs from run to run is left out: logs, and the time and versions of
    ``meta``; and the settings of optimisers, which grow with torch. Of random states
    only the places are kept.
    """
    tensors, others = {}, {}
    for place, value in leaves(checkpoint):
        parts = place.split('/')
        if parts[0] == 'message_hub' or {'param_groups', 'base_param_settings'} & {
            *parts
        }:
            continue
        if parts[0] == 'meta' and parts[1] != 'dataset_meta':
            continue
        if parts[0] == 'random_state':
            others['/'.join(parts[:4])] = 'random state'
        elif isinstance(value, Tensor):
            tensors[place] = value
        else:
            others[place] = repr(value)
    return tensors, others


def shapes_of(tensors: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    return {
        place: [str(value.dtype).removeprefix('torch.'), *value.shape]
        for place, value in sorted(tensors.items())
    }


def changed(
    tensors: Mapping[str, Tensor], before: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors that are not what they were before, or were not there."""
    return {
        place: value.contiguous()
        for place, value in tensors.items()
        if place not in before or not torch.equal(value, before[place])
    }


def losses_of(work_dir: Path) -> list[dict[str, float]]:
    """Return all that a run logged of its losses, iteration by iteration."""
    (log,) = work_dir.glob('*/vis_data/scalars.json')
    timing = ('time', 'data_time', 'memory', 'eta')
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in timing} for line in lines]


#: How a method is asked, besides as its config says.
WAYS: dict[str, dict[str, Any]] = {
    'whole': {},
    'slide': {
        'model.test_cfg': dict(mode='slide', crop_size=(32, 32), stride=(16, 16))
    },
}


def picture() -> Tensor:
    """Return a picture ``(3, 40, 48)`` of numbers, in 0..255."""
    rng = np.random.default_rng(7)
    coarse = rng.integers(0, 256, (3, 5, 6), dtype=np.uint8)
    return torch.from_numpy(coarse.repeat(8, 1).repeat(8, 2))


def ask(model: nn.Module, **meta: object) -> tuple[Tensor, Tensor]:
    """Return label map and scores of the picture, shown at another size."""
    image = picture()
    shape = tuple(image.shape[1:])
    sample = SegDataSample(metainfo=dict(img_shape=shape, ori_shape=(43, 50), **meta))
    with torch.no_grad():
        (result,) = model.test_step({'inputs': [image], 'data_samples': [sample]})
    # Every third number is enough, and keeps the files small.
    return result.pred_sem_seg.data.byte(), result.seg_logits.data[:, ::3, ::3]


def predictions(name: str) -> dict[str, Tensor]:
    """Return what the recorded checkpoint of a method answers."""
    found = {}
    for way, options in WAYS.items():
        model = init_segmentor(
            DATA / f'{name}.py', DATA / f'{name}.pth', cfg_options=options
        )
        found[f'{way}/labels'], found[f'{way}/scores'] = ask(model)
    if name == 'esda':
        model = init_segmentor(DATA / f'{name}.py', DATA / f'{name}.pth')
        found['pair/labels'], found['pair/scores'] = ask(model, prompt_name='boat')
    return {key: value.contiguous() for key, value in found.items()}


def save_predictions(name: str, target: Path) -> None:
    save_file(predictions(name), target)


# ------------------------------------------------------------------------------ demo

#: The methods of ``tools/demo.py``, and whether they are trained.
DEMO = {
    'clip_dense/shapes_tiny': False,
    'clip_dense/shapes_tiny_gate': False,
    'baselines/shapes_tiny_linear': True,
    'baselines/shapes_tiny_finetune_ce': True,
    'zegclip/shapes_tiny': True,
    'zegclip/shapes_tiny_ce': True,
}
DEMO_ITERATIONS = 4


def demo_figures(name: str, folder: Path) -> dict[str, float]:
    """Train and test a method of the demo on a few scenes; return its metrics."""
    config, trained = CONFIGS / f'{name}.py', DEMO[name]
    numbers = {'train': 16, 'test': 12} if trained else {'test': 12}
    options = ['--cfg-options', 'randomness.seed=0']
    for phase, number in numbers.items():
        loader = f'{phase}_dataloader'
        options += [f'{loader}.{key}={value}' for key, value in ONE_PROCESS.items()]
        options += [f'{loader}.dataset.dataset.num_images={number}']
    short = [
        *('train_dataloader.batch_size=8', f'train_cfg.max_iters={DEMO_ITERATIONS}'),
        f'train_cfg.val_begin={DEMO_ITERATIONS + 1}',
        f'default_hooks.checkpoint.interval={DEMO_ITERATIONS}',
    ]
    where = ['--work-dir', 'run']
    checkpoint: list[str] = []
    if trained:
        in_child(folder, tool, 'train.py', config, *where, *options, *short)
        checkpoint = [f'run/iter_{DEMO_ITERATIONS}.pth']
    in_child(folder, tool, 'test.py', config, *checkpoint, *where, *options)
    return json.loads((folder / 'run/metrics.json').read_text())


# ------------------------------------------------------------------------ recording


def write_json(name: str, content: object) -> None:
    text = json.dumps(content, indent=1, sort_keys=True) + '\n'
    if name.endswith('.gz'):
        (DATA / name).write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        (DATA / name).write_text(text)


def read_json(name: str) -> Any:
    raw = (DATA / name).read_bytes()
    return json.loads(gzip.decompress(raw) if name.endswith('.gz') else raw)


def save_dense(target: Path) -> None:
    """Write the checkpoint of a model in which nothing learns."""
    config = Config.fromfile(DATA / 'dense.py')
    init_default_scope('mmseg')
    model = registry.MODELS.build(config.model)
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, target)


def write_files() -> None:
    """Write what the tiny configs name: class vectors and a random tower."""
    vectors = np.random.default_rng(5).normal(size=(len(get_split(SPLIT).classes), 6))
    np.save(DATA / 'vectors.npy', vectors.astype(np.float32))
    merges = Path(zs3_mmseg.__file__).parent / 'assets/shapes_tiny/merges.txt.gz'
    shutil.copy(merges, DATA)
    write_json('tower.json', TOWER)
    torch.manual_seed(0)
    model = load_clip(str(DATA / 'tower.json')).model
    save_file(model.state_dict(), DATA / 'tower.safetensors')


def keep(source: Path, target: Path) -> None:
    """Copy a checkpoint of our own without the folder of this machine in it."""
    checkpoint = torch.load(source, map_location='cpu', weights_only=False)
    checkpoint['message_hub']['runtime_info']['last_ckpt'] = source.name
    torch.save(checkpoint, target)


def record_run(name: str, folder: Path) -> None:
    """Record a method: config, checkpoint, how it goes on, and what it answers."""
    target = DATA / f'{name}.pth'
    write_config(name, DATA / f'{name}.py')
    if name in TRAINED:
        first = folder / 'first'
        in_child(
            prepare(first), tool, 'train.py', DATA / f'{name}.py', '--work-dir', name
        )
        in_child(first, keep, first / name / f'iter_{HALF}.pth', target)
        work_dir = resume(name, folder)
        tensors, others = contents(safe_load(work_dir / f'iter_{END}.pth'))
        learnt = changed(tensors, contents(safe_load(target))[0])
        save_file(learnt, DATA / f'{name}_continued.safetensors')
        losses = losses_of(work_dir)
    else:
        in_child(prepare(folder), save_dense, target)
        tensors, others = contents(safe_load(target))
        losses = []
    state = dict(tensors=shapes_of(tensors), others=others, losses=losses)
    write_json(f'{name}.json', state)
    in_child(folder, save_predictions, name, DATA / f'{name}_predicted.safetensors')


def main() -> None:
    assert ROOT in Path(zs3_mmseg.__file__).parents, 'another checkout is installed'
    torch.set_num_threads(1)
    DATA.mkdir(exist_ok=True)
    wanted = sys.argv[1:] or ['files', 'names', 'types', 'configs', *METHODS, 'demo']
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in wanted:
            print(part, flush=True)  # noqa: T201
            if part == 'files':
                write_files()
            elif part == 'names':
                write_json('names.json', public_names())
            elif part == 'types':
                write_json('types.json', registered_types())
            elif part == 'configs':
                write_json('resolved_configs.json.gz', resolved_configs())
            elif part == 'demo':
                place = folder / 'demo'
                place.mkdir()
                write_json('demo.json', {n: demo_figures(n, place) for n in DEMO})
            else:
                place = folder / part
                place.mkdir()
                record_run(part, place)


if __name__ == '__main__':
    main()
