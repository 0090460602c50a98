"""The tasks train, adapt and styles on small results: what they write, and what they refuse."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from harmony_app.app import run
from harmony_app.bids.atomic import write_table
from harmony_app.bids.derivatives import derivative_path, sidecar_path
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode, HarmonyError, InputError, ModelError, OptionError
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.io import write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.methods.calamiti import Calamiti
from harmony_app.methods.dlest import Dlest
from harmony_app.methods.haca3 import Haca3
from harmony_app.methods.imunity import ImUnity
from harmony_app.methods.transfer import Transfer
from harmony_app.nets import calamiti as calamiti_nets
from harmony_app.nets import imunity as imunity_nets
from harmony_app.nets.dlest import SHARED, DlestNets
from harmony_app.nets.dlest import VARIANTS as DLEST
from harmony_app.nets.haca3 import VARIANTS, Haca3Nets
from harmony_app.nets.unet import UNetConfig
from harmony_app.phantom.tissues import TISSUES
from harmony_app.training import sessions, transfer
from harmony_app.training.imunity_settings import Settings as Small
from harmony_app.training.recipe import Recipe
from harmony_app.workflows.model_making import merge_styles
from harmony_app.workflows.targets import resolve_targets
from harmony_app.workflows.training_inputs import find_sessions, read_phantom

SHAPE = (48, 56, 48)
LEVELS = {'T1w': (0.7, 1.0, 0.3), 'T2w': (1.4, 1.0, 2.5)}


def shells():
    """Grey matter, white matter and CSF as shells, fractions of 0 and 1."""
    axes = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing='ij', sparse=True)
    radius = np.sqrt(sum(a**2 for a in axes))
    edges = ((0.6, 0.75), (0.25, 0.6), (0.0, 0.25))
    return np.stack([(radius >= low) & (radius < high) for low, high in edges]).astype(np.float32)


def write_results(root, visits):
    """Preprocessed scans of (subject, session or None, site or None, contrasts, quality)."""
    tissues = shells()
    for number, (subject, session, site, contrasts, quality) in enumerate(visits):
        shared = {'sub': subject} | ({'ses': session} if session else {})
        name = f'sub-{subject}' + (f'_ses-{session}' if session else '')
        rng = np.random.default_rng(number)

        def write(data, suffix, shared=shared, **added):
            path = derivative_path(root, shared, suffix, space=SPACE, res='1', **added)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, Volume(data.astype(np.float32), np.eye(4)))
            return path

        write(tissues.max(axis=0), 'mask', desc='brain')
        for label, tissue in zip(('GM', 'WM', 'CSF'), tissues, strict=True):
            write(tissue, 'probseg', label=label)
        rows = []
        for contrast in contrasts:
            data = np.tensordot(LEVELS[contrast], tissues, 1)
            data = np.abs(data + 0.02 * rng.standard_normal(SHAPE)) * (tissues.max(axis=0) > 0)
            path = write(data, contrast, desc='preproc')
            sidecar_path(path).write_text(json.dumps({'SourceWhiteMatterPeak': 100.0 + number}))
            row = {'scan': f'{name}_{contrast}', 'contrast': contrast}
            row |= {'registration_quality': quality} | ({'site': site} if site else {})
            rows.append(row)
        table = derivative_path(root, shared, 'qc', '.tsv', desc='harmonized')
        write_table(table, ['scan', 'contrast', 'site', 'registration_quality'], rows)


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Results of four people at two sites, and settings that take no time."""
    monkeypatch.setattr(sessions, 'WORKING_SHAPE', SHAPE)
    monkeypatch.setattr(transfer, 'CHECKS', 2)
    raw = tmp_path / 'bids'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "balls", "License": "CC0"}')
    write_results(
        tmp_path / 'out',
        [
            ('1', 'a', 'A', ('T1w', 'T2w'), 1.0),
            ('1', 'b', 'B', ('T1w', 'T2w'), 1.0),
            ('2', None, 'A', ('T1w',), 1.0),
            ('3', None, 'A', ('T1w', 'T2w'), 1.0),
            ('4', None, None, ('T1w',), 0.1),
        ],
    )
    return RunConfig(
        raw,
        tmp_path / 'out',
        'group',
        task='train',
        work_dir=tmp_path / 'work',
        steps=2,
        batch_size=1,
    )


