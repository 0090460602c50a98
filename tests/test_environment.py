"""What libraries find of the machine when they are imported."""

import os
from pathlib import Path

import pytest

from harmony_app.config import RunConfig
from harmony_app.environment import prepare_environment


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    return RunConfig(tmp_path / 'in', tmp_path / 'out', work_dir=tmp_path / 'work')


def test_an_id_without_a_home_gets_one_in_the_scratch(config, monkeypatch):
    """As in a container that is run as any user: PyBIDS cannot be imported then."""

    def unknown(number):
        raise KeyError(number)

    os.environ.pop('HOME', None)
    monkeypatch.setattr('pwd.getpwuid', unknown)
    with pytest.raises(RuntimeError):
        Path.home()
    prepare_environment(config)
    assert Path.home() == config.work_dir / 'cache'


def test_a_home_that_is_there_stays(config):
    os.environ['HOME'] = '/somewhere'
    prepare_environment(config)
    assert os.environ['HOME'] == '/somewhere'
    assert os.environ['NO_ET'] == '1'
