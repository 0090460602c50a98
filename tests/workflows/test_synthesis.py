"""``--task synthesize`` and ``--task adapt`` with DLEST, on small results."""

import json
from dataclasses import replace

import nibabel
import numpy as np
import pytest
import torch

from harmony_app.app import run
from harmony_app.bids.atomic import read_table
from harmony_app.cli import make_config, make_parser
from harmony_app.config import RunConfig
from harmony_app.errors import ExitCode, OptionError
from harmony_app.evaluation.synthesis import compare_synthesis
from harmony_app.methods.classical.unchanged import Unchanged
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import VARIANTS, DlestNets, energy_key
from harmony_app.training import sessions
from harmony_app.workflows.checks import check_measured
from harmony_app.workflows.targets import Targets
from tests.workflows.test_model_making import SHAPE, write_results


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Results of three people at two sites, and a model that reaches one of them."""
    monkeypatch.setattr(sessions, 'WORKING_SHAPE', SHAPE)
    monkeypatch.setattr('harmony_app.training.dlest_energy.CHECKS', (1, 2))
    small = replace(
        VARIANTS['compact'],
        channels=4,
        widths=(8,),
        blocks=1,
        canvas=(32, 64),
        noise=4,
        mapping_width=8,
        discriminator_width=8,
        energy_width=8,
    )
    monkeypatch.setitem(VARIANTS, 'compact', small)
    torch.manual_seed(0)
    model = tmp_path / 'model'
    Dlest(DlestNets(small, (energy_key('A', 'T1w'),)), None, {'styles': []}).save(model)
    raw = tmp_path / 'bids'
    raw.mkdir()
    (raw / 'dataset_description.json').write_text('{"Name": "balls"}')
    write_results(
        tmp_path / 'out',
        [
            ('1', None, 'A', ('T1w',), 1.0),
            ('2', None, 'A', ('T1w',), 1.0),
            ('3', None, 'B', ('T1w',), 1.0),
            ('4', None, 'B', ('T1w',), 1.0),
        ],
    )
    return RunConfig(
        raw,
        tmp_path / 'out',
        'group',
        task='synthesize',
        method='dlest',
        model=model,
        site='A',
        count=3,
        work_dir=tmp_path / 'work',
        steps=2,
        batch_size=2,
    )


def test_slices_are_made_and_compared_with_those_of_the_site(config, capsys):
    assert run(config) == ExitCode.SUCCESS
    out = config.output_dir / 'synthetic' / 'A'
    files = sorted(out.glob('T1w_slice-*.nii.gz'))
    assert [f.name for f in files] == [f'T1w_slice-00{i}.nii.gz' for i in (1, 2, 3)]
    images = [nibabel.load(f) for f in files]
    assert {image.shape for image in images} == {(32, 64, 1)}
    assert len({image.get_fdata().tobytes() for image in images}) == 3
    told = json.loads((out / 'synthetic.json').read_text())
    assert told['Synthetic'] is True
    assert (told['Site'], told['Slices']) == ('A', 3)
    rows = {row['data']: row for row in read_table(out / 'comparison.tsv')}
    # two people, three slices each; each of them with three synthetic ones
    assert rows['original']['pairs'] == '9'
    assert rows['synthetic']['pairs'] == '18'
    # people of this site are alike but for their noise; slices of an untrained model are not
    assert float(rows['original']['ssim_mean']) > float(rows['synthetic']['ssim_mean'])
    assert 'SSIM' in capsys.readouterr().out
    with pytest.raises(OptionError, match='--overwrite'):
        run(config)
    again = replace(config, overwrite=True)
    run(again)
    assert nibabel.load(files[0]).get_fdata().tobytes() == images[0].get_fdata().tobytes()
    run(replace(again, random_seed=7, count=1))
    assert len(list(out.glob('T1w_slice-*.nii.gz'))) == 1
    assert nibabel.load(files[0]).get_fdata().tobytes() != images[0].get_fdata().tobytes()


def test_a_site_is_fitted_and_then_made_of_noise_and_named_as_a_target(config, capsys):
    with pytest.raises(OptionError, match='--task adapt --site B'):
        run(replace(config, site='B'))
    child = config.output_dir / 'models' / 'child'
    # the phantom's balls hold nothing that a model by chance keeps, so any energy is an improvement
    wanted = replace(config, task='adapt', site='B', model_out=child, steps=3)
    run(wanted)
    method, parent = Dlest.load(child), Dlest.load(config.model)
    assert list(method.nets.energies) == ['T1w:A', 'T1w:B']
    for name, tensor in parent.nets.state_dict().items():
        assert torch.equal(tensor, method.nets.state_dict()[name]), name
    assert [s['name'] for s in method.metadata['styles']] == ['B']
    assert method.metadata['lineage'][-1]['parts'] == ['energies.']
    run(replace(config, site='B', model=child))
    assert (config.output_dir / 'synthetic' / 'B' / 'T1w_slice-003.nii.gz').exists()
    assert 'written' in capsys.readouterr().out


def test_a_dry_run_writes_nothing(config):
    run(replace(config, dry_run=True))
    assert not (config.output_dir / 'synthetic').exists()


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'site': None}, '--site NAME'),
        ({'method': 'haca3'}, 'only dlest'),
        ({'modalities': ('T2w',)}, 'T1w:A'),
    ],
)
def test_what_cannot_be_made_is_refused(config, changes, message):
    with pytest.raises(OptionError, match=message):
        run(replace(config, **changes))


def test_a_scan_is_no_target_of_a_method_that_reaches_its_styles_alone(config):
    targets = Targets({}, {'T1w': ('a scan',)}, {'T1w': 'sub-01'})
    with pytest.raises(OptionError, match='--target sub-01: .* --task adapt --method dlest'):
        check_measured(Dlest.load(config.model), targets)
    check_measured(Unchanged(), targets)
    check_measured(Dlest.load(config.model), Targets({}, {}, {}))


def test_the_command_line_says_how_many():
    given = ['in', 'out', 'group', '--task', 'synthesize', '--method', 'dlest', '--site', 'A']
    parser = make_parser()
    assert make_config(parser.parse_intermixed_args(given)).count == 20
    assert make_config(parser.parse_intermixed_args([*given, '--n', '5'])).count == 5
    with pytest.raises(SystemExit):
        parser.parse_intermixed_args([*given, '--n', '0'])
    text = parser.format_help()
    assert '--n N' in text
    assert 'synthesize' in text


def test_like_slices_of_other_people_are_as_near_as_originals():
    rng = np.random.default_rng(0)
    base = np.zeros((24, 24))
    base[4:20, 4:20] = 0.5 + 0.5 * rng.random((16, 16))

    def image():
        return base + 0.02 * rng.standard_normal(base.shape) * (base > 0)

    originals = [('a', image()), ('a', image()), ('b', image())]
    own, made = compare_synthesis(originals, [image(), image()])
    # pairs of one person do not count
    assert (own['pairs'], made['pairs']) == (2, 6)
    assert own['ssim_mean'] == pytest.approx(made['ssim_mean'], abs=0.01)
    assert own['rmse_mean'] == pytest.approx(0.02 * 2**0.5, rel=0.3)
    (only,) = compare_synthesis(originals[:1], [image()])
    assert only['data'] == 'synthetic'
    with pytest.raises(ValueError, match='original'):
        compare_synthesis([], [image()])
