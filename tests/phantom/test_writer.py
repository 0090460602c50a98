import hashlib
import json
import shutil
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest
import yaml
from scipy import ndimage

from harmony_app.errors import ExitCode
from harmony_app.phantom.cli import build_parser, main
from harmony_app.phantom.sites import load_sites

SITES = load_sites()
CONTRASTS = ('T1w', 'T2w', 'PDw', 'FLAIR')


def run(out, label_folder, *more):
    arguments = [out, '--label-maps', label_folder, '--resolution', '3', '--quiet', *more]
    return main([str(a) for a in arguments])


@pytest.fixture(scope='module')
def dataset(tmp_path_factory, label_folder):
    out = tmp_path_factory.mktemp('phantom') / 'bids'
    assert run(out, label_folder, '--subjects', 2, '--sites', 'A,D', '--lesions', 12) == 0
    return out


@pytest.fixture(scope='module')
def truth(dataset):
    return dataset / 'derivatives' / 'phantom'


def hashes(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob('*'))
        if p.is_file()
    }


def stem(sub, site):
    return f'sub-{sub}/ses-{site}/anat/sub-{sub}_ses-{site}'


def table(path):
    lines = [line.split('\t') for line in path.read_text().splitlines()]
    return [dict(zip(lines[0], row, strict=True)) for row in lines[1:]]


def load(path):
    image = nib.load(path)
    return image, image.get_fdata()


# --- validity


