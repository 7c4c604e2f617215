from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from zs3_mmseg.models.class_embeddings import ClassQueries
from zs3_mmseg.models.region_classifiers import MaskPoolingClassifier, Regions


def test_pooling_is_the_mean_below_the_mask() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 4, 3, 5)
    masks = torch.rand(2, 3, 6, 10) < 0.4
    masks[1, 2] = False
    queries = ClassQueries(
        embeddings=torch.randn(3, 4),
        query_to_class=torch.tensor([0, 1, 1]),
        seen_mask=torch.tensor([True, False]),
    )
    classifier = MaskPoolingClassifier(scale=5.0)
    scores = classifier(Regions(masks, None, (features,)), queries)
    for image in range(2):
        for mask in range(3):
            if not masks[image, mask].any():
                assert scores[image, mask].tolist() == [0, 0]
                continue
            # Each patch stands for 2 x 2 pixels.
            pixels = features[image].repeat_interleave(2, 1).repeat_interleave(2, 2)
            mean = pixels[:, masks[image, mask]].mean(dim=1)
            cosines = 5 * F.cosine_similarity(queries.embeddings, mean[None])
            first, second = cosines[0], torch.maximum(cosines[1], cosines[2])
            expected = torch.stack([first, second]).softmax(dim=0)
            torch.testing.assert_close(scores[image, mask], expected)


@pytest.mark.parametrize('scale', [0, -1.0, float('nan')])
def test_a_scale_must_be_positive(scale: float) -> None:
    with pytest.raises(ValueError, match='scale must be > 0'):
        MaskPoolingClassifier(scale=scale)
