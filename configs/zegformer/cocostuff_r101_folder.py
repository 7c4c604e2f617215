# Testing only: the weights of cocostuff_r101.py on a folder of your own and the names
# in its classes.txt, however many: synonyms of a class stand on one line, "sofa|couch".
# Names that training knew count as seen. As in the released test on the 847 classes of
# ADE20K, CLIP names the masks alone, and no score is shifted.
_base_ = [
    '../_base_/models/zegformer_r101.py',
    '../_base_/datasets/folder_512.py',
    '../_base_/default_runtime.py',
]

model = dict(
    split='cocostuff_156_15',
    test_split=_base_.split,
    class_embeddings=dict(templates='imagenet_select'),
    decode_head=dict(seen_weight=1.0, unseen_weight=1.0, pool_seen=False),
    calibrators=[],
    test_cfg=dict(return_scores=False),
)
train_dataloader = None
