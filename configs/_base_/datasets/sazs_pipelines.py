# How SAZS's code changes images: crops of 512 pixels in training, and test images of
# any shape squeezed into 512 x 512. Contours of all classes are the target of the edge
# head, with the faults of that code; `GenerateClassEdges()` alone has none of them.
crop_size = (512, 512)
edges = dict(
    type='GenerateClassEdges', radius=2, border=True, void_edges='contour', unlisted=()
)

sazs_load = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
sazs_changes = [
    dict(type='PILRandomRotate', degree=10),
    dict(type='PILRandomScale', ratio_range=(0.5, 2.0)),
    dict(type='RandomCrop', crop_size=crop_size),
    dict(type='Pad', size=crop_size, pad_val=dict(img=0, seg=255)),
    dict(type='RandomFlip', prob=0.5),
]
# The label map keeps its size: scores are brought back to it.
sazs_test_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=crop_size, keep_ratio=False),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
