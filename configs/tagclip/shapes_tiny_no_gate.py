# TagCLIP on Shapes without the weighing of scores at test time. It LEAKS as the other
# does. 1 process x 16 images.
_base_ = ['./shapes_tiny.py']

model = dict(calibrators=[dict(type='SeenShift', shift=0.1, space='score')])
