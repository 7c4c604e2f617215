# What makes the two-word network of an LSeg: each image has the rows of "others" and of
# one name. Values to take over, as the rest depends on the trunk.
lseg_two_words = dict(
    type='ClassPromptedSegmentor',
    other_name='others',
    # Void pixels count as "others" in the loss, and not at all in the test.
    decode_head=dict(void_pixels='background'),
)
