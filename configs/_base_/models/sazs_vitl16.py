# SAZS as it was released: one name against "others", which pixels without a label are.
_base_ = ['./sazs_parts.py']

model = dict(
    type='ClassPromptedSegmentor',
    other_name='others',
    decode_head=dict(void_pixels='background'),
)
