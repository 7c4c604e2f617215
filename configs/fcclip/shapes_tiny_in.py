# The model of shapes_tiny.py, and its weights, named by the head alone. 1 process x 16
# images.
_base_ = ['./shapes_tiny.py']

model = dict(decode_head=dict(region_classifier=None))
