from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from mmengine.config import Config
from mmseg.registry import MODELS

from zs3_mmseg.models.class_embeddings import ClassEmbeddingBank
from zs3_mmseg.models.towers import clip, load_clip


@pytest.fixture
def table(tmp_path: Path) -> Path:
    np.save(tmp_path / 'rows.npy', np.diag([1, 2, 0, np.inf]))
    return tmp_path / 'rows.npy'


def _bank(path: Path, **options) -> ClassEmbeddingBank:
    names = ['sofa', 'couch', 'nothing', 'endless']
    return ClassEmbeddingBank(dict(type='tensor', path=path, names=names), **options)


def test_synonyms_become_rows_of_one_class(table: Path) -> None:
    embedded = _bank(table, normalize=False).embed(['couch|sofa'])
    assert torch.equal(
        embedded.embeddings, torch.eye(4)[[1, 0]] * torch.tensor([[2], [1]])
    )
    assert embedded.query_to_class.tolist() == [0, 0]
    assert embedded.query_to_class.dtype == torch.long
    assert embedded.names == ('couch|sofa',)
    expected = dict(source='tensor', file='rows.npy', normalize='False')
    assert embedded.provenance == expected


def test_the_longest_row_can_be_the_unit(table: Path) -> None:
    embedded = _bank(table, normalize='max_norm').embed(['sofa', 'couch'])
    expected = torch.eye(4)[:2] * torch.tensor([[0.5], [1]])
    assert torch.equal(embedded.embeddings, expected)
    with pytest.raises(ValueError, match="True, False, 'max_norm', not 'l2'"):
        _bank(table, normalize='l2')


def test_useless_rows_are_named(table: Path) -> None:
    with pytest.raises(
        ValueError, match="rows of 'nothing', 'endless' are zero or not"
    ):
        _bank(table, normalize=False).embed(['sofa', 'nothing', 'endless'])


