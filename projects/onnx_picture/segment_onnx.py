"""Segment a picture with an exported model: numpy, Pillow and onnxruntime, no torch.

    python segment_onnx.py clip.onnx clip.npz photo.jpg photo_labels.png

tools/export.py wrote graph and classes. The graph takes RGB values in 0..255 of any
size, and a row of embeddings for each class. The result is an indexed picture of the
size of the picture, whose values are the classes.
"""

from __future__ import annotations

import argparse

import numpy as np
import onnxruntime
from PIL import Image


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('graph', help='the .onnx file')
    parser.add_argument('classes', help='the .npz file')
    parser.add_argument('picture')
    parser.add_argument('result', help='.png file to write')
    args = parser.parse_args()
    classes = np.load(args.classes, allow_pickle=False)
    picture = Image.open(args.picture).convert('RGB')
    given = picture
    if 'scale' in classes:  # the long and the short side that the model was tested with
        long, short = classes['scale'].tolist()
        factor = min(long / max(picture.size), short / min(picture.size))
        size = [round(side * factor) for side in picture.size]
        given = picture.resize(size, Image.Resampling.BILINEAR)
    pixels = np.asarray(given, np.float32).transpose(2, 0, 1)[None]
    session = onnxruntime.InferenceSession(args.graph)
    feed = dict(images=pixels, embeddings=classes['embeddings'], seen=classes['seen'])
    (scores,) = session.run(['scores'], feed)  # (1, K, H, W)
    labels = scores[0].argmax(axis=0)
    if len(scores[0]) == 1:
        labels = scores[0, 0] >= classes['score_thr']
    result = Image.fromarray(labels.astype(np.uint8))
    result = result.resize(picture.size, Image.Resampling.NEAREST)
    result.putpalette(classes['palette'].tobytes())
    result.save(args.result)
    for index, name in enumerate(classes['names']):
        print(f'{index} {name}: {np.mean(np.asarray(result) == index):.1%}')


if __name__ == '__main__':
    main()
