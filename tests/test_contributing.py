"""What CONTRIBUTING.md promises: the method it shows is one."""

import re
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest

from harmony_app.errors import ScanError
from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Method, Scan, Style

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def gamma():
    """The class of the example."""
    (code,) = re.findall(r'```python\n(.*?)```', (ROOT / 'CONTRIBUTING.md').read_text(), re.DOTALL)
    room: dict = {}
    exec(compile(dedent(code), 'CONTRIBUTING.md', 'exec'), room)  # noqa: S102
    return room['Gamma']()


def profile(grey):
    medians = (grey, 1.0, 0.2)
    return TissueProfile(medians, (0.1,) * 3, (0.5,) * 100, (), medians)


def scan(grey):
    data = np.array([0, 0.2, grey, 1, 1.5], np.float32).reshape(5, 1, 1)
    volume = Volume(data, np.eye(4))
    brain = np.ones(data.shape, bool)
    tissues = np.zeros((3, *data.shape), np.uint8)
    return Scan('sub-01_T1w', 'T1w', volume, volume, np.eye(4), brain, tissues, profile(grey))


def test_the_example_brings_grey_matter_to_the_target(gamma):
    assert isinstance(gamma, Method)
    (result,) = gamma.harmonize([scan(0.6)], Style('there', 'T1w', profile(0.8)))
    values = result.working.data.ravel()
    np.testing.assert_allclose(values[[0, 2, 3]], [0, 0.8, 1], atol=2e-3)
    assert (np.diff(values) > 0).all()
    assert result.settings['exponent'] == pytest.approx(np.log(0.8) / np.log(0.6), abs=1e-3)


def test_the_example_refuses_what_it_cannot_reach(gamma):
    with pytest.raises(ScanError, match='choose another --method'):
        gamma.harmonize([scan(1.0)], Style('there', 'T1w', profile(0.8)))


def test_every_place_that_it_names_is_there():
    text = (ROOT / 'CONTRIBUTING.md').read_text()
    package = {'imaging', 'methods', 'nets', 'training', 'engine'}
    named = re.findall(r'`([a-z_]+(?:/[\w*]+)+\.(?:py|md))`', text)
    assert len(named) > 8
    for name in named:
        root = ROOT / 'harmony_app' if name.split('/')[0] in package else ROOT
        if name.endswith('gamma.py'):
            continue
        assert list(root.glob(name)), name
