# The last step of a training on captions, which hands them to the head.
caption_pack = dict(
    type='PackSegInputs',
    meta_keys=('img_path', 'ori_shape', 'img_shape', 'caption'),
)
