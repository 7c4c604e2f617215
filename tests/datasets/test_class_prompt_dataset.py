"""Which images stay, which class is asked for, and what becomes of the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import DataLoader

from mmengine.registry import DefaultScope

from zs3_mmseg.datasets import ClassPromptDataset
from zs3_mmseg.utils.random_state import Draw

# Label 0 is no class of the split; the split has an order of its own.
CLASSES = ['background', 'cat', 'dog', 'cow', 'tv']
SPLIT = dict(classes=['tv', 'dog', 'cat', 'cow'], unseen=['cat', 'cow'])
TV, DOG, CAT, COW = range(4)
PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]


def mask(**pixels: int) -> np.ndarray:
    """Make a label map (10, 10) with so many pixels of some classes, and one void."""
    values = [CLASSES.index(name) for name, n in pixels.items() for _ in range(n)]
    values += [0] * (99 - len(values)) + [255]
    return np.array(values, dtype=np.uint8).reshape(10, 10)


MASKS = [
    mask(dog=20),
    mask(dog=20, cat=30),  # holds an unseen class
    mask(dog=3, tv=30),  # the dog is small
    mask(dog=3),  # nothing large
    mask(cat=40, cow=2, tv=20),
    mask(cow=25, cat=2, dog=1),
    mask(),
]


@pytest.fixture(autouse=True)
def _mmseg_scope() -> None:
    if DefaultScope.get_current_instance() is None:
        DefaultScope.get_instance('class_prompt_dataset', scope_name='mmseg')


@pytest.fixture
def inner(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Write masks and images; return the data set's config."""

    def write(masks: Sequence[np.ndarray] = MASKS, **overrides: Any) -> dict[str, Any]:
        for kind in ('images', 'masks'):
            (tmp_path / kind).mkdir(exist_ok=True)
        for index, labels in enumerate(masks):
            Image.fromarray(labels).save(tmp_path / f'masks/{index}.png')
            image = np.full((*labels.shape, 3), index, np.uint8)
            Image.fromarray(image).save(tmp_path / f'images/{index}.png')
        config = dict(
            type='BaseSegDataset',
            metainfo=dict(classes=CLASSES),
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='masks'),
            img_suffix='.png',
            pipeline=PIPELINE,
            serialize_data=False,
        )
        return {**config, **overrides}

    return write


def make(dataset: Any, **arguments: Any) -> ClassPromptDataset:
    return ClassPromptDataset(
        dataset, **(dict(phase='train', split=SPLIT, min_pixels=10) | arguments)
    )


def image_of(sample: dict[str, Any]) -> int:
    return int(sample['inputs'][0, 0, 0])


def prompt_of(sample: dict[str, Any]) -> int:
    return sample['data_samples'].prompt_class


def pairs(dataset: ClassPromptDataset) -> list[tuple[int, int]]:
    return [(image_of(sample), prompt_of(sample)) for sample in dataset]


@pytest.mark.parametrize(
    ('arguments', 'images'),
    [
        (dict(), [0, 2]),
        (dict(unseen_policy='ignore'), [0, 1, 2, 4]),
        (dict(min_pixels=25), [2]),
        (dict(min_pixels=0), [0, 2, 3]),
        (dict(setting='supervised', prompts='all'), [0, 1, 2, 4, 5]),
        (dict(held_out=dict(every=2, part='rest'), unseen_policy='ignore'), [1]),
        (dict(held_out=dict(every=2, part='held_out')), [0, 2]),
    ],
)
def test_training_keeps_images_by_the_rules(inner, arguments, images) -> None:
    dataset = make(inner(), **arguments)
    assert [image_of(sample) for sample in dataset] == images


def test_labels_are_the_mask_of_the_named_class(inner) -> None:
    dataset = make(inner(), phase='test', sampling='exhaustive')
    for sample in dataset:
        raw = MASKS[image_of(sample)]
        name = sample['data_samples'].prompt_name
        expected = np.where(raw == 255, 255, raw == CLASSES.index(name))
        np.testing.assert_array_equal(
            sample['data_samples'].gt_sem_seg.data[0].numpy(), expected
        )


