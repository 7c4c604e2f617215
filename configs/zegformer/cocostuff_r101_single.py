# Testing only: the weights of cocostuff_r101.py as their evaluation was released, with
# rows of a single sentence, though they were trained with rows of eight.
_base_ = ['./cocostuff_r101.py']

model = dict(
    # Rows are made anew, though the checkpoint has some of these names.
    test_split=_base_.split,
    class_embeddings=dict(templates='zegformer'),
)
train_dataloader = None
