import base64
import gzip
import hashlib
import json
from importlib.resources import files

import nibabel as nib
import numpy as np
import pytest

from harmony_app.imaging.volume import Volume
from harmony_app.reports.html import page
from harmony_app.reports.viewer import shown_scan, viewer, viewer_scripts, volume_text

VENDOR = files('harmony_app.reports') / 'vendor'


def read(text):
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


@pytest.fixture
def volume():
    affine = np.diag([1.0, 1, 1, 1])
    affine[:3, 3] = -10, -20, -30
    data = np.zeros((12, 14, 16), np.float32)
    data[4:8, 4:8, 4:8] = 1.0
    return Volume(data, affine)


def test_a_volume_keeps_its_place_and_its_window(volume):
    box = (slice(2, 10), slice(2, 12), slice(2, 14))
    image = read(volume_text(volume, (0.0, 2.0), 2, box))
    assert image.shape == (4, 5, 6)
    assert image.get_data_dtype() == np.uint8
    data = np.asarray(image.dataobj)
    assert data.max() == 128
    centre = image.affine @ [*np.argwhere(data > 0).mean(axis=0), 1]
    assert np.allclose(centre[:3], [5.5 - 10, 5.5 - 20, 5.5 - 30])
    assert volume_text(volume, (0, 2), 2, box) == volume_text(volume, (0, 2), 2, box)


def test_all_stages_of_a_scan_are_in_the_page(volume):
    scan = shown_scan('a "b"', {'before': volume, 'after': volume}, (0.0, 1.0), 2)
    part = viewer([scan])
    assert 'Voxels of 2 mm' in part
    assert scan.size == sum(len(text) for text in scan.stages.values())
    for stage in ('before', 'after'):
        assert f'id="volume-0-{stage}">{scan.stages[stage]}</script>' in part
    assert '<option value="a &quot;b&quot;">' in part


def test_niivue_is_the_file_of_its_package():
    told = json.loads((VENDOR / 'niivue.json').read_text())
    content = (VENDOR / told['file']).read_bytes()
    assert hashlib.sha256(content).hexdigest() == told['sha256']
    assert told['package'] == '@niivue/niivue'
    assert told['version'] == '0.69.0'
    licence = (VENDOR / told['licence_file']).read_text()
    assert licence.startswith('BSD 2-Clause License')
    assert 'Niivue' in licence


def test_a_page_allows_its_own_scripts_and_no_other():
    scripts = viewer_scripts()
    text = page('t', '', {'a': 'b'}, scripts)
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in text
    assert 'script-src' not in page('t', '', {})
    with pytest.raises(ValueError, match='its own end'):
        page('t', '', {}, ['x = "</script>"'])