def test_unseen_pixels_of_kept_training_images_are_void(inner) -> None:
    dataset = make(inner([mask(dog=20, cat=30)]), unseen_policy='ignore')
    labels = dataset[0]['data_samples'].gt_sem_seg.data[0].numpy()
    raw = mask(dog=20, cat=30)
    hidden = (raw == 255) | (raw == CLASSES.index('cat'))
    expected = np.where(hidden, 255, raw == CLASSES.index('dog'))
    np.testing.assert_array_equal(labels, expected)


def test_exhaustive_asks_for_every_class_once(inner) -> None:
    dataset = make(inner(), phase='test', sampling='exhaustive')
    assert pairs(dataset) == [(1, CAT), (4, CAT), (4, COW), (5, CAT), (5, COW)]


def test_episodes_cycle_the_list_and_draw_small_classes_too(inner) -> None:
    dataset = make(inner(), phase='test', num_episodes=601)
    drawn = pairs(dataset)
    assert [image for image, _ in drawn] == ([1, 4, 5] * 201)[:601]
    counts = Counter(drawn)
    assert counts[1, CAT] == 201
    for image in (4, 5):  # uniform over the two classes, however small
        assert 60 < counts[image, COW] < 140


def test_episodes_are_the_same_for_any_worker_and_other_for_another_seed(inner) -> None:
    dataset = make(inner(), phase='test', num_episodes=20)
    alone = pairs(dataset)
    loader = DataLoader(
        dataset, batch_size=None, num_workers=2, multiprocessing_context='fork'
    )
    assert pairs(loader) == alone == pairs(dataset)
    other = make(inner(), phase='test', num_episodes=20, seed=1)
    assert pairs(other) != alone


def test_training_draws_follow_the_draw_alone(inner) -> None:
    dataset = make(inner(), unseen_policy='ignore')
    index = 2  # holds a dog and a tv
    seen = {}
    for number in range(40):
        seen[number] = prompt_of(dataset[Draw(index, draw=number, seed=0)])
    assert {*seen.values()} == {TV, DOG}
    again = {n: prompt_of(dataset[Draw(index, draw=n, seed=0)]) for n in (7, 3, 31)}
    assert all(seen[number] == prompt for number, prompt in again.items())


def test_negatives_name_absent_classes(inner) -> None:
    dataset = make(inner([mask(dog=50)] * 2), negatives=0.3)
    draws = [dataset[Draw(0, draw=n, seed=0)] for n in range(200)]
    absent = [sample for sample in draws if prompt_of(sample) == TV]
    assert 35 < len(absent) < 85
    labels = absent[0]['data_samples'].gt_sem_seg.data
    assert {*labels.unique().tolist()} == {0, 255}


def test_a_zero_shot_config_is_taken_over(inner) -> None:
    wrapped = dict(type='ZeroShotDataset', phase='train', split=SPLIT, dataset=inner())
    dataset = ClassPromptDataset(wrapped, min_pixels=10)
    assert [image_of(sample) for sample in dataset] == [0, 2]
    with pytest.raises(ValueError, match='give it once'):
        ClassPromptDataset(wrapped, phase='test')


def test_metainfo_names_what_is_asked_for(inner) -> None:
    test = make(inner(), phase='test').metainfo
    assert test['prompted'] == (CAT, COW)
    assert test['classes'] == ('tv', 'dog', 'cat', 'cow')
    held_out = make(inner(), phase='test', selection='held_out').metainfo
    assert held_out['prompted'] == (TV, DOG)
    assert held_out['selection'] == 'held_out'


def test_it_says_which_images_it_drops(inner) -> None:
    assert make(inner()).unseen_policy == 'drop_image'
    assert make(inner(), unseen_policy='ignore').unseen_policy == 'ignore'
    validation = make(
        inner(), phase='test', selection='held_out', unseen_policy='drop_image'
    )
    assert validation.unseen_policy == 'drop_image'
    assert {image for image, _ in pairs(validation)} == {0, 2}


def test_changed_masks_are_looked_at_again(inner) -> None:
    assert len(make(inner())) == 2
    assert len(make(inner([mask(dog=20)] * 5))) == 5


