"""Log probabilities along a tree of names."""

from __future__ import annotations

import pytest
import torch

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.decode_heads import HierarchicalTextHead, TextPixelHead

#: Nodes 0 and 1 on top; 2 and 3 below 0, 4 and 5 below 2. Paths of three levels.
PATHS = ((0, 2, 4), (0, 2, 5), (0, 3, 3), (1, 1, 1))


@pytest.fixture
def rows():
    return torch.randn(6, 7, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    return torch.randn(2, 7, 3, 2, generator=torch.Generator().manual_seed(1))


def queries_of(rows, paths):
    count = len(paths)
    return ClassQueries(
        rows[torch.tensor(paths).flatten()],
        torch.arange(count),
        torch.ones(count, dtype=torch.bool),
        prompts_per_row=len(paths[0]),
    )


def frozen(kind=HierarchicalTextHead, **options):
    return kind(7, projection='none', scale=5.0, learn_scale=False, **options)


def test_logs_are_summed_over_paths(rows, maps):
    cosines = torch.cosine_similarity(maps[:, None], rows[None, :, :, None, None], 2)
    z = 5 * cosines

    def log_p(node, siblings):
        return z[:, node] - z[:, siblings].logsumexp(dim=1)

    top, below = log_p(0, [0, 1]), log_p(2, [2, 3])
    expected = [
        top + below + log_p(4, [4, 5]),
        top + below + log_p(5, [4, 5]),
        top + log_p(3, [2, 3]),
        log_p(1, [0, 1]),
    ]
    found = frozen().query_logits((maps,), queries=queries_of(rows, PATHS))
    torch.testing.assert_close(found, torch.stack(expected, dim=1))
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(2, 3, 2))


def test_one_level_is_flat(rows, maps):
    tree = frozen().query_logits(
        (maps,), queries=queries_of(rows, [(node,) for node in range(6)])
    )
    flat_queries = ClassQueries(rows, torch.arange(6), torch.ones(6, dtype=torch.bool))
    flat = frozen(TextPixelHead).query_logits((maps,), queries=flat_queries)
    torch.testing.assert_close(tree.softmax(dim=1), flat.softmax(dim=1))


def test_a_chain_of_single_names_changes_nothing(rows, maps):
    """A node without siblings has probability 1 below its parent."""
    chain = frozen().query_logits(
        (maps,), queries=queries_of(rows, [(0, 2, 2), (1, 3, 4)])
    )
    flat = frozen().query_logits((maps,), queries=queries_of(rows, [(0,), (1,)]))
    torch.testing.assert_close(chain, flat)


def test_equal_names_below_different_parents_are_two_nodes(rows, maps):
    found = frozen().query_logits(
        (maps,), queries=queries_of(rows, [(0, 4), (1, 4), (1, 5)])
    )
    torch.testing.assert_close(found.exp().sum(dim=1), torch.ones(2, 3, 2))
    top = frozen().query_logits((maps,), queries=queries_of(rows, [(0,), (1,)]))
    torch.testing.assert_close(found[:, 0], top[:, 0])


def test_rounding_of_rows_makes_no_new_names(rows, maps):
    queries = queries_of(rows, PATHS)
    expected = frozen().query_logits((maps,), queries=queries)
    queries.embeddings[0] *= 1 + 1e-6
    found = frozen().query_logits((maps,), queries=queries)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_means_of_rows_may_stand_for_inner_names(rows, maps):
    unit = rows / rows.norm(dim=1, keepdim=True)
    means = rows.clone()
    means[2] = (unit[4] + unit[5]) / 2
    means[0] = (unit[4] + unit[5] + unit[3]) / 3
    expected = frozen().query_logits((maps,), queries=queries_of(means, PATHS))
    found = frozen(inner='mean').query_logits((maps,), queries=queries_of(rows, PATHS))
    torch.testing.assert_close(found, expected)


def test_unknown_ways_to_compare_are_refused():
    with pytest.raises(ValueError, match='inner must be one of'):
        frozen(inner='max')
