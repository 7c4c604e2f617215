# As published, captions may name anything: those of training images that show unseen
# classes say so, which is weak supervision of them. 1 process x 16 images.
_base_ = ['./shapes_tiny.py']

model = dict(decode_head=dict(unseen_words=True))
