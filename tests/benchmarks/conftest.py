"""A study without preprocessing: scans of a few voxels, whose truth is known in one line."""

from types import SimpleNamespace

import numpy as np
import pytest

from benchmarks import sessions
from benchmarks.compared import Compared
from benchmarks.measures import Measures
from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan

LEVEL = {'a': 1.0, 'b': 2.0, 'c': 4.0}
"""Brightness of the scans of each site."""


def _profile(level):
    return TissueProfile(
        (0.7 * level, level, 0.2 * level),
        (0.1,) * 3,
        tuple(np.linspace(0.2, 1, 100) * level),
        (),
    )


class Data:
    """Three people at three sites, whose scans are a ramp times the level of the site."""

    def __init__(self, people='123', sites='abc'):
        self.inputs = [
            SimpleNamespace(
                subject=subject, session=session, contrast='T1w', name=subject + session
            )
            for subject in people
            for session in sites
        ]

    def load(self, source):
        ramp = np.linspace(0.2, 1, 4**3, dtype=np.float32).reshape(4, 4, 4)
        ramp *= 1 + 0.01 * int(source.subject)
        volume = Volume(ramp * LEVEL[source.session], np.eye(4))
        return Scan(
            name=source.name, contrast='T1w', working=volume, native=volume,
            native_to_working=np.eye(4), brain=ramp > 0,
            tissues=np.zeros((3, 4, 4, 4), np.uint8), profile=_profile(LEVEL[source.session]),
        )  # fmt: skip


class Anatomy:
    """Everything is brain."""

    def __init__(self, bids, source, scan):
        self.brain = {'native': scan.brain, 'mni': scan.brain}


class Reference:
    """The ramp times the level of the target."""

    def __init__(self, bids, source, scan, session, anatomy):
        data = scan.working.data * (LEVEL[session] / LEVEL[source.session])
        self.images = {'native': data, 'mni': data}

    def score(self, native, working, notes):
        off = {'native': native, 'mni': working}
        return {
            (grid, 'rmse'): float(np.sqrt(np.mean((image - self.images[grid]) ** 2)))
            for grid, image in off.items()
        }

    def limit(self, scan, own):
        return {grid: image + np.float32(0.01) for grid, image in self.images.items()}


class Kept:
    """The brightness of the scan is all its structure."""

    def __init__(self, scan, anatomy):
        self.level = float(scan.working.data.mean())

    def score(self, working, notes):
        return {('mni', 'edges_appeared'): abs(float(working.mean()) - self.level)}


def _measure(image, scan, anatomy, told, notes, encoder, segment, network):
    mean = float(image.mean())
    values = {f'ml_{t}': 100 * mean for t in ('GM', 'WM', 'CSF')}
    values |= {f'dice_{t}': 1 / (1 + abs(mean - 1)) for t in ('GM', 'WM', 'CSF')}
    quantiles = np.full((3, 5), mean, np.float32)
    return Measures(values, {'brain_mean': mean, 'theta_1': -mean}, quantiles)


@pytest.fixture
def study(monkeypatch, tmp_path):
    """Function that gives the setup of a study and makes every process work on it."""
    for name, fake in (
        ('TrueAnatomy', Anatomy),
        ('Reference', Reference),
        ('Kept', Kept),
        ('measure', _measure),
        ('true_volumes', lambda anatomy: {f'true_ml_{t}': 1.0 for t in ('GM', 'WM', 'CSF')}),
    ):
        monkeypatch.setattr(sessions, name, fake)

    def make(methods=('none', 'nyul'), data=None, pairs='all', folder='parts'):
        data = data or Data()
        parts = tmp_path / folder
        parts.mkdir(exist_ok=True)
        setup = sessions.Setup(
            bids=tmp_path, cache=tmp_path, parts=parts, contrasts=('T1w',), methods=methods,
            models=(), pairs=pairs, one_person=False, reference='a', segmented=(), steps=1,
            seed=0, shown=2,
        )  # fmt: skip
        place = SimpleNamespace(
            data=data,
            compared=Compared(data, methods, {}),
            encoder=None,
            sessions=sorted({s.session for s in data.inputs}),
            units=sorted({(s.subject, s.session) for s in data.inputs}),
        )
        monkeypatch.setattr(sessions, 'workplace', lambda setup: place)
        return setup, place

    return make
