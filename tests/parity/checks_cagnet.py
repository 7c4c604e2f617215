"""Contextual module, generator, losses and whole steps of CaGNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import torch
from registry import GoldenFile, assert_close, check
from torch import Tensor, nn

from mmengine.model import BaseModule
from mmseg.registry import MODELS

from zs3_mmseg.engine.converters.cagnet import CAGNET_RULES
from zs3_mmseg.models.decode_heads.cagnet_head import (
    ClassifyingDiscriminator,
    ContextualModule,
    nearest,
)
from zs3_mmseg.models.generators import CaGNetGenerator
from zs3_mmseg.models.losses import AdversarialLoss, ContentLoss
from zs3_mmseg.models.segmentors.cagnet import (
    CaGNet,
    Step,
    fused,
    mean_of_all,
    pseudo_labels,
    scaled,
)

#: What the recordings call the adversarial losses.
KINDS = {'lsgan': 'l1', 'gan': 'bce', 'wgan': 'wgan', 'wgangp': 'wgan_gp'}
RELEASED = dict(selector_relu=True, logvar_relu=True)


def tolerances(golden: GoldenFile) -> dict[str, float]:
    return dict(tolerance=golden.json['tolerance']['rtol'])


def assert_scalars(
    golden: GoldenFile, ours: Mapping[str, Any], recorded: Mapping[str, Any]
) -> None:
    """Compare those values that are recorded, by the tolerance of the JSON."""
    compared = ours.keys() & recorded.keys()
    assert compared
    for name in compared:
        torch.testing.assert_close(
            *(
                torch.as_tensor(side[name]).float().detach()
                for side in (ours, recorded)
            ),
            **golden.json['tolerance'],
            msg=lambda text, name=name: f'{name}: {text}',
        )


def cagnet_key(key: str) -> str:
    """Return our name of a weight that a recording names, with or without its part."""
    part = key.split('.')[0]
    if part in ('cm', 'fc_1') or part.startswith('contextual'):
        key = f'back.scale.{key.removeprefix("cm.")}'
    elif part == 'mlp':
        key = f'gen.{key}'
    elif part in ('fc', 'pred', 'cls'):
        key = f'dis.{key}'
    rule = next(r for r in CAGNET_RULES if re.fullmatch(r.pattern, key))
    return re.sub(rule.pattern, rule.replacement, key)


def load(module: nn.Module, official: Mapping[str, Tensor], prefix: str) -> None:
    """Load weights under official names into a part of the segmentor."""
    state = {cagnet_key(key).removeprefix(prefix): v for key, v in official.items()}
    module.load_state_dict(state)


@check('cagnet_context_module')
def context_module(golden: GoldenFile) -> None:
    config, t = golden.json['config'], golden.tensors()
    options = tolerances(golden)
    module = ContextualModule(config['channels'], config['mid'], **RELEASED)
    load(module, golden.state(), 'decode_head.context.')
    size = t['feature'].shape[2:]
    valid = nearest(t['mask'].long(), size).bool()

    def kl_of(context: Any) -> Tensor:
        return mean_of_all((context.kl * valid).sum(), valid.sum())

    context = module(t['feature'])
    assert_close(kl_of(context), t['eval.kl'], **options)
    assert_close(context.features, t['eval.augmented'], **options)
    assert_close(context.code, t['eval.latent'], **options)

    watched: dict[str, Tensor] = {}
    for name in ('selector', 'mean', 'logvar'):
        getattr(module, name).register_forward_hook(
            lambda _, inputs, output, name=name: watched.update({name: output})
        )
    context = module(t['feature'], t['train.eps'])
    assert_close(kl_of(context), t['train.kl'], **options)
    assert_close(context.features, t['train.augmented'], **options)
    assert_close(context.code, t['train.latent'], **options)
    weights = watched['selector'].relu().sigmoid()
    assert_close(weights, t['train.scale_weight'], **options)
    assert_close(watched['mean'], t['train.mu'], **options)
    assert_close(watched['logvar'].relu(), t['train.logvar'], **options)
    (100 * kl_of(context) + context.features.sum()).backward()
    gradients = {
        f'decode_head.context.{n}': p.grad for n, p in module.named_parameters()
    }
    compare_gradients(gradients, golden.state('grad.'))

    views = [
        module(scaled(t['feature'], scale), t[f'ms.eps{number}'])
        for number, scale in enumerate((1.0, 0.5, 0.75))
    ]
    for number, features in enumerate(fused(views)):
        assert_close(features, t[f'ms.out{number}'], what=f'scale {number}', **options)
    assert_close(kl_of(views[0]), t['ms.kl'], **options)


def compare_gradients(
    ours: Mapping[str, Tensor], official: Mapping[str, Tensor]
) -> None:
    assert official
    for key, reference in official.items():
        found = ours[cagnet_key(key)]
        found = torch.zeros_like(reference) if found is None else found
        assert_close(found, reference, 'gradient', what=key)


@check('cagnet_generator_forward')
def generator_forward(golden: GoldenFile) -> None:
    config, t = golden.json['config'], golden.tensors()
    inputs, *hidden, outputs = config['dims']
    half = inputs // 2
    generator = CaGNetGenerator(
        half,
        outputs,
        inputs - half,
        hidden_channels=hidden,
        dropout=config['dropout'],
        negative_slope=float(re.search(r'\((.*)\)', config['activation'])[1]),
    ).eval()
    load(generator, golden.state(), 'generator.')
    out = generator(t['input'][:, :half], t['input'][:, half:])
    assert_close(out, t['out'], **tolerances(golden))
    official, widths = 0, config['official_dims']
    for wide, narrow in pairwise(widths):
        official += (wide + 1) * narrow
    ours = CaGNetGenerator(600, 600)
    assert sum(p.numel() for p in ours.parameters()) == official
    assert official == config['official_parameter_count']


@check('cagnet_losses')
def losses(golden: GoldenFile) -> None:
    config, t = golden.json['config'], golden.tensors()
    options = tolerances(golden)
    labels = t['gt'].long()
    valid = labels != 255
    content = ContentLoss('mmd', grouping='run', bandwidths=config['mmd_sigma'])
    made = t['pred'].clone().requires_grad_()
    total, count = content(made, t['target'], labels)
    assert count == golden.json['scalars']['mmd_runs']
    assert valid.sum() == golden.json['scalars']['mmd_valid_pixels']
    loss = mean_of_all(total, count)
    loss.backward()
    assert_close(loss, t['mmd.loss'], **options)
    assert_close(made.grad, t['mmd.grad'], 'gradient', **options)
    for name, one, other in (('ab', 'a', 'b'), ('a2b2', 'a2', 'b2'), ('aa', 'a', 'a')):
        value = content.of_sets(t[f'set.{one}'], t[f'set.{other}'])
        assert_close(value, t[f'set.mmd_{name}'], what=f'sets {name}', **options)
    for kind in ('l1', 'mse'):
        value = mean_of_all(*ContentLoss(kind)(t['pred'], t['target'], labels))
        assert_close(value, t[f'content_{kind}'], **options)

    discriminator = ClassifyingDiscriminator(
        config['channels'], config['fc'], config['num_classes']
    ).eval()
    load(discriminator, golden.state(), 'decode_head.discriminator.')
    real, logits = discriminator(t['target'])
    fake, _ = discriminator(t['pred'])
    assert_close(real.sigmoid(), t['gan.prob'], **options)
    for name, kind in KINDS.items():
        game = AdversarialLoss(kind, penalty=10)
        values = dict(
            d_real=game.real(real)[:, 0][valid].mean(),
            d_fake=game.fake(fake)[:, 0][valid].mean(),
            g=game.real(fake)[:, 0][valid].mean(),
            gp=game.gradient_penalty(
                lambda features: discriminator(features)[0],
                t['target'],
                t['pred'],
                valid,
                t['wgangp.alpha'],
            ).mean(),
        )
        values['d_total'] = values['d_real'] + values['d_fake'] + values['gp']
        ours = {f'{name}.{key}': value for key, value in values.items()}
        assert_scalars(golden, ours, t)
    entropy = nn.functional.cross_entropy(logits, labels, ignore_index=255)
    assert_close(entropy, t['cls.loss'], **options)
    assert_close(logits, t['cls.logits'], **options)
    predicted = logits.argmax(dim=1)
    assert torch.equal(predicted, t['cls.pred'].long())
    assert_close((predicted == labels)[valid].float().mean(), t['cls.acc'], **options)


@MODELS.register_module()
class IdentityTrunk(BaseModule):
    """The image is the feature map."""

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (image,)


class RecordedDraws:
    """The draws of a recorded step, in their order."""

    def __init__(self, normals: list[Tensor], labels: Tensor | None = None) -> None:
        self.normals = normals
        self.drawn = labels

    def normal(self, like: Tensor) -> Tensor:
        noise = self.normals.pop(0)
        assert noise.shape == like.shape
        return noise

    def labels(self, shares: Tensor, shape: Any) -> Tensor:
        self.shares = shares
        assert self.drawn.shape == shape
        return self.drawn.long()

    def mixing(self, like: Tensor) -> Tensor:
        return torch.rand(len(like), 1, 1, 1)


def recorded_model(config: Mapping[str, Any], rows: Tensor) -> CaGNet:
    seen, count = config['seen'], config['seen'] + config['unseen']
    hp, names = config['hp'], [f'class {number}' for number in range(count)]
    common = dict(
        kl=hp['lambda_B_KLD'],
        trunk_real=hp['lambda_B_cls'],
        adversarial=hp['lambda_G_GAN'],
        content=hp['lambda_G_Content'],
        classifier_real=hp['lambda_D_cls_real'],
        classifier_fake=hp['lambda_D_cls_fake'],
        generator_fake=hp['lambda_G_cls'],
    )
    bank = SimpleNamespace(
        dim=rows.shape[1],
        embed=lambda names: SimpleNamespace(
            embeddings=rows, query_to_class=torch.arange(len(rows))
        ),
    )
    return CaGNet(
        backbone=dict(type='IdentityTrunk'),
        decode_head=dict(
            type='CaGNetHead',
            in_channels=config['channels'],
            channels=config['channels'],
            num_classes=count,
            dilations=(),
            context=dict(mid_channels=config['mid'], **RELEASED),
            hidden_channels=config['fc'],
            dropout_ratio=0.0,
            background_output=config['num_outputs'] > count,
        ),
        generator=dict(
            hidden_channels=config['gen_mid'], dropout=[0.0] * len(config['gen_mid'])
        ),
        content={
            'MMDLoss': dict(kind='mmd', grouping='run'),
            'L1Loss': dict(kind='l1'),
            'MSELoss': dict(kind='mse'),
        }[hp['content_loss']],
        adversarial=dict(
            kind=KINDS[hp['gan_type'].replace('-', '')], penalty=hp['lambda_D_gp']
        ),
        loss_weights=dict(
            joint=common,
            generated=dict(
                classifier_fake=hp['lambda_D_cls_fake_transfer'],
                generator_fake=hp['lambda_G_cls_transfer'],
            ),
        ),
        unseen_weight=config['gen_unseen_rate'] + 1,
        class_embeddings=bank,
        split=dict(name='golden', classes=names, unseen=names[seen:]),
        setting='inductive',
    )


@check('cagnet_full_step')
def full_step(golden: GoldenFile) -> None:
    config, t = golden.json['config'], golden.tensors()
    scalars, options = golden.json['scalars'], tolerances(golden)
    model = recorded_model(config, t['embedding'])
    parameters = dict(model.named_parameters())
    state = {cagnet_key(key): value for key, value in golden.state().items()}
    assert state.keys() == parameters.keys()
    model.load_state_dict(state, strict=False)
    model.train()
    made: list[Tensor] = []
    model.generator.register_forward_hook(lambda *call: made.append(call[2]))

    model.draws = RecordedDraws([t[f'step1.eps{number}'] for number in range(3)])
    views = model.views(t['feature'])
    assert_close(views[0].features, t['step1.real'], **options)
    assert_close(views[0].code, t['step1.latent'], **options)
    small = nearest(t['gt'].long(), views[0].features.shape[2:])
    assert torch.equal(small, t['step1.gt_small'].long())
    totals, logs = model.real_losses(Step.JOINT, views, t['gt'].long())
    assert_close(made[0], t['step1.fake'], **options)
    weights, expected = model.loss_weights[Step.JOINT], scalars['step1']
    values = dict(
        G=totals['generator'],
        G_GAN=weights.adversarial * logs['loss_g_adversarial'],
        G_content=weights.content * logs['loss_g_content'],
        G_cls=weights.generator_fake * logs['loss_ce_fake'],
        B=totals['segmentor'],
        B_KLD=weights.kl * logs['loss_kl'],
        B_cls=weights.trunk_real * logs['loss_ce_real'],
        D=totals['classifier'],
        D_real=logs['loss_d_real'],
        D_fake=logs['loss_d_fake'],
        D_cls_real=weights.classifier_real * logs['loss_ce_real'],
        D_cls_fake=weights.classifier_fake * logs['loss_ce_fake'],
        cls_real=logs['loss_ce_real'],
        cls_fake=logs['loss_ce_fake'],
        acc_real=logs['acc_real'],
        acc_fake=logs['acc_fake'],
    )
    assert_scalars(golden, values, expected)
    for part, letter in (('classifier', 'D'), ('segmentor', 'B'), ('generator', 'G')):
        official = golden.state(f'step1.grad_{letter}.')
        names = [cagnet_key(key) for key in official]
        found = torch.autograd.grad(
            totals[part], [parameters[n] for n in names], retain_graph=True
        )
        compare_gradients(dict(zip(names, found, strict=True)), official)

    drawn = RecordedDraws([t['step2.noise']], t['step2.gt'])
    model.draws = drawn
    totals, logs = model.generated_losses(t['feature'])
    assert_close(made[-1], t['step2.fake'], **options)
    assert_close(drawn.shares, scalars['prior'], **options)
    values = dict(
        G=totals['generator'],
        D=totals['classifier'],
        cls_fake=logs['loss_ce_fake'],
        acc_fake=logs['acc_fake'],
    )
    assert_scalars(golden, values, scalars['step2'])

    with torch.no_grad():
        logits = model.eval().decode_head((t['feature'],))
    assert torch.equal(logits.argmax(dim=1), t['test.pred'].long())
    ranking = logits.argsort(dim=1, descending=True)
    assert torch.equal(ranking.permute(0, 2, 3, 1), t['test.sorted_classes'].long())
    unseen = torch.tensor(model.split.unseen_indices)
    of_random = t['st2.sorted_classes'].permute(0, 3, 1, 2).long()
    for name, scores in (('st', logits), ('st2', -of_random.argsort(dim=1).float())):
        filled = pseudo_labels(
            scores, t[f'{name}.label_in'].long(), unseen, config['top_p'], 255
        )
        assert torch.equal(filled, t[f'{name}.label_out'].long()), name
