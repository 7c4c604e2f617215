"""TagCLIP against the official code."""

from __future__ import annotations

import torch.nn.functional as F
from family import Recorded
from registry import GoldenFile, assert_close, check

from zs3_mmseg.engine.converters.zegclip_family import tagclip_rules

LOSSES = {
    'loss_mask': 'loss_mask',
    'loss_dice': 'loss_dice',
    'loss_trust': 'loss_disc',
    'acc_seg': 'acc_seg',
}


@check('tagclip_inductive', 'tagclip_transductive')
def segmentor(golden: GoldenFile) -> None:
    config = golden.json['config']
    tensors = golden.tensors()
    head, transductive = config['decode_head'], config['self_training']
    operators = head['operator'].split('_')
    layers = tuple(i for i, kind in enumerate(operators) if kind == 'a')
    leaking = 'unseen_location' if head['discriminate'] else 'inductive'
    options = dict(extra_query='trust', trust_weight=head['loss_decode']['disc_weight'])
    recorded = Recorded(
        golden,
        tagclip_rules(head['num_layers'], layers),
        head=dict(
            self_attn_layers=layers,
            identical_layers=False,
            xavier_start=True,
            **(options if head['discriminate'] else {}),
        ),
        losses={k: v for k, v in LOSSES.items() if f'train.decode.{v}' in tensors},
        model=dict(
            setting='transductive' if transductive else leaking,
            pseudo_labels=not transductive,
        ),
    )
    recorded.check_evaluation()
    if not head['discriminate']:
        recorded.check_training_step()
        return
    for mode in ('seen', 'unseen', 'both'):
        gate = dict(type='TrustGate', mode=mode)
        scores = recorded.scores(tensors['img'], [gate])
        assert_close(scores, tensors[f'eval.logits_weight_{mode}'], what=mode)
    outputs = recorded.check_training_step()
    trust = F.interpolate(
        outputs.trust, tensors['train.pred_disc'].shape[-2:], mode='bilinear'
    )
    assert_close(trust, tensors['train.pred_disc'], what='trusty query')
