# The published selection, which leaks: after every epoch the checkpoint is judged by
# the NOVEL classes of the test images, and the best one is kept. All training images
# are trained on. Any fold can be changed like this. 1 GPU x 8 pairs.
_base_ = ['./pascal5i_vitb16_fold0.py']

train_dataloader = dict(dataset=dict(held_out=None))
val_dataloader = dict(
    dataset=dict(
        selection='novel_official',
        unseen_policy='ignore',
        sampling='episodes',
        seed=321,
        held_out=None,
        pipeline=_base_.test_pipeline,
        dataset=dict(_delete_=True, **_base_.test_dataloader.dataset.dataset),
    )
)
