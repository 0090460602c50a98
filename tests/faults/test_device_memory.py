"""An accelerator that is full: fewer slices at a time, then the CPU, or a line that says what to do."""

import json

import numpy as np
import pytest
import torch

from harmony_app.errors import ExitCode
from harmony_app.workflows.device_memory import DeviceMemoryError, within_device_memory


class Full:
    """A method on an accelerator with room for some slices; what it was made with is kept."""

    def __init__(self, room):
        self.room, self.made = room, []

    def make(self, device, options):
        self.made.append((device, options.get('batch')))
        return self.made[-1]

    def use(self, method, device):
        batch = method[1] or 16
        if device != 'cpu' and batch > self.room:
            raise torch.OutOfMemoryError(f'CUDA out of memory: {batch} slices')
        return f'{batch} on {device}'


def run(full, falls_back, name='haca3', options=(), device='cuda'):
    return within_device_memory(name, device, dict(options), falls_back, full.make, full.use)


def test_fewer_slices_until_they_fit():
    full = Full(4)
    assert run(full, falls_back=True) == '4 on cuda'
    assert full.made == [('cuda', None), ('cuda', 4)]


def test_what_was_asked_for_is_the_most():
    full = Full(1)
    assert run(full, falls_back=False, options={'batch': 8}) == '1 on cuda'
    assert full.made == [('cuda', 8), ('cuda', 2), ('cuda', 1)]


def test_the_cpu_takes_over_where_no_device_was_asked_for():
    full = Full(0)
    assert run(full, falls_back=True) == '16 on cpu'
    assert full.made[-2:] == [('cuda', 1), ('cpu', None)]
    # A method that sends no slices has nothing to make smaller.
    without = Full(0)
    assert run(without, falls_back=True, name='transfer') == '16 on cpu'
    assert without.made == [('cuda', None), ('cpu', None)]


def test_a_device_that_was_asked_for_is_never_left_in_silence():
    with pytest.raises(DeviceMemoryError, match='--device cpu') as caught:
        run(Full(0), falls_back=False)
    assert caught.value.exit_code == ExitCode.RETRY


def test_other_errors_are_what_they_are():
    def fail(method, device):
        raise RuntimeError('another')

    full = Full(0)
    with pytest.raises(RuntimeError, match='another'):
        within_device_memory('haca3', 'cuda', {}, True, full.make, fail)
    assert len(full.made) == 1


PRETEND = """
import torch
from harmony_app import app
from harmony_app.methods import registry
from harmony_app.nets import bilateral
app.check_device = lambda device, *_: 'cuda' if device in ('auto', 'cuda') else 'cpu'
find = registry.get_method
forward = bilateral.TransferNetwork.forward
def get_method(name, folder=None, device='cpu', **options):
    def full(self, *given):
        if device == 'cuda':
            raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')
        return forward(self, *given)
    bilateral.TransferNetwork.forward = full
    return find(name, folder, 'cpu', **options)
registry.get_method = get_method
"""
"""A machine whose accelerator has no room for anything, in name; the CPU does the work."""


def test_a_run_goes_on_on_the_cpu_and_says_so(study):
    fault = {'patch': PRETEND}
    done = study.run(method='transfer', fault=fault)
    assert done.code == 0, done.told
    assert 'method transfer on cuda' in done.told
    assert 'the accelerator has too little memory' in done.told
    assert 'transfer: goes on on the CPU' in done.told
    (path,) = study.out.glob('sub-01/anat/sub-01_desc-harmonized_T1w.json')
    assert json.loads(path.read_text())['Device'] == 'cpu'
    harmonized = study.images()
    study.clear()
    plain = study.run('--device', 'cpu', method='transfer')
    assert plain.code == 0, plain.told
    assert study.images() == harmonized


def test_a_run_on_a_device_that_was_asked_for_fails_with_advice(study):
    done = study.run('--device', 'cuda', method='transfer', fault={'patch': PRETEND})
    assert done.code == 75, done.told
    assert 'the accelerator has too little memory: give --device cpu or auto' in done.told
    assert 'Traceback' not in done.told


def test_a_record_that_was_begun_is_cleared_away(tmp_path):
    from harmony_app.workflows.records import write_record

    def arrays():
        yield 'one', np.zeros(3)
        raise torch.OutOfMemoryError('full')

    with pytest.raises(torch.OutOfMemoryError):
        write_record(tmp_path / 'a.zip', {}, arrays())
    assert list(tmp_path.iterdir()) == []
