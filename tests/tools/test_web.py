"""``zs3 web``: what it says without Gradio, and its page in a browser."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import pytest
from PIL import Image

from zs3_mmseg.apis import Segmentation
from zs3_mmseg.apis.web.views import result_view

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'web.py'
#: Where the picture of the page for the documentation is written, if anywhere.
SCREENSHOT_ENV = 'ZS3_MMSEG_WEB_SCREENSHOT'
DESKTOP, PHONE = (1280, 1010), (390, 844)


@pytest.fixture
def main() -> Callable[[list[str]], int]:
    spec = importlib.util.spec_from_file_location('web_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        # Where Python finds the neighbours of a script that it runs.
        patch.syspath_prepend(TOOL.parent)
        spec.loader.exec_module(module)
    return module.main


def test_without_gradio_one_line_says_what_to_install(
    main: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
    with pytest.raises(SystemExit) as end:
        main([])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert said == 'error: the page needs Gradio: pip install "zs3_mmseg[web]"\n'


@pytest.mark.parametrize(
    ('words', 'said'),
    [
        (['--port', '0'], '--port takes 1 to 65535, got 0'),
        (['--max-pixels', '0'], 'expected a number from 1 on, got 0'),
        (['--models', '=a.pth'], "expected CONFIG or CONFIG=CHECKPOINT, got '=a.pth'"),
    ],
)
def test_wrong_arguments_are_named(
    words: list[str], said: str, main: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_serves_this_machine_alone(
    free_port: Callable[[], int], tmp_path: Path
) -> None:
    port = free_port()
    address = f'http://127.0.0.1:{port}'
    command = [sys.executable, str(TOOL), '--port', str(port), '--max-upload', '1']
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'TMPDIR': str(tmp_path)}
    output = tmp_path / 'output.txt'
    with output.open('w') as stream:
        served = subprocess.Popen(
            command,
            stdout=stream,
            stderr=stream,
            env=env,
            # What a shell starts in the background does not hear of Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
    try:
        patience = time.monotonic() + 600
        while not _answers(address):
            assert served.poll() is None, output.read_text()
            assert time.monotonic() < patience
            time.sleep(0.5)
        with urlopen(address) as answer:
            policy = answer.headers['Content-Security-Policy']
        assert policy.startswith("default-src 'self' ")
        # A name elsewhere that was made to mean this machine.
        assert _status(Request(address, headers={'Host': 'example.org'})) == 400
        form = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"'
        large = form + b'\r\n\r\n' + bytes(2**21) + b'\r\n--x--\r\n'
        kind = {'Content-Type': 'multipart/form-data; boundary=x'}
        assert _status(Request(f'{address}/gradio_api/upload', large, kind)) == 413
        taken = subprocess.run(
            command, env=env, capture_output=True, text=True, check=False
        )
        assert taken.returncode == 2
        assert (
            taken.stderr == f'error: 127.0.0.1, port {port}: Address already in use\n'
        )
    finally:
        served.send_signal(signal.SIGINT)
        try:
            status = served.wait(120)
        finally:
            served.kill()
    assert status == 0, output.read_text()
    assert output.read_text().startswith(f'The page: {address} (Ctrl-C ends it)\n')
    assert not [*tmp_path.glob('zs3_web_*')]


def _answers(address: str) -> bool:
    try:
        urlopen(address, timeout=5).close()
    except OSError:
        return False
    return True


def _status(request: Request) -> int:
    try:
        with urlopen(request) as answer:
            return answer.status
    except HTTPError as error:
        return error.code


# ------------------------------------------------------------------ in a browser


@dataclass(frozen=True)
class Served:
    """A page that is served, and what it works with."""

    address: str
    workbench: Any


@pytest.fixture(scope='module')
def served(
    free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp('gradio')
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv('GRADIO_TEMP_DIR', str(folder))
        from zs3_mmseg.apis.web.page import build_page, launch_page
        from zs3_mmseg.apis.web.workbench import Workbench

        workbench = Workbench(device='cpu', max_pixels=200 * 200)
        page, port = build_page(workbench), free_port()
        launch_page(page, host='127.0.0.1', port=port, max_upload=2**20, wait=False)
        yield Served(f'http://127.0.0.1:{port}', workbench)
        page.close()


@pytest.mark.slow
def test_files_of_this_machine_cannot_be_named(served: Served, tmp_path: Path) -> None:
    own = tmp_path / 'own.png'
    Image.new('RGB', (20, 20)).save(own)
    with urlopen(f'{served.address}/config') as answer:
        config = json.load(answer)
    (button,) = [c['id'] for c in config['components'] if c['type'] == 'uploadbutton']
    (event,) = [d['id'] for d in config['dependencies'] if d['targets'][0][0] == button]
    file = {'path': str(own), 'meta': {'_type': 'gradio.FileData'}}
    words, model = 'star, sand', served.workbench.models[0]
    asked = dict(
        data=[file, words, model, None], fn_index=event, session_hash='somebody'
    )
    kind = {'Content-Type': 'application/json'}
    joined = f'{served.address}/gradio_api/queue/join'
    encodings = served.workbench.encodings
    assert _status(Request(joined, json.dumps(asked).encode(), kind)) == 200
    events = f'{served.address}/gradio_api/queue/data?session_hash=somebody'
    with urlopen(events) as stream:
        lines = (json.loads(line[6:]) for line in stream if line.startswith(b'data: '))
        end = next(one for one in lines if one['msg'] == 'process_completed')
    assert not end['success']
    assert served.workbench.encodings == encodings
    assert own.is_file()


@pytest.fixture(scope='module')
def browser() -> Iterator[Any]:
    program = shutil.which('chromium') or shutil.which('chromium-browser')
    if program is None:
        pytest.skip('no chromium on this machine: apt-get install chromium')
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Its sandbox does not start as root.
        flags = ['--no-sandbox'] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=program, args=flags)
        yield started
        started.close()


class Visit:
    """A session of the page in a window of its own, with all that it asks for."""

    def __init__(self, browser: Any, address: str, size: tuple[int, int]) -> None:
        window = {'width': size[0], 'height': size[1]}
        self.context = browser.new_context(viewport=window, has_touch=size == PHONE)
        self.context.set_default_timeout(120_000)
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.page = self.context.new_page()
        self.page.on('request', lambda request: self.asked.append(request.url))
        self.page.on('pageerror', lambda error: self.faults.append(str(error)))
        self.page.goto(address)
        self.wait_for('112 x 112 pixels, 20 names')

    def wait_for(self, message: str) -> None:
        self.page.get_by_text(message).first.wait_for()

    def legend(self) -> list[str]:
        names = self.page.locator('.zs3-legend [data-class]')
        return names.evaluate_all('found => found.map(one => one.dataset.name)')

    def words(self, text: str) -> None:
        self.page.get_by_label('Names').fill(text)

    def overlay(self) -> str:
        return self.page.locator('.zs3-overlay').get_attribute('src')

    def wait_for_overlay_of(self, segmentation: Segmentation) -> None:
        drawn = re.search(r'zs3-overlay" src="([^"]+)"', result_view(segmentation))[1]
        self.page.wait_for_function(
            "drawn => document.querySelector('.zs3-overlay').src === drawn", arg=drawn
        )

    def name_at(self, across: float, down: float) -> str:
        box = self.page.locator('.zs3-stage').bounding_box()
        place = dict(x=across * box['width'], y=down * box['height'])
        self.page.locator('.zs3-stage').hover(position=place)
        return self.page.locator('.zs3-name').inner_text()


@pytest.fixture
def visit(browser: Any, served: Served) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def start(size: tuple[int, int] = DESKTOP) -> Visit:
        visits.append(Visit(browser, served.address, size))
        return visits[-1]

    yield start
    for one in visits:
        one.context.close()
        hosts = {urlsplit(url).hostname for url in one.asked}
        # Pictures are a part of the page: data: has no host.
        assert hosts <= {'127.0.0.1', None}, hosts
        assert not one.faults


@pytest.mark.slow
def test_the_page_from_sample_to_download(
    visit: Callable[..., Visit], served: Served, tmp_path: Path
) -> None:
    one = visit()
    page, encodings = one.page, served.workbench.encodings
    samples = served.workbench.samples()
    label = [*samples][1]
    page.get_by_role('radio', name=label).click()
    page.locator(f'.zs3-picture[alt="Picture {samples[label].name}"]').wait_for()
    assert served.workbench.encodings == encodings + 1

    names = ['boat|ship', 'star', 'sand', 'rocket', 'water']
    one.words('\n'.join(names))
    page.get_by_label('Names').press('Shift+Enter')
    one.wait_for('112 x 112 pixels, 5 names')
    assert served.workbench.encodings == encodings + 2

    # What the pointer reads is the label map that the model gives.
    model = served.workbench.models[0]
    scored = served.workbench.segment(samples[label], names, model)
    encodings = served.workbench.encodings
    shown = scored.result.display_names
    for row, column in ((20, 20), (56, 56), (90, 30), (100, 100)):
        name = one.name_at((column + 0.5) / 112, (row + 0.5) / 112)
        assert name == shown[scored.result.labels[row, column]]
    order = np.argsort(-scored.result.shares, kind='stable')
    assert one.legend() == [shown[i] for i in order if scored.result.shares[i]]
    if os.environ.get(SCREENSHOT_ENV):
        shot = Image.open(io.BytesIO(page.screenshot())).convert('RGB')
        few = shot.quantize(128, dither=Image.Dither.NONE)
        few.save(os.environ[SCREENSHOT_ENV], optimize=True)

    # By the keyboard, and without the model.
    slider = page.get_by_role('slider', name='Calibration')
    slider.focus()
    for _ in range(3):
        slider.press('PageUp')
    gamma = float(slider.input_value())
    assert gamma > 0
    moved = scored.relabelled(gamma)
    assert not np.array_equal(moved.labels, scored.result.labels)
    one.wait_for_overlay_of(moved)
    page.get_by_label('Heat map of a name').click()
    page.get_by_role('option', name='water').click()
    page.locator('[alt="Heat map of water"]').wait_for()
    assert served.workbench.encodings == encodings

    with page.expect_download() as download:
        page.get_by_role('button', name='Download').click()
    download.value.save_as(tmp_path / 'got.zip')
    packed = zipfile.ZipFile(tmp_path / 'got.zip')
    stem = Path(samples[label].name).stem
    record = json.loads(packed.read(f'{stem}.json'))
    assert record['model'] == dict(model=model, gamma=gamma, threshold=None)
    labels = Image.open(io.BytesIO(packed.read(f'{stem}_labels.png')))
    np.testing.assert_array_equal(np.asarray(labels), moved.labels)


@pytest.mark.slow
def test_sessions_do_not_meet(visit: Callable[..., Visit], served: Served) -> None:
    first, second = visit(), visit()
    first.words('boat, sand, star')
    first.page.get_by_role('button', name='Segment').click()
    first.wait_for('112 x 112 pixels, 3 names')
    label = [*served.workbench.samples()][2]
    second.page.get_by_role('radio', name=label).click()
    picture = served.workbench.samples()[label].name
    second.page.locator(f'.zs3-picture[alt="Picture {picture}"]').wait_for()
    slider = first.page.get_by_role('slider', name='Threshold')
    slider.press('End')
    first.page.get_by_text('without a name').wait_for()
    assert set(first.legend()) <= {'boat', 'sand', 'star'}
    kept = next(iter(served.workbench.samples().values())).name
    assert first.page.locator(f'[alt="Picture {kept}"]').is_visible()
    assert 'without a name' not in second.page.locator('.zs3-result').inner_text()


@pytest.mark.slow
def test_what_is_no_picture_is_refused_in_one_line(
    visit: Callable[..., Visit], tmp_path: Path
) -> None:
    one = visit()
    (tmp_path / 'note.png').write_text('a note')
    Image.new('RGB', (201, 200)).save(tmp_path / 'large.png')
    upload = one.page.locator('input[type=file]')
    fault = one.page.get_by_role('alert').filter(has_text='.png')
    shown = one.overlay()
    for name, said in (
        ('note.png', 'note.png: no picture in a known format'),
        ('large.png', 'large.png: 201 x 200 is more than the 40,000 pixels'),
    ):
        upload.set_input_files(tmp_path / name)
        fault.filter(has_text=said).wait_for()
        assert one.overlay() == shown
    one.words('star, star')
    one.page.get_by_role('button', name='Segment').click()
    one.page.get_by_role('alert').filter(has_text='more than once: star').wait_for()

    Image.new('RGB', (60, 40), 'blue').save(tmp_path / 'blue.webp')
    upload.set_input_files(tmp_path / 'blue.webp')
    one.page.locator('[alt="Picture blue.webp"]').wait_for()
    assert one.page.locator('.zs3-overlay').count() == 0
    one.words('star, water')
    one.page.get_by_role('button', name='Segment').click()
    one.wait_for('60 x 40 pixels, 2 names')
    assert one.page.locator('.zs3-fault').count() == 0


@pytest.mark.slow
def test_the_page_fits_a_phone_and_a_keyboard(visit: Callable[..., Visit]) -> None:
    one = visit(PHONE)
    widths = '[document.documentElement.scrollWidth, window.innerWidth]'
    assert one.page.evaluate(widths) == [PHONE[0], PHONE[0]]
    for label in ('Names', 'Model', 'Heat map of a name'):
        assert one.page.get_by_label(label).first.is_visible()
    stage = one.page.locator('.zs3-stage')
    stage.scroll_into_view_if_needed()
    box = stage.bounding_box()
    one.page.touchscreen.tap(box['x'] + box['width'] / 2, box['y'] + box['height'] / 2)
    assert one.page.locator('.zs3-name').inner_text() in one.legend()
    # A name of the legend that has the focus shows its regions.
    one.page.locator('.zs3-legend [data-class]').last.focus()
    veiled = one.page.locator('.zs3-spot').evaluate(
        """canvas => canvas.getContext('2d')
            .getImageData(0, 0, canvas.width, canvas.height).data
            .filter((value, place) => place % 4 === 3 && value > 0).length"""
    )
    assert 112 * 112 / 2 < veiled < 112 * 112
