"""What published codes call classes, where it is not the name in the split."""

from __future__ import annotations

from collections.abc import Mapping

from zs3_mmseg.utils.names import choose

#: Name of a class -> the text that stands for it. LSeg's code takes what its lists hold
#: up to the first space for ADE20K, and the spellings of VOC without spaces for COCO.
TEXTS: dict[str, dict[str, str]] = {
    'lseg_ade20k': {
        name: name.split()[0]
        for name in (
            'chest of drawers',
            'pool table',
            'screen door',
            'coffee table',
            'kitchen island',
            'swivel chair',
            'arcade machine',
            'television receiver',
            'dirt track',
            'conveyer belt',
            'swimming pool',
            'trade name',
            'traffic light',
            'crt screen',
            'bulletin board',
        )
    },
    'lseg_coco': {
        'motorcycle': 'motorbike',
        'airplane': 'aeroplane',
        'couch': 'sofa',
        'tv': 'tvmonitor',
        **{
            name: name.replace(' ', '')
            for name in (
                'traffic light',
                'fire hydrant',
                'stop sign',
                'parking meter',
                'sports ball',
                'baseball bat',
                'baseball glove',
                'tennis racket',
                'wine glass',
                'hot dog',
                'potted plant',
                'dining table',
                'cell phone',
                'teddy bear',
                'hair drier',
            )
        },
    },
}


def resolve_texts(texts: str | Mapping[str, str] | None) -> dict[str, str]:
    """Return a table of :data:`TEXTS` by its name, a table as it is, or an empty one.

    Raises:
        ValueError: for an unknown name, or a text that is none.
    """
    if texts is None:
        return {}
    if isinstance(texts, str):
        return TEXTS[choose('class_embeddings.texts', texts, TEXTS)]
    empty = [name for name, text in texts.items() if not str(text).strip()]
    if empty:
        raise ValueError(f'class_embeddings.texts has no text for {empty[0]!r}')
    return dict(texts)