def test_sessions_are_found_with_their_sites(config):
    found, notes = find_sessions(config)
    assert [session.name for session in found] == ['sub-1_ses-a', 'sub-1_ses-b', 'sub-2', 'sub-3']
    assert [scan.contrast for scan in found[0].scans] == ['T1w', 'T2w']
    assert {scan.site for scan in found[1].scans} == {'B'}
    assert notes == ['sub-4: its registration to the template is doubtful']
    assert [s.name for s in find_sessions(replace(config, site='B'))[0]] == ['sub-1_ses-b']
    chosen = replace(config, participants=('1', '2'), modalities=('T2w',))
    assert [s.name for s in find_sessions(chosen)[0]] == ['sub-1_ses-a', 'sub-1_ses-b']


def test_a_transfer_model_is_trained_on_scans_and_usable_at_once(config, capsys):
    assert run(config) == ExitCode.SUCCESS
    folder = config.output_dir / 'models' / 'transfer'
    assert f'written: {folder}' in capsys.readouterr().out
    told = Transfer.load(folder).metadata['training']
    assert told['steps'] == 2
    assert told['dataset'] == 'balls'
    assert told['scans'] == {'T1w': 4, 'T2w': 3}
    assert not set(told['subjects']) & set(told['validation_subjects'])
    assert len(told['validation_subjects']) == 1
    with (folder / 'training' / 'validation.csv').open() as stream:
        assert next(csv.DictReader(stream))['step'] == '2'
    targets = resolve_targets(('A',), config.bids_dir, folder)
    assert targets.styles['T1w'].scans >= 1
    assert targets.styles['T1w'].wm_peak >= 100
    np.testing.assert_allclose(targets.styles['T1w'].profile.levels, LEVELS['T1w'], atol=0.05)
    with pytest.raises(OptionError, match='--overwrite'):
        run(config)


@pytest.mark.parametrize(
    ('task', 'site', 'name'),
    [
        ('train', None, 'transfer'),
        ('styles', None, 'transfer-styles'),
        ('adapt', 'A', 'transfer-A'),
    ],
)
def test_a_dry_run_says_what_would_be_made_and_makes_nothing(config, capsys, task, site, name):
    before = sorted(config.output_dir.rglob('*'))
    assert run(replace(config, task=task, site=site, dry_run=True)) is ExitCode.SUCCESS
    told = capsys.readouterr().out
    assert f'would write {config.output_dir / "models" / name}' in told
    assert 'nothing was written' in told
    assert sorted(config.output_dir.rglob('*')) == before


def test_a_stopped_training_continues(config, monkeypatch, capsys):
    import os
    import signal

    losses = transfer.TransferTraining.losses
    stopping = replace(config, steps=3)

    def interrupted(self, batch, step, done):
        if step == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses(self, batch, step, done)

    with monkeypatch.context() as patch:
        patch.setattr(transfer.TransferTraining, 'losses', interrupted)
        run(stopping)
    assert 'stopped at step 2' in capsys.readouterr().out
    assert not (config.output_dir / 'models').exists()
    run(stopping)
    assert 'resumed, 3 steps' in capsys.readouterr().out


def test_haca3_learns_from_scans_and_phantom(config, tmp_path):
    tissues = (255 * shells()).astype(np.uint8)
    fractions = np.zeros((len(TISSUES), *SHAPE), np.uint8)
    fractions[[TISSUES.index(t) for t in ('gm', 'wm', 'csf')]] = tissues
    heads = tmp_path / 'heads'
    heads.mkdir()
    np.save(heads / 'shells_fractions.npy', fractions)
    np.save(heads / 'shells_maps.npy', np.concatenate([tissues.max(axis=0)[None], tissues]))
    file = tmp_path / 'phantom.yaml'
    file.write_text('heads: heads\nshare: 0.5\nsize: 32\n')
    with pytest.MonkeyPatch.context() as patch:
        # standard styles are drawn on the working grid, which the shells have not
        patch.setattr('harmony_app.training.styles.STANDARD', {})
        patch.setattr('harmony_app.training.haca3.Haca3Training.checks', (1, 2))
        run(replace(config, method='haca3', phantom=file, model_out=tmp_path / 'model'))
    model = Haca3.load(tmp_path / 'model')
    told = model.metadata['training']
    assert told['phantom'] == {'share': 0.5, 'heads': ['shells'], 'validation_heads': []}
    assert told['settings']['size'] == 32
    assert 'unlike_median' in told['fusion']
    style = next(s for s in model.metadata['styles'] if s['contrast'] == 'T2w')
    assert len(style['theta']) == model.nets.config.theta