@pytest.mark.parametrize('where', ['.', 'derivatives/phantom'])
def test_the_validator_finds_no_error(dataset, where):
    validator = shutil.which('bids-validator-deno') or shutil.which(
        'bids-validator-deno', path=str(sys.prefix) + '/bin'
    )
    if validator is None:
        pytest.skip('bids-validator-deno is not installed')
    done = subprocess.run(
        [validator, str(dataset / where), '--format', 'json'],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    report = json.loads(done.stdout)
    issues = report['issues']['issues']
    errors = [i for i in issues if i['severity'] == 'error']
    assert not errors, errors
    assert sorted(report['summary']['subjects']) == ['01', '02']


def test_every_scan_is_there_and_nothing_else(dataset):
    scans = {
        str(p.relative_to(dataset)).removesuffix('.nii.gz')
        for p in dataset.glob('sub-*/**/*.nii.gz')
    }
    assert scans == {
        f'{stem(sub, site)}_{contrast}'
        for sub in ('01', '02')
        for site in ('siteA', 'siteD')
        for contrast in CONTRASTS
    }
    assert not list(dataset.rglob('.tmp*'))


def test_participants_and_sessions_say_who_and_where(dataset):
    people = table(dataset / 'participants.tsv')
    assert [p['participant_id'] for p in people] == ['sub-01', 'sub-02']
    for person in people:
        assert person['traveling_subject'] == 'yes'
        assert person['group'] == 'lesions'
        assert person['head'] == 'ellipsoids'
        assert 0 <= float(person['atrophy']) <= 4
        assert 6 <= float(person['lesion_volume']) <= 18
    described = json.loads((dataset / 'participants.json').read_text())
    assert set(people[0]) - {'participant_id'} == set(described)
    sessions = table(dataset / 'sub-01' / 'sub-01_sessions.tsv')
    assert [(s['session_id'], s['site']) for s in sessions] == [
        ('ses-siteA', 'siteA'),
        ('ses-siteD', 'siteD'),
    ]


@pytest.mark.parametrize('site', ['siteA', 'siteD'])
@pytest.mark.parametrize('contrast', CONTRASTS)
def test_sidecars_tell_the_truth(dataset, site, contrast):
    protocol = SITES[site].protocols[contrast]
    fields = json.loads((dataset / f'{stem("01", site)}_{contrast}.json').read_text())
    image, _ = load(dataset / f'{stem("01", site)}_{contrast}.nii.gz')
    assert fields['Manufacturer'] == SITES[site].manufacturer
    assert fields['ManufacturersModelName'] == SITES[site].model
    assert fields['MagneticFieldStrength'] == protocol.field
    assert fields['RepetitionTime'] == pytest.approx(protocol.repetition_time / 1000)
    told = SITES[site].nominal_echo_times.get(contrast, protocol.echo_time)
    assert fields['EchoTime'] == pytest.approx(told / 1000)
    assert fields['FlipAngle'] == protocol.flip_angle
    assert fields['MRAcquisitionType'] == protocol.acquisition
    assert ('InversionTime' in fields) == (protocol.sequence in ('MPRAGE', 'FLAIR'))
    if 'InversionTime' in fields:
        assert fields['InversionTime'] == pytest.approx(protocol.inversion_time / 1000)
    assert fields['Simulated'] is True
    # --resolution makes the voxels coarser, and the sidecar says the voxels that are there
    assert fields['SliceThickness'] == pytest.approx(max(3, protocol.zooms[2]))
    np.testing.assert_allclose(image.header.get_zooms(), np.maximum(3, protocol.zooms), rtol=1e-4)


def test_headers_are_complete(dataset, truth):
    for folder in (dataset, truth):
        for path in folder.glob('sub-*/**/*.nii.gz'):
            header = nib.load(path).header
            assert header['qform_code'] == header['sform_code'] == 1
            np.testing.assert_allclose(header.get_qform(), header.get_sform(), atol=1e-4)
            assert header.get_xyzt_units()[0] == 'mm'
            assert header.get_data_dtype().kind in 'iu'


# --- truth


@pytest.mark.parametrize('contrast', CONTRASTS)
@pytest.mark.parametrize('site', ['siteA', 'siteD'])
def test_the_truth_is_the_scan_without_noise_and_receive_field(dataset, truth, site, contrast):
    raw, scan = load(dataset / f'{stem("01", site)}_{contrast}.nii.gz')
    clean, noise_free = load(truth / f'{stem("01", site)}_desc-{site}_{contrast}.nii.gz')
    np.testing.assert_allclose(raw.affine, clean.affine)
    assert scan.shape == noise_free.shape
    inside = noise_free > 0.2 * np.percentile(noise_free, 99)
    ratio = scan[inside] / noise_free[inside]
    protocol = SITES[site].protocols[contrast]
    assert np.median(ratio) == pytest.approx(1, abs=0.12)
    assert np.abs(ratio - 1).mean() < protocol.bias + 2 / protocol.snr
    # air shows noise in the scan and nothing in the truth
    air = ndimage.binary_erosion(noise_free == 0, iterations=2)
    assert scan[air].mean() > 0 if air.any() else True


def test_the_truth_at_another_site_shows_the_same_head_in_another_contrast(truth):
    own, mine = load(truth / f'{stem("01", "siteA")}_desc-siteA_T1w.nii.gz')
    other, theirs = load(truth / f'{stem("01", "siteA")}_desc-siteD_T1w.nii.gz')
    np.testing.assert_allclose(own.affine, other.affine)
    # one function of the same tissues: monotone, not equal
    inside = (mine > 0) & (theirs > 0)
    assert np.corrcoef(mine[inside], theirs[inside])[0, 1] > 0.9
    scaled = theirs / np.median(theirs[inside]) - mine / np.median(mine[inside])
    assert np.abs(scaled[inside]).mean() > 0.005


def test_the_head_is_the_same_in_both_sessions(truth):
    """Tissue maps of one session, carried by the transforms of the sidecars, meet the other's."""
    maps, transforms = {}, {}
    for site in ('siteA', 'siteD'):
        name = f'{stem("01", site)}_space-T1w_label-WM_probseg'
        image, data = load(truth / f'{name}.nii.gz')
        fields = json.loads((truth / f'{name}.json').read_text())
        maps[site] = data
        transforms[site] = np.linalg.inv(np.array(fields['HeadToScanner'])) @ image.affine
    to_other = np.linalg.inv(transforms['siteD']) @ transforms['siteA']
    moved = ndimage.affine_transform(
        maps['siteD'], to_other[:3, :3], to_other[:3, 3], maps['siteA'].shape, order=1
    )
    assert np.corrcoef(moved.ravel(), maps['siteA'].ravel())[0, 1] > 0.97
    assert maps['siteD'].sum() == pytest.approx(
        maps['siteA'].sum()
        * abs(np.linalg.det(transforms['siteA'][:3, :3]))
        / abs(np.linalg.det(transforms['siteD'][:3, :3])),
        rel=0.02,
    )


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_masks_lie_on_the_grid_of_their_scan(dataset, truth, contrast):
    scan, data = load(dataset / f'{stem("02", "siteD")}_{contrast}.nii.gz')
    prefix = truth / f'{stem("02", "siteD")}_space-{contrast}'
    image, brain = load(f'{prefix}_desc-brain_mask.nii.gz')
    _, lesions = load(f'{prefix}_label-L_mask.nii.gz')
    np.testing.assert_allclose(image.affine, scan.affine)
    assert brain.shape == lesions.shape == data.shape
    assert set(np.unique(brain)) == {0, 1}
    voxel = abs(np.linalg.det(scan.affine[:3, :3])) / 1000
    assert 1000 < brain.sum() * voxel < 3000
    assert 0 < lesions.sum() * voxel < 30
    assert (lesions <= brain).all()


@pytest.mark.parametrize('contrast', CONTRASTS)
def test_tissue_maps_are_fractions(truth, contrast):
    maps = []
    for tissue in ('GM', 'WM', 'CSF'):
        name = f'{stem("01", "siteA")}_space-{contrast}_label-{tissue}_probseg.nii.gz'
        _, data = load(truth / name)
        assert data.min() >= 0
        assert 0.99 < data.max() <= 1.0001
        maps.append(data)
    assert sum(maps).max() < 1.01


def test_scans_show_the_contrast_they_are_named_after(dataset, truth):
    for site in ('siteA', 'siteD'):
        means = {}
        _, brain = load(truth / f'{stem("01", site)}_space-T1w_desc-brain_mask.nii.gz')
        _, t1w = load(dataset / f'{stem("01", site)}_T1w.nii.gz')
        for tissue in ('GM', 'WM', 'CSF'):
            name = f'{stem("01", site)}_space-T1w_label-{tissue}_probseg.nii.gz'
            means[tissue] = t1w[(load(truth / name)[1] > 0.95) & (brain > 0)].mean()
        assert means['WM'] > means['GM'] > means['CSF']


# --- reproducible


def test_the_same_seed_gives_the_same_bytes(tmp_path, label_folder):
    options = ('--subjects', 1, '--sites', 'C', '--contrasts', 'T1w,FLAIR', '--lesions')
    for name in ('one', 'two'):
        assert run(tmp_path / name, label_folder, *options) == 0
    assert hashes(tmp_path / 'one') == hashes(tmp_path / 'two')
    assert run(tmp_path / 'three', label_folder, *options, '--seed', 1) == 0
    scan = 'sub-01/ses-siteC/anat/sub-01_ses-siteC_T1w.nii.gz'
    assert hashes(tmp_path / 'one')[scan] != hashes(tmp_path / 'three')[scan]


def test_a_site_and_a_contrast_more_change_no_other_scan(dataset, tmp_path, label_folder):
    options = ('--subjects', 1, '--sites', 'D', '--contrasts', 'T2w', '--lesions', 12)
    assert run(tmp_path / 'less', label_folder, *options, '--truth', 'own') == 0
    scan = f'{stem("01", "siteD")}_T2w.nii.gz'
    assert (tmp_path / 'less' / scan).read_bytes() == (dataset / scan).read_bytes()
    assert table(tmp_path / 'less' / 'participants.tsv')[0]['traveling_subject'] == 'no'
    assert not list((tmp_path / 'less').rglob('*desc-siteA*'))


def test_a_second_visit_is_another_scan_of_the_same_head(tmp_path, label_folder):
    options = ('--subjects', 1, '--sites', 'A,D', '--contrasts', 'T1w', '--truth', 'own')
    assert run(tmp_path / 'once', label_folder, *options) == 0
    assert run(tmp_path / 'twice', label_folder, *options, '--visits', 2) == 0
    rows = table(tmp_path / 'twice' / 'sub-01' / 'sub-01_sessions.tsv')
    assert [row['session_id'] for row in rows] == [
        'ses-siteA', 'ses-siteAvisit2', 'ses-siteD', 'ses-siteDvisit2'
    ]  # fmt: skip
    assert rows[0]['site'] == rows[1]['site'] != rows[2]['site']
    scan = f'{stem("01", "siteA")}_T1w.nii.gz'
    assert (tmp_path / 'once' / scan).read_bytes() == (tmp_path / 'twice' / scan).read_bytes()
    again = f'{stem("01", "siteAvisit2")}_T1w.nii.gz'
    assert (tmp_path / 'twice' / again).read_bytes() != (tmp_path / 'twice' / scan).read_bytes()
    truth = tmp_path / 'twice' / 'derivatives' / 'phantom'
    masks = [
        load(truth / f'{stem("01", session)}_space-T1w_desc-brain_mask.nii.gz')[1].sum()
        for session in ('siteA', 'siteAvisit2')
    ]
    assert masks[0] == pytest.approx(masks[1], rel=0.02)


# --- the command line


def test_a_site_file_of_ones_own(tmp_path, label_folder):
    protocol = {
        'sequence': 'SPGR',
        'repetition_time': 20,
        'echo_time': 5,
        'flip_angle': 25,
        'zooms': [3, 3, 3],
        'acquisition': '3D',
        'plane': 'axial',
    }
    site = {'manufacturer': 'Acme', 'model': 'One', 'field': 1.0, 'protocols': {'T1w': protocol}}
    path = tmp_path / 'mine.yaml'
    path.write_text(yaml.safe_dump({'sites': {'my-lab': site}}))
    options = ('--subjects', 1, '--site-file', path, '--sites', 'my-lab')
    assert run(tmp_path / 'out', label_folder, *options) == 0
    fields = tmp_path / 'out/sub-01/ses-mylab/anat/sub-01_ses-mylab_T1w.json'
    assert json.loads(fields.read_text())['MagneticFieldStrength'] == 1.0
    # only the contrasts that the site has
    assert len(list((tmp_path / 'out').glob('sub-*/**/*.nii.gz'))) == 1


@pytest.mark.parametrize(
    'options, code, message',
    [
        (['--sites', 'siteZ'], ExitCode.BAD_OPTIONS, "unknown site 'siteZ'"),
        (['--sites', 'A,A'], ExitCode.BAD_OPTIONS, 'named twice'),
        (['--sites', ''], ExitCode.BAD_OPTIONS, 'no site'),
        (['--contrasts', 'T1w,bold'], ExitCode.BAD_OPTIONS, "unknown contrast 'bold'"),
        (['--contrasts', ''], ExitCode.BAD_OPTIONS, 'names no contrast'),
        (['--subjects', '0'], ExitCode.BAD_OPTIONS, '--subjects'),
        (['--seed', '-1'], ExitCode.BAD_OPTIONS, '--seed'),
        (['--lesions', '500'], ExitCode.BAD_OPTIONS, '--lesions'),
        (['--visits', '0'], ExitCode.BAD_OPTIONS, '--visits'),
        (['--atrophy', '40'], ExitCode.BAD_OPTIONS, '--atrophy'),
        (['--resolution', '30'], ExitCode.BAD_OPTIONS, '--resolution'),
        (['--device', 'warp'], ExitCode.BAD_OPTIONS, '--device warp'),
        (['--label-maps', 'nowhere'], ExitCode.NO_INPUT, 'nowhere'),
        (['--site-file', 'nowhere.yaml'], ExitCode.NO_INPUT, 'nowhere.yaml'),
    ],
)
def test_a_wrong_option_is_one_clear_line(tmp_path, capsys, options, code, message):
    assert main([str(tmp_path / 'out'), *options]) == code
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1
    assert not (tmp_path / 'out').exists()


def test_a_full_folder_is_not_touched(tmp_path, capsys, label_folder):
    (tmp_path / 'mine.txt').write_text('keep me')
    assert run(tmp_path, label_folder) == ExitCode.CANNOT_CREATE
    assert 'not an empty folder' in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ['mine.txt']


@pytest.mark.parametrize('content', [b'not an image', b''])
def test_a_broken_label_map(tmp_path, capsys, content):
    (tmp_path / 'heads').mkdir()
    (tmp_path / 'heads' / 'bad.nii.gz').write_bytes(content)
    assert run(tmp_path / 'out', tmp_path / 'heads') == ExitCode.BAD_DATA
    assert 'bad.nii.gz' in capsys.readouterr().err


def test_a_folder_without_label_maps(tmp_path, capsys):
    (tmp_path / 'heads').mkdir()
    assert run(tmp_path / 'out', tmp_path / 'heads') == ExitCode.NO_INPUT
    assert 'no .nii' in capsys.readouterr().err


def test_a_head_that_cannot_shrink_says_so(tmp_path, capsys):
    labels = np.zeros((40, 40, 40), np.int16)
    labels[5:35, 5:35, 5:35] = 2
    (tmp_path / 'heads').mkdir()
    nib.save(nib.Nifti1Image(labels, np.diag([3.0, 3, 3, 1])), tmp_path / 'heads' / 'dry.nii.gz')
    code = run(tmp_path / 'out', tmp_path / 'heads', '--subjects', 1, '--atrophy', 10)
    assert code == ExitCode.BAD_OPTIONS
    error = capsys.readouterr().err
    assert 'dry.nii.gz' in error
    assert '--atrophy' in error


def test_no_out_is_a_usage_error(capsys):
    with pytest.raises(SystemExit) as error:
        main([])
    assert error.value.code == ExitCode.USAGE
    assert 'OUT' in capsys.readouterr().err


def test_list_sites(capsys):
    assert main(['--list-sites']) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in SITES)


