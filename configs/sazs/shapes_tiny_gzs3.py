# SAZS asked for all 20 classes of Shapes at once, one pass of the head per name. This
# is ours: the code only ever asks for a class that is there. Eigensegments vote, and
# take no mask's place. The weights are those of shapes_tiny.py. 1 process x 8 pairs.
_base_ = ['./shapes_tiny.py']

model = dict(
    post_processors=[dict(_base_.model.post_processors[0], rule='vote')],
    test_cfg=dict(return_scores=True),
)
load_from = f'work_dirs/sazs/shapes_tiny/iter_{_base_.max_iters}.pth'
test_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ZeroShotDataset',
        phase='test',
        split=_base_.split,
        dataset=dict(type='ShapesDataset', data_root=_base_.data_root, subset='test'),
        pipeline=_base_.test_pipeline,
    )
)
test_evaluator = dict(_delete_=True, type='ZeroShotIoUMetric', boundary_ratio=0.02)
