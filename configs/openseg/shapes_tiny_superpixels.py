# Grounding alone: superpixels are the masks, in training and test, and nothing but
# captions is learned from. Ours. 1 process x 16 images.
_base_ = [
    '../_base_/models/openseg_shapes_tiny.py',
    '../_base_/datasets/shapes_captions.py',
    '../_base_/schedules/openseg_shapes_80.py',
]

model = dict(
    split=_base_.split,
    decode_head=dict(
        proposer=dict(
            type='SuperpixelProposer', num_segments=60, join_below=8.0, cache=False
        )
    ),
)
