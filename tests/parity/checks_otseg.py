"""OTSeg's transport plan, attention and whole segmentor against the official code."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from checks_zegclip import (
    FixedRows,
    build_segmentor,
    check_evaluation,
    check_training_step,
    load_official,
    tensors_of,
)
from registry import GoldenFile, assert_close, check
from torch import Tensor

from zs3_mmseg.engine.converters import apply_rules
from zs3_mmseg.engine.converters.zegclip import zegclip_rules
from zs3_mmseg.models.class_embeddings.clip_text import resolve_templates
from zs3_mmseg.models.decode_heads.relation_decoder import ATTENTIONS, Layout
from zs3_mmseg.models.decode_heads.sinkhorn import sinkhorn
from zs3_mmseg.models.towers import resolve_architecture
from zs3_mmseg.models.towers.architectures import build_tokenizer

HEAD = dict(
    attention='sinkhorn',
    mask_from='plan',
    merge_layers='gate',
    score_path='sinkhorn',
)


@check('otseg_sinkhorn')
def transport_plan(golden: GoldenFile) -> None:
    tensors = golden.tensors()
    for name, case in golden.json['cases'].items():
        given = {key: tensors[f'{name}.{key}'] for key in ('cost', 'mu', 'nu', 'probe')}
        cost = given['cost'].requires_grad_()
        plan, rounds = sinkhorn(cost, given['mu'], given['nu'], eps=case['eps'])
        assert rounds == case['iterations'], name
        assert_close(plan, tensors[f'{name}.plan'], what=f'plan of {name}')
        (plan * given['probe']).sum().backward()
        recorded = tensors[f'{name}.grad_cost']
        assert_close(cost.grad, recorded, 'gradient', what=name)


@check('otseg_attention')
def attention(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    module = ATTENTIONS['sinkhorn'].attention(
        config['dim'], config['num_heads'], dropout=0.0, mask_from='plan'
    )
    module.load_state_dict(golden.state())
    theirs = tensors['query'].requires_grad_()  # (P, K, B, E)
    memory = tensors['memory'].requires_grad_()
    query = theirs.permute(2, 1, 0, 3).flatten(1, 2)
    layout = Layout((1, memory.shape[1]), rows=len(theirs))
    attended, masks = module(query, memory, layout)
    out = attended.unflatten(1, (-1, layout.rows)).permute(1, 2, 0, 3)
    assert_close(out, tensors['out'], what='attended')
    assert_close(masks, tensors['map'], what='masks')
    probed = (out * tensors['probe_out']).sum() + (masks * tensors['probe_map']).sum()
    probed.backward()
    assert_close(theirs.grad, tensors['grad_query'], 'gradient', what='query')
    assert_close(memory.grad, tensors['grad_memory'], 'gradient', what='memory')
    for name, parameter in module.named_parameters():
        assert_close(parameter.grad, tensors[f'grad.{name}'], 'gradient', what=name)


@check('otseg_inductive', 'otseg_transductive')
def segmentor(golden: GoldenFile) -> None:
    config, tensors = golden.json['config'], golden.tensors()
    rows = tensors['text_feat']
    names = [f'class{index}' for index in range(len(rows))]
    model = build_segmentor(config, names, FixedRows(names, rows), **HEAD)
    layers = config['decode_head']['num_layers']
    load_official(model, golden.state(), layers)
    check_evaluation(model, tensors)
    # The head sees all classes at once, however few are resized at a time.
    model.test_cfg.class_chunk = 1
    check_evaluation(model, tensors)
    check_inside(model, tensors)
    rules = zegclip_rules(layers)
    sources = apply_rules(golden.state(), rules, tensors_of(model)).sources
    masks = check_training_step(
        model, tensors, {old: new for new, old in sources.items()}
    )
    recorded = tensors['train.score_pred_masks']
    assert_close(at_size_of(recorded, masks[0]), recorded, what='score masks')


def at_size_of(recorded: Tensor, masks: Tensor) -> Tensor:
    return F.interpolate(masks, recorded.shape[-2:], mode='bilinear')


@torch.no_grad()
def check_inside(model: Any, tensors: dict[str, Tensor]) -> None:
    """Compare queries, every layer's attention, and both paths before the mixture."""
    head, seen = model.decode_head, {}
    parts = {'query': head.q_proj, 'last': head.decoder.matching}
    parts |= {str(i): layer.attn for i, layer in enumerate(head.decoder.layers)}
    handles = [
        part.register_forward_hook(
            lambda _, __, output, name=name: seen.update({name: output})
        )
        for name, part in parts.items()
    ]
    model.eval()
    queries = model.current_queries()
    maps, given = model._features(tensors['img'], queries)
    found = head._relate(maps, queries, given['global_token'], None)
    masks, score = found.masks, found.score
    logits = head.query_logits(
        maps, queries=queries, global_token=given['global_token']
    )
    for handle in handles:
        handle.remove()
    query = tensors['eval.query']
    assert_close(seen['query'].view_as(query), query, what='query')
    for index in range(len(head.decoder.layers)):
        attended, layer_masks = seen[str(index)]
        recorded = tensors[f'eval.layer{index}.attn_out']  # (C, P, B, E)
        ours = attended.unflatten(1, recorded.shape[:2]).permute(1, 2, 0, 3)
        assert_close(ours, recorded, what=f'layer {index}')
        assert_close(layer_masks, tensors[f'eval.layer{index}.attn_map'])
    last = tensors[f'eval.layer{len(head.decoder.layers)}.attn_map']
    assert_close(seen['last'], last, what='last layer')
    for name, ours in (('decoder', masks[-1]), ('score', score), ('pred', logits)):
        recorded = tensors[f'eval.{name}_masks']
        assert_close(at_size_of(recorded, ours), recorded, what=name)


@check('otseg_prompts')
def prompts(golden: GoldenFile) -> None:
    tokenizer = build_tokenizer(resolve_architecture('ViT-B-16-quickgelu'))
    templates = golden.json['templates']
    for count, names in golden.json['tokens'].items():
        known = resolve_templates(f'otseg{count}')
        assert list(known) == templates[: int(count)]
        for name, recorded in names.items():
            rows = tokenizer([template.format(name) for template in known])
            ours = [[token for token in row if token] for row in rows.tolist()]
            assert ours == recorded, name
