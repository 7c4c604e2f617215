"""tools/convert_checkpoint.py on a checkpoint laid out as CaGNet's official ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

from zs3_mmseg.datasets.splits import get_split
from zs3_mmseg.engine.converters.cagnet import official_order
from zs3_mmseg.utils.checkpoint import load_into, safe_load

#: ResNet-50 with a sixteenth of the width, and modules to it.
BASE, CHANNELS, MIDDLE, HIDDEN, VECTOR = 4, 6, 5, 7, 8
BLOCKS = (3, 4, 6, 3)
STRIDES, DILATIONS = (1, 2, 1, 1), (1, 1, 2, 4)
GENERATOR = (VECTOR + CHANNELS, 9, 8, 7, 6, 5, CHANNELS)


class Recorder:
    """Makes weights under official names as they are asked for."""

    def __init__(self) -> None:
        self.state: dict[str, Tensor] = {}
        self.generator = torch.Generator().manual_seed(0)

    def draw(self, *shape: int) -> Tensor:
        return torch.randn(shape, generator=self.generator)

    def conv(self, name: str, out: int, inp: int, side: int, bias: bool) -> None:
        scale = (1 / (inp * side * side)) ** 0.5
        self.state[f'{name}.weight'] = scale * self.draw(out, inp, side, side)
        if bias:
            self.state[f'{name}.bias'] = 0.1 * self.draw(out)

    def unit(self, name: str, out: int, inp: int, side: int) -> None:
        """A convolution and its norm."""
        self.conv(f'{name}.conv', out, inp, side, False)
        self.state[f'{name}.bn.weight'] = 1 + 0.1 * self.draw(out)
        self.state[f'{name}.bn.bias'] = 0.1 * self.draw(out)
        self.state[f'{name}.bn.running_mean'] = 0.1 * self.draw(out)
        self.state[f'{name}.bn.running_var'] = 1 + 0.1 * self.draw(out).abs()
        self.state[f'{name}.bn.num_batches_tracked'] = torch.tensor(7)


def official_state(classes: int) -> dict[str, Tensor]:
    """Random weights under the names of the official model."""
    made, trunk = Recorder(), 'back.scale.'
    made.unit(f'{trunk}layer1.conv1', BASE, 3, 7)
    wide = BASE
    for stage, blocks in enumerate(BLOCKS):
        inner = BASE * 2**stage
        for block in range(1, blocks + 1):
            name = f'{trunk}layer{stage + 2}.block{block}'
            made.unit(f'{name}.reduce', inner, wide, 1)
            made.unit(f'{name}.conv3x3', inner, inner, 3)
            made.unit(f'{name}.increase', 4 * inner, inner, 1)
            if block == 1:
                made.unit(f'{name}.proj', 4 * inner, wide, 1)
            wide = 4 * inner
    for number in range(4):
        made.conv(f'{trunk}aspp.stages.c{number}', CHANNELS, wide, 3, True)
    for name, out, inp, side in (
        ('contextual1', MIDDLE, CHANNELS, 3),
        ('contextual2', MIDDLE, MIDDLE, 3),
        ('contextual3', MIDDLE, MIDDLE, 3),
        ('fc_1', 3, 3 * MIDDLE, 3),
        ('contextualpool', CHANNELS, 3 * MIDDLE, 1),
        ('contextuallocalmu', CHANNELS, CHANNELS, 3),
        ('contextuallocalsigma', CHANNELS, CHANNELS, 3),
    ):
        made.conv(f'{trunk}{name}.conv', out, inp, side, False)
    made.conv('dis.fc.conv', HIDDEN, CHANNELS, 1, True)
    made.conv('dis.pred', 1, HIDDEN, 1, True)
    made.conv('dis.cls', classes + 1, HIDDEN, 1, True)
    for number in range(6):
        last = number == 5
        name = f'gen.mlp.{number}' + ('' if last else '.conv')
        made.conv(name, GENERATOR[number + 1], GENERATOR[number], 1, True)
    made.state['Em_vis.weight'] = made.draw(256, VECTOR)
    made.state['Em_all.weight'] = made.draw(classes, VECTOR)
    return made.state


def official_scores(state: dict[str, Tensor], image: Tensor) -> Tensor:
    """Compute the test's class scores from the definition, with official names."""
    trunk = 'back.scale.'

    def conv(x: Tensor, name: str, dilation: int = 1, stride: int = 1) -> Tensor:
        weight = state[f'{name}.weight']
        padding = dilation * (weight.shape[-1] // 2)
        bias = state.get(f'{name}.bias')
        return F.conv2d(x, weight, bias, stride, padding, dilation)

    def unit(x: Tensor, name: str, *how: int) -> Tensor:
        keys = ('running_mean', 'running_var', 'weight', 'bias')
        norm = (state[f'{name}.bn.{key}'] for key in keys)
        return F.batch_norm(conv(x, f'{name}.conv', *how), *norm)

    x = unit(image, f'{trunk}layer1.conv1', 1, 2).relu()
    x = F.max_pool2d(x, 3, 2, 1, ceil_mode=True)
    for stage, blocks in enumerate(BLOCKS):
        for block in range(1, blocks + 1):
            name = f'{trunk}layer{stage + 2}.block{block}'
            stride = STRIDES[stage] if block == 1 else 1
            y = unit(x, f'{name}.reduce', 1, stride).relu()
            y = unit(y, f'{name}.conv3x3', DILATIONS[stage]).relu()
            y = unit(y, f'{name}.increase')
            if block == 1:
                x = unit(x, f'{name}.proj', 1, stride)
            x = (x + y).relu()
    rates = enumerate((6, 12, 18, 24))
    h = sum(conv(x, f'{trunk}aspp.stages.c{number}', rate) for number, rate in rates)
    first = conv(h.sigmoid(), f'{trunk}contextual1.conv').relu()
    second = conv(first, f'{trunk}contextual2.conv', 2).relu()
    third = conv(second, f'{trunk}contextual3.conv', 5).relu()
    scales = [first, second, third]
    weights = conv(torch.cat(scales, 1), f'{trunk}fc_1.conv').relu().sigmoid()
    scales = [scale * weights[:, [n]] for n, scale in enumerate(scales)]
    q = conv(torch.cat(scales, 1), f'{trunk}contextualpool.conv').relu()
    z = conv(q, f'{trunk}contextuallocalmu.conv')
    features = (h + h * z.sigmoid()).sigmoid()
    return conv(conv(features, 'dis.fc.conv').relu(), 'dis.cls')


def save(folder: Path, state: dict[str, Tensor]) -> None:
    torch.save(dict(iteration=5, state_dict=state), folder / 'official.pth')


def convert(run_tool: Any, folder: Path, split: str = 'voc12_15_5') -> Any:
    arguments = ['cagnet', 'official.pth', 'ours.pth', '--split', split]
    return run_tool('convert_checkpoint.py', *arguments, folder=folder)


@pytest.mark.parametrize('name', ['voc12_15_5', 'cagnet_context33', 'cocostuff_167_15'])
def test_the_model_of_the_report_computes_the_official_scores(
    name: str, run_tool: Any, tmp_path: Path
) -> None:
    split = get_split(name)
    state = official_state(len(split.classes))
    save(tmp_path, state)
    finished = convert(run_tool, tmp_path, name)
    assert finished.status == 0, finished.output
    for line in ('2 dropped', '0 UNKNOWN', '0 MISSING', '0 OF ANOTHER SHAPE'):
        assert line in finished.output

    text = finished.output[finished.output.index('model = dict(') :]
    (tmp_path / 'model.py').write_text(text[: text.index('\nWritten')])
    init_default_scope('mmseg')
    config = Config.fromfile(tmp_path / 'model.py').model
    source = dict(type='tensor', path='none.npy')
    bank = dict(type='ClassEmbeddingBank', source=source)
    config.update(type='CaGNet', split=name, setting='inductive', class_embeddings=bank)
    model = MODELS.build(config).eval()
    content = safe_load(tmp_path / 'ours.pth')
    load_into(model, content)
    classes = content['meta']['dataset_meta']['classes']
    assert classes == list(split.classes)

    image = torch.randn(1, 3, 66, 50, generator=torch.Generator().manual_seed(1))
    expected = official_scores(state, image)
    with torch.no_grad():
        scores = model.decode_head(model.extract_feat(image))
    places = [*(official_order(split).index(n) for n in classes), len(classes)]
    torch.testing.assert_close(scores, expected[:, places], rtol=1e-4, atol=1e-5)
    theirs = state['gen.mlp.5.weight']
    assert torch.equal(model.generator.output.weight, theirs)


def test_rows_of_coco_stuff_stand_in_the_order_of_the_release() -> None:
    split = get_split('cocostuff_167_15')
    order = [split.classes.index(name) for name in official_order(split)]
    assert order[:4] == [0, 1, 2, 4]
    assert order[155:167] == [3, 21, 38, 45, 51, 61, 75, 81, 93, 129, 136, 139]
    assert order[167:] == [*split.unseen_indices]
    assert sorted(order) == [*range(182)]


@pytest.mark.parametrize(
    ('change', 'status', 'message'),
    [
        ('lost', 1, '1 MISSING in the source\n  decode_head.discriminator.shared.bias'),
        ('added', 1, '1 UNKNOWN in the source\n  dis.novel\n'),
        ('other split', 2, "has 20 classes, but split 'cagnet_context33' 33"),
    ],
)
def test_nothing_is_guessed(
    change: str, status: int, message: str, run_tool: Any, tmp_path: Path
) -> None:
    state = official_state(20)
    if change == 'lost':
        del state['dis.fc.conv.bias']
    elif change == 'added':
        state['dis.novel'] = torch.ones(1)
    save(tmp_path, state)
    split = 'cagnet_context33' if change == 'other split' else 'voc12_15_5'
    finished = convert(run_tool, tmp_path, split)
    assert finished.status == status, finished.output
    assert message in finished.output
    assert not (tmp_path / 'ours.pth').exists()
