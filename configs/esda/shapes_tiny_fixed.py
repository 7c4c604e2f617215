# ESDA on Shapes with the evident intent of the code instead of what it does: patches
# stay in their places, priors are trained to be large on the named class, and pixels
# without a label count nowhere. 1 process x 8 pairs.
_base_ = ['./shapes_tiny.py']

model = dict(
    decode_head=dict(
        token_order='fixed', prior_target='foreground', void_pixels='ignore'
    )
)
