"""tools/train.py: what it says at the start, and how it resumes and refuses."""

import re
import shutil
from pathlib import Path

import pytest
import torch

RUN = 'work_dirs/tiny_run'
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def copy(trained: Path, tmp_path: Path) -> Path:
    """Return a copy of the finished run, to be damaged at will."""
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    return tmp_path


def test_stock_flags_make_a_run_in_any_folder(trained: Path) -> None:
    made = {path.name for path in (trained / RUN).iterdir()}
    assert {'iter_8.pth', 'iter_12.pth', 'last_checkpoint', 'tiny_run.py'} <= made
    assert not [name for name in made if 'partial' in name]


def test_resuming_a_finished_run_ends_well(run_tool, tiny_config, copy) -> None:
    before = (copy / RUN / 'iter_12.pth').read_bytes()
    finished = run_tool('train.py', tiny_config, '--resume', folder=copy)
    assert finished.status == 0
    assert 'iteration 12 of 12. Nothing is left to train' in finished.output
    assert (copy / RUN / 'iter_12.pth').read_bytes() == before


def test_a_cut_checkpoint_falls_back_to_the_one_before(
    run_tool, tiny_config, copy
) -> None:
    last = copy / RUN / 'iter_12.pth'
    last.write_bytes(last.read_bytes()[:5000])
    finished = run_tool('train.py', tiny_config, '--resume', folder=copy)
    assert finished.status == 0
    assert 'resumed epoch: 0, iter: 8' in finished.output
    assert torch.load(last, weights_only=False)['meta']['iter'] == 12


def test_only_damaged_checkpoints_are_no_fresh_start(
    run_tool, tiny_config, copy
) -> None:
    for file in (copy / RUN).glob('iter_*.pth'):
        file.write_bytes(b'')
    (copy / RUN / 'last_checkpoint').write_text('')
    finished = run_tool('train.py', tiny_config, '--resume', folder=copy)
    assert finished.status == 2
    assert 'error:' in finished.output
    assert 'iter_8.pth is damaged' in finished.output


def test_resuming_nothing_starts_from_the_beginning(
    run_tool, tiny_config, tmp_path
) -> None:
    short = ['--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=9']
    finished = run_tool('train.py', tiny_config, '--resume', *short, folder=tmp_path)
    assert finished.status == 0
    assert re.search(r'INFO - (\d,\d{3}) of \1 parameters learn', finished.output)
    assert 'training starts from the beginning' in finished.output
    assert (tmp_path / RUN / 'iter_1.pth').is_file()


@pytest.mark.parametrize(
    ('option', 'named'),
    [
        (
            'optim_wrapper.optimizer.wieght_decay=1',
            r'optimizer\.wieght_decay: ',
        ),
        (
            'optim_wrapper.optimizer.type=SDG',
            "optimizer.type = 'SDG'.*Did you mean 'SGD'",
        ),
        ('param_scheduler.1.powre=2', r'param_scheduler\.1\.powre: '),
    ],
)
def test_a_mistake_about_the_optimiser_is_one_line(
    run_tool, tiny_config, tmp_path, option, named
) -> None:
    options = ['--cfg-options', option]
    finished = run_tool('train.py', tiny_config, *options, folder=tmp_path)
    assert finished.status == 2
    assert re.search(f'error: .*{named}', finished.output), finished.output[-500:]
    assert 'Traceback' not in finished.output


@pytest.mark.parametrize(
    ('option', 'advice'),
    [
        ('custom_hooks=[dict(type="A"),dict(type="B")]', 'custom_hooks.0.SUBKEY=VALUE'),
        ('model={"type":"A"}', 'model.SUBKEY=VALUE'),
        ('a=[1,2', r'as many \[ as \] are needed'),
        ('train_cfg.max_iters', 'takes KEY=VALUE'),
    ],
)
def test_options_that_cannot_be_read_are_refused(
    run_tool, tiny_config, tmp_path, option, advice
) -> None:
    flags = ['--cfg-options', option]
    finished = run_tool('train.py', tiny_config, *flags, folder=tmp_path)
    assert finished.status == 2
    assert re.search(f'error: --cfg-options .*{advice}', finished.output)


def test_other_number_of_samples_is_announced(run_tool, tiny_config, copy) -> None:
    options = ['--cfg-options', 'train_dataloader.batch_size=1']
    finished = run_tool('train.py', tiny_config, '--resume', *options, folder=copy)
    assert finished.status == 0
    assert 'have changed: batch_size (2 -> 1)' in finished.output


def test_weights_alone_cannot_be_resumed(run_tool, tiny_config, copy) -> None:
    state = torch.load(copy / RUN / 'iter_12.pth', weights_only=False)['state_dict']
    torch.save({'state_dict': state}, copy / 'weights.pth')
    finished = run_tool('train.py', tiny_config, '--resume', 'weights.pth', folder=copy)
    assert finished.status == 2
    assert 'weights.pth cannot be resumed from' in finished.output


