"""MISPEL at the group level and in a session: matched people in, one bad scan out alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from harmony_app.app import make_plan, run
from harmony_app.bids.atomic import write_table
from harmony_app.bids.derivatives import derivative_path, sidecar_path
from harmony_app.bids.discovery import ScanInput
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode, InputError, OptionError, ScanError
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.io import write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Scan
from harmony_app.methods.mispel import MIDDLE_GROUND, Mispel
from harmony_app.nets import mispel as networks
from harmony_app.nets.mispel import MispelConfig, MispelNets
from harmony_app.nets.unet import UNetConfig
from harmony_app.training import sessions
from harmony_app.training.mispel import MispelTraining
from harmony_app.training.mispel_recipe import MispelRecipe
from harmony_app.workflows.checks import check_method, check_scans
from harmony_app.workflows.harmonizing import harmonize_session
from harmony_app.workflows.records import Record

SHAPE = (48, 56, 48)
GREY = {'A': 0.6, 'B': 0.8, 'C': 0.7}
PEOPLE = {'1': 'AB', '2': 'AB', '3': 'AB', '4': 'BC', '5': 'A', '6': 'C'}


def shells():
    """Grey matter, white matter and CSF as shells, fractions of 0 and 1."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    edges = ((0.6, 0.75), (0.25, 0.6), (0.0, 0.25))
    return np.stack([(radius >= low) & (radius < high) for low, high in edges]).astype(np.float32)


def write_visit(root, subject, site):
    """What the participant level leaves of one T1w scan."""
    tissues, shared = shells(), {'sub': subject, 'ses': site}
    images = {'mask': tissues.max(axis=0)} | dict(zip(('GM', 'WM', 'CSF'), tissues, strict=True))
    images['T1w'] = np.tensordot([GREY[site], 1.0, 0.3], tissues, 1)
    for name, data in images.items():
        added = {'mask': {'desc': 'brain'}, 'T1w': {'desc': 'preproc'}}.get(name, {'label': name})
        suffix = name if name in ('mask', 'T1w') else 'probseg'
        path = derivative_path(root, shared, suffix, space=SPACE, res='1', **added)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_volume(path, Volume(data.astype(np.float32), np.eye(4)))
    sidecar_path(path).write_text(json.dumps({'SourceWhiteMatterPeak': 400.0}))
    row = {'scan': f'sub-{subject}_ses-{site}_T1w', 'contrast': 'T1w', 'site': site}
    table = derivative_path(root, shared, 'qc', '.tsv', desc='harmonized')
    write_table(table, [*row, 'registration_quality'], [row | {'registration_quality': 1.0}])


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setitem(networks.VARIANTS, 'compact', UNetConfig((4, 4), (1, 1), norm=False))
    monkeypatch.setattr(MispelTraining, 'checks', (1, 1))
    monkeypatch.setattr(sessions, 'WORKING_SHAPE', SHAPE)


@pytest.fixture
def config(tmp_path):
    """Results of people at three sites, and settings that take no time."""
    raw = tmp_path / 'bids'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "balls", "BIDSVersion": "1.10.0"}')
    for subject, sites in PEOPLE.items():
        for site in sites:
            write_visit(tmp_path / 'out', subject, site)
    return RunConfig(
        raw,
        tmp_path / 'out',
        'group',
        task='train',
        method='mispel',
        work_dir=tmp_path / 'work',
        steps=4,
        batch_size=1,
        random_seed=12,  # units that begin above 0, so that there is an image after four steps
    )


def changed(parent, child):
    """Names of the weights of the parent that the child has otherwise."""
    new = child.nets.state_dict()
    return {k for k, v in parent.nets.state_dict().items() if not torch.equal(v, new[k])}


def test_matched_people_are_found_trained_on_and_joined_by_a_new_scanner(config, tmp_path):
    chosen = replace(config, participants=('1', '2', '3', '5'))
    assert run(replace(chosen, model_out=tmp_path / 'parent')) == ExitCode.SUCCESS
    parent = Mispel.load(tmp_path / 'parent')
    assert parent.nets.config.units == (('T1w', 'A'), ('T1w', 'B'))
    told = parent.metadata['training']
    # nobody who was at one scanner only, and nobody on both sides
    people = told['subjects'] + told['validation_subjects']
    assert sorted(people) == ['1', '2', '3']
    assert parent.metadata['contrasts'] == ['T1w']
    (style,) = parent.metadata['styles']
    assert (style['name'], style['contrast'], style['scans']) == (MIDDLE_GROUND, 'T1w', 4)
    assert style['wm_peak'] == 400

    wanted = replace(config, task='adapt', site='C', model=tmp_path / 'parent')
    with pytest.MonkeyPatch.context() as patch:
        scores = iter((1.0, 2.0, 3.0))
        name = 'harmony_app.training.mispel.MispelTraining.validate'
        patch.setattr(name, lambda self, net: {'score': next(scores)})
        run(replace(wanted, model_out=tmp_path / 'child'))
    child = Mispel.load(tmp_path / 'child')
    assert child.nets.config.units == (('T1w', 'A'), ('T1w', 'B'), ('T1w', 'C'))
    assert changed(parent, child) == set()
    new, like = (child.nets.unit('T1w', site).state_dict() for site in 'CB')
    assert any(not torch.equal(new[name], like[name]) for name in new)
    assert child.metadata['styles'] == parent.metadata['styles']
    (entry,) = child.metadata['lineage']
    assert (entry['site'], entry['parts'], entry['subjects']) == ('C', ['units.2.'], ['4'])


