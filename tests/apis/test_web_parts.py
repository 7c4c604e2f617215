"""What the web page works with: settings, words, files and views, without a browser."""

from __future__ import annotations

import base64
import io
import json
import re
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from zs3_mmseg.apis import Segmentation, ZeroShotInferencer
from zs3_mmseg.apis.segmentation import void_label
from zs3_mmseg.apis.web.scored import ScoredPicture, archive
from zs3_mmseg.apis.web.views import message_view, result_view
from zs3_mmseg.apis.web.workbench import (
    KEPT_SCORES,
    MAX_NAMES,
    SHIPPED,
    WORKING_PIXELS,
    Picture,
    Workbench,
    read_words,
)
from zs3_mmseg.models.segmentors.inference import LabelRule
from zs3_mmseg.utils.palette import default_palette


@pytest.fixture(scope='module')
def workbench() -> Workbench:
    return Workbench(device='cpu', max_pixels=10_000)


def scored(scores: np.ndarray, unseen: set[int], rule: LabelRule) -> ScoredPicture:
    """Return a picture of such scores ``(K, H, W)``, with the labels they give."""
    count, height, width = scores.shape
    labels = scores.argmax(0)
    if rule.prob_thd is not None:
        labels[scores.max(0) < rule.prob_thd] = rule.bg_index
    if count == 1:
        labels = (scores[0] >= rule.score_thr).astype(int)
    result = Segmentation(
        image=np.full((height, width, 3), 99, np.uint8),
        labels=labels.astype(np.uint8),
        classes=tuple(f'name {index}' for index in range(count)),
        palette=tuple(map(tuple, default_palette(count))),
        unseen=frozenset(unseen),
        source='a.png',
        scores=scores,
    )
    return ScoredPicture(result, rule)


@st.composite
def pictures(draw: st.DrawFn) -> ScoredPicture:
    count, seed = draw(st.integers(1, 5)), draw(st.integers(0, 999))
    scores = np.random.default_rng(seed).normal(size=(count, 4, 5)).astype(np.float32)
    unseen = draw(st.sets(st.integers(0, count - 1)))
    prob_thd = draw(st.sampled_from([None, 0.3])) if count > 1 else None
    return scored(scores, unseen, LabelRule(0.1, prob_thd, bg_index=count - 1))


@given(pictures(), st.floats(-2, 2), st.none() | st.floats(-2, 2))
def test_settings_give_what_is_written_of_them(
    picture: ScoredPicture, gamma: float, threshold: float | None
) -> None:
    found = picture.relabelled(gamma, threshold)
    count, height, width = picture.scores.shape
    shift = np.float32(gamma)
    for row in range(height):
        for column in range(width):
            values = [
                picture.scores[k, row, column]
                - (shift if k not in picture.result.unseen else np.float32(0))
                for k in range(count)
            ]
            label, best = int(np.argmax(values)), max(values)
            if count == 1:
                least = picture.rule.score_thr if threshold is None else threshold
                label = int(best >= least)
            else:
                if picture.rule.prob_thd is not None and best < picture.rule.prob_thd:
                    label = picture.rule.bg_index
                if threshold is not None and best < threshold:
                    label = void_label(count)
            assert found.labels[row, column] == label
    assert found.scores is None


@given(pictures())
def test_sliders_reach_all_there_is(picture: ScoredPicture) -> None:
    gamma, threshold = picture.gamma_span, picture.threshold_span
    for span in (gamma, threshold):
        assert span.low <= span.start <= span.high
        if span.low < span.high:
            steps = (span.high - span.low) / span.step
            assert 50 <= round(steps, 6) <= 520
    for end in (gamma.low, gamma.high):
        if end and picture.rule.prob_thd is None and len(picture.scores) > 1:
            ends = picture.relabelled(end), picture.relabelled(3 * end)
            np.testing.assert_array_equal(ends[0].labels, ends[1].labels)
            groups = {k in picture.result.unseen for k in np.unique(ends[0].labels)}
            assert groups == {end > 0}
    start = picture.relabelled(0.0, threshold.start)
    np.testing.assert_array_equal(start.labels, picture.result.labels)


@pytest.mark.parametrize('offer', SHIPPED)
def test_a_result_is_that_of_the_inferencer_until_a_slider_moves(
    offer: tuple[str, str | None], workbench: Workbench
) -> None:
    picture = next(iter(workbench.samples().values()))
    names = ['star', 'sand', 'blue boat|ship', 'rocket']
    found = workbench.segment(picture, names, offer[0])
    plain, _ = ZeroShotInferencer(*offer, device='cpu').segment(picture.pixels, names)
    np.testing.assert_array_equal(found.relabelled().labels, plain.labels)
    assert found.result.classes == plain.classes
    assert found.result.palette == plain.palette
    assert found.result.unseen == plain.unseen
    assert found.result.source == picture.name


