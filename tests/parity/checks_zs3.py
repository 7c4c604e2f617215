"""Generators, losses and whole training iterations of ZS3Net."""

from __future__ import annotations

import math
from contextlib import nullcontext

import torch
from registry import GoldenFile, assert_close, check
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.models.decode_heads.decode_head import BaseDecodeHead
from mmseg.models.utils import resize
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.datasets.splits import make_split
from zs3_mmseg.engine.generative.classifier import ClassifierTap, ClassWeights
from zs3_mmseg.engine.generative.plan import WHOLE_IMAGE, Phase
from zs3_mmseg.engine.generative.retraining import Retraining
from zs3_mmseg.engine.generative.synthesis import (
    GraphSynthesis,
    PixelSynthesis,
    SynthesisFacts,
)
from zs3_mmseg.models.generators import (
    GMMNGenerator,
    GraphContextGenerator,
    label_graph,
)
from zs3_mmseg.models.losses.features import ZS3_BANDWIDTHS, MMDLoss


def official_mmd(config: dict) -> MMDLoss:
    return MMDLoss(config['sigma'], official=True)


def build_gmmn(config: dict, **options: object) -> GMMNGenerator:
    return GMMNGenerator(
        config['embed_dim'],
        config['feature_dim'],
        config['noise_dim'],
        hidden_channels=config['hidden'],
        **options,
    )