def test_a_config_builds_a_bank_and_lets_the_tower_go(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    torch.save(tiny_clip().state_dict(), tmp_path / 'weights.pt')
    source = dict(
        type='clip_text', arch=tiny_config(), pretrained=str(tmp_path / 'weights.pt')
    )
    config = Config(dict(bank=dict(type='ClassEmbeddingBank', source=source)))
    config.bank.templates = 'zegclip'
    bank = MODELS.build(config.bank)
    assert bank.dim == 24
    embedded = bank.embed(['cat', 'sofa|couch'])
    assert embedded.query_to_class.tolist() == [0, 1, 1]
    torch.testing.assert_close(embedded.embeddings.norm(dim=1), torch.ones(3))
    assert not isinstance(bank, torch.nn.Module)
    assert not clip._latest


def test_token_features_stand_beside_their_rows(tmp_path: Path, tiny_config, tiny_clip):
    torch.save(tiny_clip().state_dict(), tmp_path / 'weights.pt')
    bank = ClassEmbeddingBank(
        dict(type='clip_text', arch=tiny_config(), pretrained=tmp_path / 'weights.pt'),
        templates='bare',
        normalize=False,
        token_features=True,
    )
    both, alone = bank.embed(['sofa|couch', 'cat']), bank.embed(['cat'])
    assert both.token_features.shape == (3, 12, 16)
    torch.testing.assert_close(both.token_features[2:], alone.token_features)
    torch.testing.assert_close(both.embeddings[2:], alone.embeddings)


@pytest.mark.parametrize('normalize', [True, False, 'max_norm'])
def test_templates_kept_apart_are_each_prompt_alone(
    normalize: bool | str, tmp_path: Path, tiny_config, tiny_clip
) -> None:
    torch.save(tiny_clip().state_dict(), tmp_path / 'weights.pt')
    source = dict(
        type='clip_text', arch=tiny_config(), pretrained=tmp_path / 'weights.pt'
    )
    templates = ['a photo of a {}.', '{}', 'one {} in the scene']
    options = dict(templates=templates, normalize=normalize)
    bank = ClassEmbeddingBank(source, reduce_templates=False, **options)
    made = bank.embed(['cat', 'sofa|couch'])
    assert bank.prompts_per_row == made.prompts_per_row == 3
    assert made.provenance['prompts_per_row'] == '3'
    assert made.query_to_class.tolist() == [0, 1, 1]
    tower = load_clip(tiny_config(), tmp_path / 'weights.pt')
    rows = []
    for name in ('cat', 'sofa', 'couch'):
        for template in templates:
            ids = tower.tokenizer([template.replace('{}', name)])
            row = tower.model.encode_text(ids)[0].detach()
            rows.append(row / row.norm() if normalize is True else row)
    expected = torch.stack(rows)
    if normalize == 'max_norm':
        expected = expected / expected.norm(dim=1).max()
    torch.testing.assert_close(made.embeddings, expected)
    # From the cache, and beside the averaged rows there.
    again = ClassEmbeddingBank(source, reduce_templates=False, **options)
    assert torch.equal(again.embed(['cat', 'sofa|couch']).embeddings, made.embeddings)
    mean = ClassEmbeddingBank(source, **options).embed(['cat', 'sofa|couch'])
    assert mean.embeddings.shape == (3, 24)
    assert mean.prompts_per_row == 1
    assert 'prompts_per_row' not in mean.provenance


def test_token_features_need_a_text_tower(table: Path) -> None:
    with pytest.raises(ValueError, match="only sources of type 'clip_text' and"):
        _bank(table, token_features=True).embed(['sofa'])


@pytest.mark.parametrize(
    ('source', 'options', 'message'),
    [
        (dict(type='clip'), {}, "source.type must be one of .*not 'clip'"),
        (dict(path='rows.npy'), {}, 'source.type must be one of .*not None'),
        (dict(type='tensor', file='rows.npy'), {}, "source of 'tensor'.*file"),
        (
            dict(type='vectors', path='glove.txt'),
            dict(templates='single'),
            'templates belong to the sources clip_text and groupvit_text',
        ),
        (
            dict(type='vectors', path='glove.txt'),
            dict(reduce_templates=False),
            'and so does reduce_templates=False',
        ),
    ],
)
def test_a_wrong_source_is_named(source: dict, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassEmbeddingBank(source, **options)


def test_another_text_can_stand_for_a_name(table: Path) -> None:
    embedded = _bank(table, texts={'settee': 'sofa'}).embed(['settee|couch', 'sofa'])
    assert torch.equal(embedded.embeddings, torch.eye(4)[[0, 1, 0]])
    assert embedded.names == ('settee|couch', 'sofa')
    assert embedded.provenance['texts'] == 'settee: sofa'


@pytest.mark.parametrize(
    ('texts', 'message'),
    [
        ('lseg_ade', "texts must be one of 'lseg_ade20k', 'lseg_coco', not 'lseg_ade'"),
        ({'sofa': ' '}, "texts has no text for 'sofa'"),
    ],
)
def test_texts_that_are_none_are_refused(table: Path, texts, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        _bank(table, texts=texts)


def test_all_prompts_of_a_class_may_be_one_row() -> None:
    source = dict(type='clip_text', arch='zs3-shapes-tiny', pretrained='shapes')
    templates = ['a {}', 'the big {}', 'one {}.']
    bank = ClassEmbeddingBank(source, templates=templates, reduce_synonyms=True)
    made = bank.embed(['star', 'circle|disc'])
    assert made.query_to_class.tolist() == [0, 1]
    assert bank.prompts_per_row == made.prompts_per_row == 1
    prompts = ClassEmbeddingBank(source, templates=templates, reduce_templates=False)
    rows = prompts.embed(['star', 'circle|disc']).embeddings
    means = torch.stack([rows[:3].mean(dim=0), rows[3:].mean(dim=0)])
    expected = means / means.norm(dim=1, keepdim=True)
    torch.testing.assert_close(made.embeddings, expected)
    with pytest.raises(ValueError, match='leave token_features, reduce_templates and'):
        ClassEmbeddingBank(source, reduce_templates=False, reduce_synonyms=True)
