import json
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from harmony_app.bids.atomic import atomic_path, read_table, write_json, write_table
from harmony_app.bids.derivatives import (
    derivative_path,
    image_sidecar,
    link_to,
    raw_uri,
    sidecar_path,
    write_dataset_files,
)
from harmony_app.errors import OutputError
from harmony_app.imaging.grid import SPACE

VALIDATOR = shutil.which('bids-validator-deno') or shutil.which(
    'bids-validator-deno', path=Path(sys.executable).parent
)
needs_validator = pytest.mark.skipif(not VALIDATOR, reason='bids-validator-deno is not installed')


def validate(root):
    """Errors that the BIDS validator finds."""
    done = subprocess.run(
        [VALIDATOR, str(root), '--format', 'json'], capture_output=True, text=True, check=False
    )
    issues = json.loads(done.stdout)['issues']['issues']
    return [issue for issue in issues if issue['severity'] == 'error']


def test_paths_follow_the_order_of_the_schema():
    entities = {'sub': '01', 'ses': 'a', 'acq': '3d', 'run': '02'}
    path = derivative_path(Path('o'), entities, 'T2w', desc='harmonized', res='1', space=SPACE)
    assert path.as_posix() == (
        f'o/sub-01/ses-a/anat/sub-01_ses-a_acq-3d_run-02_space-{SPACE}_res-1_desc-harmonized_T2w.nii.gz'
    )
    figure = derivative_path(Path('o'), entities, 'T2w', '.png', 'figures', desc='harmonized')
    assert figure.parent.as_posix() == 'o/sub-01/figures'
    transform = derivative_path(
        Path('o'), {'sub': '1'}, 'xfm', '.txt', from_='T1w', to=SPACE, mode='image'
    )
    assert transform.name == f'sub-1_from-T1w_to-{SPACE}_mode-image_xfm.txt'


def make_results(root, contrasts=('T1w', 'T2w', 'PDw', 'FLAIR')):
    """A dataset of results with tiny images, described by our own sidecars."""
    write_dataset_files(root, root.parent / 'raw', {'Name': 'x', 'DatasetDOI': 'doi:10.1/x'})
    source = raw_uri(Path('/raw/sub-01/anat/sub-01_T1w.nii.gz'), Path('/raw'))
    image = nib.Nifti1Image(np.ones((9, 9, 9), np.float32), np.eye(4))
    image.header.set_xyzt_units('mm')
    paths = []
    for contrast in contrasts:
        for space in (None, SPACE):
            entities = {'sub': '01', 'ses': 'a', 'acq': '3d', 'run': '01', 'part': 'mag'}
            added = {'space': space, 'res': '1' if space else None}
            path = derivative_path(root, entities, contrast, desc='harmonized', **added)
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(image, path)
            fields = image_sidecar('harmonized', [source], False, space, {'Manufacturer': 'GE'})
            write_json(sidecar_path(path), fields)
            paths.append(path)
    return paths


@needs_validator
def test_the_validator_finds_no_error_in_what_we_name_and_describe(tmp_path):
    make_results(tmp_path / 'out')
    assert validate(tmp_path / 'out') == []


@needs_validator
def test_the_validator_would_find_an_error(tmp_path):
    path = make_results(tmp_path / 'out', ['T1w'])[0]
    fields = json.loads(sidecar_path(path).read_text())
    del fields['SkullStripped']
    write_json(sidecar_path(path), fields)
    assert [issue['code'] for issue in validate(tmp_path / 'out')] == ['SIDECAR_KEY_REQUIRED']


def test_a_harmonized_scan_keeps_the_scanner_but_not_the_contrast_of_its_source():
    raw = {'Manufacturer': 'GE', 'MagneticFieldStrength': 3, 'EchoTime': 0.01, 'PatientName': 'x'}
    harmonized = image_sidecar('harmonized', [], False, None, raw)
    assert harmonized['Manufacturer'] == 'GE'
    assert 'EchoTime' not in harmonized
    assert 'SpatialReference' not in harmonized
    preproc = image_sidecar('preproc', [], True, SPACE, raw)
    assert preproc['EchoTime'] == 0.01
    assert preproc['SkullStripped'] is True
    assert 'PatientName' not in preproc


def test_the_input_is_linked_by_a_uri_relative_where_results_lie_inside_it(tmp_path):
    raw = tmp_path / 'raw'
    assert link_to(raw, raw / 'derivatives' / 'harmony') == '../..'
    assert link_to(raw, tmp_path / 'out') == raw.as_uri()


def test_a_file_that_fails_halfway_leaves_the_old_one(tmp_path):
    path = write_json(tmp_path / 'a.json', {'old': 1})

    def write_half():
        with atomic_path(path) as temporary:
            temporary.write_text('half')
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert json.loads(path.read_text()) == {'old': 1}
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError, match='cannot write') as caught:
        write_json(tmp_path / 'file' / 'a.json', {})
    assert caught.value.exit_code == 73


def test_tables_write_na_and_read_it_back(tmp_path):
    rows = [{'a': 1.23456789, 'b': None}, {'a': float('nan'), 'b': 'two words\n'}]
    path = write_table(tmp_path / 't.tsv', ['a', 'b'], rows)
    assert path.read_text() == 'a\tb\n1.23457\tn/a\nn/a\ttwo words\n'
    assert read_table(path) == [{'a': '1.23457'}, {'b': 'two words'}]
    with pytest.raises(ValueError, match='no column'):
        write_table(path, ['a'], rows)
