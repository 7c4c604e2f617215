"""tools/convert_checkpoint.py on CLIP weights of a tiny architecture."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from zs3_mmseg.models.towers import load_clip, release_towers

ARCH = {
    'embed_dim': 8,
    'quick_gelu': True,
    'vision_cfg': {
        'image_size': 16,
        'layers': 1,
        'width': 8,
        'head_width': 4,
        'patch_size': 8,
    },
    'text_cfg': {
        'context_length': 8,
        'vocab_size': 16,
        'width': 8,
        'heads': 2,
        'layers': 1,
    },
}
MARKS = {
    'input_resolution': torch.tensor(16),
    'context_length': torch.tensor(8),
    'vocab_size': torch.tensor(16),
}


@pytest.fixture
def arch(tmp_path: Path) -> Path:
    file = tmp_path / 'arch.json'
    file.write_text(json.dumps(ARCH))
    return file


@pytest.fixture(scope='module')
def weights() -> dict[str, torch.Tensor]:
    state = load_clip(ARCH).model.state_dict()
    return {key: value for key, value in state.items() if key != 'attn_mask'}


def convert(run_tool, source: Path, arch: Path, *flags: str):
    arguments = ['clip', source, 'out.safetensors', '--arch', arch, *flags]
    return run_tool('convert_checkpoint.py', *arguments, folder=source.parent)


def test_openai_weights_become_a_plain_file(run_tool, arch, weights, tmp_path) -> None:
    source = tmp_path / 'clip.pt'
    old = {f'module.{key}': value.half() for key, value in weights.items()}
    torch.save({'epoch': 3, 'state_dict': old | MARKS}, source)
    finished = convert(run_tool, source, arch)
    assert finished.status == 0, finished.output
    assert '0 UNKNOWN' in finished.output
    assert '  visual.conv1.weight\n' in finished.output
    with safe_open(tmp_path / 'out.safetensors', 'pt') as file:
        assert file.metadata()['activation'] == 'quick_gelu'
    release_towers()
    loaded = load_clip(ARCH, tmp_path / 'out.safetensors').model.state_dict()
    for key, value in weights.items():
        torch.testing.assert_close(loaded[key], value.half().float(), rtol=0, atol=0)


def test_the_origin_is_not_lost(run_tool, arch, weights, tmp_path) -> None:
    torch.save(weights | MARKS, tmp_path / 'clip.pt')
    assert convert(run_tool, tmp_path / 'clip.pt', arch).status == 0
    with pytest.raises(ValueError, match='QuickGELU'):
        load_clip({**ARCH, 'quick_gelu': False}, tmp_path / 'out.safetensors')


def test_openai_weights_are_refused_for_gelu(run_tool, arch, weights, tmp_path) -> None:
    arch.write_text(json.dumps({**ARCH, 'quick_gelu': False}))
    torch.save(weights | MARKS, tmp_path / 'clip.pt')
    finished = convert(run_tool, tmp_path / 'clip.pt', arch)
    assert finished.status == 2
    assert 'need QuickGELU' in finished.output


def test_nothing_is_guessed(run_tool, arch, weights, tmp_path) -> None:
    state = {key: value for key, value in weights.items() if key != 'logit_scale'}
    torch.save(state | {'novel': torch.ones(1)}, tmp_path / 'clip.pt')
    finished = convert(run_tool, tmp_path / 'clip.pt', arch)
    assert finished.status == 1
    assert '1 UNKNOWN in the source\n  novel\n' in finished.output
    assert '1 MISSING in the source\n  logit_scale\n' in finished.output
    assert not (tmp_path / 'out.safetensors').exists()


@pytest.mark.filterwarnings('ignore::FutureWarning')
def test_unknown_archives_need_trust(run_tool, arch, tmp_path) -> None:
    source = tmp_path / 'archive.pt'
    torch.jit.trace(torch.nn.Linear(2, 1), torch.ones(1, 2)).save(source)
    refused = convert(run_tool, source, arch)
    assert refused.status == 2
    assert 'TorchScript' in refused.output
    trusted = convert(run_tool, source, arch, '--trust')
    assert trusted.status == 1
    assert '2 UNKNOWN in the source' in trusted.output


def test_nothing_is_overwritten_unasked(run_tool, arch, weights, tmp_path) -> None:
    torch.save(weights, tmp_path / 'clip.pt')
    (tmp_path / 'out.safetensors').write_text('mine')
    refused = convert(run_tool, tmp_path / 'clip.pt', arch)
    assert refused.status == 2
    assert (tmp_path / 'out.safetensors').read_text() == 'mine'
    assert convert(run_tool, tmp_path / 'clip.pt', arch, '--force').status == 0
