# A semantic autoencoder between features and text rows, in closed form like
# shapes_eszsl.py. 1 process x 16 images.
_base_ = ['./shapes_eszsl.py']

model = dict(decode_head=dict(type='SemanticAutoencoderHead'))
