"""Golden checks of class lists, splits and folds."""

from __future__ import annotations

from checks_schedules import CONFIGS, sgd, values_over
from registry import GoldenFile, assert_close, check

from mmengine.config import Config

from zs3_mmseg.datasets.splits import find_name, get_split


@check('zegclip_splits')
def zegclip_splits(golden: GoldenFile) -> None:
    for key, unseen_key, name in (
        ('voc12', 'unseen', 'voc12_15_5'),
        ('coco_stuff164k', 'unseen', 'cocostuff_156_15'),
        ('context59', 'unseen_otseg', 'context59_49_10'),
        ('context59', 'unseen_cascade_clip', 'context59_cascade'),
    ):
        published, split = golden.json[key], get_split(name)
        assert list(split.classes) == published['classes']
        assert list(split.unseen_indices) == published[unseen_key]
    assert get_split('context59_otseg') == get_split('context59_49_10')


#: Data of the recordings -> the end of our config of it.
CONFIG_OF = {
    'voc': 'voc_vitb16',
    'coco': 'cocostuff_vitb16',
    'context': 'context_vitb16',
}


@check('otseg_splits', 'cascade_splits')
def family_splits(golden: GoldenFile) -> None:
    """Splits, prompt tokens, crops and windows of the published configs."""
    folder = {'otseg': 'otseg', 'cascade': 'cascade_clip'}[
        golden.name.partition('_')[0]
    ]
    for data, published in golden.json['splits'].items():
        config = Config.fromfile(CONFIGS / folder / f'{CONFIG_OF[data]}.py')
        split = get_split(config.model.split)
        assert list(split.unseen_indices) == published['unseen']
        assert len(split.seen) == published['seen_count']
        assert len(split.classes) == published['both_count']
        prompts = config.model.backbone.prompts.num_tokens
        assert prompts == published['prompt_tokens']
        assert config.train_dataloader.batch_size == published['samples_per_gpu']
        for key in ('crop', 'stride'):
            ours = config.model.test_cfg['crop_size' if key == 'crop' else key]
            assert list(ours) == published[key], data
        (crop,) = (t for t in pipeline_of(config) if t.type == 'RandomCrop')
        assert list(crop.crop_size) == published['crop']
    # Two words for one class: the text that is encoded is the official one.
    words = config.model.class_embeddings.get('texts') or {}
    ours = [words.get(name, name) for name in split.classes]
    assert ours == golden.json['context_names']


def pipeline_of(config: Config) -> list:
    """Return the training pipeline of one data set or the first of several."""
    data = config.train_dataloader.dataset.dataset
    return (data.datasets[0] if 'datasets' in data else data).pipeline


@check('splits')
def splits(golden: GoldenFile) -> None:
    _zs3(golden.json['zs3_voc12'], 'voc12_zs3', 'mmseg_index')
    _zs3(golden.json['zs3_context'], 'context_zs3', 'mmseg60_index')
    official = golden.json['zs3_context']['official_class_order']
    ours = get_split('context_zs3_10').classes
    assert sorted(official) == sorted(ours)
    assert official[0] == ours[0] == 'background'
    _cagnet(golden)


def _zs3(published: dict, prefix: str, index_key: str) -> None:
    for count in published['K']:
        split = get_split(f'{prefix}_{count}')
        assert len(split.classes) == published['num_classes']
        assert set(split.unseen) == set(published['unseen_names'][:count])
        assert split.unseen_indices == tuple(sorted(published[index_key][:count]))
        assert split.seen[0] == 'background'


def _cagnet(golden: GoldenFile) -> None:
    voc, published = get_split('voc12_15_5'), golden.json['cagnet_voc12']
    assert list(voc.unseen) == published['unseen_names']
    # Background is label 0 of the raw maps and no class of the split.
    assert [i + 1 for i in voc.seen_indices] == published['seen_raw_index']
    assert [i + 1 for i in voc.unseen_indices] == published['unseen_raw_index']

    context, published = get_split('cagnet_context33'), golden.json['cagnet_context33']
    assert list(context.classes) == published['class_names_raw_index_0_33'][1:]
    assert [i + 1 for i in context.seen_indices] == published['seen_raw_index']
    raw = sorted(published['unseen_raw_index'])
    assert [i + 1 for i in context.unseen_indices] == raw
    assert set(context.unseen) == set(published['unseen_names'])

    stuff, published = (
        get_split('cocostuff_156_15'),
        golden.json['cagnet_spnet_cocostuff'],
    )
    assert list(stuff.unseen) == published['unseen_names']
    assert list(stuff.unseen_indices) == published['unseen_index_in_mmseg171']
    # The 182 raw labels are the 171 and those that never occur, in the same order.
    absent = [index for index, _ in published['absent_in_mmseg171']]
    present = [i for i in range(published['raw_label_count']) if i not in absent]
    raw_of_ours = [present[i] for i in stuff.unseen_indices]
    assert raw_of_ours == published['unseen_raw_index']

    raw = get_split('cocostuff_167_15')
    assert len(raw.classes) == published['raw_label_count']
    assert list(raw.unseen_indices) == published['unseen_raw_index']
    assert sorted(published['seen_raw_index_in_model_order']) == [*raw.seen_indices]
    for index, name in published['absent_in_mmseg171']:
        assert raw.classes[index] == name
    assert tuple(raw.classes[i] for i in present) == stuff.classes


@check('esda_folds')
def folds(golden: GoldenFile) -> None:
    for prefix, novel_key, names_key in (
        ('pascal5i', 'pascal5i_novel', 'pascal_prompt_names'),
        ('coco20i', 'coco20i_novel_interleaved', 'coco_prompt_names'),
        ('coco20i_contiguous', 'coco20i_novel_contiguous', 'coco_prompt_names'),
    ):
        names = golden.json[names_key]
        for fold, novel in golden.json[novel_key].items():
            split = get_split(f'{prefix}_{fold}')
            # Published ids count from 1, since 0 is background.
            assert [i + 1 for i in split.unseen_indices] == novel
            for index, name in enumerate(split.classes, start=1):
                assert names[str(index)] == name
                assert find_name(names[str(index)], split.classes) == index - 1
            assert len(split.classes) == len(names) - 1
    _learning_rates(golden.json['lr_example'])


def _learning_rates(published: dict) -> None:
    """Compare the schedule of our configs, step by step."""
    config = Config.fromfile(CONFIGS / 'esda/pascal5i_vitb16_fold0.py')
    # "base_lr" of the official code takes effect times 10.
    optimizer = sgd(10 * published['base_lr'])
    rates = values_over(config.param_scheduler, optimizer, published['max_iter'])
    for iteration, rate in published['values'].items():
        assert_close(rates[int(iteration) - 1], [rate], what=f'step {iteration}')