def test_underscores_are_hyphens():
    options = build_parser().parse_args(['out', '--label_maps', 'x', '--site_file', 'y'])
    assert str(options.label_maps) == 'x'
    assert str(options.site_file) == 'y'


def test_help_and_a_wrong_site_need_no_torch(tmp_path):
    code = (
        'import sys\n'
        'from harmony_app.phantom.cli import build_parser, main\n'
        'build_parser().format_help()\n'
        f'main([{str(tmp_path / "out")!r}, "--sites", "nowhere"])\n'
        'print(sorted({"torch", "ants", "nipype", "nilearn", "nibabel"} & set(sys.modules)))\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


@pytest.mark.slow
def test_the_icbm_head(tmp_path):
    options = ['--subjects', '1', '--sites', 'C', '--resolution', '4', '--quiet']
    assert main([str(tmp_path / 'out'), *options]) == 0
    folder = tmp_path / 'out' / 'derivatives' / 'phantom'
    image, brain = load(folder / f'{stem("01", "siteC")}_space-T1w_desc-brain_mask.nii.gz')
    assert 1100 < brain.sum() * abs(np.linalg.det(image.affine[:3, :3])) / 1000 < 2600
    _, t1w = load(folder / f'{stem("01", "siteC")}_desc-siteC_T1w.nii.gz')
    # the scalp is brighter than the brain on T1w
    assert np.percentile(t1w[brain == 0], 99.5) > t1w[brain > 0].mean()
