"""Images between the thetas of a study: of the model that made the results, and of no other."""

import json

import numpy as np
import pytest
import torch

from harmony_app.config import RunConfig
from harmony_app.imaging.io import write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.methods.calamiti import Calamiti
from harmony_app.nets.calamiti import VARIANTS, CalamitiNets
from harmony_app.workflows import evaluation_theta
from harmony_app.workflows.evaluation_inputs import ResultScan


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    method = Calamiti(CalamitiNets(VARIANTS['compact']), None, {})
    method.save(tmp_path / 'model')
    return tmp_path / 'model'


def result(root, subject, contrast, site, theta, sha):
    """A scan among the results, with what the walk reads of it."""
    scan = ResultScan(
        f'sub-{subject}_{contrast}', subject, None, contrast, site, (('sub', subject),),
        {'method': 'calamiti'}, theta,
    )  # fmt: skip
    data = np.zeros((32, 40, 32), np.float32)
    data[6:26, 6:34, 6:26] = 1
    for desc in ('preproc', 'harmonized'):
        path = scan.image(root, desc)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, Volume(data, np.eye(4)))
    path.with_name(path.name.replace('.nii.gz', '.json')).write_text(
        json.dumps({'CalamitiModel': sha})
    )
    return scan


def walk(tmp_path, model, sha):
    out = tmp_path / 'out'
    scans = [
        result(out, '01', 'T1w', 'A', (0.0, 1.0), sha),
        result(out, '02', 'T1w', 'B', (0.5, 1.0), sha),
        result(out, '01', 'T2w', 'A', (-2.0, 0.0), sha),
    ]
    config = RunConfig(tmp_path, out, 'group', 'evaluate', model=model)
    return evaluation_theta.theta_walks(config, scans)


def test_each_contrast_and_all_of_them_are_walked(tmp_path, model):
    sha = json.loads((model / 'model.json').read_text())['weights_sha256']
    pictures, notes = walk(tmp_path, model, sha)
    assert notes == []
    assert [words.partition(',')[0] for _, words in pictures] == [
        'Thetas of T1w scans by site',
        'Thetas of T2w scans by site',
        'Thetas of scans of all contrasts',
    ]
    assert all(png.startswith(b'\x89PNG') for png, _ in pictures)


def test_results_of_a_model_that_is_not_here_are_told(tmp_path, model, monkeypatch):
    monkeypatch.setattr(evaluation_theta, 'packaged_model', lambda name: model)
    pictures, (note,) = walk(tmp_path, model, 'of another')
    assert pictures == []
    assert 'name it with --model' in note


def test_methods_without_such_a_theta_are_left_alone(tmp_path, model):
    scan = result(tmp_path, '01', 'T1w', 'A', (0.0, 1.0), 'x')
    bare = ResultScan(**{**vars(scan), 'theta': ()})
    other = ResultScan(**{**vars(scan), 'quality': {'method': 'transfer'}})
    config = RunConfig(tmp_path, tmp_path, 'group', 'evaluate', model=model)
    assert evaluation_theta.theta_walks(config, [bare, other]) == ([], [])
