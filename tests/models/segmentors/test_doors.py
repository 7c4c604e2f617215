"""What heads, calibrators and post-processors may ask of a segmentor."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from zs3_mmseg.models.backbones.outputs import TowerOutput
from zs3_mmseg.models.calibrators import Calibrator
from zs3_mmseg.models.class_embeddings import ClassEmbeddings
from zs3_mmseg.models.decode_heads import DenseTextHead
from zs3_mmseg.models.segmentors import ZeroShotEncoderDecoder, ZeroShotTTAModel

SPLIT = dict(classes=['ant', 'bee', 'cat', 'dog', 'eel'], unseen=['bee', 'dog'])


# --------------------------------------------------- calibrators that need all classes


class Normaliser(Calibrator):
    """A softmax over all classes, of what comes before it, in one streamed pass."""

    needs_all_classes = True

    def observe(self, observed, scores, queries, global_token, classes):
        part = scores.logsumexp(dim=1, keepdim=True)
        return part if observed is None else torch.logaddexp(observed, part)

    def forward(self, scores, queries, global_token=None, classes=None, observed=None):
        return (scores - observed).exp()


class TopClasses(Calibrator):
    """Keeps the scores of the two best classes of each pixel, 0 for the others."""

    needs_all_classes = True

    def observe(self, observed, scores, queries, global_token, classes):
        both = scores if observed is None else torch.cat([observed, scores], dim=1)
        return both.topk(min(2, both.shape[1]), dim=1).values

    def forward(self, scores, queries, global_token=None, classes=None, observed=None):
        return scores * (scores >= observed[:, -1:])


def normalised(scores):
    return scores.softmax(dim=1)


def best_two(scores):
    return scores * (scores >= scores.topk(2, dim=1).values[:, -1:])


@pytest.mark.parametrize('kind', ['Softmax', 'Sigmoid', 'Logit'])
@pytest.mark.parametrize('mode', ['whole', 'slide'])
@torch.no_grad()
def test_calibrators_that_need_all_classes_are_streamed(make_segmentor, kind, mode):
    windows = dict(mode=mode, crop_size=(8, 8), stride=(8, 8))
    names = ['ant|owl', 'bee', 'cat', 'fox|hen|emu', 'eel']

    def scores_of(calibrators, chunk):
        model = make_segmentor(
            f'Toy{kind}Head',
            calibrators=calibrators,
            test_cfg=dict(windows, class_chunk=chunk),
        )
        model.set_classes(names)
        image = torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
        return model.inference(image, [{}])

    chain = [Normaliser('score'), TopClasses('score'), Normaliser('score')]
    logits = scores_of([], 5)
    expected = normalised(best_two(normalised(logits)))
    for chunk in (1, 2, 5):
        torch.testing.assert_close(scores_of(chain, chunk), expected)
    if kind == 'Logit':
        both = [Normaliser('score'), TopClasses('logit')]
        expected = normalised(best_two(logits))
        torch.testing.assert_close(scores_of(both, 2), expected)


class ClassPrior(Calibrator):
    """Subtracts the mean score that each class had on some images."""

    def __init__(self, space: Any = 'score') -> None:
        super().__init__(space)
        self.register_buffer('mean', torch.zeros(5))

    def fit(self, dataset: Any) -> None:
        total, crops = torch.zeros(5), 0
        for crop in dataset:
            crops += 1
            for classes, scores in crop:
                total[classes] += scores.mean(dim=(0, 2, 3))
        self.mean.copy_(total / crops)

    def forward(self, scores, queries, global_token=None, classes=slice(None)):
        return scores - self.mean[classes, None, None]


@torch.no_grad()
def test_calibrators_are_fitted_on_images(make_segmentor, monkeypatch):
    said: list[str] = []
    module = __import__(ZeroShotEncoderDecoder.__module__, fromlist=['print_log'])
    monkeypatch.setattr(module, 'print_log', lambda text, **_: said.append(text))
    preprocessor = dict(type='mmseg.SegDataPreProcessor')
    options = dict(data_preprocessor=preprocessor, test_cfg=dict(class_chunk=2))
    plain = make_segmentor('ToySigmoidHead', **options)
    model = make_segmentor(
        'ToySigmoidHead',
        calibrators=[dict(type='SeenShift', shift=0.2), ClassPrior()],
        **options,
    ).train()
    generator = torch.Generator().manual_seed(0)
    images = [torch.randn(3, 16, 12, generator=generator) for _ in range(3)]
    meta = dict(ori_shape=(16, 12), img_shape=(16, 12))
    dataset = [
        dict(inputs=image, data_samples=SegDataSample(metainfo=meta))
        for image in images
    ]
    model.fit_calibrators(dataset)
    assert model.training
    assert 'ClassPrior learned from 3 images: results are transductive' in said[0]
    shifted = plain.encode_decode(torch.stack(images), [meta] * 3)
    shifted = shifted - 0.2 * torch.tensor([1.0, 0, 1, 0, 1])[:, None, None]
    torch.testing.assert_close(model.calibrators[1].mean, shifted.mean(dim=(0, 2, 3)))
    again = make_segmentor(
        'ToySigmoidHead', calibrators=[dict(type='SeenShift'), ClassPrior()]
    )
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.calibrators[1].mean, model.calibrators[1].mean)
    with pytest.raises(ValueError, match='no calibrator of this model has fit'):
        plain.fit_calibrators(dataset)


# ------------------------------------------------------------------ what heads may read


@MODELS.register_module()
class ToyTower(nn.Module):
    """Two stages, and tokens by name."""

    out_channels = (6, 6)

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 4, 4)

    def forward(self, images: Tensor) -> TowerOutput:
        maps = self.conv(images)
        tokens = maps.flatten(2).transpose(1, 2)
        return TowerOutput(
            (maps, 2 * maps),
            global_token=tokens.mean(dim=1),
            cls_tokens=tokens[:, :2],
            group_tokens=tokens[:, :3],
        )


@MODELS.register_module()
class ToyCuriousHead(DenseTextHead):
    """Remembers what it got."""

    def query_logits(
        self, inputs, *, queries, cls_tokens, group_tokens, backbone_maps, image
    ):
        self.got = dict(
            cls_tokens=cls_tokens,
            group_tokens=group_tokens,
            backbone_maps=backbone_maps,
            image=image,
        )
        return super().query_logits(inputs, queries=queries)


NORM = dict(mean=[120.0, 110.0, 100.0], std=[60.0, 50.0, 40.0])


def curious(bank: Any, **options: Any) -> ZeroShotEncoderDecoder:
    arguments: dict[str, Any] = dict(
        class_embeddings=bank,
        split=SPLIT,
        setting='inductive',
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            **NORM,
            size=(16, 16),
            bgr_to_rgb=True,
            test_cfg=dict(size_divisor=8),
        ),
    )
    return ZeroShotEncoderDecoder(
        dict(type='ToyTower'), dict(type='ToyCuriousHead'), **(arguments | options)
    )


def pictures(*sizes: tuple[int, int]) -> dict[str, list]:
    generator = torch.Generator().manual_seed(0)
    inputs, samples = [], []
    for size in sizes:
        shape = (3, *size)
        inputs.append(
            torch.randint(1, 256, shape, generator=generator, dtype=torch.uint8)
        )
        sample = SegDataSample(metainfo=dict(ori_shape=size, img_shape=size))
        sample.gt_sem_seg = PixelData(data=torch.zeros(1, *size).long())
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize('bgr_to_rgb', [True, False])
@torch.no_grad()
def test_heads_get_the_image_and_all_that_they_declare(toy_bank, bgr_to_rgb):
    """Input is BGR, as mmcv reads it, whatever the preprocessor makes of it."""
    model = curious(
        toy_bank,
        data_preprocessor=dict(
            type='mmseg.SegDataPreProcessor',
            **NORM,
            bgr_to_rgb=bgr_to_rgb,
            test_cfg=dict(size_divisor=8),
        ),
    ).eval()
    data = pictures((10, 13))
    rgb = data['inputs'][0].flip(0).float()
    model.test_step(data)
    got = model.decode_head.got
    image = got['image']
    assert image.valid.tolist() == [[10, 13]]
    torch.testing.assert_close(image.pixels[0, :, :10, :13], rgb)
    assert (image.pixels[0, :, 10:] == 0).all()
    assert (image.pixels[0, :, :, 13:] == 0).all()
    assert [tuple(m.shape) for m in got['backbone_maps']] == [(1, 6, 4, 4)] * 2
    assert torch.equal(got['backbone_maps'][1], 2 * got['backbone_maps'][0])
    assert (got['cls_tokens'].shape[1], got['group_tokens'].shape[1]) == (2, 3)


@torch.no_grad()
def test_windows_get_their_part_of_the_image(toy_bank):
    slide = dict(mode='slide', crop_size=(8, 8), stride=(8, 8), slide_batch_size=4)
    model = curious(toy_bank, test_cfg=slide).eval()
    data = pictures((12, 16))
    rgb = data['inputs'][0].flip(0).float()
    model.test_step(data)
    image = model.decode_head.got['image']
    assert image.valid.tolist() == [[8, 8], [8, 8], [4, 8], [4, 8]]
    torch.testing.assert_close(image.pixels[1], rgb[:, :8, 8:])
    torch.testing.assert_close(image.pixels[2, :, :4], rgb[:, 8:, :8])
    assert (image.pixels[2:, :, 4:] == 0).all()


def test_training_gives_the_image_too(toy_bank):
    model = curious(toy_bank).train()
    data = pictures((10, 13), (16, 12))
    rgb = data['inputs'][1].flip(0).float()
    prepared = model.data_preprocessor(data, True)
    model(**prepared, mode='loss')
    image = model.decode_head.got['image']
    assert image.valid.tolist() == [[10, 13], [16, 12]]
    torch.testing.assert_close(image.pixels[1, :, :, :12], rgb)


class TokenBank:
    """Rows with the outputs of two tokens each."""

    dim = 6
    token_features = True

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def embed(self, names: Any) -> ClassEmbeddings:
        tokens = torch.stack([self.rows([f'{n} 1', f'{n} 2']) for n in names])
        owners = torch.arange(len(names))
        return ClassEmbeddings(self.rows(names), owners, tuple(names), {}, tokens)


@MODELS.register_module()
class ToyTokenHead(DenseTextHead):
    """Classes are the mean of their tokens."""

    def query_logits(self, inputs, *, queries, text_tokens):
        return torch.einsum('nchw,qc->nqhw', inputs[-1], text_tokens.mean(dim=1))


@torch.no_grad()
def test_any_segmentor_gives_token_features_and_saves_them(make_segmentor, rows_of):
    model = make_segmentor('ToyTokenHead', class_embeddings=TokenBank(rows_of))
    image = torch.randn(1, 3, 4, 4)
    scores = model.encode_decode(image, [{}])[0, :, 0, 0]
    rows = [rows_of([f'{name} 1', f'{name} 2']).mean(0) for name in SPLIT['classes']]
    expected = torch.stack(rows) @ model.backbone(image)[0].flatten()
    torch.testing.assert_close(scores, expected.softmax(dim=0))
    state = model.state_dict()
    assert state['_extra_state']['embeddings'].shape == (5, 6 * (1 + 2))
    other = make_segmentor('ToyTokenHead', class_embeddings=TokenBank(lambda _: None))
    other.load_state_dict(state)
    for part in ('embeddings', 'token_features'):
        loaded, saved = other.current_queries(), model.current_queries()
        assert torch.equal(getattr(loaded, part), getattr(saved, part))


# ---------------------------------------------------------------------- post-processors


class Reddest(nn.Module):
    """Adds how red a pixel is to the score of the first class."""

    space = 'score'

    def forward(self, prediction: Tensor, image: Tensor) -> Tensor:
        changed = prediction.clone()
        changed[0] += image[0]
        return changed


class BlackIsLast(nn.Module):
    """Gives pixels below a brightness the last of five labels."""

    space = 'label'

    def forward(self, prediction: Tensor, image: Tensor) -> Tensor:
        dark = image.mean(dim=0) < 128
        return prediction.masked_fill(dark, 4)


@torch.no_grad()
def test_post_processors_get_the_image_at_the_size_of_the_prediction(make_segmentor):
    preprocessor = dict(
        type='mmseg.SegDataPreProcessor', **NORM, test_cfg=dict(size_divisor=16)
    )
    options = dict(head='ToySigmoidHead', data_preprocessor=preprocessor)
    data = pictures((10, 13), (10, 13))
    rgb = [image.flip(0).float() for image in data['inputs']]
    plain = make_segmentor(**options).test_step(data)
    scored = make_segmentor(
        **options, post_processors=[BlackIsLast(), Reddest()]
    ).test_step(pictures((10, 13), (10, 13)))
    for image, before, after in zip(rgb, plain, scored, strict=True):
        expected = before.seg_logits.data.clone()
        expected[0] += image[0]
        torch.testing.assert_close(after.seg_logits.data, expected)
        labels = expected.argmax(dim=0).masked_fill(image.mean(dim=0) < 128, 4)
        assert torch.equal(after.pred_sem_seg.data[0], labels)


@torch.no_grad()
def test_label_maps_are_changed_without_scores(make_segmentor):
    image = 255 * torch.rand(1, 3, 8, 8)
    options = dict(test_cfg=dict(return_scores=False))
    before = make_segmentor(**options).predict(image)[0].pred_sem_seg.data
    model = make_segmentor(**options, post_processors=[BlackIsLast()])
    after = model.predict(image)[0].pred_sem_seg.data
    assert torch.equal(after, before.masked_fill(image.mean(dim=1) < 128, 4))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (
            dict(post_processors=[Reddest()], test_cfg=dict(return_scores=returned)),
            'Reddest changes scores, which test_cfg.return_scores=',
        )
        for returned in (False, 'groups')
    ],
)
def test_scores_that_are_never_held_cannot_be_changed(make_segmentor, options, message):
    with pytest.raises(ValueError, match=message):
        make_segmentor(**options)


def test_post_processors_that_cannot_run_are_refused(make_segmentor):
    model = make_segmentor(post_processors=[BlackIsLast()])
    with pytest.raises(ValueError, match='BlackIsLast changes the label map of one'):
        ZeroShotTTAModel(model)
    with pytest.raises(ValueError, match='need the image: call predict'):
        model.postprocess_result(torch.rand(1, 5, 8, 8))


# ----------------------------------------------------------- several rows for each name


class PromptBank:
    """Two rows for each text, which are not reduced."""

    dim = 6
    prompts_per_row = 2

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def embed(self, names: Any) -> ClassEmbeddings:
        texts = [text for name in names for text in name.split('|')]
        owners = [i for i, name in enumerate(names) for _ in name.split('|')]
        rows = self.rows([f'{p} {t}' for t in texts for p in ('a', 'the')])
        return ClassEmbeddings(rows, torch.tensor(owners), tuple(names), {})


@MODELS.register_module()
class ToyPromptHead(DenseTextHead):
    """The mean of a query's prompts."""

    def query_logits(self, inputs, *, queries, global_token=None):
        rows = queries.embeddings.unflatten(0, (-1, queries.prompts_per_row))
        return torch.einsum('nchw,qc->nqhw', inputs[-1], rows.mean(dim=1))


