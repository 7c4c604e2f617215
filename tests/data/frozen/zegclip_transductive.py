auto_scale_lr = dict(base_batch_size=16, enable=False)
custom_hooks = [
    dict(type='ProtocolCheckHook'),
    dict(begin=2, type='SelfTrainingHook'),
    dict(begin=2, momentum=0.1, type='EMATeacherHook'),
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
        normalize=True,
        out_global=True,
        pretrained='tower.safetensors',
        prompts=dict(depth=2, dropout=0.1, num_tokens=3),
        type='OpenCLIPViT',
    ),
    calibrators=[],
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
    decode_head=dict(
        cosine_start=20.0,
        deep_supervision=True,
        descriptor=(
            'product',
            'text',
        ),
        loss_decode=dict(dice_weight=1.0, mask_weight=100.0, type='NonExclusiveLoss'),
        mask_bias=-6.0,
        num_heads=2,
        num_layers=2,
        type='ZegCLIPHead',
    ),
    setting='transductive',
    split='shapes_a',
    test_cfg=dict(mode='whole'),
    train_cfg=dict(),
    type='ZeroShotEncoderDecoder',
)
optim_wrapper = dict(
    optimizer=dict(lr=0.001, type='AdamW', weight_decay=0.01), type='OptimWrapper'
)
param_scheduler = [
    dict(by_epoch=False, power=0.9, type='WarmupPolyLR', warmup_steps=2),
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
        setting='transductive',
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
