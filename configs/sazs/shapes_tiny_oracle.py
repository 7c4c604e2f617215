# The test of SAZS's released code on Shapes: of the prediction and five eigensegments
# whatever agrees best with the GROUND TRUTH is scored. An upper bound, called oracle in
# every table; train with shapes_tiny.py. 1 process x 8 pairs.
_base_ = ['./shapes_tiny.py']

proposer = _base_.model.post_processors[0]['proposer']
model = dict(post_processors=[])
val_evaluator = dict(oracle=True, proposer=proposer)
test_evaluator = val_evaluator
