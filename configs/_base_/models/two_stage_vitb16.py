# SAM's masks, named by OpenAI's ViT-B/16; nothing is trained. Needs the extra [masks].
#
# Both weights are downloaded on first use: SAM's from the hub, CLIP's by open_clip.
# Without a network give a folder of SAM's as model.decode_head.proposer.weights, and
# ViT-B-16.pt as model.backbone.pretrained and model.class_embeddings.source.pretrained.
# Masks take seconds per image on a GPU (proposer.device='cuda'), minutes without one;
# they are found once and kept.
_base_ = ['./clip_vitb16.py']

sam = dict(type='SAMProposer', weights='facebook/sam-vit-base')

model = dict(
    decode_head=dict(
        _delete_=True,
        type='ProposalHead',
        proposer=sam,
        region_classifier=dict(type='MaskPoolingClassifier'),
        output='log_mean',
        area_power=0.25,
        fallback=dict(type='DenseTextHead'),
    ),
    # Hundreds of masks at once: the label map is all that is kept.
    test_cfg=dict(return_scores=False),
)
