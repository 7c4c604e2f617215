# Shapes, class by class: an image and one name. The unseen classes of a split are its
# fold. Images with an unseen class are left out of training; a checkpoint would be
# chosen on the val scenes by classes of the training (selection='held_out').
_base_ = ['./shapes.py']

# 2048 pixels of 480 x 480 are as much as 112 of 112 x 112.
min_pixels = 112
dataset_type = 'ClassPromptDataset'

train_dataloader = dict(dataset=dict(type=dataset_type, min_pixels=min_pixels))
test_dataloader = dict(
    dataset=dict(type=dataset_type, min_pixels=min_pixels, sampling='exhaustive')
)
val_dataloader = dict(
    dataset=dict(
        type=dataset_type,
        min_pixels=min_pixels,
        sampling='exhaustive',
        selection='held_out',
    )
)
val_evaluator = dict(_delete_=True, type='FoldIoUMetric')
test_evaluator = val_evaluator
