"""The loop: exact resume, an early end, signals, tables; with a training that takes no time."""

import csv
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.errors import HarmonyError, OptionError
from harmony_app.training.base import LoopSettings, Training
from harmony_app.training.checkpoint import load_averaged, read_facts
from harmony_app.training.loop import BAD_STEPS, BEST, CHECKPOINT, Loop
from harmony_app.training.monitor import LOG, VALIDATION_LOG

SETTINGS = LoopSettings(steps=30, batch=4, rate=0.05, log_steps=4, validation_steps=5)


class Numbers:
    """Pairs of a straight line with noise."""

    def draw(self, rng):
        x = rng.standard_normal(3)
        return torch.tensor([*x, x @ (1, -2, 3) + 0.1 * rng.standard_normal()]).float()


class LineTraining(Training):
    """A straight line through the numbers."""

    terms = ('loss', 'squared')
    score = 'closeness'

    def __init__(self, seed=0, after=None, scores=None):
        torch.manual_seed(seed)
        self.network = torch.nn.Linear(3, 1)
        self.helpers = {'helper': torch.nn.Linear(1, 1)}
        self.source = Numbers()
        self.after = after or (lambda step: None)
        self.scores = scores
        self.validated = 0

    collate = staticmethod(torch.stack)

    def losses(self, batch, step, done):
        self.after(step)
        error = self.helpers['helper'](self.network(batch[:, :3])) - batch[:, 3:]
        return {'loss': error.abs().mean(), 'squared': error.square().mean()}

    def validate(self, network):
        self.validated += 1
        if self.scores is not None:
            return {'closeness': self.scores[self.validated - 1]}
        with torch.no_grad():
            # the helper may turn and stretch the line
            wanted = torch.tensor([[1.0, -2.0, 3.0]])
            return {'closeness': float(torch.cosine_similarity(network.weight, wanted).abs())}


def read(path):
    with path.open(newline='') as stream:
        return list(csv.DictReader(stream))


def curve(folder):
    return [(r['step'], r['loss'], r['squared'], r['rate']) for r in read(folder / LOG)]


def terminate_at(wanted):
    def after(step):
        if step == wanted:
            os.kill(os.getpid(), signal.SIGTERM)

    return after


@pytest.mark.parametrize('wanted', (2, 6, 14))
def test_an_interruption_leaves_no_trace(tmp_path, wanted):
    whole = Loop(LineTraining(), SETTINGS, tmp_path / 'whole')
    whole.run()
    before = signal.getsignal(signal.SIGTERM)
    first = Loop(LineTraining(after=terminate_at(wanted)), SETTINGS, tmp_path / 'parts')
    assert first.run().stopped
    assert first.progress.step == wanted + 1
    assert signal.getsignal(signal.SIGTERM) is before

    second = Loop(LineTraining(seed=9), SETTINGS, tmp_path / 'parts')
    assert second.resume()
    assert not second.run().stopped
    assert curve(tmp_path / 'parts') == curve(tmp_path / 'whole')
    assert len(curve(tmp_path / 'whole')) == 7
    columns = ('step', 'best', 'closeness')
    tables = [
        [[row[c] for c in columns] for row in read(tmp_path / name / VALIDATION_LOG)]
        for name in ('whole', 'parts')
    ]
    assert tables[0] == tables[1]
    for name, module in whole.modules.items():
        for key, tensor in module.state_dict().items():
            assert torch.equal(tensor, second.modules[name].state_dict()[key]), f'{name}.{key}'
    assert second.progress.best == whole.progress.best


def test_drawing_ahead_changes_nothing(tmp_path):
    for name, workers in (('none', 0), ('one', 1)):
        settings = replace(SETTINGS, workers=workers)
        Loop(LineTraining(), settings, tmp_path / name).run()
    assert curve(tmp_path / 'none') == curve(tmp_path / 'one')


def test_training_learns_and_keeps_the_best(tmp_path):
    settings = replace(SETTINGS, steps=300, warm_steps=5, average=0.9)
    loop = Loop(LineTraining(), settings, tmp_path)
    progress = loop.run()
    assert progress.best > 0.99
    best = torch.nn.Linear(3, 1)
    facts = load_averaged(tmp_path / BEST, best)
    assert facts['progress']['best_step'] == facts['progress']['step']
    assert LineTraining().validate(best)['closeness'] == pytest.approx(progress.best, abs=1e-5)
    last = torch.nn.Linear(3, 1)
    load_averaged(tmp_path / CHECKPOINT, last)
    assert torch.equal(last.weight, loop.average.weight)


def test_patience_ends_a_training_that_no_longer_improves(tmp_path):
    scores = [0.1, 0.5, 0.4, 0.3, 0.9, 0.9, 0.9]
    settings = replace(SETTINGS, patience=2)
    progress = Loop(LineTraining(scores=scores), settings, tmp_path).run()
    assert progress.step == 20
    assert not progress.stopped
    assert (progress.best, progress.best_step) == (0.5, 10)
    assert read_facts(tmp_path / BEST)['progress']['step'] == 10
    again = Loop(LineTraining(scores=scores), settings, tmp_path)
    again.resume()
    assert again.run().step == 20, 'a training that has ended stays ended'


def test_table_tells_speed_and_where_the_time_goes(tmp_path):
    Loop(LineTraining(), SETTINGS, tmp_path).run()
    rows = read(tmp_path / LOG)
    for row in rows:
        shares = [float(row[f'{part}_share']) for part in ('data', 'compute', 'rest')]
        assert sum(shares) == pytest.approx(1, abs=1e-4)
        assert float(row['examples_per_second']) > 0
    assert float(rows[-1]['rate']) < float(rows[0]['rate'])


def test_a_training_without_finite_losses_is_given_up(tmp_path):
    class Broken(LineTraining):
        def losses(self, batch, step, done):
            terms = super().losses(batch, step, done)
            return {name: term * float('nan') for name, term in terms.items()}

    training = Broken()
    start = training.network.weight.detach().clone()
    with pytest.raises(HarmonyError, match='not finite since step 0'):
        Loop(training, replace(SETTINGS, steps=2 * BAD_STEPS), tmp_path).run()
    assert torch.equal(training.network.weight, start)


def test_one_bad_example_is_left_out(tmp_path):
    class Rare(LineTraining):
        def losses(self, batch, step, done):
            terms = super().losses(batch, step, done)
            return {n: t * (float('inf') if step == 3 else 1) for n, t in terms.items()}

    Loop(Rare(), SETTINGS, tmp_path).run()
    assert all(np.isfinite(float(row['loss'])) for row in read(tmp_path / LOG))


def test_settings_that_make_no_sense_are_refused(tmp_path):
    with pytest.raises(OptionError, match='budget'):
        LoopSettings(minutes=0)
    with pytest.raises(OptionError, match='at least 1'):
        LoopSettings(batch=0)
    with pytest.raises(OptionError, match='precision'):
        LoopSettings(precision='int8')
    from harmony_app.training.distributed import Ranks

    with pytest.raises(OptionError, match='evenly'):
        Loop(LineTraining(), replace(SETTINGS, batch=3), tmp_path, ranks=Ranks(0, 2))
