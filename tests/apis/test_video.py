"""Videos and cameras: frames in, films out."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from zs3_mmseg.apis import (
    OutputNames,
    ZeroShotInferencer,
    segment_video,
    video_frames,
)
from zs3_mmseg.apis.inputs import load_picture

RATE, FRAMES = 10, 5


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / 'clip.avi'
    code = cv2.VideoWriter.fourcc(*'MJPG')
    writer = cv2.VideoWriter(str(path), code, RATE, (64, 48))
    for number in range(FRAMES):
        writer.write(np.full((48, 64, 3), (0, 0, 50 * number), np.uint8))  # red
    writer.release()
    return path


@pytest.fixture(scope='module')
def inferencer() -> ZeroShotInferencer:
    return ZeroShotInferencer(classes=['star', 'grass'], return_scores=True)


def test_every_second_frame_is_taken(video: Path) -> None:
    reds = [int(frame[..., 0].mean()) for frame in video_frames(video, step=2)]
    assert np.allclose(reds, [0, 100, 200], atol=6)


def test_a_video_is_segmented_frame_by_frame(
    inferencer: ZeroShotInferencer, video: Path
) -> None:
    stream = inferencer.stream([video])
    first = next(stream)
    assert first.labels.shape == (48, 64)
    assert first.scores is not None
    np.testing.assert_array_equal(first.scores.argmax(0), first.labels)
    assert len([*stream]) == FRAMES - 1


def frames_of(film: Path) -> tuple[float, list[np.ndarray]]:
    return cv2.VideoCapture(str(film)).get(cv2.CAP_PROP_FPS), [*video_frames(film)]


def test_a_film_shows_each_frame_and_a_file_its_shares(
    inferencer: ZeroShotInferencer, video: Path, tmp_path: Path
) -> None:
    names = OutputNames(tmp_path / 'out', [])
    film, last = segment_video(inferencer, video, names, step=2, frame_files=True)
    assert film.name == 'clip_overlay.mp4'
    found = [*inferencer.stream(video_frames(video, 2))]
    rate, shown = frames_of(film)
    assert (rate, len(shown)) == (RATE / 2, len(found))
    for frame, segmentation in zip(shown, found, strict=True):
        drawn = segmentation.draw(whole_legend=True)
        height, width = drawn.shape[:2]
        # What a film keeps of a drawing is near it, but for its letters and outlines.
        error = np.abs(frame[:height, :width].astype(int) - drawn)
        assert np.median(error) < 8
    record = json.loads((tmp_path / 'out/clip.json').read_text())
    assert record['classes'] == ['star', 'grass']
    assert [entry['frame'] for entry in record['frames']] == [0, 2, 4]
    for entry, segmentation in zip(record['frames'], found, strict=True):
        np.testing.assert_allclose(entry['shares'], segmentation.shares, atol=1e-6)
    np.testing.assert_array_equal(last.labels, found[-1].labels)
    written = {path.name for path in (tmp_path / 'out').glob('*_labels.png')}
    assert written == {f'clip_00000{number}_labels.png' for number in (0, 2, 4)}


def test_a_camera_is_watched_for_so_many_frames(
    inferencer: ZeroShotInferencer,
    video: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = cv2.VideoCapture
    monkeypatch.setattr(
        cv2, 'VideoCapture', lambda source: opened(str({3: video}.get(source, source)))
    )
    film, _ = segment_video(inferencer, 3, OutputNames(tmp_path, []), most=2)
    assert film.name == 'camera_3_overlay.mp4'
    assert len(frames_of(film)[1]) == 2


class Broken(ZeroShotInferencer):
    """Fails at its third picture."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(classes=['star', 'grass'])
        self.error, self.count = error, 0

    def segment(self, *args: object, **kwargs: object) -> tuple:
        self.count += 1
        if self.count == 3:
            raise self.error
        return super().segment(*args, **kwargs)


def test_ctrl_c_ends_a_film_where_it_is(video: Path, tmp_path: Path) -> None:
    names = OutputNames(tmp_path, [])
    film, _ = segment_video(Broken(KeyboardInterrupt()), video, names)
    assert len(frames_of(film)[1]) == 2
    assert len(json.loads((tmp_path / 'clip.json').read_text())['frames']) == 2


def test_after_an_error_there_is_no_film(video: Path, tmp_path: Path) -> None:
    names = OutputNames(tmp_path / 'out', [])
    with pytest.raises(ValueError, match='no room'):
        segment_video(Broken(ValueError('no room')), video, names)
    assert not [*(tmp_path / 'out').iterdir()]


def test_what_is_no_video_is_named(tmp_path: Path) -> None:
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(OSError, match=r'text\.mp4: OpenCV can read no frame'):
        next(video_frames(tmp_path / 'text.mp4'))
    with pytest.raises(FileNotFoundError, match='no such file'):
        next(video_frames(tmp_path / 'nothing.mp4'))


def test_a_video_is_no_picture(video: Path) -> None:
    with pytest.raises(OSError, match=r'clip\.avi: a video; stream\(\)'):
        load_picture(video)
