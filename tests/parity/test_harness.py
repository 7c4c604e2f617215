"""The harness itself: files are placed, and nothing is passed over in silence."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import checks_esda
import pytest
import registry
import test_golden as harness
from safetensors.numpy import save_file

PREFIXES = ['zegclip', 'zegclip_loss', 'zegclip_loss_dist']


@pytest.mark.parametrize(
    ('name', 'expected'),
    [
        ('zegclip_loss', 'zegclip_loss'),
        ('zegclip_loss_2', 'zegclip_loss'),
        ('zegclip_loss_dist_h', 'zegclip_loss_dist'),
        ('zegclip_slide', 'zegclip'),
        ('zegclippy', None),
        ('mystery', None),
    ],
)
def test_longest_known_prefix_wins(name: str, expected: str | None) -> None:
    assert registry.longest_prefix(name, PREFIXES) == expected


def paths(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).touch()
    invocation = SimpleNamespace(dir=Path('/'))
    config = SimpleNamespace(
        getoption=lambda _: str(folder), invocation_params=invocation
    )
    return [path.name for path in harness.golden_paths(config)]


def test_a_json_and_its_tensors_are_one_recording(tmp_path: Path) -> None:
    found = paths(tmp_path, 'b.json', 'b.safetensors', 'c.safetensors', 'd.txt')
    assert found == ['b.json', 'c.safetensors', 'd.txt']


def test_notes_are_no_recordings(tmp_path: Path) -> None:
    assert paths(tmp_path, 'README.md', '.hidden', 'a.json') == ['a.json']


def test_a_check_cannot_be_registered_twice() -> None:
    with pytest.raises(ValueError, match="two checks are registered for 'splits'"):
        registry.check('splits')(lambda golden: None)


def test_nothing_is_both_built_and_expected_to_fail() -> None:
    assert not registry.CHECKS.keys() & harness.NOT_BUILT_YET.keys()


@pytest.mark.parametrize(
    ('difference', 'kind', 'passes'),
    [
        (0.9e-5, 'output', True),
        (1.1e-5, 'output', False),
        (0.9e-4, 'gradient', True),
        (1.1e-4, 'gradient', False),
    ],
)
def test_tolerance_is_relative_to_the_largest_reference(
    difference: float, kind: str, passes: bool
) -> None:
    reference = [0.0, 0.0, -8.0]
    actual = [8 * difference, 0.0, -8.0]
    if passes:
        registry.assert_close(actual, reference, kind)
    else:
        with pytest.raises(AssertionError, match='largest difference'):
            registry.assert_close(actual, reference, kind)


@pytest.mark.parametrize(
    ('actual', 'reference'), [([1.0], [1.0, 1.0]), ([float('nan')], [1.0])]
)
def test_shapes_and_nans_are_compared_too(actual: Any, reference: Any) -> None:
    with pytest.raises(AssertionError):
        registry.assert_close(actual, reference)


NAN = float('nan')


@pytest.mark.parametrize(
    ('actual', 'reference', 'passes'),
    [
        ([5.0, 2.0], [NAN, 2.0], True),
        ([5.0, 2.0], [NAN, 3.0], False),
        ([NAN, 2.0], [NAN, 2.0], False),
        ([0.0], [NAN], True),
        ([1.0, 2.0], [1.0, 2.0], False),
    ],
)
def test_where_the_reference_is_said_to_be_nan(
    actual: Any, reference: Any, passes: bool
) -> None:
    if passes:
        registry.assert_close(actual, reference, undefined=True)
    else:
        with pytest.raises(AssertionError):
            registry.assert_close(actual, reference, undefined=True)


@pytest.fixture(scope='module')
def esda() -> tuple[registry.GoldenFile, checks_esda.Model]:
    golden = registry.GoldenFile(harness.DEFAULT_DIR / 'esda_main.json')
    return golden, checks_esda.Model(golden).eval()


@pytest.mark.parametrize(
    ('meaning', 'images', 'accepted'),
    [
        ('other input size 128x96, token row 0', 1, True),
        ('other input size 128x96, token row 0', 2, True),
        (None, 1, True),
        ('other input size 128x96, token row 1', 1, False),
    ],
)
def test_the_json_tells_the_tokens_of_another_input(
    esda: tuple[registry.GoldenFile, checks_esda.Model],
    tmp_path: Path,
    meaning: str | None,
    images: int,
    accepted: bool,
) -> None:
    """What was recorded of row 0 as ``eval_b0`` is right as ``eval_b1`` too."""
    recorded, model = esda
    tensors, content = recorded.tensors(), copy.deepcopy(recorded.json)
    for part in ('img', 'logits', 'dec_low', 'prior_last'):
        value = tensors[f'eval_b0.{part}']
        tensors[f'eval_b1.{part}'] = value.repeat(images, 1, 1, 1)
        if meaning is not None:
            content['tensors'][f'eval_b1.{part}'] = dict(meaning=meaning)
    golden = registry.GoldenFile(tmp_path / 'esda_main_2.json')
    golden.path.write_text(json.dumps(content))
    save_file({k: v.numpy() for k, v in tensors.items()}, golden.tensor_path)
    if accepted:
        checks_esda.check_other_inputs(model, golden)
    else:
        with pytest.raises(AssertionError, match=r'eval_b1.*largest difference'):
            checks_esda.check_other_inputs(model, golden)


#: Runs pytest as if a piece were expected that nobody has built.
WITH_A_PIECE_TO_COME = """
import sys
import pytest
sys.path.insert(0, sys.argv[1])
import expected_failures
expected_failures.NOT_BUILT_YET['unbuilt'] = 'a made-up piece'
sys.exit(pytest.main(sys.argv[2:]))
"""


@pytest.mark.slow
def test_each_file_fails_or_is_expected_to_by_its_own_name(tmp_path: Path) -> None:
    golden = tmp_path / 'golden'
    golden.mkdir()
    contents = {
        'mystery': '{}',
        'splits_2': '{broken',
        'gzsl_metrics_h': json.dumps(dict(file='gzsl_metrics_h.safetensors')),
        'unbuilt_losses_3': '{}',
        'unbuilt_optimizer': json.dumps([dict(lr=0.1)]),
        'unbuilt_main_2': json.dumps(dict(tensors={}, file='elsewhere')),
        'esda_main_2': json.dumps(dict(tensors={})),
    }
    for name, text in contents.items():
        (golden / f'{name}.json').write_text(text)
    save_file({}, golden / 'unbuilt_criterion_2.safetensors')
    save_file({}, golden / 'stray.safetensors')
    here = str(Path(__file__).parent)
    flags = ['-q', '-rA', here, '-k', 'test_golden', '-p', 'no:cacheprovider']
    command = [sys.executable, '-c', WITH_A_PIECE_TO_COME, here, *flags]
    ended = subprocess.run(
        [*command, '--golden-dir', 'golden'],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1
    outcome = {
        line.split('[')[1].split(']')[0]: line.split()[0]
        for line in ended.stdout.splitlines()
        if line.startswith(('PASSED', 'FAILED', 'XFAIL', 'XPASS', 'ERROR'))
        and 'test_golden[' in line
    }
    assert outcome == {
        'mystery.json': 'FAILED',
        'splits_2.json': 'FAILED',
        'gzsl_metrics_h.json': 'FAILED',
        'unbuilt_losses_3.json': 'XFAIL',
        'unbuilt_optimizer.json': 'XFAIL',
        'unbuilt_main_2.json': 'XFAIL',
        'esda_main_2.json': 'FAILED',
        'unbuilt_criterion_2.safetensors': 'XFAIL',
        'stray.safetensors': 'FAILED',
    }
