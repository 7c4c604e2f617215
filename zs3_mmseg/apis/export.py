"""A segmentor as one graph: pictures and class embeddings in, scores out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from zs3_mmseg.models.backbones.blocks import whole_patches
from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.resize import cut_maps
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder
from zs3_mmseg.utils.config_check import ConfigError
from zs3_mmseg.utils.names import type_name

from .pipeline import find_test_pipeline

#: What a graph takes and gives, in this order.
INPUTS = ('images', 'embeddings', 'seen')
OUTPUT = 'scores'
#: Up to what difference of its scores a file counts as the same as the model.
TOLERANCE = 1e-4
# The example that a graph is traced with. Sizes that are special in any way (1, equal
# to each other or to the tower's own, whole patches) would become part of the graph.
_IMAGES, _CLASSES, _SIZE = 2, 5, (70, 93)


class ScoreGraph(nn.Module):
    """The way from pictures to scores, with the classes as an input.

    Args:
        model: a segmentor whose head reads one row of embeddings for each class.

    Raises:
        ConfigError: for models that look at pictures in loops, at several rows of a
            class, or at windows; the message names the key.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: ZeroShotEncoderDecoder) -> None:
        super().__init__()
        _require_exportable(model)
        self.model = model.eval()
        preprocessor: Any = model.data_preprocessor
        self.divisor = (preprocessor.test_cfg or {}).get('size_divisor')
        self.from_rgb = bool(preprocessor._channel_conversion)
        self.register_buffer('mean', preprocessor.mean.clone(), persistent=False)
        self.register_buffer('std', preprocessor.std.clone(), persistent=False)

    def forward(self, images: Tensor, embeddings: Tensor, seen: Tensor) -> Tensor:
        """Score pictures.

        Args:
            images: ``(N, 3, H, W)``, RGB values in 0..255, as the test pipeline of the
                config leaves them.
            embeddings: ``(K, D)``, a row for each class.
            seen: ``(K,)`` bool, True where a class had masks in training; read by
                calibrators.

        Returns:
            calibrated scores ``(N, K, H, W)``.
        """
        classes = torch.arange(seen.shape[0], device=seen.device)
        queries = ClassQueries(embeddings, classes, seen)
        scores = self.model.traced_scores(self.prepared(images), queries)
        return cut_maps(scores, (images.shape[2], images.shape[3]))

    def prepared(self, images: Tensor) -> Tensor:
        """Return pictures as the data preprocessor leaves them."""
        ordered = images if self.from_rgb else images.flip(1)
        inputs = (ordered - self.mean) / self.std
        if self.divisor is None:
            return inputs
        return whole_patches(inputs, self.divisor, 'pad')


def _require_exportable(model: ZeroShotEncoderDecoder) -> None:
    kind = type(model).__name__
    if not isinstance(model, ZeroShotEncoderDecoder) or hasattr(model, 'reads_prompts'):
        raise ConfigError(
            f'model.type is {kind!r}, and only a ZeroShotEncoderDecoder, which scores '
            'all classes of a picture at once, can be exported'
        )
    words, head = model.vocabulary, type(model.decode_head).__name__
    if not words.rows_needed:
        raise ConfigError(
            f'model.decode_head.type is {head!r}, which reads no class embeddings: its '
            'classes are fixed, and there is nothing to give the graph'
        )
    if words.prompts_per_row > 1 or words.has_tokens:
        raise ConfigError(
            'model.class_embeddings gives several rows for each name, and a graph '
            'takes one: only heads that read one row can be exported'
        )
    if getattr(model.decode_head, 'needs_image', False):
        raise ConfigError(
            f'model.decode_head.type is {head!r}, which reads pictures beside their '
            'features, and a graph does not hand them on: choose another head'
        )
    if model.test_cfg.get('mode', 'whole') != 'whole':
        raise ConfigError(
            f'model.test_cfg.mode is {model.test_cfg.mode!r}, which cuts windows, and '
            "a graph takes whole pictures: set model.test_cfg.mode='whole'"
        )
    looks = getattr(model.decode_head, 'region_classifier', None)
    for key, parts in (
        ('decode_head.region_classifier', [] if looks is None else [looks]),
        ('post_processors', model.post_processors),
    ):
        if len(parts):
            raise ConfigError(
                f'model.{key} ({type(parts[0]).__name__}) goes through the pictures '
                'one by one, which no graph can: leave it out'
            )
    preprocessor: Any = model.data_preprocessor
    if (preprocessor.test_cfg or {}).get('size') or preprocessor.pad_val:
        raise ConfigError(
            'model.data_preprocessor pads pictures to one size, or with another value '
            'than 0, and a graph takes any size: leave test_cfg.size and pad_val out'
        )


