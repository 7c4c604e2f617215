# A head that finds masks first, trained and tested by the tools.
_base_ = './tiny_run.py'
custom_imports = dict(
    imports=['zs3_mmseg', 'tiny_run_parts', 'two_mask_head'], allow_failed_imports=False
)
split = dict(name='squares', classes=['ground', 'square', 'stripe'], unseen=['stripe'])
model = dict(
    _delete_=True,
    type='ZeroShotEncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[127.5] * 3,
        std=[64.0] * 3,
        size=(16, 16),
        test_cfg=dict(size_divisor=4),
    ),
    backbone=dict(
        type='UNet',
        base_channels=8,
        num_stages=2,
        strides=(1, 1),
        enc_num_convs=(1, 1),
        dec_num_convs=(1,),
        downsamples=(True,),
        enc_dilations=(1, 1),
        dec_dilations=(1,),
    ),
    decode_head=dict(type='TwoMaskHead', in_channels=8, in_index=1, embed_dim=4),
    class_embeddings=dict(
        type='ClassEmbeddingBank',
        source=dict(type='tensor', path='rows.npy', names=split['classes']),
    ),
    split=split,
    setting='inductive',
    calibrators=[dict(type='SeenShift', shift=0.1, space='score')],
    test_cfg=dict(mode='slide', crop_size=(16, 16), stride=(8, 8), return_scores=False),
)
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ZeroShotDataset',
        phase='train',
        split=split,
        setting='inductive',
        dataset=dict(
            type='TinySquares',
            data_root='tiny_squares',
            pipeline={{_base_.train_pipeline}},
        ),
    )
)
