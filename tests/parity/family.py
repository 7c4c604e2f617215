"""What the checks of methods that were made from ZegCLIP's code share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from checks_zegclip import FixedRows, backbone_config, tensors_of
from registry import GoldenFile, assert_close
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.engine.converters import KeyRule, apply_rules


class Recorded:
    """A recorded segmentor with the official weights in ours.

    Args:
        golden: the recording.
        rules: what becomes of its keys.
        tower: options of the image tower beyond ZegCLIP's.
        head: options of the head beyond ZegCLIP's.
        losses: names of losses of ours -> names in the official log.
        model: options of the segmentor.
    """

    def __init__(
        self,
        golden: GoldenFile,
        rules: Sequence[KeyRule],
        *,
        head: Mapping[str, Any],
        losses: Mapping[str, str],
        tower: Mapping[str, Any] | None = None,
        model: Mapping[str, Any] | None = None,
    ) -> None:
        config, self.tensors = golden.json['config'], golden.tensors()
        rows = self.tensors['text_feat']
        names = [f'class{index}' for index in range(len(rows))]
        self.shift = [] if config['self_training'] else [dict(type='SeenShift')]
        official = config['decode_head']
        weights = official['loss_decode']
        self.losses = losses
        self.model = MODELS.build(
            dict(
                type='ZeroShotEncoderDecoder',
                backbone={**backbone_config(config['backbone']), **(tower or {})},
                decode_head={
                    'type': 'ZegCLIPHead',
                    'num_layers': official['num_layers'],
                    'num_heads': official['num_heads'],
                    'dropout': 0.0,
                    'loss_decode': dict(
                        type='NonExclusiveLoss',
                        mask_weight=weights['mask_weight'],
                        dice_weight=weights['dice_weight'],
                        loss_weight=weights['loss_weight'],
                    ),
                    **head,
                },
                class_embeddings=FixedRows(names, rows),
                split=dict(
                    classes=names, unseen=[names[i] for i in config['novel_class']]
                ),
                calibrators=self.shift,
                test_cfg=dict(config['test_cfg'], mask_size=official['img_size']),
                **{
                    'setting': 'transductive'
                    if config['self_training']
                    else 'inductive',
                    **(model or {}),
                },
            )
        )
        conversion = apply_rules(golden.state(), rules, tensors_of(self.model))
        assert conversion.complete, str(conversion)
        self.model.load_state_dict(conversion.state, strict=False)
        self.ours = {old: new for new, old in conversion.sources.items()}
        frozen = [
            self.ours[name]
            for name in golden.json['trainable_parameters']
            if name in self.ours
            and not self.model.get_parameter(self.ours[name]).requires_grad
        ]
        assert not frozen, f'trained there, frozen here: {frozen}'

    def scores(self, image: Tensor, calibrators: Sequence[dict] = ()) -> Tensor:
        """Return the scores of images, with calibrators after the shift."""
        self.model.calibrators = nn.ModuleList(
            MODELS.build(one) for one in [*self.shift, *calibrators]
        )
        with torch.no_grad():
            return self.model.encode_decode(image, [{}] * len(image))

    def check_evaluation(self) -> Any:
        """Compare features and scores; return what the head makes of the images."""
        model, tensors = self.model.eval(), self.tensors
        with torch.no_grad():
            maps, given = model._features(tensors['img'], model.current_queries())
            found = model.decode_head._relate(
                maps,
                given['queries'],
                given['global_token'],
                given['group_tokens'],
            )
        assert_close(maps[-1], tensors['eval.patch_feat'], what='patches')
        assert_close(
            given['global_token'], tensors['eval.global_feat'], what='global token'
        )
        recorded = tensors['eval.pred_masks']
        masks = found.masks[-1]
        full = F.interpolate(masks, recorded.shape[-2:], mode='bilinear')
        assert_close(full, recorded, what='masks')
        for key in [k for k in tensors if k.endswith('.logits')]:
            image = tensors['img']
            if key != 'eval.logits':
                image = tensors[key.replace('.logits', '.img')]
            assert_close(self.scores(image), tensors[key], what=key)
        return found, given

    def check_training_step(self) -> Any:
        """Compare labels, masks, losses and gradients; return the training outputs."""
        model, tensors = self.model.train(), self.tensors
        head, unseen = model.decode_head, torch.tensor(model.split.unseen_indices)
        samples = []
        for label in tensors['train.gt']:
            sample = SegDataSample()
            hidden = torch.isin(label, unseen)
            value = 255 if model.setting == 'inductive' else 254
            data = torch.where(hidden, value, label.long())
            sample.gt_sem_seg = PixelData(data=data)
            samples.append(sample)
        used: list[Any] = []
        by_feat = head.loss_by_feat

        def spy(outputs: Any, given: list, unseen_pixels: Any = None) -> Any:
            used.extend([outputs, torch.cat([one.gt_sem_seg.data for one in given])])
            return by_feat(outputs, given, unseen_pixels)

        head.loss_by_feat = spy
        losses = model.loss(tensors['img'], samples)
        del head.loss_by_feat
        outputs, labels = used
        recorded = tensors['train.pred_masks']
        masks = head.class_logits(outputs)
        full = F.interpolate(masks, recorded.shape[-2:], mode='bilinear')
        assert_close(full, recorded, what='masks')
        recorded = tensors['train.gt_used']
        assert torch.equal(labels.view_as(recorded), recorded.long())
        logged = {k for k in tensors if k.startswith('train.decode.')}
        assert logged == {f'train.decode.{name}' for name in self.losses.values()}
        for ours, theirs in self.losses.items():
            value, found = (
                tensors[f'train.decode.{theirs}'][0],
                losses[f'decode.{ours}'],
            )
            if ours == 'acc_seg':
                # Of equal logits, theirs took any.
                assert abs(found - value) <= 100 * tied_share(full, labels) + 1e-3
            else:
                assert_close(found, value, what=ours)
        total = sum(value for name, value in losses.items() if 'loss' in name)
        assert_close(total, tensors['train.total'][0], what='total loss')
        total.backward()
        gradients = [key for key in tensors if key.startswith('grad.')]
        assert gradients
        for key in gradients:
            parameter = model.get_parameter(self.ours[key.removeprefix('grad.')])
            assert_close(parameter.grad, tensors[key], 'gradient', what=key)
        return outputs


def tied_share(masks: Tensor, labels: Tensor) -> float:
    """Return how many labelled pixels have several best classes, as a share."""
    best = masks == masks.amax(dim=1, keepdim=True)
    labelled = labels != 255
    tied = (best.sum(dim=1) > 1) & labelled
    return float(tied.sum() / labelled.sum())
