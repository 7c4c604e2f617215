"""tools/segment.py on good, odd and broken pictures, and on mistakes of its user."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from mmengine.runner import CheckpointLoader

from zs3_mmseg.apis import find_config

TOOL = Path(__file__).resolve().parents[2] / 'tools' / 'segment.py'
Main = Callable[..., int]


@pytest.fixture(scope='module')
def main() -> Iterator[Main]:
    """Return the tool's main function, which takes its arguments one by one."""
    spec = importlib.util.spec_from_file_location('segment_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Where Python finds the neighbours of a script that it runs.
        patch.syspath_prepend(TOOL.parent)
        spec.loader.exec_module(module)
    # The tool owns its process and sends mmengine's loading through our reader.
    schemes = dict(CheckpointLoader._schemes)
    yield lambda *arguments: module.main([str(part) for part in arguments])
    CheckpointLoader._schemes.clear()
    CheckpointLoader._schemes.update(schemes)


def scene(size: tuple[int, int] = (60, 50)) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (10, 10, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def odd_pictures(folder: Path) -> list[str]:
    """Write a picture of each kind that readers stumble over; return the names."""
    scene().convert('L').save(folder / 'grey.png')
    scene().convert('CMYK').save(folder / 'cmyk.jpg')
    scene().convert('RGBA').save(folder / 'rgba.png')
    deep = np.asarray(scene().convert('L')).astype(np.uint16) * 257
    Image.fromarray(deep).save(folder / 'deep.png')
    scene((1, 1)).save(folder / 'dot.png')
    scene((900, 2)).save(folder / 'strip.png')
    return ['grey.png', 'cmyk.jpg', 'rgba.png', 'deep.png', 'dot.png', 'strip.png']


def test_broken_files_are_named_and_all_others_processed(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = odd_pictures(tmp_path)
    scene().save(tmp_path / 'good.png')
    whole = (tmp_path / 'good.png').read_bytes()
    (tmp_path / 'cut.png').write_bytes(whole[: len(whole) // 2])
    (tmp_path / 'empty.jpg').touch()
    out = tmp_path / 'out'
    names = ['cut.png', 'good.png', 'gone.png', 'empty.jpg', *names]
    pictures = [tmp_path / name for name in names]
    status = main(*pictures, '--classes', 'star', 'heart', '--out-dir', out)
    said = capsys.readouterr()
    assert status == 1
    for name in ('cut.png', 'gone.png', 'empty.jpg'):
        (line,) = [line for line in said.err.splitlines() if name in line]
        assert line.startswith('error: ')
    assert 'Traceback' not in said.err + said.out
    for name in names:
        stem, is_bad = name.split('.')[0], name in ('cut.png', 'gone.png', 'empty.jpg')
        assert (out / f'{stem}.json').exists() != is_bad
    for name in names[1:2] + names[4:]:
        with Image.open(tmp_path / name) as picture:
            size = picture.size
        stem = name.split('.')[0]
        with Image.open(out / f'{stem}_labels.png') as labels:
            assert (labels.mode, labels.size) == ('P', size)
            assert set(np.unique(labels)) <= {0, 1}
        record = json.loads((out / f'{stem}.json').read_text())
        assert sum(entry['share'] for entry in record['classes']) == pytest.approx(1)
        assert (out / f'{stem}_overlay.png').exists()


def test_a_large_photo_is_labelled_at_its_own_size(main: Main, tmp_path: Path) -> None:
    scene((4000, 3000)).save(tmp_path / 'photo.jpg')
    status = main(
        tmp_path / 'photo.jpg', '--classes', 'star', 'sofa|couch', '--out-dir', tmp_path
    )
    assert status == 0
    with Image.open(tmp_path / 'photo_labels.png') as labels:
        assert labels.size == (4000, 3000)
    with Image.open(tmp_path / 'photo_overlay.png') as overlay:
        assert overlay.width == 4000
        assert overlay.height > 3000
    sofa = json.loads((tmp_path / 'photo.json').read_text())['classes'][1]
    assert (sofa['name'], sofa['synonyms']) == ('sofa', ['sofa', 'couch'])


def test_300_names_give_a_16_bit_label_map(main: Main, tmp_path: Path) -> None:
    scene().save(tmp_path / 'a.png')
    names = [f'name {index}' for index in range(300)]
    assert main(tmp_path / 'a.png', '--classes', *names, '--out-dir', tmp_path) == 0
    with Image.open(tmp_path / 'a_labels.png') as labels:
        assert labels.mode.startswith('I;16')
        assert np.asarray(labels).max() < 300
    record = json.loads((tmp_path / 'a.json').read_text())
    assert [entry['name'] for entry in record['classes']] == names


def test_inputs_of_one_stem_do_not_meet_and_inputs_survive(
    main: Main, tmp_path: Path
) -> None:
    for name in ('a.png', 'a.bmp', 'a_overlay.png'):
        scene().save(tmp_path / name)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert main(tmp_path, '--classes', 'star', 'heart', '--out-dir', tmp_path) == 0
    for path, content in before.items():
        assert path.read_bytes() == content
    records = [json.loads(path.read_text()) for path in tmp_path.glob('*.json')]
    assert {record['file'] for record in records} == {str(path) for path in before}


def test_the_models_own_classes_are_the_default(main: Main, tmp_path: Path) -> None:
    scene().save(tmp_path / 'a.png')
    assert main(tmp_path / 'a.png', '--out-dir', tmp_path / 'out') == 0
    record = json.loads((tmp_path / 'out' / 'a.json').read_text())
    unseen = {entry['name'] for entry in record['classes'] if not entry['seen']}
    assert unseen == {'car', 'mushroom', 'butterfly', 'rocket', 'bricks'}


@pytest.mark.parametrize(
    ('arguments', 'says'),
    [
        (['--classes', 'cat', 'dog', 'cat'], 'more than once: cat'),
        (['--classes', 'cat', 'dog|Cat'], 'more than once: cat'),
        (['--classes', 'cat', ''], 'empty'),
        (['--classes', 'cat', '  '], 'empty'),
        (['--classes', 'cat|', 'dog'], 'empty synonym'),
        (['--classes', 'cat', '--unseen', 'cats'], "Did you mean 'cat'"),
        (['--unseen', 'cat'], '--classes'),
        (['--classes', __file__], 'pictures before --classes'),
        (['--names-file', 'no.txt'], 'no.txt is missing'),
        (['--names-file', __file__, '--classes', 'cat'], 'not allowed with'),
        (['--config', 'clip_dense/shapes_tin'], "Did you mean 'clip_dense/shapes_tiny"),
        (['--config', 'clip_dense/shapes_tiny', '--checkpoint', 'no.pth'], 'no.pth'),
        (['--checkpoint', 'no.pth'], '--config'),
        (['--device', 'toaster'], 'toaster'),
        (['--opacity', '2'], 'from 0 to 1'),
        (['--out-dir', __file__], 'is no folder'),
    ],
)
def test_mistakes_end_with_status_2_and_one_message(
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
) -> None:
    scene().save(tmp_path / 'a.png')
    with pytest.raises(SystemExit) as ended:
        main(tmp_path / 'a.png', '--out-dir', tmp_path / 'out', *arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    messages = [line for line in said.splitlines() if 'error: ' in line]
    assert len(messages) == 1
    assert says in messages[0]
    assert 'Traceback' not in said
    assert not list(tmp_path.glob('out/*'))


def test_files_are_looked_at_before_a_model_is_built(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / 'notes.txt').write_text('no picture')
    (tmp_path / 'empty').mkdir()
    given = ['gone.png', 'notes.txt', 'empty', '*.jpg', 'https://localhost:1/a.png']
    pictures = [item if '/' in item else tmp_path / item for item in given]
    # A config that cannot be built would be an error of its own.
    status = main(*pictures, '--out-dir', tmp_path / 'out', '--config', 'no_config')
    said = capsys.readouterr()
    assert status == 1
    errors = said.err.splitlines()
    for item in given:
        (line,) = [line for line in errors if item in line]
        assert line.startswith('error: ')
    assert len(errors) == len(given)
    assert f'0 pictures segmented, {len(given)} failed' in said.out
    assert not (tmp_path / 'out').exists()


def test_names_come_from_a_file_and_pictures_from_nested_folders(
    main: Main, tmp_path: Path
) -> None:
    for place in ('one', 'two/deep'):
        (tmp_path / 'in' / place).mkdir(parents=True)
        scene().save(tmp_path / 'in' / place / 'a.png')
    (tmp_path / 'names.txt').write_text(
        '\ufeff# of scenes\nsea|water\n\nstar\n', 'utf-8'
    )
    flags = ['--names-file', tmp_path / 'names.txt', '--unseen', 'star']
    out = tmp_path / 'in' / 'out'
    # What the first run has written is no input of the second.
    for _ in range(2):
        assert main(tmp_path / 'in', *flags, '--out-dir', out) == 0
        records = [json.loads(path.read_text()) for path in sorted(out.glob('*.json'))]
        assert len(records) == 2
    for record in records:
        names = {entry['name']: entry['seen'] for entry in record['classes']}
        assert names == {'sea': True, 'star': False}


@pytest.mark.parametrize('columns', [40, 80])
def test_the_table_fits_the_console(
    main: Main,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: int,
) -> None:
    monkeypatch.setenv('COLUMNS', str(columns))
    folder = tmp_path / 'a_rather_long_name_of_a_folder' / 'and_another_one'
    folder.mkdir(parents=True)
    scene().save(folder / 'a_photograph_from_the_holidays_1234.png')
    names = ['street light pole', 'star', 'x' * 300]
    assert main(folder, '--classes', *names, '--out-dir', tmp_path / 'out') == 0
    table = [line for line in capsys.readouterr().out.splitlines() if '\u2502' in line]
    assert table
    assert max(map(len, table)) <= columns
    # Nothing is lost at the end of a line.
    cells = [[cell.strip() for cell in line.split('\u2502')[1:-1]] for line in table]
    picture, found, drawn = (''.join(column) for column in zip(*cells, strict=True))
    assert picture.endswith('holidays_1234.png')
    assert '%' in found
    assert drawn == 'a_photograph_from_the_holidays_1234_overlay.png'


def test_a_file_name_as_long_as_names_may_be(main: Main, tmp_path: Path) -> None:
    path = tmp_path / ('x' * 251 + '.png')
    scene().save(path)
    assert main(path, '--classes', 'star', 'boat', '--out-dir', tmp_path / 'out') == 0
    (record,) = (tmp_path / 'out').glob('*.json')
    assert json.loads(record.read_text())['file'] == str(path)


def test_a_poisoned_checkpoint_executes_nothing(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene().save(tmp_path / 'a.png')
    mark = tmp_path / 'executed'

    class Poison:
        def __reduce__(self) -> tuple:
            return Path.touch, (mark,)

    torch.save({'state_dict': Poison()}, tmp_path / 'bad.pth')
    options = ['--config', 'clip_dense/shapes_tiny', '--checkpoint']
    with pytest.raises(SystemExit) as ended:
        main(tmp_path / 'a.png', '--out-dir', tmp_path, *options, tmp_path / 'bad.pth')
    assert ended.value.code == 2
    assert 'Nothing was executed' in capsys.readouterr().err
    assert not mark.exists()


@pytest.mark.slow
def test_a_fresh_process_in_another_folder(tmp_path: Path) -> None:
    scene().save(tmp_path / 'my photo.png')
    command = [sys.executable, TOOL, 'my photo.png', 'gone.png', '--out-dir', 'out']
    command += ['--config', find_config('clip_dense/shapes_tiny')]
    done = subprocess.run(
        [*map(str, command), '--classes', 'star', 'traffic light'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stderr
    assert 'error: gone.png: no such file' in done.stderr
    assert 'never trained on' in done.stdout + done.stderr
    assert '1 picture segmented, 1 failed; results in out' in done.stdout
    assert (tmp_path / 'out' / 'my photo_overlay.png').exists()


def test_videos_and_pictures_are_taken_together(
    main: Main, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    scene().save(tmp_path / 'still.png')
    film = tmp_path / 'street.avi'
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*'MJPG'), 8, (64, 48))
    for _ in range(5):
        writer.write(np.asarray(scene((64, 48))))
    writer.release()
    flags = ('--every', 2, '--max-frames', 2, '--classes', 'star', 'heart')
    inputs = (tmp_path / 'still.png', film, 'camera:99')
    assert main(*inputs, *flags, '--out-dir', tmp_path / 'out') == 1
    assert capsys.readouterr().err.splitlines()[-1] == (
        'error: camera 99: OpenCV can read no frame of it'
    )
    record = json.loads((tmp_path / 'out/street.json').read_text())
    assert [frame['frame'] for frame in record['frames']] == [0, 2]
    written = {path.name for path in (tmp_path / 'out').iterdir()}
    assert {'street_overlay.mp4', 'still_labels.png'} <= written
    assert not any(name.startswith('street_0') for name in written)


@pytest.mark.parametrize('flag', ['--every', '--max-frames'])
def test_a_number_of_frames_begins_at_1(main: Main, flag: str) -> None:
    with pytest.raises(SystemExit) as caught:
        main('a.mp4', flag, '0', '--out-dir', 'out')
    assert caught.value.code == 2
