auto_scale_lr = dict(base_batch_size=16, enable=False)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
]
custom_imports = dict(
    allow_failed_imports=False,
    imports=[
        'zs3_mmseg',
    ],
)
default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=3, type='CheckpointHook'),
    logger=dict(interval=1, log_metric_by_epoch=False, type='LoggerHook'),
    param_scheduler=dict(type='ParamSchedulerHook'),
    random_state=dict(type='RandomStateHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    timer=dict(type='IterTimerHook'),
    visualization=dict(type='SegVisualizationHook'),
)
default_scope = 'mmseg'
env_cfg = dict(
    cudnn_benchmark=False,
    dist_cfg=dict(backend='nccl'),
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
)
load_from = None
log_level = 'INFO'
log_processor = dict(by_epoch=False)
model = dict(
    backbone=dict(
        arch='tower.json',
        last_attn='sclip',
        last_block='full',
        pretrained='tower.safetensors',
        type='OpenCLIPViT',
    ),
    class_embeddings=dict(
        source=dict(
            arch='tower.json', pretrained='tower.safetensors', type='clip_text'
        ),
        templates='single',
        type='ClassEmbeddingBank',
    ),
    data_preprocessor=dict(
        bgr_to_rgb=True,
        mean=[
            122.7709383,
            116.7460125,
            104.09373615,
        ],
        pad_val=0,
        seg_pad_val=255,
        size_divisor=8,
        std=[
            68.5005327,
            66.6321579,
            70.32316305,
        ],
        type='SegDataPreProcessor',
    ),
    decode_head=dict(projection='linear', type='TextPixelHead'),
    setting='inductive',
    split='shapes_a',
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='ZeroShotEncoderDecoder',
)
optim_wrapper = dict(
    clip_grad=dict(max_norm=1.0),
    optimizer=dict(lr=0.001, type='AdamW', weight_decay=0.01),
    type='OptimWrapper',
)
param_scheduler = [
    dict(begin=0, by_epoch=False, end=6, type='PolyLR'),
]
randomness = dict(seed=0)
resume = False
test_cfg = dict(type='TestLoop')
test_dataloader = dict(
    batch_size=4,
    dataset=dict(
        dataset=dict(
            data_root='data/shapes',
            num_images=4,
            subset='test',
            type='ShapesDataset',
            workers=1,
        ),
        phase='test',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                keep_ratio=True,
                scale=(
                    2048,
                    112,
                ),
                type='Resize',
            ),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        split='shapes_a',
        type='ZeroShotDataset',
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
test_evaluator = dict(boundary_ratio=0.02, type='ZeroShotIoUMetric')
train_cfg = dict(max_iters=6, type='IterBasedTrainLoop', val_interval=12)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        dataset=dict(
            data_root='data/shapes',
            num_images=8,
            subset='train',
            type='ShapesDataset',
            workers=1,
        ),
        phase='train',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(type='LoadAnnotations'),
            dict(prob=0.5, type='RandomFlip'),
            dict(brightness_delta=16, hue_delta=9, type='PhotoMetricDistortion'),
            dict(type='PackSegInputs'),
        ],
        setting='inductive',
        split='shapes_a',
        type='ZeroShotDataset',
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(type='DrawSampler'),
)
val_cfg = dict(type='ValLoop')
val_dataloader = dict(
    batch_size=4,
    dataset=dict(
        dataset=dict(
            data_root='data/shapes',
            num_images=4,
            subset='val',
            type='ShapesDataset',
            workers=1,
        ),
        phase='test',
        pipeline=[
            dict(type='LoadImageFromFile'),
            dict(
                keep_ratio=True,
                scale=(
                    2048,
                    112,
                ),
                type='Resize',
            ),
            dict(type='LoadAnnotations'),
            dict(type='PackSegInputs'),
        ],
        split='shapes_a',
        type='ZeroShotDataset',
    ),
    num_workers=0,
    persistent_workers=False,
    sampler=dict(shuffle=False, type='DefaultSampler'),
)
val_evaluator = dict(boundary_ratio=0.02, type='ZeroShotIoUMetric')
visualizer = dict(
    name='visualizer',
    type='ZeroShotLocalVisualizer',
    vis_backends=[
        dict(type='LocalVisBackend'),
    ],
)
