# The taps of Cascade-CLIP through the tower's own last norm and projection in place of
# random ones that nothing trains. 1 process x 16 images.
_base_ = ['./shapes_tiny.py']

model = dict(backbone=dict(tap_projection='clip'))