def export_program(model: ZeroShotEncoderDecoder) -> ExportedProgram:
    """Return the graph of a segmentor for any number of pictures, sizes and classes.

    Raises:
        ConfigError: see :class:`ScoreGraph`.
        ValueError: if torch cannot follow the model for every size.
    """
    graph = ScoreGraph(model)
    queries = model.current_queries()
    device, width = queries.embeddings.device, queries.embeddings.shape[1]
    draw = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(_IMAGES, 3, *_SIZE, generator=draw)
    rows = nn.functional.normalize(torch.randn(_CLASSES, width, generator=draw), dim=1)
    seen = torch.arange(_CLASSES) % 2 == 0
    example = tuple(tensor.to(device) for tensor in (images, rows, seen))
    any_size = Dim.DYNAMIC
    sizes = {0: any_size, 2: any_size, 3: any_size}
    dynamic = (sizes, {0: any_size}, {0: any_size})
    try:
        with torch.no_grad(), _plain_attention():
            return torch.export.export(graph, example, dynamic_shapes=dynamic)
    except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
        head = type(model.decode_head).__name__
        raise ValueError(
            f'torch.export cannot follow {head} for every size and number of classes: '
            f'{str(error).strip().splitlines()[0]}'
        ) from error


@contextmanager
def _plain_attention() -> Iterator[None]:
    """Keep torch's fused attention, which other runtimes do not know, out of graphs."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def export_onnx(
    model: ZeroShotEncoderDecoder,
    path: str | os.PathLike,
    program: ExportedProgram | None = None,
) -> None:
    """Write the graph of a segmentor as an ONNX file.

    Args:
        model: the segmentor.
        path: the file.
        program: its graph, if that was made already.

    Raises:
        ConfigError, ValueError: see :func:`export_program`.
        ImportError: if a package that writes the format is missing.
    """
    for package in ('onnx', 'onnxscript'):
        if find_spec(package) is None:
            raise ImportError(
                f'ONNX files need the package {package}: pip install '
                '"zs3_mmseg[export]"'
            )
    import onnx_ir

    written = torch.onnx.export(
        program or export_program(model),
        dynamo=True,
        verbose=False,
        input_names=INPUTS,
        output_names=(OUTPUT,),
    )
    assert written is not None  # with dynamo it is the graph
    width = model.current_queries().embeddings.shape[1]
    shapes = {
        'images': ('batch', 3, 'height', 'width'),
        'embeddings': ('classes', width),
        'seen': ('classes',),
        OUTPUT: ('batch', 'classes', 'height', 'width'),
    }
    graph = written.model.graph
    for value in (*graph.inputs, *graph.outputs):
        assert value.name is not None  # as they are named above
        value.shape = onnx_ir.Shape(shapes[value.name])
    written.save(os.fspath(path))


@torch.no_grad()
def check_onnx(model: ZeroShotEncoderDecoder, path: str | os.PathLike) -> float:
    """Return the largest difference of scores between an ONNX file and its model.

    Of random pictures in sizes that the graph was not traced with, and the current
    classes.

    Raises:
        ImportError: if onnxruntime is missing.
    """
    if find_spec('onnxruntime') is None:
        raise ImportError(
            'the file is checked with onnxruntime: pip install "zs3_mmseg[export]"'
        )
    import onnxruntime

    session = onnxruntime.InferenceSession(
        os.fspath(path), providers=['CPUExecutionProvider']
    )
    graph, queries = ScoreGraph(model), model.current_queries()
    draw, largest = torch.Generator().manual_seed(1), 0.0
    for shape in ((1, 3, 64, 96), (3, 3, 85, 50)):
        images = 255 * torch.rand(*shape, generator=draw)
        given = (images, queries.embeddings, queries.seen_mask)
        metas = [dict(ori_shape=shape[2:], img_shape=shape[2:])] * len(images)
        wanted = model.encode_decode(graph.prepared(images.to(graph.mean)), metas)
        wanted = wanted[..., : shape[2], : shape[3]]
        feed = {
            name: value.cpu().numpy() for name, value in zip(INPUTS, given, strict=True)
        }
        (found,) = session.run([OUTPUT], feed)
        largest = max(largest, float(np.abs(found - wanted.cpu().numpy()).max()))
    return largest


def write_classes(model: ZeroShotEncoderDecoder, path: str | os.PathLike) -> None:
    """Write the current classes as a graph takes them, a ``.npz`` of plain arrays.

    ``embeddings`` ``(K, D)`` float32, ``seen`` ``(K,)`` bool, ``names`` ``(K,)`` text,
    ``palette`` ``(K, 3)`` uint8, ``score_thr``, at which a single class is there, and
    ``scale``, the long and the short side that the test pipeline brings pictures to, if
    it has a ``Resize`` that keeps their shape.

    Raises:
        ValueError: if a class has several rows.
    """
    queries, words = model.current_queries(), model.vocabulary
    if len(queries.embeddings) != queries.num_classes:
        several = [name for name in words.names if '|' in name]
        raise ValueError(
            f'a graph takes one row for each class, and {several[0]!r} has several: '
            'set model.class_embeddings.reduce_synonyms=True, or leave synonyms out'
        )
    arrays: dict[str, Any] = {}
    for step in find_test_pipeline(model.cfg) if hasattr(model, 'cfg') else ():
        if type_name(step['type']) == 'Resize' and step.get('keep_ratio'):
            scale = step['scale']
            arrays['scale'] = np.array([max(scale), min(scale)])
    np.savez(
        Path(path),
        **arrays,
        embeddings=queries.embeddings.float().cpu().numpy(),
        seen=queries.seen_mask.cpu().numpy(),
        names=np.array(words.display_names),
        palette=np.array(words.palette, np.uint8),
        score_thr=np.float32(model.label_rule.score_thr),
    )
