"""What ``arch`` may be, and the open_clip modules built from it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from zs3_mmseg.utils.names import did_you_mean


class ConvStem(nn.Sequential):
    """Strided 3x3 convolutions that end on the patch grid.

    One convolution with stride 2 per halving of the image, each followed by a
    normalisation over all channels and GELU, then a 1x1 convolution (Xiao et al.
    2021, "Early Convolutions Help Transformers See Better", section 4; group
    normalisation in place of batch normalisation, so that no image depends on the
    others of its batch).

    Args:
        channels: of the convolutions before the last strided one, e.g. ``(32, 64)``
            for patches of 8 x 8 pixels.
    """

    def __init__(self, channels: Sequence[int], width: int) -> None:
        sizes = [3, *channels, width]
        layers: list[nn.Module] = []
        for before, after in pairwise(sizes):
            layers += [
                nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False),
                nn.GroupNorm(1, after),
                nn.GELU(),
            ]
        super().__init__(*layers, nn.Conv2d(width, width, 1, bias=False))
        #: As the patch convolution that it replaces has it.
        self.out_channels = width


def replace_patch_convolution(visual: Any, channels: Sequence[int]) -> None:
    """Put a :class:`ConvStem` in the place of ``visual.conv1``."""
    if not isinstance(getattr(visual, 'conv1', None), nn.Conv2d):
        raise ValueError(
            'conv_stem replaces the patch convolution of an open_clip '
            f'VisionTransformer; this image tower is a {type(visual).__name__}. '
            'Remove conv_stem from the model config.'
        )
    patch = visual.patch_size
    stride = 2 ** (len(channels) + 1)
    if tuple(patch) != (stride, stride):
        raise ValueError(
            f'conv_stem={list(channels)} halves the image {len(channels) + 1} times, '
            f'which makes patches of {stride} x {stride} pixels; vision_cfg.patch_size '
            f'is {patch[0]} x {patch[1]}'
        )
    visual.conv1 = ConvStem(channels, visual.conv1.out_channels)


#: The tower shipped in the package, trained on captions of the Shapes world.
SHAPES_ARCH = 'zs3-shapes-tiny'
SHAPES_TAG = 'shapes'
_SHAPES_FOLDER = Path(__file__).parents[2] / 'assets' / 'shapes_tiny'

_REQUIRED = ('embed_dim', 'vision_cfg', 'text_cfg')
# Keys of ours beside open_clip's own in a model config.
_KNOWN_WORDS = 'known_words'
_CONV_STEM = 'conv_stem'

Tokenizer = Callable[..., Tensor]


@dataclass(frozen=True)
class Architecture:
    """A CLIP architecture, not built yet.

    Attributes:
        name: how messages call it: a model name, the path of a JSON, or ``'dict'``.
        config: open_clip's model config: ``embed_dim``, ``vision_cfg``, ``text_cfg``,
            and optionally ``quick_gelu``, ``custom_text``, ...
        model_name: open_clip's name, which pretrained tags belong to, or None.
        mean: of the image in RGB, for values in 0..1; None: OpenAI's.
        std: like ``mean``.
        known_words: the words a tower was trained on; empty: any.
        conv_stem: channels of a :class:`ConvStem` in the place of the patch
            convolution; empty: open_clip's own patch convolution.
    """

    name: str
    config: dict[str, Any]
    model_name: str | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    known_words: tuple[str, ...] = ()
    conv_stem: tuple[int, ...] = ()

    @property
    def quick_gelu(self) -> bool:
        """Whether the activation is ``x * sigmoid(1.702 x)``, as in OpenAI's CLIP."""
        return bool(self.config.get('quick_gelu', False))

    @property
    def embed_dim(self) -> int:
        """Dimension of the space that images and texts share."""
        return int(self.config['embed_dim'])

    @property
    def merges_path(self) -> Path | None:
        """The BPE merges file of the tokenizer, if it is not open_clip's own."""
        kwargs = self.config['text_cfg'].get('tokenizer_kwargs') or {}
        return Path(kwargs['bpe_path']) if 'bpe_path' in kwargs else None


def resolve_architecture(arch: str | Mapping | Architecture) -> Architecture:
    """Find the architecture that a config means.

    Args:
        arch: an open_clip model name, the path of an open_clip JSON model config
            (ending in ``.json``), such a config as a dict, or ``'zs3-shapes-tiny'``.

    Raises:
        FileNotFoundError: if the JSON does not exist.
        ValueError: if the name is unknown or the config is none of open_clip's.
    """
    if isinstance(arch, Architecture):
        return arch
    if isinstance(arch, Mapping):
        return _from_config('dict', _plain(arch), folder=None)
    if arch == SHAPES_ARCH:
        return _from_json(_SHAPES_FOLDER / 'model.json', SHAPES_ARCH)
    if str(arch).endswith('.json'):
        return _from_json(Path(arch).expanduser(), str(arch))
    import open_clip

    name = str(arch).replace('/', '-')
    known = open_clip.list_models()
    if name not in known:
        hint = did_you_mean(name, [*known, SHAPES_ARCH])
        raise ValueError(
            f'arch={arch!r} is no open_clip model.{hint} Expected one of the '
            f'{len(known)} names of open_clip.list_models(), {SHAPES_ARCH!r}, the path '
            'of a JSON model config (ending in .json), or such a config as a dict.'
        )
    return Architecture(name, open_clip.get_model_config(name), model_name=name)


