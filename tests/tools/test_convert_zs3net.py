"""tools/convert_checkpoint.py on a checkpoint laid out as ZS3Net's official ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from torch import Tensor

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.converters.zs3net import CONTEXT_ORDER
from zs3_mmseg.models.generators import GMMNGenerator, GraphContextGenerator
from zs3_mmseg.utils.checkpoint import load_into, safe_load

#: ResNet-50 with a twentieth of the width, and a decoder to it.
BASE, CHANNELS, DETAILS = 3, 10, 5
BLOCKS = (3, 4, 6, 3)
DILATIONS = {1: (1,) * 3, 2: (1,) * 4, 3: (1,) * 6, 4: (2, 4, 8)}


class Recorder:
    """Makes weights under official names as they are asked for."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def _draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def conv(self, name: str, out: int, inp: int, side: int) -> None:
        scale = (2 / (inp * side * side)) ** 0.5
        self.state[f'{name}.weight'] = scale * self._draw(out, inp, side, side)

    def norm(self, name: str, channels: int) -> None:
        self.state[f'{name}.weight'] = 1 + 0.1 * self._draw(channels)
        self.state[f'{name}.bias'] = 0.1 * self._draw(channels)
        self.state[f'{name}.running_mean'] = 0.1 * self._draw(channels)
        self.state[f'{name}.running_var'] = 1 + 0.1 * self._draw(channels).abs()
        self.state[f'{name}.num_batches_tracked'] = torch.tensor(7)


def official_state(num_classes: int) -> dict[str, Tensor]:
    """Random weights under the names of the official segmentor."""
    made = Recorder()
    made.conv('backbone.conv1', BASE, 3, 7)
    made.norm('backbone.bn1', BASE)
    wide = BASE
    for stage, blocks in enumerate(BLOCKS, start=1):
        inner = BASE * 2 ** (stage - 1)
        for block in range(blocks):
            name = f'backbone.layer{stage}.{block}'
            for number, (out, inp, side) in enumerate(
                ((inner, wide, 1), (inner, inner, 3), (4 * inner, inner, 1)), start=1
            ):
                made.conv(f'{name}.conv{number}', out, inp, side)
                made.norm(f'{name}.bn{number}', out)
            if block == 0:
                made.conv(f'{name}.downsample.0', 4 * inner, wide, 1)
                made.norm(f'{name}.downsample.1', 4 * inner)
            wide = 4 * inner
    for number, side in enumerate((1, 3, 3, 3), start=1):
        made.conv(f'aspp.aspp{number}.atrous_conv', CHANNELS, wide, side)
        made.norm(f'aspp.aspp{number}.bn', CHANNELS)
    made.conv('aspp.global_avg_pool.1', CHANNELS, wide, 1)
    made.norm('aspp.global_avg_pool.2', CHANNELS)
    made.conv('aspp.conv1', CHANNELS, 5 * CHANNELS, 1)
    made.norm('aspp.bn1', CHANNELS)
    made.conv('decoder.conv1', DETAILS, 4 * BASE, 1)
    made.norm('decoder.bn1', DETAILS)
    made.conv('decoder.last_conv.0', CHANNELS, CHANNELS + DETAILS, 3)
    made.norm('decoder.last_conv.1', CHANNELS)
    made.conv('decoder.last_conv.4', CHANNELS, CHANNELS, 3)
    made.norm('decoder.last_conv.5', CHANNELS)
    made.conv('decoder.pred_conv', num_classes, CHANNELS, 1)
    made.state['decoder.pred_conv.bias'] = made._draw(num_classes)
    return made.state


