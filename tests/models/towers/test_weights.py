from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import open_clip
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from zs3_mmseg.models.towers import (
    clip,
    load_clip,
    openai_sha256,
    resize_positions,
    resolve_architecture,
)
from zs3_mmseg.utils.checkpoint import CheckpointError, UnsafeCheckpointError

OPENAI_SCALARS = dict(input_resolution=32, context_length=12, vocab_size=49408)


def _save_plain(state: dict[str, Tensor], path: Path) -> Path:
    torch.save(state, path.with_suffix('.pt'))
    return path.with_suffix('.pt')


def _save_safetensors(state: dict[str, Tensor], path: Path) -> Path:
    save_file(state, path.with_suffix('.safetensors'))
    return path.with_suffix('.safetensors')


def _save_data_parallel(state: dict[str, Tensor], path: Path) -> Path:
    wrapped = {f'module.{key}': value for key, value in state.items()}
    torch.save(dict(epoch=3, state_dict=wrapped), path.with_suffix('.pth'))
    return path.with_suffix('.pth')


def _save_openai(state: dict[str, Tensor], path: Path) -> Path:
    scalars = {key: torch.tensor(value) for key, value in OPENAI_SCALARS.items()}
    half = {key: value.half() for key, value in state.items()}
    torch.save(half | scalars, path.with_suffix('.bin'))
    return path.with_suffix('.bin')


@pytest.mark.parametrize(
    'save', [_save_plain, _save_safetensors, _save_data_parallel, _save_openai]
)
def test_every_form_of_file_gives_the_same_weights(
    save: Callable, tmp_path: Path, tiny_config, tiny_clip
) -> None:
    source = tiny_clip(quick_gelu=True)
    path = save(source.state_dict(), tmp_path / 'weights')
    loaded = load_clip(tiny_config(quick_gelu=True), path)
    for key, value in loaded.model.state_dict().items():
        assert value.dtype == torch.float32
        tolerance = 1e-3 if save is _save_openai else 0
        torch.testing.assert_close(
            value, source.state_dict()[key], rtol=tolerance, atol=tolerance
        )


