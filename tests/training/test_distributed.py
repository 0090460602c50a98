"""Several processes: the joint batch, and the variables that start them."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from harmony_app.errors import OptionError
from harmony_app.training import distributed
from harmony_app.training.distributed import Ranks, read_environment

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(Path(__file__).parent))

from joint_gradient import STEPS, gradients  # noqa: E402


def free_port():
    with socket.socket() as found:
        found.bind(('127.0.0.1', 0))
        return found.getsockname()[1]


def test_two_processes_give_the_gradients_of_the_joint_batch(head, tmp_path):
    np.save(tmp_path / 'fractions.npy', head.fractions)
    np.save(tmp_path / 'maps.npy', head.maps)
    told = os.environ | {
        'WORLD_SIZE': '2',
        'MASTER_ADDR': '127.0.0.1',
        'MASTER_PORT': str(free_port()),
        'PYTHONPATH': str(ROOT),
        'OMP_NUM_THREADS': '1',
    }
    script = Path(__file__).with_name('joint_gradient.py')
    processes = [
        subprocess.Popen(
            [sys.executable, script, tmp_path],
            env=told | {'RANK': str(rank), 'LOCAL_RANK': str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
    finally:
        for process in processes:
            process.kill()
    for method, step in STEPS:
        alone = gradients(head, Ranks(), step, method)
        for rank in range(2):
            shared = load_file(tmp_path / f'rank{rank}_{method}{step}.safetensors')
            assert shared.keys() == alone.keys()
            whole = float(torch.cat([g.flatten() for g in alone.values()]).norm())
            for name, gradient in alone.items():
                # the sums are added in another order, and the cycle decides by arg max
                difference = float((shared[name] - gradient).norm())
                assert difference < 5e-3 * float(gradient.norm()) + 1e-5 * whole, name


def test_every_example_of_the_joint_batch_is_drawn_once():
    drawn = [i for rank in range(3) for i in Ranks(rank, 3).share(12)]
    assert sorted(drawn) == list(range(12))


def test_one_process_changes_nothing():
    values = torch.arange(6.0).reshape(3, 2).requires_grad_()
    assert torch.equal(distributed.joint(values), values)
    assert torch.equal(distributed.neighbours(values), values.roll(1, dims=0))
    assert torch.equal(distributed.mean_over_ranks(values), values)
    assert not distributed.neighbours(values).requires_grad
    assert Ranks().agree(True, 0.5) == (True, 0.5)


@pytest.mark.parametrize(
    'environment, found',
    [
        ({}, None),
        ({'WORLD_SIZE': '1'}, None),
        (
            {
                'RANK': '1',
                'WORLD_SIZE': '2',
                'LOCAL_RANK': '1',
                'MASTER_ADDR': 'a',
                'MASTER_PORT': '9',
            },
            (Ranks(1, 2, 1), 'a', 9),
        ),
    ],
)
def test_variables_of_torchrun(environment, found):
    assert read_environment(environment) == found


def test_variables_that_do_not_fit_are_refused():
    with pytest.raises(OptionError, match='torchrun'):
        read_environment({'WORLD_SIZE': '2', 'RANK': '0'})
    with pytest.raises(OptionError, match='--device cuda'):
        distributed.start(
            'cuda:1',
            {'WORLD_SIZE': '2', 'RANK': '0', 'MASTER_ADDR': 'a', 'MASTER_PORT': '9'},
        )