def test_single_contrasts_teach_no_anatomy(config):
    only = replace(config, method='haca3', modalities=('T1w',))
    with pytest.raises(InputError, match='no session has two contrasts'):
        run(only)


@pytest.mark.parametrize(
    'changes, error, message',
    [
        ({'method': 'nyul'}, OptionError, 'has no model'),
        ({'participants': ('9',)}, InputError, 'desc-preproc'),
        ({'phantom': Path('absent.yaml')}, InputError, 'absent.yaml'),
        ({'task': 'adapt'}, OptionError, '--site NAME'),
        ({'task': 'adapt', 'site': 'C'}, OptionError, 'sites are A, B'),
        ({'task': 'adapt', 'site': 'B'}, InputError, '1 session, and 2 are needed'),
        ({'task': 'styles', 'site': 'C'}, OptionError, 'sites are A, B'),
    ],
)
def test_what_cannot_be_done_is_refused(config, changes, error, message):
    with pytest.raises(error, match=message):
        run(replace(config, **changes))
    assert not (config.output_dir / 'models').exists()


def test_a_model_of_another_method_is_refused(config, tmp_path):
    Haca3(Haca3Nets(VARIANTS['compact']), None, {}).save(tmp_path / 'other')
    with pytest.raises(ModelError, match='give --method haca3'):
        run(replace(config, model=tmp_path / 'other'))


@pytest.mark.parametrize(
    'text, message',
    [
        ('- a', 'no settings'),
        ('colour: red', 'unknown keys colour'),
        ('share: 0', 'above 0'),
        ('steps: many', 'steps is a number'),
        ('sites: mispel-ge', 'sites is a list of names'),
        ('contrasts: [T1]', 'unknown contrast T1'),
        ('heads: nowhere', 'is no folder'),
        ('a: [', 'not YAML'),
    ],
)
def test_a_wrong_phantom_file_is_refused(tmp_path, text, message):
    file = tmp_path / 'phantom.yaml'
    file.write_text(text)
    with pytest.raises(HarmonyError, match=message):
        read_phantom(file)


def test_styles_are_kept_beside_the_old_ones(config, capsys):
    run(replace(config, task='styles', site='A'))
    folder = config.output_dir / 'models' / 'transfer-A'
    assert 'A T1w: 3 scans' in capsys.readouterr().out
    model, packaged = Transfer.load(folder), Transfer.load(transfer_weights())
    names = [(style['name'], style['contrast']) for style in model.metadata['styles']]
    old = [(style['name'], style['contrast']) for style in packaged.metadata['styles']]
    assert names == [*old, ('A', 'T1w'), ('A', 'T2w')]
    (entry,) = model.metadata['lineage']
    assert entry['task'] == 'styles'
    assert entry['parent_sha256'] == packaged.metadata['weights_sha256']
    for key, tensor in packaged.network.state_dict().items():
        assert torch.equal(model.network.state_dict()[key], tensor), key
    again = replace(config, task='styles', site='B', model=folder)
    run(again)
    assert len(Transfer.load(config.output_dir / 'models' / 'transfer-B').metadata['lineage']) == 2


def test_an_adaptation_fits_its_parts_and_tells_its_lineage(config, monkeypatch, capsys):
    # whatever two steps are worth, it is written
    scores = iter((1.0, 2.0, 3.0, 4.0))
    monkeypatch.setattr(
        transfer.TransferTraining, 'validate', lambda self, net: {'psnr_after_db': next(scores)}
    )
    run(replace(config, task='adapt', site='A'))
    assert 'weights fitted: psnr_after_db 1 before, 2 after' in capsys.readouterr().out
    model = Transfer.load(config.output_dir / 'models' / 'transfer-A')
    packaged = Transfer.load(transfer_weights())
    changed = {
        key.partition('.')[0]
        for key, tensor in packaged.network.state_dict().items()
        if not torch.equal(tensor, model.network.state_dict()[key])
    }
    assert changed == {'local', 'everywhere'}
    (entry,) = model.metadata['lineage']
    assert (entry['task'], entry['site'], entry['sessions']) == ('adapt', 'A', 3)
    assert entry['validation_subjects']
    assert 'A' in {style['name'] for style in model.metadata['styles']}