def test_load_from_must_fit_unless_allowed(run_tool, tiny_config, copy) -> None:
    state = torch.load(copy / RUN / 'iter_12.pth', weights_only=False)['state_dict']
    del state['decode_head.conv_seg.bias']
    torch.save(state, copy / 'weights.pth')
    options = ['--work-dir', 'new', '--cfg-options', 'load_from=weights.pth']
    options += ['train_cfg.max_iters=1', 'train_cfg.val_interval=9']
    refused = run_tool('train.py', tiny_config, *options, folder=copy)
    assert refused.status == 2
    assert '1 missing in the file: decode_head.conv_seg.bias' in refused.output
    assert not (copy / 'new/iter_1.pth').exists()
    allowed = run_tool(
        'train.py', tiny_config, '--allow-missing', *options, folder=copy
    )
    assert allowed.status == 0


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{missing}'], "Did you mean '"),
        (['{config}', '--amp'], 'mixed precision needs an accelerator'),
        (['{config}', '--launcher', 'pytorch'], 'tools/dist_train.sh CONFIG'),
        (['{config}', '--launcher', 'slurm'], '--launcher slurm needs an accelerator'),
        (['{config}', '--resume', 'nowhere.pth'], "load_from = 'nowhere.pth'"),
        (
            ['{config}', '--cfg-options', 'runner_type=Runner'],
            'only use runners that load checkpoints safely',
        ),
        (
            ['{config}', '--cfg-options', 'model.type=FrozenEncoderDecoder'],
            'nothing in this model learns',
        ),
        (
            ['{config}', '--cfg-options', 'optim_wrapper=None'],
            'tiny_run.py has no optim_wrapper',
        ),
        (
            ['{config}', '--cfg-options', 'model.decode_head.pretrained=a/b.pth'],
            "model.decode_head.pretrained = 'a/b.pth'",
        ),
        (
            [
                '{zero_shot}',
                '--cfg-options',
                'train_dataloader.dataset.split=shape_a',
            ],
            "no split is called 'shape_a'. Did you mean 'shapes_a'",
        ),
        (
            ['{zero_shot}', '--cfg-options', 'train_dataloader.dataset.pase=train'],
            "train_dataloader.dataset.pase: ZeroShotDataset takes no option 'pase'",
        ),
        (
            ['{config}', '--cfg-options', 'val_dataloader.dataset.type=TinySqares'],
            "val_dataloader.dataset.type = 'TinySqares': no dataset is registered",
        ),
        (
            ['{config}', '--cfg-options', 'default_hooks.checkpoint.intervall=3'],
            'default_hooks.checkpoint.intervall: CheckpointHook takes no option',
        ),
        (
            ['{zero_shot}', '--cfg-options', 'model.test_cfg.mod=slide'],
            "test_cfg.mod is no option. Did you mean 'mode'?",
        ),
        (
            ['{zero_shot}', '--cfg-options', 'model.pretrained=some'],
            'model.pretrained and model.backbone.pretrained are two words',
        ),
    ],
    ids=[
        'config',
        'amp',
        'torchrun',
        'slurm',
        'resume',
        'runner',
        'frozen',
        'no-training',
        'weights',
        'split',
        'key',
        'dataset',
        'checkpoint-hook',
        'test-cfg',
        'pretrained-twice',
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason='needs a machine without GPU')
def test_mistakes_get_one_line(
    run_tool, tiny_config: Path, tmp_path, arguments, message
) -> None:
    places = {
        'config': tiny_config,
        'missing': tiny_config.with_name('tinny_run.py'),
        'zero_shot': ROOT / 'configs/baselines/shapes_tiny_linear.py',
    }
    filled = [argument.format(**places) for argument in arguments]
    finished = run_tool('train.py', *filled, folder=tmp_path)
    assert finished.status == 2
    assert message in finished.output
    assert 'Traceback' not in finished.output


TRANSDUCTIVE = """
_base_ = {base!r}
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ZeroShotDataset',
        phase='train',
        setting='transductive',
        split=dict(classes=['ground', 'square', 'stripe'], unseen=['stripe']),
        dataset=dict(
            type='TinySquares',
            data_root='tiny_squares',
            pipeline={{{{_base_.train_pipeline}}}},
        ),
    )
)
custom_hooks = None
"""


def test_what_would_die_in_the_loss_is_refused_without_the_hook_too(
    run_tool, tiny_config, tmp_path
) -> None:
    config = tmp_path / 'transductive.py'
    config.write_text(TRANSDUCTIVE.format(base=str(tiny_config)))
    finished = run_tool('train.py', config, folder=tmp_path)
    assert finished.status == 2
    assert (
        "error: train_dataloader.dataset.setting is 'transductive'" in finished.output
    )
    assert 'Traceback' not in finished.output


def test_the_console_is_for_people_and_the_log_file_holds_all(
    run_tool, tiny_config: Path, tmp_path: Path
) -> None:
    short = ['--cfg-options', 'train_cfg.max_iters=1', 'train_cfg.val_interval=9']
    finished = run_tool('train.py', tiny_config, *short, folder=tmp_path)
    assert finished.status == 0
    (log,) = (tmp_path / RUN).glob('*/*.log')
    written = log.read_text()
    for part in ('System environment', 'Config:\n', 'Hooks will be executed'):
        assert part in written
        assert part not in finished.output
    for noise in ('MultiScaleDeformableAttention', 'The draw is False', 'deprecated'):
        assert noise not in finished.output
    assert log.name in finished.output
    assert len(finished.output.splitlines()) < 60