def test_text_towers_of_their_own_get_files_without_that_prefix(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    state = tiny_clip().state_dict()
    path = _save_plain(state, tmp_path / 'weights')
    loaded = load_clip(tiny_config() | dict(custom_text=True), path)
    ours = loaded.model.text.token_embedding.weight
    assert torch.equal(ours, state['token_embedding.weight'])


def test_openai_weights_in_a_gelu_model_are_an_error(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    path = _save_openai(tiny_clip().state_dict(), tmp_path / 'weights')
    with pytest.raises(ValueError, match=r'trained with QuickGELU.*"quick_gelu": true'):
        load_clip(tiny_config(), path)


@pytest.mark.parametrize(
    ('arch', 'tag', 'message'),
    [
        ('ViT-B-16', 'openai', r"QuickGELU.*Use arch='ViT-B-16-quickgelu'"),
        ('ViT-L-14', 'metaclip_400m', r"Use arch='ViT-L-14-quickgelu'"),
        ('ViT-B-32-quickgelu', 'laion2b_s34b_b79k', r"with GELU.*Use arch='ViT-B-32'"),
    ],
)
def test_a_tag_of_another_activation_is_an_error(
    arch: str, tag: str, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        load_clip(arch, tag)


def test_an_unknown_tag_lists_the_known_ones(tiny_config) -> None:
    with pytest.raises(
        ValueError, match=r"Did you mean 'openai'\? Its tags: 'openai', "
    ):
        load_clip('ViT-B-16', 'openia')
    with pytest.raises(ValueError, match='tags go with open_clip model names'):
        load_clip(tiny_config(), 'openai')


def test_a_missing_file_is_named_with_its_argument(tmp_path: Path, tiny_config) -> None:
    (tmp_path / 'weights.pt').touch()
    missing = tmp_path / 'wieghts.pt'
    message = r"wieghts\.pt do not exist.*pretrained='.*Did you mean 'weights\.pt'"
    with pytest.raises(FileNotFoundError, match=message):
        load_clip(tiny_config(), missing)


def test_a_tag_without_network_says_how_to_do_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: object) -> None:
        raise OSError('no route')

    monkeypatch.setattr(clip, 'require_hub', fail)
    with pytest.raises(
        ConnectionError,
        match=r"no route.*https://openai\S*/ViT-B-16\.pt here.*pretrained='/path/to/",
    ):
        load_clip('ViT-B-16-quickgelu', 'openai')


TAGS = {
    ('ViT-B-16-quickgelu', 'openai'): r'https://openai\S*/ViT-B-16\.pt',
    ('ViT-B-16', 'laion2b_s34b_b88k'): (
        r'https://\S+/laion/CLIP-ViT-B-16\S*/open_clip_pytorch_model\.bin'
    ),
}


@pytest.mark.parametrize(('arch', 'tag'), TAGS)
@pytest.mark.parametrize('offline', [True, False])
def test_an_unreachable_hub_is_told_at_once(
    arch: str, tag: str, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_OFFLINE', offline)
    monkeypatch.setattr(huggingface_hub.constants, 'ENDPOINT', 'http://127.0.0.1:9')
    monkeypatch.setattr(open_clip, 'download_pretrained', pytest.fail)
    with pytest.raises(ConnectionError, match=f'bring {TAGS[arch, tag]} here'):
        load_clip(arch, tag)


@pytest.mark.parametrize(
    'name', ['open_clip_model.safetensors', 'open_clip_pytorch_model.bin']
)
def test_a_cached_tag_asks_nobody(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, 'HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr(open_clip, 'download_pretrained', pytest.fail)
    monkeypatch.setattr(clip, 'require_hub', pytest.fail)
    repo = tmp_path / 'models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K'
    (repo / 'refs').mkdir(parents=True)
    (repo / 'refs/main').write_text('0' * 40)
    file = repo / 'snapshots' / ('0' * 40) / name
    file.parent.mkdir(parents=True)
    file.touch()
    architecture = resolve_architecture('ViT-B-16')
    assert clip.resolve_weights(architecture, 'laion2b_s34b_b88k').path == file


def test_a_missing_file_of_a_known_name_has_an_address(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r'Get it: https://openai\S*-16\.pt'):
        load_clip('ViT-B-16-quickgelu', tmp_path / 'ViT-B-16.pt')


def test_keys_that_do_not_fit_are_listed(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    state = tiny_clip().state_dict()
    state['visual.extra'] = torch.zeros(1)
    state['visual.proj'] = torch.zeros(32, 5)
    del state['ln_final.bias']
    path = _save_plain(state, tmp_path / 'weights')
    with pytest.raises(CheckpointError) as caught:
        load_clip(tiny_config(), path)
    message = str(caught.value)
    assert 'ln_final.bias' in message
    assert 'visual.extra' in message
    assert 'visual.proj: (32, 5) in the file, (32, 24) in the model' in message


@pytest.mark.parametrize('tower', ['image', 'text'])
def test_a_file_of_one_tower_serves_that_tower(
    tower: str, tmp_path: Path, tiny_config, tiny_clip
) -> None:
    state = {
        key: value
        for key, value in tiny_clip().state_dict().items()
        if key.startswith('visual.') == (tower == 'image') and key != 'logit_scale'
    }
    path = _save_plain(state, tmp_path / 'weights')
    loaded = load_clip(tiny_config(), path, need=tower)
    ours = loaded.model.state_dict()
    assert all(torch.equal(ours[key], value) for key, value in state.items())
    other = 'text' if tower == 'image' else 'image'
    with pytest.raises(CheckpointError, match=f'has no {other} tower'):
        load_clip(tiny_config(), path, need=other)


def test_positions_of_another_image_size_are_resized(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    state = tiny_clip().state_dict()
    path = _save_plain(state, tmp_path / 'weights')
    loaded = load_clip(tiny_config(image_size=48), path, pos_interp='bilinear')
    stored = state['visual.positional_embedding']
    expected = resize_positions(stored, (6, 6), mode='bilinear')
    assert torch.equal(loaded.model.visual.positional_embedding, expected)


class _Poison:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.path),)


def test_a_poisoned_file_runs_nothing(tmp_path: Path, tiny_config) -> None:
    path = tmp_path / 'weights.pt'
    torch.save({'visual.proj': _Poison(tmp_path / 'executed')}, path)
    with pytest.raises(UnsafeCheckpointError, match='Nothing was executed'):
        load_clip(tiny_config(), path, trust=True)
    assert not (tmp_path / 'executed').exists()


class _Identity(torch.nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image


def _save_archive(state: dict[str, Tensor], path: Path) -> None:
    """Write a TorchScript archive with a state of OpenAI's form."""
    scalars = {key: torch.tensor(value) for key, value in OPENAI_SCALARS.items()}
    root = _Identity()
    for key, value in (state | scalars).items():
        *parents, name = key.split('.')
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, _Identity())
            module = module.get_submodule(parent)
        module.register_buffer(name, value)
    torch.jit.save(torch.jit.script(root), path)


@pytest.mark.filterwarnings('ignore:`torch.jit:FutureWarning')
def test_torchscript_archives_need_trust(
    tmp_path: Path, tiny_config, tiny_clip
) -> None:
    source = tiny_clip(quick_gelu=True)
    path = tmp_path / 'archive.pt'
    _save_archive(source.state_dict(), path)
    with pytest.raises(UnsafeCheckpointError, match='SHA-256'):
        load_clip(tiny_config(quick_gelu=True), path)
    loaded = load_clip(tiny_config(quick_gelu=True), path, trust=True)
    image = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            loaded.model.encode_image(image), source.encode_image(image)
        )
    with pytest.raises(ValueError, match='trained with QuickGELU'):
        load_clip(tiny_config(), path, trust=True)


def test_the_digests_of_openais_archives_are_known() -> None:
    digests = openai_sha256()
    assert '5806e77cd80f8b59890b7e101eabd078d9fb84e6937f9e85e4ecb61988df416f' in digests
    assert all(len(digest) == 64 for digest in digests)