@check('zs3_gmmn_forward')
def generator_forward(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    generator = build_gmmn(config, semantic_reconstruction=bool(config.get('sr')))
    generator.load_state_dict(golden.state())
    inputs = tensors['embedding'], tensors['noise']
    assert_close(generator.eval()(*inputs), tensors['out'])
    if 'semantic' in tensors:
        assert_close(generator.reconstruct(tensors['out']), tensors['semantic'])
    if 'train.out' in tensors:
        # The recorded mask in place of the drawn one.
        kept = tensors['train.dropout_keep'] / (1 - config['dropout_p'])
        dropout = generator.train().model[2]
        assert dropout.p == config['dropout_p']
        dropout.forward = lambda hidden: hidden * kept
        assert_close(generator(*inputs), tensors['train.out'])


@check('zs3_gmmn_steps')
def generator_steps(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    generator = build_gmmn(config, dropout=0.0)
    generator.load_state_dict(golden.state('state.init.'))
    optimizer = torch.optim.Adam(generator.parameters(), lr=config['lr'])
    criterion = official_mmd(config)
    for step in range(config['steps']):
        real, noise, rows = (
            tensors[f'step{step}.{name}'] for name in ('real', 'noise', 'index')
        )
        embedding = tensors['class_embedding'][tensors['step_class'][step]]
        generated = generator(embedding.expand(len(noise), -1), noise)
        loss = criterion(generated[rows], real[rows])
        assert_close(loss, tensors['losses'][step], what=f'loss of step {step}')
        optimizer.zero_grad()
        loss.backward()
        if step == 0:
            for name, parameter in generator.named_parameters():
                reference = tensors[f'grad.step0.{name}']
                assert_close(parameter.grad, reference, 'gradient', what=name)
        optimizer.step()
    compare_weights(generator, golden.state('state.final.'))


def compare_weights(module: nn.Module, reference: dict[str, Tensor]) -> None:
    state = module.state_dict()
    assert state.keys() == reference.keys()
    for name, value in reference.items():
        assert_close(state[name], value, what=name)


@check('zs3_mmd')
def mmd(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    official, sound = official_mmd(config), MMDLoss(config['sigma'])
    for name, case in golden.json['scalars'].items():
        if f'{name}.real' not in tensors:
            continue
        real = tensors[f'{name}.real']
        generated = tensors[f'{name}.gen'].clone().requires_grad_()
        loss = official(generated, real)
        loss.backward()
        assert_close(loss, tensors[f'{name}.loss'], what=name)
        assert_close(generated.grad, tensors[f'{name}.grad_gen'], 'gradient', what=name)
        assert_close(sound(generated, real), case['sqrt_of_sum_correct'], what=name)
        for bandwidth, value in zip(
            config['sigma'], case['mmd2_per_kernel_correct'], strict=True
        ):
            single = MMDLoss([bandwidth], root=False)(generated, real)
            # Each mean is at most 1, so that is the scale of its rounding.
            assert math.isclose(single.item(), value, abs_tol=5e-6), (name, bandwidth)
    for name in (key for key in tensors if key.startswith('identical')):
        rows = tensors[name].clone().requires_grad_()
        loss = sound(rows, tensors[name])
        loss.backward()
        assert loss.isfinite()
        assert rows.grad.isfinite().all()


@check('zs3_weighted_ce')
def weighted_cross_entropy(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    logits = tensors['logits'].clone().requires_grad_()
    target = tensors['target'].long()
    criterion = MODELS.build(
        dict(
            type='CrossEntropyLoss',
            class_weight=tensors['class_weight'].tolist(),
            # The official code divides the mean by the batch size once more.
            loss_weight=1 / len(target),
        )
    )
    loss = criterion(logits, target, ignore_index=255)
    loss.backward()
    assert_close(loss, tensors['loss'])
    assert_close(logits.grad, tensors['grad_logits'], 'gradient')


@check('zs3_gcn_graph')
def graph_context(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    generator = GraphContextGenerator(
        config['embed_dim'],
        config['feature_dim'],
        config['noise_dim'],
        hidden_channels=config['hidden'],
    ).eval()
    generator.load_state_dict(golden.state())
    criterion = MMDLoss(config.get('sigma', ZS3_BANDWIDTHS), official=True)
    for number in range(len(golden.json['graphs'])):
        case = {
            key.removeprefix(f'g{number}.'): value
            for key, value in tensors.items()
            if key.startswith(f'g{number}.')
        }
        graph = label_graph(case['label'])
        assert_close(graph.node_map, case['node_id'], tolerance=0)
        assert_close(graph.labels, case['node_label'], tolerance=0)
        assert_close(graph.adjacency, case['adjacency'], tolerance=0)
        real = case['feature'].flatten(1)[:, graph.first_pixels].T
        assert_close(real, case['node_feature'], tolerance=0)
        known = graph.labels < config['num_classes']
        embeddings = case['class_embedding'][graph.labels * known]
        assert_close(embeddings, case['node_embedding'], tolerance=0)
        if 'gcn_out' not in case:
            continue
        generated = generator(embeddings, case['noise'], graph.adjacency)
        assert_close(generated, case['gcn_out'])
        loss = criterion(generated, real)
        assert_close(loss, case['gcn_mmd_loss'])
        generator.zero_grad()
        loss.backward()
        for name, parameter in generator.named_parameters():
            assert_close(parameter.grad, case[f'grad.{name}'], 'gradient', what=name)


class RecordedDraws:
    """Noise and rows of one recorded iteration."""

    def __init__(self, tensors: dict[str, Tensor], iteration: int) -> None:
        self.tensors = tensors
        self.iteration = iteration

    def noise(self, image: int, label: int, count: int, dim: int) -> Tensor:
        kind = 'gcn_noise' if label == WHOLE_IMAGE else f'cls{label}.noise'
        noise = self.tensors[f'iter{self.iteration}.img{image}.{kind}']
        assert noise.shape == (count, dim)
        return noise

    def rows(self, image: int, label: int, count: int, size: int) -> Tensor:
        rows = self.tensors[f'iter{self.iteration}.img{image}.cls{label}.index']
        assert len(rows) == size
        return rows.long()

    def dropout(self, image: int, label: int) -> nullcontext:
        return nullcontext()


@MODELS.register_module()
class RememberingMMD(MMDLoss):
    """Keeps the value of each call."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.values: list[float] = []

    def forward(self, generated: Tensor, real: Tensor) -> Tensor:
        loss = super().forward(generated, real)
        self.values.append(loss.item())
        return loss


class FeatureHead(BaseDecodeHead):
    """A head whose features are its input."""

    def forward(self, inputs: tuple[Tensor]) -> Tensor:
        return self.cls_seg(inputs[0])


class RecordedRun:
    """The hook's parts with the weights and draws of a recording."""

    def __init__(self, golden: GoldenFile) -> None:
        self.config = config = golden.json['config']
        self.tensors = golden.tensors()
        self.head = FeatureHead(
            in_channels=config['feature_dim'],
            channels=config['feature_dim'],
            num_classes=config['num_classes'],
            dropout_ratio=0,
            align_corners=True,
            # The official code divides by the batch size once more.
            loss_decode=dict(type='CrossEntropyLoss', loss_weight=1 / config['B']),
        )
        self.head.conv_seg.load_state_dict(golden.state('state.init.conv_seg.'))
        names = [str(label) for label in range(config['num_classes'])]
        split = make_split('golden', names, [str(label) for label in config['unseen']])
        facts = SynthesisFacts(
            split, self.tensors['class_embedding'], config['feature_dim'], seed=0
        )
        synthesisers = [
            PixelSynthesis(
                self.generator('GMMNGenerator'),
                samples_per_class=config['batch_size_generator'],
                **self.training(),
            )
        ]
        if 'gcn_weight' in config:
            graph = self.generator('GraphContextGenerator')
            weight = config['gcn_weight']
            synthesisers.append(
                GraphSynthesis(graph, loss_weight=weight, **self.training())
            )
        weights = ClassWeights(
            self.head.loss_decode, split, config['unseen_weight'], 255
        )
        weights.apply()
        self.retraining = Retraining(
            self.head, facts, synthesisers, weights, decide_on='downsampled'
        )
        self.parts = dict(
            zip(('generator', 'generator_gcn'), synthesisers, strict=False)
        )
        for name, part in self.parts.items():
            part.trainer.generator.load_state_dict(golden.state(f'state.init.{name}.'))
        self.retraining.phase = Phase.INTERLEAVED
        self.retraining.training = True
        ClassifierTap(self.head, self.retraining).install()
        self.inputs: list[Tensor] = []
        self.logits: list[Tensor] = []
        self.head.conv_seg.register_forward_hook(self.watch)
        options = config['optimizer_classifier']
        self.optimizer = torch.optim.SGD(
            self.head.conv_seg.parameters(),
            lr=0.0,
            momentum=options['momentum'],
            weight_decay=options['weight_decay'],
        )

    def generator(self, kind: str) -> dict:
        config = self.config
        return dict(
            type=kind,
            noise_dim=config['noise_dim'],
            hidden_channels=config['hidden'],
            dropout=0.0,
        )

    def training(self) -> dict:
        config = self.config
        return dict(
            loss=dict(type='RememberingMMD', bandwidths=config['sigma'], official=True),
            generator_optimizer=dict(type='Adam', lr=config['lr_generator']),
            generator_step='class',
        )

    def watch(self, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
        self.inputs.append(inputs[0].detach())
        self.logits.append(output.detach())

    def iterate(self, iteration: int) -> dict[str, Tensor]:
        """Take one step; return the losses."""
        self.retraining.begin(RecordedDraws(self.tensors, iteration))
        samples = []
        for labels in self.tensors[f'iter{iteration}.label']:
            sample = SegDataSample()
            sample.gt_sem_seg = PixelData(data=labels.long()[None])
            samples.append(sample)
        self.inputs.clear()
        self.logits.clear()
        features = self.tensors[f'iter{iteration}.feature']
        losses = self.head.loss((features,), samples, {})
        lr = self.config['optimizer_classifier']['lr_per_iter'][iteration]
        self.optimizer.param_groups[0]['lr'] = lr
        self.optimizer.zero_grad()
        sum(value for name, value in losses.items() if 'loss' in name).backward()
        self.optimizer.step()
        return losses


@check('zs3_train_iters', 'zs3_train_iters_gcn')
def training_iterations(golden: GoldenFile) -> None:
    run = RecordedRun(golden)
    config, tensors = run.config, run.tensors
    for iteration in range(config['iters']):
        losses = run.iterate(iteration)
        where = f'iteration {iteration}'
        reference = tensors[f'iter{iteration}.classifier_input']
        assert_close(run.inputs[0], reference, what=f'classifier input, {where}')
        reference = tensors['classification_loss'][iteration]
        assert_close(losses['loss_ce'], reference, what=f'loss, {where}')
        if 'gcn_weight' in config:
            reference = tensors['gcn_classification_loss_unweighted'][iteration]
            loss = losses['loss_graph'] / config['gcn_weight']
            assert_close(loss, reference, what=f'graph loss, {where}')
        recorded = f'iter{iteration}.logits_upsampled_img0'
        if recorded in tensors:
            upsampled = resize(
                run.logits[0], config['label_hw'], mode='bilinear', align_corners=True
            )
            assert_close(upsampled[0], tensors[recorded], what=f'logits, {where}')
    draws = golden.json['draw_order']
    values = {
        'generator': [d['generator_loss'] for d in draws if 'generator_loss' in d],
        'generator_gcn': [
            n['gcn_loss'] for n in golden.json.get('gcn_nodes') or () if 'gcn_loss' in n
        ],
    }
    compare_weights(run.head.conv_seg, golden.state('state.final.conv_seg.'))
    for name, part in run.parts.items():
        assert_close(part.criterion.values, values[name], what=f'losses of {name}')
        reference = golden.state(f'state.final.{name}.')
        compare_weights(part.trainer.generator, reference)