def test_what_cannot_be_learned_is_refused(config, tmp_path):
    with pytest.raises(InputError, match='needs travelling subjects'):
        run(replace(config, participants=('5', '6')))
    nets = MispelNets(MispelConfig.of('compact', [('T1w', 'A'), ('T1w', 'X')]))
    method = Mispel(nets, {'styles': [{'name': MIDDLE_GROUND, 'contrast': 'T1w'}]})
    method.save(tmp_path / 'model')
    wanted = replace(config, task='adapt', model=tmp_path / 'model')
    with pytest.raises(InputError, match=r'a scanner that the model knows \(A, X\)'):
        run(replace(wanted, site='C'))
    with pytest.raises(InputError, match='nobody was scanned there and at another scanner'):
        run(replace(wanted, site='C', participants=('5', '6')))
    with pytest.raises(OptionError, match='has a unit for its T1w scans already'):
        run(replace(wanted, site='A', participants=('1', '2', '5')))
    with pytest.raises(OptionError, match='takes no target'):
        run(replace(wanted, task='styles', model_out=tmp_path / 'styles'))


def test_scanners_that_nobody_joins_are_refused(config):
    write_visit(config.output_dir, '7', 'C')
    (config.output_dir / 'sub-4').rename(config.output_dir / 'not-4')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(GREY, 'D', 0.7)
        write_visit(config.output_dir, '7', 'D')
    with pytest.raises(InputError, match=r'\(A, B\) and \(C, D\) have nobody in common'):
        run(config)


def test_real_scanners_and_those_of_the_phantom_do_not_mix():
    class Both:
        heads = training = (1,)
        phantom = None

    with pytest.raises(OptionError, match='nobody was at both'):
        MispelRecipe().training(Both(), 'cpu', 1, None)


@pytest.fixture
def model(tmp_path, make_style):
    """A model of two scanners."""
    nets = MispelNets(MispelConfig.of('compact', [('T1w', 'A'), ('T1w', 'B')]))
    style = replace(make_style('T1w'), name=MIDDLE_GROUND)
    Mispel(nets, {'styles': [style.to_dict()]}).save(tmp_path / 'model')
    return tmp_path / 'model'


def scan_at(site, name):
    tissues = shells()
    data = np.tensordot([GREY[site or 'A'], 1.0, 0.3], tissues, 1).astype(np.float32)
    maps = (255 * tissues).astype(np.uint8)
    volume = Volume(data, np.eye(4))
    return Scan.of_working(name, 'T1w', volume, tissues.max(axis=0) > 0, maps, site)


def test_a_scan_without_a_unit_fails_alone(model, tmp_path, make_style):
    scans = [scan_at('A', 'first'), scan_at('C', 'second'), scan_at(None, 'third')]
    out = harmonize_session(
        tmp_path / 'record.zip', Mispel.load(model), scans, {'T1w': make_style('T1w')}
    )
    facts = Record(out).facts
    assert [result['source'] for result in facts['results']] == ['first']
    assert set(facts['failures']) == {'second', 'third'}
    assert 'is of C' in facts['failures']['second']['message']
    assert 'scanners with one: A, B' in facts['failures']['second']['message']
    assert 'names no scanner' in facts['failures']['third']['message']


def test_a_dataset_of_unknown_scanners_is_refused_before_anything_is_computed(model, caplog):
    method = Mispel.load(model)

    def given(*sites):
        return [
            ScanInput(model, str(i), None, 'T1w', (('sub', str(i)),), site=site)
            for i, site in enumerate(sites)
        ]

    check_scans(method, given('A', 'B'))
    assert not caplog.records
    check_scans(method, given('A', 'C'))
    assert 'sub-1_T1w is of C' in caplog.text
    with pytest.raises(ScanError, match='scanners with one: A, B'):
        check_scans(method, given('C', None))


def test_the_middle_ground_is_the_target_and_no_other_is_taken(model, make_dataset):
    root = make_dataset(
        'sub-01/anat/sub-01_T1w.nii.gz',
        'sub-01/anat/sub-01_T2w.nii.gz',
        **{'participants.tsv': 'participant_id\tsite\nsub-01\tA\n'},
    )
    config = RunConfig(root, root.parent / 'out', method='mispel', model=model)
    plan = make_plan(config)
    assert plan.targets.names == {'T1w': MIDDLE_GROUND}
    for target in ('mprage-3t', 'site:A'):
        with pytest.raises(OptionError, match='no target to choose'):
            check_method(replace(config, target=(target,)))
    with pytest.raises(OptionError, match='has no option detail'):
        check_method(replace(config, detail='transfer'))