def shapes_weights() -> Path:
    """Return where the weights of the shipped tower are."""
    return _SHAPES_FOLDER / 'weights.safetensors'


class _QuickGELU(torch.autograd.Function):
    """``y = x s(x)`` with ``s(x) = sigmoid(1.702 x)``, from ``x`` alone both ways."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * torch.sigmoid(1.702 * x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        """``dy/dx = s (1 + 1.702 x (1 - s))``."""
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(1.702 * x)
        return gradients[0] * s * (1 + 1.702 * x * (1 - s))


class LeanQuickGELU(nn.Module):
    """OpenAI's activation, with half of the memory for the backward pass.

    As open_clip writes it down, autograd keeps its input and the sigmoid, both four
    times as wide as the tokens, in every block.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Return ``x sigmoid(1.702 x)``."""
        if torch.compiler.is_compiling() or not (
            torch.is_grad_enabled() and x.requires_grad
        ):
            return x * torch.sigmoid(1.702 * x)
        return _QuickGELU.apply(x)


def build_model(architecture: Architecture) -> Any:
    """Build an open_clip model with random weights, in evaluation mode.

    Only open_clip's classes are used: its registry of names stays as it is.
    """
    import open_clip

    config = copy.deepcopy(architecture.config)
    text, vision = config['text_cfg'], config['vision_cfg']
    # All weights come from one file, never from the towers' own pre-training.
    if 'timm_model_name' in vision:
        vision['timm_model_pretrained'] = False
    if 'hf_model_name' in text:
        text['hf_model_pretrained'] = False
    custom_text = config.pop('custom_text', False) or 'hf_model_name' in text
    if not custom_text:
        model_class = open_clip.CLIP
    elif 'multimodal_cfg' in config:
        model_class = open_clip.CoCa
    else:
        model_class = open_clip.CustomTextCLIP
    try:
        model = model_class(**config)
    except (TypeError, ValueError, AssertionError, ZeroDivisionError) as error:
        raise ValueError(
            f'open_clip cannot build the model config of arch={architecture.name!r}: '
            f'{type(error).__name__}: {error}'
        ) from error
    if architecture.conv_stem:
        replace_patch_convolution(model.visual, architecture.conv_stem)
    for module in [*model.modules()]:
        for name, child in module.named_children():
            if type(child) is open_clip.transformer.QuickGELU:
                setattr(module, name, LeanQuickGELU())
    return model.eval()


def build_tokenizer(architecture: Architecture) -> Tokenizer:
    """Build the tokenizer that belongs to an architecture."""
    import open_clip

    if architecture.model_name is not None:
        return open_clip.get_tokenizer(architecture.model_name)
    text = architecture.config['text_cfg']
    context_length = text.get('context_length', 77)
    kwargs = dict(text.get('tokenizer_kwargs') or {})
    if text.get('hf_tokenizer_name'):
        from open_clip.tokenizer import HFTokenizer

        return HFTokenizer(
            text['hf_tokenizer_name'],
            context_length=context_length,
            tokenizer_mode=text.get('tokenizer_mode'),
            **kwargs,
        )
    merges = architecture.merges_path
    if merges is not None and not merges.is_file():
        raise FileNotFoundError(
            f'the BPE merges file {merges} does not exist; it is named by '
            f'text_cfg.tokenizer_kwargs.bpe_path of arch={architecture.name!r}'
        )
    return open_clip.SimpleTokenizer(context_length=context_length, **kwargs)


def _from_json(path: Path, name: str) -> Architecture:
    if not path.is_file():
        raise FileNotFoundError(f'the model config {path} of arch={name!r} is no file')
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f'the model config {path} is no JSON: {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'the model config {path} holds no JSON object')
    return _from_config(name, content, folder=path.resolve().parent)


def _from_config(
    name: str, content: dict[str, Any], folder: Path | None
) -> Architecture:
    # open_clip_config.json of the hub wraps the model config and adds preprocessing.
    preprocess = content.get('preprocess_cfg', {})
    config = dict(content.get('model_cfg', content))
    config.pop('preprocess_cfg', None)
    known_words = config.pop(_KNOWN_WORDS, ())
    conv_stem = config.pop(_CONV_STEM, ())
    missing = [key for key in _REQUIRED if key not in config]
    if missing:
        raise ValueError(
            f'arch={name!r} is no open_clip model config: it lacks '
            f'{", ".join(missing)} and has {", ".join(config) or "no keys"}'
        )
    kwargs = config['text_cfg'].get('tokenizer_kwargs') or {}
    if folder is not None and 'bpe_path' in kwargs:
        kwargs['bpe_path'] = str(folder / kwargs['bpe_path'])
    return Architecture(
        name,
        config,
        mean=_triple(preprocess.get('mean')),
        std=_triple(preprocess.get('std')),
        known_words=tuple(known_words),
        conv_stem=tuple(conv_stem),
    )


def _triple(values: list[float] | None) -> tuple[float, ...] | None:
    return None if values is None else tuple(float(value) for value in values)


def _plain(config: Mapping) -> dict[str, Any]:
    """Copy a (mmengine) config into plain dicts and lists."""
    try:
        return json.loads(json.dumps(config))
    except TypeError as error:
        raise ValueError(f'arch must hold plain values only: {error}') from error
