# A semantic autoencoder between features and text rows, in closed form like
# shapes_eszsl.py; rows are decoded and compared as features. 1 process x 16 images.
_base_ = ['./shapes_eszsl.py']

model = dict(decode_head=dict(type='SemanticAutoencoderHead', compare='feature'))