def official_logits(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """Compute DeepLabv3+ from its definition, with the official names at hand."""

    def conv(x: Tensor, name: str, stride: int = 1, dilation: int = 1) -> Tensor:
        weight = state[f'{name}.weight']
        padding = dilation * (weight.shape[-1] // 2)
        bias = state.get(f'{name}.bias')
        return F.conv2d(x, weight, bias, stride, padding, dilation)

    def norm(x: Tensor, name: str) -> Tensor:
        keys = ('running_mean', 'running_var', 'weight', 'bias')
        return F.batch_norm(x, *(state[f'{name}.{key}'] for key in keys))

    def both(x: Tensor, names: tuple[str, str], *how: int) -> Tensor:
        return F.relu(norm(conv(x, names[0], *how), names[1]))

    def grown(x: Tensor, size: torch.Size) -> Tensor:
        return F.interpolate(x, size, mode='bilinear', align_corners=True)

    x = both(image, ('backbone.conv1', 'backbone.bn1'), 2)
    x = F.max_pool2d(x, 3, 2, 1)
    for stage, blocks in enumerate(BLOCKS, start=1):
        for block in range(blocks):
            name = f'backbone.layer{stage}.{block}'
            stride = 2 if block == 0 and stage in (2, 3) else 1
            dilation = DILATIONS[stage][block]
            y = both(x, (f'{name}.conv1', f'{name}.bn1'))
            y = both(y, (f'{name}.conv2', f'{name}.bn2'), stride, dilation)
            y = norm(conv(y, f'{name}.conv3'), f'{name}.bn3')
            if block == 0:
                x = conv(x, f'{name}.downsample.0', stride)
                x = norm(x, f'{name}.downsample.1')
            x = F.relu(x + y)
        if stage == 1:
            details = x
    parts = [
        both(x, (f'aspp.aspp{n}.atrous_conv', f'aspp.aspp{n}.bn'), 1, rate)
        for n, rate in enumerate((1, 6, 12, 18), start=1)
    ]
    pooled = x.mean(dim=(2, 3), keepdim=True)
    pooled = both(pooled, ('aspp.global_avg_pool.1', 'aspp.global_avg_pool.2'))
    parts.append(grown(pooled, x.shape[2:]))
    x = both(torch.cat(parts, dim=1), ('aspp.conv1', 'aspp.bn1'))
    details = both(details, ('decoder.conv1', 'decoder.bn1'))
    x = torch.cat([grown(x, details.shape[2:]), details], dim=1)
    x = both(x, ('decoder.last_conv.0', 'decoder.last_conv.1'))
    x = both(x, ('decoder.last_conv.4', 'decoder.last_conv.5'))
    return grown(conv(x, 'decoder.pred_conv'), image.shape[2:])


def save(folder: Path, state: dict[str, Tensor]) -> None:
    content = dict(epoch=3, state_dict=state, optimizer={}, best_pred=0.4)
    torch.save(content, folder / 'official.pth.tar')


def convert(run_tool, folder: Path, *flags: str, split: str = 'voc12_zs3_4') -> Any:
    arguments = ['zs3net', 'official.pth.tar', 'ours.pth', '--split', split, *flags]
    return run_tool('convert_checkpoint.py', *arguments, folder=folder)


@pytest.mark.parametrize(
    ('split', 'order'),
    [
        ('voc12_zs3_4', get_split('voc12_zs3_4').classes),
        ('context_zs3_2', CONTEXT_ORDER),
    ],
)
def test_the_model_of_the_report_computes_the_official_scores(
    split: str, order: tuple[str, ...], run_tool, tmp_path: Path
) -> None:
    state = official_state(len(order))
    save(tmp_path, state)
    finished = convert(run_tool, tmp_path, split=split)
    assert finished.status == 0, finished.output
    for line in ('0 dropped', '0 UNKNOWN', '0 MISSING', '0 OF ANOTHER SHAPE'):
        assert line in finished.output

    text = finished.output[finished.output.index('model = dict(') :]
    (tmp_path / 'model.py').write_text(text[: text.index('\nWritten')])
    init_default_scope('mmseg')
    model = MODELS.build(Config.fromfile(tmp_path / 'model.py').model).eval()
    content = safe_load(tmp_path / 'ours.pth')
    assert load_into(model, content).clean
    classes = content['meta']['dataset_meta']['classes']
    assert classes == list(get_split(split).classes)
    assert len(content['meta']['dataset_meta']['palette']) == len(classes)

    image = torch.randn(2, 3, 70, 54, generator=torch.Generator().manual_seed(1))
    expected = official_logits(state, image)
    with torch.no_grad():
        scores = model.encode_decode(image, [dict(img_shape=(70, 54))] * 2)
    places = [order.index(name) for name in classes]
    torch.testing.assert_close(scores, expected[:, places], rtol=1e-4, atol=1e-4)


def test_generators_come_in_files_of_their_own(run_tool, tmp_path: Path) -> None:
    save(tmp_path, official_state(60))
    pixels = GMMNGenerator(7, 10, hidden_channels=4)
    graph = GraphContextGenerator(7, 10, hidden_channels=4)
    content = dict(
        epoch=3, state_dict=pixels.state_dict(), state_dict_GCN=graph.state_dict()
    )
    torch.save(content, tmp_path / 'official_generator.pth.tar')
    finished = convert(
        run_tool,
        tmp_path,
        *('--generator', 'official_generator.pth.tar'),
        *('--generator-out', 'generator.safetensors'),
        split='context_zs3_10',
    )
    assert finished.status == 0, finished.output
    for name, original in (('generator', pixels), ('generator_graph', graph)):
        state = load_file(tmp_path / f'{name}.safetensors')
        assert state.keys() == original.state_dict().keys()
        for key, value in original.state_dict().items():
            assert torch.equal(state[key], value), key
    assert "type='GraphContextGenerator'" in finished.output


@pytest.mark.parametrize(
    ('damage', 'expected'),
    [
        ('lost', '1 MISSING in the source\n  decode_head.bottleneck.0.bn.bias\n'),
        ('added', '1 UNKNOWN in the source\n  decoder.novel\n'),
    ],
)
def test_nothing_is_guessed(
    damage: str, expected: str, run_tool, tmp_path: Path
) -> None:
    state = official_state(21)
    if damage == 'lost':
        del state['aspp.bn1.bias']
    else:
        state['decoder.novel'] = torch.ones(1)
    save(tmp_path, state)
    finished = convert(run_tool, tmp_path)
    assert finished.status == 1, finished.output
    assert expected in finished.output
    assert not (tmp_path / 'ours.pth').exists()


@pytest.mark.parametrize(
    ('classes', 'flags', 'message'),
    [
        (60, [], "has 60 classes, but split 'voc12_zs3_4' 21"),
        (21, ['--generator', 'x.pth'], '--generator and --generator-out go together'),
        (0, [], 'no official ZS3Net segmentor: expected decoder.pred_conv.weight'),
    ],
)
def test_what_does_not_fit_is_named(
    classes: int, flags: list[str], message: str, run_tool, tmp_path: Path
) -> None:
    save(tmp_path, official_state(classes) if classes else {'a': torch.ones(1)})
    finished = convert(run_tool, tmp_path, *flags)
    assert finished.status == 2
    assert message in finished.output