def test_an_adaptation_that_is_no_better_writes_nothing(config, monkeypatch):
    scores = iter((2.0, 1.0))
    monkeypatch.setattr(
        transfer.TransferTraining, 'validate', lambda self, net: {'psnr_after_db': next(scores)}
    )
    with pytest.raises(HarmonyError, match='not improved for A'):
        run(replace(config, task='adapt', site='A'))
    assert not (config.output_dir / 'models').exists()


def test_an_energy_of_a_site_is_kept_however_it_was_judged(config, tmp_path, monkeypatch, capsys):
    """Without one the model of dlest does not reach the site at all."""
    small = replace(DLEST['compact'], channels=4, widths=(8,), blocks=1, energy_width=8)
    torch.manual_seed(0)
    Dlest(DlestNets(small, (SHARED,)), None, {'licence': 'CC0'}).save(tmp_path / 'parent')
    scores = iter((2.0, 1.0))
    monkeypatch.setattr(
        'harmony_app.training.dlest_energy.EnergyTraining.validate',
        lambda self, net: {'psnr': next(scores)},
    )
    wanted = replace(config, method='dlest', task='adapt', site='A', model=tmp_path / 'parent')
    run(replace(wanted, model_out=tmp_path / 'child'))
    assert 'weights fitted: psnr 2 before, 1 after' in capsys.readouterr().out
    model = Dlest.load(tmp_path / 'child')
    (entry,) = model.metadata['lineage']
    assert entry['parts']
    assert all(part.endswith('.site') for part in entry['parts'])
    assert SHARED in model.nets.energies
    assert any(key.endswith(':A') for key in model.nets.energies)


def test_haca3_is_adapted_with_a_fixed_decoder(config, tmp_path, monkeypatch):
    torch.manual_seed(0)
    Haca3(Haca3Nets(VARIANTS['compact']), None, {'licence': 'CC0'}).save(tmp_path / 'parent')
    scores = iter((1.0, 2.0))
    name = 'harmony_app.training.haca3.Haca3Training.validate'
    monkeypatch.setattr(name, lambda self, net: {'psnr_all': next(scores)})
    monkeypatch.setattr('harmony_app.training.haca3.Haca3Training.picture', lambda self, net: None)
    monkeypatch.setattr(Recipe, 'slower', 0.1)
    wanted = replace(config, method='haca3', task='adapt', site='A', model=tmp_path / 'parent')
    run(replace(wanted, model_out=tmp_path / 'child'))
    parent, child = Haca3.load(tmp_path / 'parent'), Haca3.load(tmp_path / 'child')
    changed = {
        key
        for key, tensor in parent.nets.state_dict().items()
        if not torch.equal(tensor, child.nets.state_dict()[key])
    }
    assert changed
    assert all(key.startswith(('beta.up.0.', 'beta.head.', 'theta.head.')) for key in changed)
    assert child.metadata['licence'] == 'CC0'
    assert {s['contrast'] for s in child.metadata['styles']} == {'T1w', 'T2w'}


def test_calamiti_is_trained_on_scans_and_fitted_to_a_site(config, tmp_path, monkeypatch):
    narrow = UNetConfig((4, 4, 4, 4, 4), (1, 1, 1, 1, 1), norm=False)
    small = replace(calamiti_nets.VARIANTS['compact'], beta=narrow, decoder=narrow)
    monkeypatch.setitem(calamiti_nets.VARIANTS, 'compact', small)
    monkeypatch.setattr('harmony_app.training.calamiti.CalamitiTraining.checks', (1, 2))
    # with this seed the one person of site B does not validate
    config = replace(config, random_seed=1)
    run(replace(config, method='calamiti', model_out=tmp_path / 'parent'))
    parent = Calamiti.load(tmp_path / 'parent')
    told = parent.metadata['training']
    assert told['settings']['adversarial'] > 0  # two sites: one of them is Site A
    assert set(told['fusion']) == {'T1w', 'T2w'}
    style = next(s for s in parent.metadata['styles'] if s['contrast'] == 'T2w')
    assert len(style['theta']) == 2
    assert style['eta'] == []

    scores = iter((1.0, 2.0))
    name = 'harmony_app.training.calamiti.CalamitiTraining'
    monkeypatch.setattr(f'{name}.validate', lambda self, net: {'psnr_all': next(scores)})
    monkeypatch.setattr(f'{name}.picture', lambda self, net: None)
    monkeypatch.setattr(Recipe, 'slower', 0.1)
    wanted = replace(config, method='calamiti', task='adapt', site='A', model=tmp_path / 'parent')
    run(replace(wanted, model_out=tmp_path / 'child'))
    child = Calamiti.load(tmp_path / 'child').nets.state_dict()
    changed = {k for k, v in parent.nets.state_dict().items() if not torch.equal(v, child[k])}
    assert changed
    assert all(key.startswith(('beta_output.', 'theta.head.')) for key in changed)


