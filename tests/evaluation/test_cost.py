"""Counts by hand and by the counter of the networks; what a call in a process of its own costs."""

import functools
import os
import time

import numpy as np
import pytest
import torch
from torch import nn

from harmony_app.evaluation import cost
from harmony_app.evaluation.cost import count_flops, count_parameters, measure_cost

MEGABYTE = 2**20


@pytest.fixture(scope='module')
def net():
    return nn.Sequential(nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv3d(4, 2, 1))


def test_operations_are_those_counted_by_hand(net):
    image = torch.zeros(1, 1, 6, 7, 8)
    assert count_flops(net, image) == 2 * 6 * 7 * 8 * (27 * 4 + 4 * 2)


def test_operations_are_counted_without_gradients_too(net):
    image = torch.zeros(1, 1, 4, 4, 4)
    with torch.inference_mode():
        without = count_flops(net, image)
    assert without == count_flops(net, image) > 0


def test_a_call_without_products_has_no_operations():
    assert count_flops(torch.relu, torch.ones(5)) == 0


def test_shared_weights_count_once(net):
    assert count_parameters(net) == 27 * 4 + 4 + 4 * 2 + 2
    assert count_parameters(nn.Sequential(net, net)) == count_parameters(net)


def test_a_process_of_its_own_tells_memory_and_time():
    """Ones are written, so that their memory is resident; the caller's own does not count."""
    held = np.ones(200 * MEGABYTE // 8)
    spent = measure_cost(functools.partial(np.ones, 100 * MEGABYTE // 8))
    assert held[-1] == 1
    assert 95 * MEGABYTE < spent.peak_memory - spent.memory_before < 110 * MEGABYTE
    assert 0 < spent.memory_before < 200 * MEGABYTE
    assert spent.cpu_seconds > 0
    assert spent.wall_seconds > 0
    assert (spent.parameters, spent.flops) == (None, None)


def test_waiting_takes_time_and_no_processor():
    fields = cost._measure(time.sleep, (0.2,), warm_up=False, count=False)
    assert fields['wall_seconds'] >= 0.2
    assert fields['cpu_seconds'] < 0.1


def test_a_network_is_run_once_to_measure_and_once_to_count(net):
    runs = []

    def call(image):
        runs.append(None)
        return net(image)

    image = torch.zeros(1, 1, 4, 4, 4)
    fields = cost._measure(call, (image,), warm_up=False, count=True)
    assert len(runs) == 2
    assert fields['flops'] == count_flops(net, image)
    cost._measure(call, (image,), warm_up=True, count=False)
    assert len(runs) == 4


def test_the_peak_is_that_of_the_call(monkeypatch, tmp_path):
    """What was held and left before the call is forgotten, where the kernel lets it."""
    if not os.access(cost.CLEAR, os.W_OK):
        pytest.skip('the kernel does not let the peak be set back')
    ones = functools.partial(np.ones, 10 * MEGABYTE // 8)
    large = np.ones(300 * MEGABYTE // 8)
    del large
    fields = cost._measure(ones, (), warm_up=False, count=False)
    assert fields['peak_memory'] - fields['memory_before'] < 100 * MEGABYTE
    # without it the peak is an upper bound
    monkeypatch.setattr(cost, 'CLEAR', tmp_path / 'absent' / 'clear_refs')
    large = np.ones(300 * MEGABYTE // 8)
    del large
    bound = cost._measure(ones, (), warm_up=False, count=False)
    assert bound['peak_memory'] - bound['memory_before'] > 200 * MEGABYTE


def test_what_goes_wrong_is_told(monkeypatch, tmp_path):
    with pytest.raises(ZeroDivisionError):
        measure_cost(divmod, 1, 0)
    with pytest.raises(RuntimeError, match='ended before it answered'):
        measure_cost(os._exit, 9)
    monkeypatch.setattr(cost, 'STATUS', tmp_path / 'status')
    with pytest.raises(RuntimeError, match='measure on Linux'):
        cost._measure(abs, (1,), warm_up=False, count=False)