@torch.no_grad()
def test_prompts_that_are_not_reduced_reach_the_head(make_segmentor, rows_of):
    model = make_segmentor('ToyPromptHead', class_embeddings=PromptBank(rows_of))
    model.set_classes(['owl|emu', 'cat'])
    queries = model.current_queries()
    assert queries.query_to_class.tolist() == [0, 0, 1]
    expected = rows_of(['a owl', 'the owl', 'a emu', 'the emu', 'a cat', 'the cat'])
    assert torch.equal(queries.embeddings, expected)
    assert torch.equal(queries.rows([2, 0]).embeddings, expected[[4, 5, 0, 1]])
    scores = model.encode_decode(torch.randn(1, 3, 8, 8), [{}])
    assert scores.shape == (1, 2, 8, 8)

    rows = torch.randn(4, 6)
    model.set_classes(['owl|emu', 'cat'], embeddings=rows)  # two for each class
    assert torch.equal(model.current_queries().embeddings, rows)
    assert model.current_queries().queries_per_class == (1, 1)

    state = model.state_dict()['_extra_state']
    assert state['prompts_per_row'] == 2
    assert state['embeddings'].shape == (10, 6)
    other = make_segmentor('ToyPromptHead', class_embeddings=PromptBank(rows_of))
    other.load_state_dict(model.state_dict())
    model.reset_classes()
    assert torch.equal(
        other.current_queries().embeddings, model.current_queries().embeddings
    )
    single = make_segmentor('DenseTextHead')
    assert 'prompts_per_row' not in single.state_dict()['_extra_state']
    with pytest.raises(ValueError, match='has 2 rows for each name, and'):
        single.load_state_dict(model.state_dict())
