"""Dense tokens of open_clip's vision transformers at any image size."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.models.towers import Architecture, load_clip, resolve_architecture
from zs3_mmseg.models.towers.positions import INTERPOLATIONS
from zs3_mmseg.utils.names import choose

from .blocks import (
    DENSE,
    check_indices,
    embed,
    is_plain,
    replaced_block,
    require_plain_vit,
    resize_stored_positions,
    run_block,
    run_first_token,
    whole_patches,
)
from .extra_tokens import ExtraTokens
from .last_attention import Vanilla, build_last_attention
from .outputs import TowerOutput
from .prompts import (
    ClassPrompt,
    DeepPrompts,
    LowRankBypass,
    SharedTokens,
    SpectralFilter,
    TapProjection,
)


@MODELS.register_module()
class OpenCLIPViT(BaseModule):
    """The image tower of an open_clip ViT as a dense backbone.

    The forward pass runs over the tower's own modules and differs from open_clip's in
    three ways: position embeddings are resized to the image, patches are never dropped,
    and the attention of the last block can be replaced without any training.

    The tower is registered as ``visual`` with open_clip's names below it. Its text
    tower is not kept. Outputs are not normalised unless ``normalize`` is set: heads
    that compare by cosine normalise for themselves.

    Images are expected as the data preprocessor leaves them: RGB, normalised. The
    statistics that the tower was trained with are in :attr:`mean` and :attr:`std`.

    Args:
        arch: an open_clip model name, the path of an open_clip JSON model config, such
            a config as a dict, or ``'zs3-shapes-tiny'``. Towers of timm (SigLIP, EVA02,
            ViTamin, ConvNeXt), ResNets and attentional pooling are not supported.
        pretrained: a tag of open_clip, a local file, ``'shapes'``, or None for random
            weights. Loaded here and now; ``init_weights()`` never overwrites it.
        image_size: resize the stored position embeddings to this image size at once,
            as ZegCLIP does for 512; None: keep the tower's own. Either way, images of
            any size are accepted.
        out_indices: the maps to return, in this order: ``-1`` for the dense tokens in
            the space of the texts, ``i >= 0`` for the output of block ``i``.
        out_global: return the global token as the last output as well. It comes from
            the untouched last block, whatever ``last_attn`` is.
        out_cls_tokens: return the class token of each of ``out_indices`` as well, in
            the space of its map, which must be one space for all.
        tap_projection: what becomes of the blocks in ``out_indices``. None leaves their
            outputs as they are. Else they get the norm of the prompts, if there is one,
            and then: ``'clip'`` treats them as the dense tokens; ``'frozen_random'``,
            as in Cascade-CLIP, and ``'trainable'`` give each tap a norm and projection
            of its own, see :class:`TapProjection`.
        frozen: parameters get no gradient and the module stays in evaluation mode.
        last_attn: attention of the last block: ``'vanilla'``, ``'maskclip'``,
            ``'maskclip_v'``, ``'sclip'``, ``'clearclip'``, ``'kk'``, ``'naclip'``,
            ``'nonly'``, or a dict with ``type`` and options (``std`` in patches).
        last_block: ``'full'`` keeps residual and feed-forward path of the last block,
            ``'attn_only'`` drops both, None does what the strategy's authors did.
        grid: ``'pad'`` fills the image with zeros at the right and bottom up to whole
            patches; ``'floor'`` leaves out pixels that fill no patch.
        pos_interp: ``'bicubic'``, or ``'bilinear'`` as in ZegCLIP and ESDA.
        cls_embed_twice: add the class embedding twice, as ZegCLIP and ESDA do.
        project: multiply the dense tokens by the tower's projection.
        normalize: scale dense tokens and global token to length 1.
        prompts: options of :class:`DeepPrompts` (``num_tokens``, ``depth``,
            ``dropout``), whose tokens are trained whether or not the tower is frozen;
            None: no prompts.
        extra_tokens: ``dict(type=...)`` of a registered :class:`ExtraTokens`, such as
            ``RegionTokens``, which stand behind the patches and go through all blocks
            with an attention mask of their own, whatever ``last_attn`` is; None: none.
        spectral: options of :class:`SpectralFilter` (``blocks``, ``grid``, ``train``),
            which filters the patches before some blocks as SPT-SEG does. Its ``grid``
            is that of the stored positions if it is left out; None: no filter.
        low_rank: rank of the :class:`LowRankBypass` around each block, which is trained
            whether or not the tower is frozen; None: no bypass.
        replace_cls: the blocks before which the class token becomes the projected text
            row of a class name, as in ESDA. The projection is trained. Images are then
            paired with names, see :meth:`forward`.
        priors: the blocks whose patches are compared with a prototype of the class, as
            in ESDA: the mean of its patches, or in the last block the projected text.
            Their maps are returned as the channels of one map, in the order of blocks.
        text_proj_init: how the projection of text rows starts: ``'random'`` as in
            ESDA's code, or ``'tower'``, which is ours, with the tower's own projection
            turned round, so that the prior of the last block starts close to the
            tower's dense logits.
        trust: open a TorchScript archive even if it is none of OpenAI's.
    """

    visual: Any
    class_prompt: ClassPrompt | None
    low_rank: nn.ModuleList | None
    extra_tokens: ExtraTokens | None
    spectral: SpectralFilter | None
    taps: TapProjection | None

    def __init__(
        self,
        arch: str | Mapping | Architecture,
        pretrained: str | Path | None = None,
        *,
        image_size: int | Sequence[int] | None = None,
        out_indices: Sequence[int] = (DENSE,),
        out_global: bool = False,
        out_cls_tokens: bool = False,
        tap_projection: Literal['clip', 'frozen_random', 'trainable'] | None = None,
        frozen: bool = True,
        last_attn: str | Mapping = 'vanilla',
        last_block: Literal['full', 'attn_only'] | None = None,
        grid: Literal['pad', 'floor'] = 'pad',
        pos_interp: Literal['bicubic', 'bilinear'] = 'bicubic',
        cls_embed_twice: bool = False,
        project: bool = True,
        normalize: bool = False,
        prompts: Mapping[str, Any] | None = None,
        extra_tokens: Mapping[str, Any] | None = None,
        spectral: Mapping[str, Any] | None = None,
        low_rank: int | None = None,
        replace_cls: Sequence[int] = (),
        priors: Sequence[int] = (),
        text_proj_init: Literal['random', 'tower'] = 'random',
        trust: bool = False,
    ) -> None:
        super().__init__()
        choose('grid', grid, ('pad', 'floor'))
        choose('last_block', last_block, ('full', 'attn_only', None))
        self.pos_interp = choose('pos_interp', pos_interp, INTERPOLATIONS)
        self.grid_mode = grid
        self.last_attn = build_last_attention(last_attn)
        self.full_last_block = (
            self.last_attn.full_block if last_block is None else last_block == 'full'
        )
        self.cls_embed_twice = cls_embed_twice
        self.project = project
        self.normalize = normalize
        self.frozen = frozen

        architecture = resolve_architecture(arch)
        require_plain_vit(architecture)
        clip = load_clip(
            architecture, pretrained, trust=trust, need='image', pos_interp=pos_interp
        )
        # A copy: the model is shared with whoever needs the text tower.
        self.visual = copy.deepcopy(clip.model.visual)
        self.content_hash = clip.content_hash
        #: Statistics of the images, for RGB values in 0..255.
        self.mean = tuple(255 * value for value in clip.mean)
        self.std = tuple(255 * value for value in clip.std)
        self.patch_size = int(self.visual.patch_size[0])
        self.num_blocks = len(self.visual.transformer.resblocks)
        self.width = int(self.visual.conv1.out_channels)
        self.embed_dim = architecture.embed_dim
        self._last_is_vanilla = (
            isinstance(self.last_attn, Vanilla) and self.full_last_block
        )
        last_block = self.visual.transformer.resblocks[-1]
        if not self._last_is_vanilla and not is_plain(last_block):
            raise ValueError(
                f'arch={architecture.name!r} has custom attention blocks, whose '
                "attention cannot be replaced: expected last_attn='vanilla' with the "
                'full block'
            )
        if image_size is not None:
            resize_stored_positions(self.visual, image_size, pos_interp)
        if frozen:
            self.visual.requires_grad_(False)

        self.out_global = out_global
        self.out_indices = check_indices(out_indices, self.num_blocks)
        if not (self.out_indices or out_global):
            raise ValueError('out_indices is empty and out_global is False: no output')
        choose(
            'tap_projection',
            tap_projection,
            (None, 'clip', 'frozen_random', 'trainable'),
        )
        self.tap_projection = tap_projection
        self.taps = None
        if tap_projection in ('frozen_random', 'trainable'):
            self.taps = TapProjection(
                [index for index in self.out_indices if index != DENSE],
                self.width,
                self.embed_dim,
                trainable=tap_projection == 'trainable',
            )
        self.out_cls_tokens = out_cls_tokens
        if out_cls_tokens and len({self._channels(i) for i in self.out_indices}) != 1:
            raise ValueError(
                f'out_cls_tokens needs class tokens of one width, and those of '
                f'out_indices={self.out_indices} differ: set tap_projection'
            )
        self.extra_tokens = None
        if extra_tokens is not None:
            self.extra_tokens = MODELS.build({**extra_tokens, 'width': self.width})
            self.extra_tokens.start(self.visual)
        self.prompts = None
        if prompts is not None:
            self.prompts = DeepPrompts(
                **prompts,
                num_blocks=self.num_blocks,
                width=self.width,
                patch_size=self.patch_size,
            )
        self.spectral = None
        if spectral is not None:
            self.spectral = SpectralFilter(
                **{'grid': tuple(self.visual.grid_size), **spectral},
                num_blocks=self.num_blocks,
                width=self.width,
            )
        self.low_rank = None
        if low_rank is not None:
            self.low_rank = nn.ModuleList(
                LowRankBypass(self.width, low_rank) for _ in range(self.num_blocks)
            )
        choose('text_proj_init', text_proj_init, ('random', 'tower'))
        if text_proj_init == 'tower' and not replace_cls:
            raise ValueError("text_proj_init='tower' is of no use without replace_cls")
        #: Blocks before which the class token becomes a projected text row, and blocks
        #: that give prior maps.
        self.replace_cls: tuple[int, ...] = ()
        self.priors: tuple[int, ...] = ()
        self.class_prompt = None
        if replace_cls or priors:
            self.class_prompt = ClassPrompt(
                replace_cls=replace_cls,
                priors=priors,
                num_blocks=self.num_blocks,
                text_dim=self.embed_dim,
                width=self.width,
            )
            self.replace_cls = self.class_prompt.replace_cls
            self.priors = self.class_prompt.priors
            if text_proj_init == 'tower':
                self.class_prompt.start_like_dense_logits(self.visual)
        # How many blocks have to run for the outputs asked for.
        self._num_run = self.num_blocks
        to_the_end = out_global or self.extra_tokens is not None
        if not to_the_end and DENSE not in self.out_indices:
            self._num_run = 1 + max((*self.out_indices, *self.priors))
        #: How many blocks do the same for all class names of an image.
        self.num_shared_blocks = min((self._num_run, *self.replace_cls[:1]))
        self.train(self.training)

    def init_weights(self) -> None:
        """Keep the weights loaded at construction."""
        self._is_init = True

    def train(self, mode: bool = True) -> Any:
        """Switch the mode; a frozen tower stays in evaluation mode."""
        super().train(mode)
        if self.frozen:
            self.visual.eval()
        return self

    @property
    def out_channels(self) -> tuple[int, ...]:
        """Channels of each returned map."""
        maps = tuple(self._channels(index) for index in self.out_indices)
        return (*maps, len(self.priors)) if self.priors else maps

    def _channels(self, index: int) -> int:
        """Return the channels of the map of one of ``out_indices``."""
        if index != DENSE and self.tap_projection is None:
            return self.width
        own = index != DENSE and self.tap_projection != 'clip'
        return self.embed_dim if own or self.project else self.width

    def forward(
        self,
        img: Tensor,
        text_cls: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[Tensor, ...] | TowerOutput:
        """Compute the maps asked for.

        With ``replace_cls``, each image comes with one class name.

        Args:
            img: ``(N, 3, H, W)``, normalised RGB.
            text_cls: ``(N, E)``, the text row of each image's name; needed with
                ``replace_cls`` and refused without.
            foreground: ``(N, H, W)``, bool or numbers in 0..1: where the named class
                is, for the prototypes of ``priors`` in training. None, as in testing:
                the priors of all blocks but the last are 0.

        Returns:
            One map ``(N, C, h, w)`` for each of ``out_indices``, then the priors
            ``(N, len(priors), h, w)`` if there are any, then the global token
            ``(N, E)`` if ``out_global``. ``h = ceil(H / patch)`` with ``grid='pad'``,
            ``floor`` otherwise. With ``out_cls_tokens`` or ``extra_tokens``, the same
            as a :class:`TowerOutput`, with ``cls_tokens (N, len(out_indices), C)`` and
            ``group_tokens (N, G, E)``, which are projected and scaled as the dense
            tokens are.
        """
        return self.forward_from(
            self.forward_shared(img), text_cls, foreground=foreground
        )

    def forward_shared(self, img: Tensor) -> SharedTokens:
        """Run what does not depend on a class name, for :meth:`forward_from`.

        Args:
            img: ``(B, 3, H, W)``, normalised RGB.
        """
        tokens, grid = self._embed(img, self.cls_embed_twice)
        assigned = None
        if self.extra_tokens is not None:
            assigned = self.extra_tokens.assign(
                img, grid, lambda: self._untouched(img)[:, -grid[0] * grid[1] :]
            )
            extra = self.visual.ln_pre(self.extra_tokens.tokens).to(tokens.dtype)
            extra = extra.expand(tokens.shape[0], -1, -1)
            tokens = torch.cat([tokens, extra], dim=1)
        blocks = range(self.num_shared_blocks)
        wanted = {*self.out_indices, *self.priors}
        state = SharedTokens(tokens, tokens, grid, assigned=assigned)
        return self._run(state, blocks, wanted)

    def forward_from(
        self,
        state: SharedTokens,
        text_cls: Tensor | None = None,
        *,
        image_index: Tensor | None = None,
        foreground: Tensor | None = None,
    ) -> tuple[Tensor, ...] | TowerOutput:
        """Run the rest for pairs of an image and a class name.

        Args:
            state: what :meth:`forward_shared` returned for ``B`` images.
            text_cls: ``(N, E)``, the text row of each pair.
            image_index: ``(N,)``, the image of each pair; None: the images in order.
            foreground: ``(N, H, W)``, see :meth:`forward`.

        Returns:
            See :meth:`forward`.
        """
        text, needed = None, set(self.out_indices)
        if self.class_prompt is not None:
            needed |= self.class_prompt.needed_outputs(foreground)
        if image_index is not None:
            state = state.pairs(image_index, needed)
        if self.class_prompt is not None:
            text = self.class_prompt.project(text_cls, len(state.tokens))
        elif text_cls is not None or foreground is not None:
            raise ValueError(
                'text_cls and foreground are read by no block: set replace_cls, priors'
            )
        blocks = range(self.num_shared_blocks, self._num_run)
        state = self._run(state, blocks, needed, text)
        grid, shared = state.grid, state.pooled is state.tokens
        tokens, groups = state.tokens, None
        if self.extra_tokens is not None:
            tokens, groups = self._apart(tokens)
        pooled = last = tokens if shared else state.pooled
        if self.prompts is not None and self._num_run == self.num_blocks:
            tokens = self.prompts.after(tokens)
            pooled = tokens if shared else self.prompts.after(pooled)
        outputs, cls_tokens = {}, []
        for index in self.out_indices:
            if index == DENSE:
                outputs[index] = self._dense(tokens)
                first = pooled
            else:
                outputs[index] = self._tap(index, state.outputs[index])
                first = last
            if not self.out_cls_tokens:
                continue
            row = outputs[index][:, :1]
            if not shared and index in (DENSE, self.num_blocks - 1):
                # Replaced attention says nothing about the image as a whole.
                row = first[:, :1]
                row = self._dense(row) if index == DENSE else self._tap(index, row)
            cls_tokens.append(row)
        maps = [_to_map(outputs[index], grid) for index in self.out_indices]
        if self.class_prompt is not None and self.priors:
            mask = None if foreground is None else self._whole_mask(foreground, grid)
            maps.append(self.class_prompt.prior_maps(state, text, mask))
        token = self._pool(pooled, grid[0] * grid[1]) if self.out_global else None
        if not self.out_cls_tokens and groups is None:
            return tuple(maps) if token is None else (*maps, token)
        if groups is not None:
            groups = self._dense(groups)
        classes = torch.cat(cls_tokens, dim=1) if cls_tokens else None
        return TowerOutput(tuple(maps), token, classes, groups)

    @torch.no_grad()
    def image_token(self, img: Tensor) -> Tensor:
        """Return the global token ``(B, E)`` of the tower as CLIP trained it.

        Without prompt tokens, filters, bypasses and class names, so that it can be
        compared with text rows whatever has been trained here.

        Args:
            img: ``(B, 3, H, W)``, normalised RGB.
        """
        tokens, grid = self._embed(img, cls_embed_twice=False)
        return self._pool(self._blocks_alone(tokens), grid[0] * grid[1])

    def _blocks_alone(self, tokens: Tensor) -> Tensor:
        """Run the tower's blocks and nothing that was put into it."""
        for block in self.visual.transformer.resblocks:
            tokens = run_block(block, tokens)
        return tokens

    def _untouched(self, img: Tensor) -> Tensor:
        """Return the normed tokens ``(N, L, D)`` of the tower as CLIP trained it."""
        tokens, _ = self._embed(img, cls_embed_twice=False)
        return self.visual.ln_post(self._blocks_alone(tokens))

    def _embed(
        self, img: Tensor, cls_embed_twice: bool
    ) -> tuple[Tensor, tuple[int, int]]:
        """Return the tokens before the first block ``(B, 1 + hw, D)`` and the grid."""
        return embed(
            self.visual,
            whole_patches(img, self.patch_size, self.grid_mode),
            pos_interp=self.pos_interp,
            cls_embed_twice=cls_embed_twice,
        )

    def _run_last(
        self,
        block: nn.Module,
        tokens: Tensor,
        grid: tuple[int, int],
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """Run the last block with replaced attention, ``mask`` being that of its own.

        Returns the tokens ``(N, L, D)`` after it, and, if anything asks for the image
        as a whole, those that pooling needs.
        """
        own = tokens[:, : tokens.shape[1] - self._num_extra]
        after = replaced_block(
            block,
            own,
            partial(self.last_attn, grid=grid),
            full=self.full_last_block,
        )
        if self._num_extra:  # which it is not made for
            untouched = run_block(block, tokens, mask)
            after = torch.cat([after, untouched[:, own.shape[1] :]], dim=1)
            return after, untouched[:, : own.shape[1]]
        if not (self.out_global or self.out_cls_tokens):
            return after, after
        # Replaced attention says nothing about the image as a whole.
        if self.visual.pool_type == 'tok':
            return after, run_first_token(block, own)
        return after, run_block(block, own)

    @property
    def _num_extra(self) -> int:
        return 0 if self.extra_tokens is None else self.extra_tokens.num_tokens

    def _apart(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Take the tokens behind the patches away, normed as prompts say."""
        assert self.extra_tokens is not None  # else nobody asks
        own = tokens.shape[1] - self._num_extra
        extra = tokens[:, own:]
        if self.extra_tokens.prompt_norm and self.prompts is not None:
            extra = self.prompts.after(extra)
        return tokens[:, :own], extra

    def _tap(self, block: int, tokens: Tensor) -> Tensor:
        """Return tokens after a block in the space of its map: ``(N, L, C)``."""
        if self.tap_projection is None:
            return tokens
        if self.prompts is not None:
            tokens = self.prompts.after(tokens)
        if self.taps is None:
            return self._dense(tokens)
        return self._scaled(self.taps(block, tokens))

    def _dense(self, tokens: Tensor) -> Tensor:
        """Return all tokens in the space of the texts: ``(N, L, D) -> (N, L, C)``."""
        dense = self.visual.ln_post(tokens)
        if self.project:
            dense = dense @ self.visual.proj
        return self._scaled(dense) if self.normalize else dense

    def _pool(self, tokens: Tensor, num_patches: int) -> Tensor:
        """Return the global token ``(N, E)`` as open_clip pools it."""
        norm: Callable[[Tensor], Tensor] = self.visual.ln_post
        if self.visual.pool_type == 'tok':
            pooled = norm(tokens[:, 0])
        elif self.visual.final_ln_after_pool:
            pooled = norm(tokens[:, -num_patches:].mean(dim=1))
        else:
            pooled = norm(tokens[:, -num_patches:]).mean(dim=1)
        return self._scaled(pooled @ self.visual.proj)

    def _scaled(self, rows: Tensor) -> Tensor:
        # In bfloat16 the lengths would be off by half a percent.
        if not self.normalize:
            return rows
        scaled = F.normalize(rows.float(), dim=-1)
        # Under autocast they stay exact; a model in half precision reads its own type.
        half = next(self.visual.parameters()).dtype != torch.float32
        return scaled.to(rows.dtype) if half else scaled

    def _run(
        self,
        state: SharedTokens,
        blocks: Iterable[int],
        wanted: set[int],
        text: Tensor | None = None,
    ) -> SharedTokens:
        """Run blocks, keeping the outputs of those that are wanted later on."""
        tokens, pooled, outputs = state.tokens, state.pooled, dict(state.outputs)
        resblocks = self.visual.transformer.resblocks
        for index in blocks:
            block, bypass, mask = resblocks[index], None, None
            if self.prompts is not None:
                tokens = self.prompts.before(index, tokens)
            held = 0 if self.prompts is None else self.prompts.count(index)
            if self.spectral is not None:
                tokens = self.spectral.before(index, tokens, held, state.grid)
            if self.class_prompt is not None:
                tokens = self.class_prompt.enter(index, tokens, text)
            if self.low_rank is not None:
                bypass = self.low_rank[index](tokens)
            if self.extra_tokens is not None:
                mask = self.extra_tokens.attention_mask(
                    state.grid, held, tokens.device, state.assigned
                )
            if index == self.num_blocks - 1 and not self._last_is_vanilla:
                tokens, pooled = self._run_last(block, tokens, state.grid, mask)
            else:
                tokens = pooled = run_block(block, tokens, mask)
            if bypass is not None:
                shared = pooled is tokens
                tokens = tokens + bypass
                pooled = tokens if shared else pooled + bypass[:, : pooled.shape[1]]
            if index in wanted:
                outputs[index] = tokens[:, : tokens.shape[1] - self._num_extra]
        return SharedTokens(tokens, pooled, state.grid, outputs, state.assigned)

    def _whole_mask(self, foreground: Tensor, grid: tuple[int, int]) -> Tensor:
        """Pad a mask as its image is padded."""
        mask = whole_patches(foreground.float(), self.patch_size, self.grid_mode)
        if tuple(size // self.patch_size for size in mask.shape[1:]) != grid:
            raise ValueError(
                f'foreground is {tuple(foreground.shape)}, expected the size of the '
                f'images, which have {grid[0]}x{grid[1]} patches'
            )
        return mask


def _to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Turn the patches, the last tokens, into a map: ``(N, L, C) -> (N, C, h, w)``."""
    patches = tokens[:, -grid[0] * grid[1] :]
    return patches.transpose(1, 2).unflatten(2, grid)
