"""Threads that share a segmentor, each with words of its own."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

ANIMALS = ['ant', 'bee', 'cat', 'dog', 'eel', 'fox', 'gnu', 'hen', 'ibis', 'jay']
THREADS, CALLS = 8, 60


def words_of(number: int) -> list[str]:
    """Return 2 to 9 names, others for each thread and call."""
    return [f'{ANIMALS[(number + i) % 10]} {number}' for i in range(2 + number % 8)]


def test_each_result_has_the_classes_it_was_asked_for(make_segmentor: Any) -> None:
    model, alone = make_segmentor(), make_segmentor()
    torch.manual_seed(1)
    image = torch.rand(1, 3, 16, 24)
    before = model.class_names

    def ask(thread: int) -> list[tuple[int, tuple[str, ...], torch.Tensor]]:
        found = []
        for call in range(CALLS):
            number = 1000 * thread + call
            with torch.no_grad(), model.using_classes(words_of(number)):
                (sample,) = model.predict(image)
                scores = sample.seg_logits.data
                found.append((number, model.class_names, scores))
        return found

    with ThreadPoolExecutor(THREADS) as pool:
        results = [part for parts in pool.map(ask, range(THREADS)) for part in parts]
    assert len(results) == THREADS * CALLS
    for number, names, scores in results:
        assert names == tuple(words_of(number))
        alone.set_classes(words_of(number))
        with torch.no_grad():
            (sample,) = alone.predict(image)
        assert torch.equal(sample.seg_logits.data, scores)
    assert model.class_names == before
    with torch.no_grad():
        assert model.predict(image)[0].seg_logits.data.shape[0] == len(before)


def test_a_call_keeps_its_words_while_others_change_them(make_segmentor: Any) -> None:
    model = make_segmentor()
    model.set_classes(['ant', 'fox'])
    with model.using_classes(None):
        with ThreadPoolExecutor(1) as pool:
            pool.submit(model.set_classes, ['gnu', 'hen', 'jay']).result()
        assert model.class_names == ('ant', 'fox')
        assert model.dataset_meta['classes'] == ('ant', 'fox')
        with torch.no_grad():
            (sample,) = model.predict(torch.rand(1, 3, 8, 8))
        assert len(sample.seg_logits.data) == 2
    assert model.class_names == ('gnu', 'hen', 'jay')