def test_imunity_keeps_biology_and_is_fitted_to_a_site(config, tmp_path, monkeypatch):
    table = config.bids_dir / 'participants.tsv'
    rows = [{'participant_id': f'sub-{n}', 'sex': 'MF'[n % 2]} for n in (1, 2, 3)]
    write_table(table, ['participant_id', 'sex'], rows)
    narrow = {'anatomy_width': 4, 'decoder_width': 4, 'fine': (4, 4)}
    small = replace(imunity_nets.VARIANTS['compact'], **narrow)
    monkeypatch.setitem(imunity_nets.VARIANTS, 'compact', small)
    name = 'harmony_app.training.imunity.ImUnityTraining'
    monkeypatch.setattr(f'{name}.checks', (1, 2))
    monkeypatch.setattr(
        'harmony_app.training.imunity_recipe.ImUnityRecipe.settings', Small(size=32)
    )
    # with this seed the one person of site B does not validate
    config = replace(config, random_seed=1, method='imunity')
    run(replace(config, biology=('sex',), model_out=tmp_path / 'parent'))
    parent = ImUnity.load(tmp_path / 'parent')
    told = parent.metadata['training']
    assert told['settings']['site_names'] == ['A', 'B']
    assert [(f['column'], f['level']) for f in told['biology']] == [('sex', 'F')]
    assert {s['contrast'] for s in parent.metadata['styles']} == {'T1w', 'T2w'}

    scores = iter((1.0, 2.0))
    monkeypatch.setattr(f'{name}.validate', lambda self, net: {'psnr_all': next(scores)})
    monkeypatch.setattr(f'{name}.picture', lambda self, net: None)
    monkeypatch.setattr(Recipe, 'slower', 0.1)
    wanted = replace(config, task='adapt', site='A', model=tmp_path / 'parent')
    run(replace(wanted, model_out=tmp_path / 'child'))
    child = ImUnity.load(tmp_path / 'child').nets.state_dict()
    changed = {k for k, v in parent.nets.state_dict().items() if not torch.equal(v, child[k])}
    assert changed
    assert all(key.startswith(('theta.head.', 'decoder.last.', 'decoder.head.')) for key in changed)


@pytest.mark.parametrize(
    'method, column, error, message',
    [
        ('haca3', 'sex', OptionError, 'give --method imunity'),
        ('imunity', 'age', InputError, 'no column age'),
        ('imunity', 'hand', InputError, 'has 1 values'),
    ],
)
def test_biology_that_cannot_be_kept_is_refused(config, method, column, error, message):
    wanted = replace(config, method=method, biology=(column,))
    with pytest.raises(
        error, match='give --method imunity' if method == 'haca3' else 'No such file'
    ):
        run(wanted)
    rows = [{'participant_id': f'sub-{n}', 'sex': 'F', 'hand': 'R'} for n in (1, 2, 3)]
    write_table(config.bids_dir / 'participants.tsv', ['participant_id', 'sex', 'hand'], rows)
    with pytest.raises(error, match=message):
        run(wanted)


def test_a_new_style_takes_the_place_of_its_namesake(make_style):
    old = replace(make_style('T1w'), name='x')
    kept = [old.to_dict(), replace(make_style('T2w'), name='x').to_dict()]
    merged = merge_styles(kept, [replace(old, scans=7)])
    assert [(s['contrast'], s['scans']) for s in merged] == [('T2w', kept[1]['scans']), ('T1w', 7)]


def transfer_weights():
    from harmony_app.methods.registry import packaged_model

    return packaged_model('transfer')
