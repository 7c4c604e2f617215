"""LSeg: a DPT decoder whose pixels are compared with text rows."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from mmseg.models.decode_heads.dpt_head import FeatureFusionBlock, ReassembleBlocks
from mmseg.registry import MODELS
from mmseg.utils import ConfigType, SampleList

from zs3_mmseg.models.class_embeddings.queries import ClassQueries
from zs3_mmseg.utils.names import choose

from .esda_head import BACKGROUND, VOID_PIXELS
from .text_heads import cosine_maps
from .zero_shot_head import ZeroShotHead, single_rows

#: Strides of the four maps that the fusion joins, fine to coarse.
STRIDES = (4, 8, 16, 32)
READOUTS = ('project', 'add', 'ignore')
SPATIAL_BLOCKS = ('bottleneck', 'depthwise')
ACTIVATIONS = {'relu': nn.ReLU, 'lrelu': nn.LeakyReLU, 'tanh': nn.Tanh}


class SpatialBlock(nn.Module):
    """Smooths score maps, whatever the number and order of their classes.

    One 3x3 kernel and bias ``k`` for every class: ``y_c = a(k * x_c)``, and with
    ``kind='bottleneck'`` ``y_c = a(k * x_c + max_c' x_c')``, so that the list of names
    matters. The same block runs ``max(depth, 1)`` times; the last run has no
    activation.

    Args:
        kind: ``'bottleneck'`` or ``'depthwise'``.
        depth: number of runs; 0 is the same as 1, as in the official code.
        activation: ``'relu'``, ``'lrelu'`` or ``'tanh'``.
    """

    def __init__(self, kind: str, *, depth: int = 1, activation: str = 'lrelu') -> None:
        super().__init__()
        if depth < 0:
            raise ValueError(f'block_depth must be >= 0, not {depth}')
        self.bottleneck = choose('spatial_block', kind, SPATIAL_BLOCKS) == 'bottleneck'
        self.depth = max(depth, 1)
        self.conv = nn.Conv2d(1, 1, 3, padding=1)
        self.activation = ACTIVATIONS[choose('activation', activation, ACTIVATIONS)]()

    def forward(self, scores: Tensor) -> Tensor:
        """Return maps ``(N, K, h, w)`` of maps ``(N, K, h, w)``."""
        for run in range(self.depth):
            smooth = self.conv(scores.flatten(0, 1)[:, None]).view_as(scores)
            if self.bottleneck:
                smooth = smooth + scores.amax(dim=1, keepdim=True)
            last = run == self.depth - 1
            scores = smooth if last else self.activation(smooth)
        return scores


@MODELS.register_module()
class LSegHead(ZeroShotHead):
    """Decoder and cosine classifier of LSeg (arXiv 2201.03546).

    Tokens of four blocks, joined with their class tokens, become maps of strides 4, 8,
    16 and 32 (DPT, arXiv 2103.13413); four fusion blocks make of them one map ``f`` at
    half the size of the image, and ``z_k = scale * cos(W f, t_k)`` of a text row
    ``t_k``. Numerics are those of the released code, whose scale is a constant.

    The maps of a backbone that gives these strides itself, such as a ResNet, are read
    as they are. Sides of images have to be multiples of 32: set ``size_divisor=32`` of
    the data preprocessor, also in its ``test_cfg``.

    In :class:`ClassPromptedSegmentor` it is LSeg's two-word network: each image has two
    rows, that of ``other_name`` and that of its name.

    Args:
        in_channels: channels of the four maps, fine to coarse or block by block.
        channels: channels of the decoder.
        embed_dim: length of a text row.
        post_process_channels: channels of the four maps of tokens before the fusion;
            None: the maps have strides 4, 8, 16 and 32 already.
        readout_type: how a token meets its class token: ``'project'``, ``'add'`` or
            ``'ignore'``, for which the backbone needs none.
        patch_size: of the tokens: 4, 8, 16 or 32.
        scale: constant factor on the cosines.
        spatial_block: ``'bottleneck'``, ``'depthwise'`` or None: see
            :class:`SpatialBlock`.
        block_depth: how often that block runs.
        activation: between its runs: ``'relu'``, ``'lrelu'`` or ``'tanh'``.
        void_pixels: ``'ignore'``, or ``'background'``, for pairs of an image and a name
            only: pixels without a label count as anything else, as in the released
            two-word code.
        norm_cfg: norm of the fusion blocks.
        in_index: which maps of the backbone are read, fine to coarse.
        align_corners: of every bilinear resize of this head's maps.
        **kwargs: see :class:`ZeroShotHead`.

    Raises:
        ValueError: for unknown options; later, for maps that are not each twice as
            large as the next.
    """

    score_kind = 'softmax'
    pair_rows = 2
    reassemble_blocks: ReassembleBlocks | None
    spatial_block: SpatialBlock | None

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        *,
        embed_dim: int,
        post_process_channels: Sequence[int] | None = None,
        readout_type: str = 'project',
        patch_size: int = 16,
        scale: float = 1 / 0.07,
        spatial_block: str | None = None,
        block_depth: int = 1,
        activation: str = 'lrelu',
        void_pixels: str = 'ignore',
        norm_cfg: ConfigType | None = None,
        in_index: Sequence[int] = (0, 1, 2, 3),
        align_corners: bool = True,
        **kwargs: Any,
    ) -> None:
        _require_four(in_channels=in_channels, in_index=in_index)
        super().__init__(
            in_channels,
            channels,
            in_index=in_index,
            input_transform='multiple_select',
            align_corners=align_corners,
            **kwargs,
        )
        if not scale > 0:
            raise ValueError(f'scale must be > 0, not {scale}')
        self.embed_dim = embed_dim
        self.scale = scale
        self.readout_type = choose('readout_type', readout_type, READOUTS)
        self.void_pixels = choose('void_pixels', void_pixels, VOID_PIXELS)
        self.reassemble_blocks = None
        if post_process_channels is not None:
            _require_four(post_process_channels=post_process_channels)
            self.reassemble_blocks = ReassembleBlocks(
                in_channels[0], post_process_channels, readout_type
            )
            self.reassemble_blocks.resize_layers = _resize_layers(
                post_process_channels, patch_size
            )
        self.convs = nn.ModuleList(
            nn.Conv2d(width, channels, 3, padding=1, bias=False)
            for width in post_process_channels or in_channels
        )
        fusion_blocks: list[Any] = [
            FeatureFusionBlock(
                channels,
                dict(type='ReLU', inplace=False),
                norm_cfg or dict(type='BN'),
                align_corners=align_corners,
            )
            for _ in STRIDES
        ]
        # The coarsest map meets no other.
        fusion_blocks[0].res_conv_unit1 = None
        self.fusion_blocks = nn.ModuleList(fusion_blocks)
        self.projection = nn.Conv2d(channels, embed_dim, 1)
        self.spatial_block = None
        if spatial_block is not None:
            self.spatial_block = SpatialBlock(
                spatial_block, depth=block_depth, activation=activation
            )
        self._draw()

    def _draw(self) -> None:
        """Draw weights as torch does, and as the official code leaves them."""
        for module in self.modules():
            if module is not self and hasattr(module, 'reset_parameters'):
                module.reset_parameters()

    def init_weights(self) -> None:
        """Draw weights as torch does, unless ``init_cfg`` says otherwise."""
        super().init_weights()
        if self.init_cfg is None:
            self._draw()

    def pixel_features(
        self, inputs: Sequence[Tensor], cls_tokens: Tensor | None = None
    ) -> Tensor:
        """Return the decoder's map at half the image size, ``(N, channels, H/2, W/2)``.

        Args:
            inputs: the backbone's maps ``(N, C, h, w)``.
            cls_tokens: ``(N, T, C)``, one for each of them.

        Raises:
            ValueError: if class tokens are missing, or sizes of maps do not fit.
        """
        maps = self._transform_inputs(inputs)
        if self.reassemble_blocks is not None:
            maps = self.reassemble_blocks(self._with_tokens(maps, cls_tokens))
        self._check_sizes(maps)
        maps = [conv(found) for conv, found in zip(self.convs, maps, strict=True)]
        coarsest, *others = maps[::-1]
        first, *blocks = self.fusion_blocks
        fused = first(coarsest)
        for block, finer in zip(blocks, others, strict=True):
            fused = block(fused, finer)
        return fused

    def _with_tokens(
        self, maps: Sequence[Tensor], cls_tokens: Tensor | None
    ) -> list[tuple[Tensor, Tensor | None]]:
        if self.readout_type == 'ignore':
            return [(found, None) for found in maps]
        if cls_tokens is None or cls_tokens.shape[1] <= max(self.in_index):
            raise ValueError(
                f'readout_type={self.readout_type!r} reads the class token of each '
                'map, which the backbone does not give: use TimmViT, OpenCLIPViT('
                "out_cls_tokens=True), or decode_head.readout_type='ignore'"
            )
        return [
            (found, cls_tokens[:, index])
            for found, index in zip(maps, self.in_index, strict=True)
        ]

    def _check_sizes(self, maps: Sequence[Tensor]) -> None:
        """Refuse maps that would have to be resized to meet each other."""
        sizes = [tuple(found.shape[2:]) for found in maps]
        for fine, coarse in pairwise(sizes):
            if fine != (2 * coarse[0], 2 * coarse[1]):
                shown = ', '.join(f'{height}x{width}' for height, width in sizes)
                raise ValueError(
                    f'LSegHead joins maps, each twice as large as the next, and '
                    f'these are {shown}: sides of images and windows have to be '
                    f'multiples of {STRIDES[-1]}. Set model.data_preprocessor.'
                    f'size_divisor={STRIDES[-1]} and its test_cfg=dict(size_divisor='
                    f'{STRIDES[-1]})'
                )

    def query_logits(  # type: ignore[override]
        self,
        inputs: Sequence[Tensor],
        *,
        queries: ClassQueries,
        cls_tokens: Tensor | None = None,
    ) -> Tensor:
        """Return scaled cosines at half the image size, ``(N, Q, H/2, W/2)``.

        Args:
            inputs: the backbone's maps.
            queries: the rows of all images ``(Q, D)``, or of each ``(N, Q, D)``.
            cls_tokens: ``(N, T, C)``, one for each map.
        """
        if self.void_pixels == 'background' and queries.embeddings.ndim == 2:
            raise ValueError(
                "decode_head.void_pixels='background' is for pairs of an image and a "
                "name (ClassPromptedSegmentor): set it to 'ignore'"
            )
        pixels = self.projection(self.pixel_features(inputs, cls_tokens))
        scores = self.scale * cosine_maps(pixels, single_rows(queries, 'LSegHead'))
        return scores if self.spatial_block is None else self.spatial_block(scores)

    def _stack_batch_gt(self, batch_data_samples: SampleList) -> Tensor:
        """Return labels ``(N, 1, H, W)``; see ``void_pixels``."""
        labels = super()._stack_batch_gt(batch_data_samples)
        if self.void_pixels == 'background':
            return labels.masked_fill(labels == self.ignore_index, BACKGROUND)
        return labels


def _require_four(**options: Sequence[int]) -> None:
    for name, values in options.items():
        if isinstance(values, int) or len(values) != len(STRIDES):
            raise ValueError(
                f'LSegHead.{name} is one number for each of {len(STRIDES)} maps, not '
                f'{values}'
            )


def _resize_layers(channels: Sequence[int], patch_size: int) -> nn.ModuleList:
    """Return what brings maps of tokens to :data:`STRIDES`."""
    choose('patch_size', patch_size, STRIDES)
    layers: list[nn.Module] = []
    for width, stride in zip(channels, STRIDES, strict=True):
        factor = patch_size // stride
        if factor > 1:
            layers.append(nn.ConvTranspose2d(width, width, factor, stride=factor))
        elif factor == 1:
            layers.append(nn.Identity())
        else:
            step = stride // patch_size
            layers.append(nn.Conv2d(width, width, 3, stride=step, padding=1))
    return nn.ModuleList(layers)