def test_settings_and_heat_maps_run_no_model(workbench: Workbench) -> None:
    model = workbench.models[0]
    runs = []
    backbone = workbench._models[model].model.backbone
    hook = backbone.register_forward_hook(lambda *_: runs.append(1))
    before = workbench.encodings
    try:
        picture = next(iter(workbench.samples().values()))
        found = workbench.segment(picture, ['star', 'sea', 'unheard of'], model)
        assert (len(runs), workbench.encodings - before) == (1, 1)
        assert found.gamma_span.high > 0
        moved = found.relabelled(found.gamma_span.high / 2, found.threshold_span.high)
        assert not np.array_equal(moved.labels, found.result.labels)
        maps = [found.heat_map(position) for position in range(3)]
        assert not np.array_equal(maps[0], maps[1])
        assert (len(runs), workbench.encodings - before) == (1, 1)
    finally:
        hook.remove()
    assert any('unheard' in note for note in found.result.notes)


def test_words_are_told_apart() -> None:
    text = ' star,two  words\n\ncup|mug;, sea ,'
    assert read_words(text) == ['star', 'two words', 'cup|mug', 'sea']
    assert read_words(' ,\n') is None
    with pytest.raises(ValueError, match='star'):
        read_words('star, sea, star')
    with pytest.raises(ValueError, match=f'{MAX_NAMES + 1} names'):
        read_words(','.join(f'name {index}' for index in range(MAX_NAMES + 1)))


def test_files_that_are_no_picture_are_refused_without_their_folder(
    workbench: Workbench, tmp_path: Path
) -> None:
    (tmp_path / 'note.png').write_text('no picture')
    Image.new('RGB', (101, 100)).save(tmp_path / 'large.png')
    for name, said in (
        ('note.png', 'no picture in a known format'),
        ('large.png', '101 x 100 is more than the 10,000 pixels'),
        ('gone.png', 'no such file'),
    ):
        with pytest.raises(OSError, match=f'^{name}: {said}') as caught:
            workbench.read(tmp_path / name)
        assert str(tmp_path) not in str(caught.value)
        assert '\n' not in str(caught.value)


def test_large_pictures_are_shrunk_and_say_so(tmp_path: Path) -> None:
    roomy = Workbench(SHIPPED[:1], device='cpu')
    Image.new('RGB', (3000, 1000), 'red').save(tmp_path / 'wide.png')
    picture = roomy.read(tmp_path / 'wide.png')
    height, width = picture.pixels.shape[:2]
    assert 0.98 * WORKING_PIXELS < height * width <= WORKING_PIXELS
    assert width / height == pytest.approx(3, rel=0.01)
    assert picture.notes == (
        f'shrunk to {width} x {height}; zs3 segment keeps the size',
    )
    names = [f'name {index}' for index in range(100)]
    found = roomy.segment(picture, names, roomy.models[0])
    assert found.scores.size <= KEPT_SCORES
    height, width = found.result.labels.shape
    assert [note for note in found.result.notes if note.startswith('shrunk')] == [
        f'shrunk to {width} x {height}; zs3 segment keeps the size'
    ]


def test_no_other_model_is_used_than_those_offered(workbench: Workbench) -> None:
    picture = Picture('a.png', np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(ValueError, match='model must be one of'):
        workbench.segment(picture, None, 'zegclip/shapes_tiny')


def test_what_is_downloaded_is_what_is_shown() -> None:
    scores = np.random.default_rng(0).random((3, 20, 30), np.float32)
    found = scored(scores, {2}, LabelRule(0.5)).relabelled(0.2, 0.5)
    packed = zipfile.ZipFile(io.BytesIO(archive(found, dict(gamma=0.2))))
    assert sorted(packed.namelist()) == ['a.json', 'a_labels.png', 'a_overlay.png']
    labels = np.asarray(Image.open(packed.open('a_labels.png')))
    np.testing.assert_array_equal(labels, found.labels)
    assert json.loads(packed.read('a.json'))['model'] == {'gamma': 0.2}


def pixels_of(view: str, kind: str) -> np.ndarray:
    """Return the picture of a class of elements out of a view."""
    (data,) = re.findall(rf'class="{kind}" src="data:image/png;base64,([^"]+)"', view)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_the_legend_has_the_colours_and_names_of_the_picture() -> None:
    scores = np.zeros((3, 300, 300), np.float32)
    scores[0, :, :150] = scores[1, :200, 150:] = 1
    scores[:, 250:, 150:] = 0.1
    picture = scored(scores, set(), LabelRule(0.5))
    found = picture.relabelled(0.0, 0.5)
    object.__setattr__(found, 'classes', ('<b>sea</b>|water', 'a "star"', 'moon'))
    view = result_view(found)
    np.testing.assert_array_equal(pixels_of(view, 'zs3-labels'), found.positions)
    overlay = pixels_of(view, 'zs3-overlay')
    items = re.findall(
        r'data-class="(\d)" data-name="([^"]*)">.*?background-color: rgb\(([^)]+)\)',
        view,
    )
    assert [(index, name) for index, name, _ in items] == [
        ('0', '&lt;b&gt;sea&lt;/b&gt;'),
        ('1', 'a &quot;star&quot;'),
    ]
    for index, _, colour in items:
        # The picture is of one grey, so that regions have exactly their colours.
        corner = overlay[5, 5] if index == '0' else overlay[5, 295]
        assert colour == ', '.join(map(str, corner))
    assert 'not found: moon' in view
    assert 'without a name: 16.7' in view
    assert '<b>' not in view


def test_messages_hold_no_markup() -> None:
    fault = message_view('<img src=x>: no picture', fault=True)
    assert 'role="alert"' in fault
    assert '<img' not in fault