def test_wrapped_data_sets_are_counted_in_their_order(inner) -> None:
    both = dict(
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=2, dataset=inner()), inner()],
    )
    dataset = make(both)
    assert [image_of(sample) for sample in dataset] == [0, 2] * 3
    assert dataset.get_data_info(3)['seg_map_path'].endswith('2.png')
    balanced = dict(type='MultiImageMixDataset', dataset=inner(), pipeline=PIPELINE)
    with pytest.raises(TypeError, match='not inside MultiImageMixDataset'):
        make(balanced)


def test_a_data_set_without_images_stays_unusable(inner) -> None:
    dataset = make(inner(), min_pixels=90, lazy_init=True)
    for _ in range(2):
        with pytest.raises(ValueError, match='none of 7 images is left'):
            len(dataset)


def test_all_views_of_test_time_augmentation_carry_the_name(
    inner, tmp_path, monkeypatch
) -> None:
    # Another test may have counted the same masks before.
    monkeypatch.setenv('ZS3_MMSEG_CACHE', str(tmp_path / 'cache'))
    flips = [dict(type='RandomFlip', prob=prob) for prob in (0.0, 1.0)]
    views = dict(
        type='TestTimeAug',
        transforms=[
            flips,
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    )
    pipeline = [dict(type='LoadImageFromFile'), views]
    dataset = make(inner(pipeline=pipeline), phase='test', sampling='exhaustive')
    for sample, (_, prompt) in zip(dataset, dataset._pairs, strict=True):
        named = [view.prompt_name for view in sample['data_samples']]
        assert named == [dataset.split.classes[prompt]] * 2


def test_subset_keeps_the_pairs(inner) -> None:
    dataset = make(inner(), phase='test', sampling='exhaustive')
    assert pairs(dataset.get_subset([3, 0])) == [(5, CAT), (1, CAT)]
    assert pairs(dataset.get_subset(-1)) == [(5, COW)]


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (dict(phase=None), 'needs phase='),
        (dict(prompts='unseen'), 'train on unseen classes'),
        (dict(prompts='sen'), "Did you mean 'seen'"),
        (dict(setting='transductive'), 'no unlabelled pixels'),
        (dict(negatives=1.5), 'negatives must be'),
        (dict(phase='test', negatives=0.1), 'for training only'),
        (dict(selection='held_out'), 'for validation'),
        (dict(phase='test', selection='novel'), "Did you mean 'novel_official'"),
        (
            dict(phase='test', selection='novel_official', prompts='seen'),
            'is by the unseen classes',
        ),
        (dict(phase='test', unseen_policy='drop_image'), 'leaves no image'),
        (dict(held_out=dict(every=1, part='rest')), 'n >= 2'),
        (dict(held_out=dict(every=3, part='test')), 'part one of'),
        (dict(min_pixels=90), 'none of 7 images is left'),
        (dict(phase='test', num_episodes=0), 'num_episodes >= 1'),
        (dict(num_episodes=5), 'training draws .* leave out num_episodes'),
        (dict(sampling='episodes', seed=1), 'leave out sampling, seed'),
        (
            dict(phase='test', sampling='exhaustive', seed=1),
            'draws nothing: leave out seed',
        ),
        (dict(phase='test', sampling='all'), 'sampling must be one of'),
    ],
)
def test_contradictions_are_errors(inner, arguments, message) -> None:
    with pytest.raises(ValueError, match=message):
        make(inner(), **arguments)


def test_supervised_training_asks_for_every_class(inner) -> None:
    dataset = make(inner(), setting='supervised')
    assert dataset.prompted == (TV, DOG, CAT, COW)
    held_out = dict(every=2, part='held_out')
    options = dict(phase='test', setting='supervised', selection='held_out')
    assert make(inner(), held_out=held_out, **options).prompted == (TV, DOG, CAT, COW)


def test_repeated_or_further_images_change_nothing_about_those_held_out(inner) -> None:
    def images(dataset: Any, part: str) -> set[str]:
        made = make(
            dataset,
            phase='test',
            sampling='exhaustive',
            prompts='all',
            held_out=dict(every=3, part=part),
        )
        return {made.get_data_info(i)['img_path'] for i in range(len(made))}

    once = images(inner(), 'held_out')
    repeated = dict(type='RepeatDataset', dataset=inner(), times=2)
    assert images(repeated, 'held_out') == once
    assert not images(repeated, 'rest') & once
    both = dict(type='ConcatDataset', datasets=[inner(), inner()])
    assert not images(both, 'rest') & once
