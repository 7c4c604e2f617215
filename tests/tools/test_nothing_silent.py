"""What a run can not mean anything by is told, not saved and not scored."""

from pathlib import Path

import torch

PLAIN = (
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
)


def train(run_tool, config: Path, folder: Path, *options: str, flags: tuple = ()):
    return run_tool(
        'train.py', config, *flags, '--cfg-options', *PLAIN, *options, folder=folder
    )


def test_divergence_stops_with_names(run_tool, tiny_config, tmp_path) -> None:
    options = (
        'optim_wrapper.optimizer.lr=1e30',
        'optim_wrapper.clip_grad=None',
        'param_scheduler=None',
        'default_hooks.checkpoint.interval=1',
    )
    ended = train(run_tool, tiny_config, tmp_path, *options)
    assert ended.status == 2
    assert 'error: Iteration 2: the gradient of backbone' in ended.output
    assert 'decode.loss_ce nan' in ended.output
    assert 'tiny_squares/img/' in ended.output
    assert [p.name for p in tmp_path.rglob('iter_*')] == ['iter_1.pth']


def test_weights_that_are_nan_are_not_tested(
    run_tool, tiny_config, trained, tmp_path
) -> None:
    checkpoint = torch.load(
        trained / 'work_dirs/tiny_run/iter_12.pth', weights_only=False
    )
    checkpoint['state_dict']['decode_head.conv_seg.bias'][1] = float('nan')
    torch.save(checkpoint, tmp_path / 'bad.pth')
    ended = run_tool('test.py', tiny_config, 'bad.pth', folder=tmp_path)
    assert ended.status == 2
    assert 'bad.pth: decode_head.conv_seg.bias hold NaN' in ended.output


def test_what_a_resumed_run_keeps_and_changes_is_told(
    run_tool, tiny_config, trained, tmp_path
) -> None:
    checkpoint = trained / 'work_dirs/tiny_run/iter_12.pth'
    again = ('--resume', str(checkpoint))
    options = (
        'optim_wrapper.optimizer.lr=0.5',
        'param_scheduler.1.power=2',
        'train_cfg.max_iters=13',
        'randomness.seed=3',
    )
    ended = train(run_tool, tiny_config, tmp_path, *options, flags=again)
    assert ended.status == 0
    lines = [line for line in ended.output.splitlines() if 'iter_12.pth: ' in line]
    kept = next(line for line in lines if 'with the values of the checkpoint' in line)
    changed = next(line for line in lines if 'config says otherwise' in line)
    assert 'optim_wrapper.optimizer.lr (0.02, here 0.5)' in kept
    assert 'param_scheduler.1.power (0.9, here 2)' in kept
    assert 'randomness.seed (0, here 3)' in kept
    assert 'train_cfg.max_iters (12, here 13)' in changed
    assert 'max_iters' not in kept
    other = (*options, 'optim_wrapper.optimizer.type=SGD')
    refused = train(run_tool, tiny_config, tmp_path, *other, flags=again)
    assert refused.status == 2
    assert 'error: optim_wrapper.optimizer.type' in refused.output
    assert 'without dampening, momentum' in refused.output


def test_the_same_config_tells_nothing(
    run_tool, tiny_config, trained, tmp_path
) -> None:
    again = ('--resume', str(trained / 'work_dirs/tiny_run/iter_12.pth'))
    ended = run_tool('train.py', tiny_config, *again, folder=tmp_path)
    assert ended.status == 0
    assert 'iter_12.pth: ' not in ended.output
