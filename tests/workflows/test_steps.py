from functools import partial

import nibabel as nib
import numpy as np
import pytest

from harmony_app.engine import super_resolution
from harmony_app.engine.super_resolution import FitSettings, super_resolve
from harmony_app.errors import ExitCode, ScanError
from harmony_app.imaging.registration import TemplateRegistration
from harmony_app.imaging.template import load_template
from harmony_app.workflows import harmonizing, steps
from harmony_app.workflows.records import Record, write_record


def test_a_record_gives_back_what_was_put_in(tmp_path):
    arrays = {'a/b': np.arange(24, dtype=np.float32).reshape(2, 3, 4), 'mask': np.eye(3) > 0}
    first = write_record(tmp_path / 'a.zip', {'x': [1, None]}, arrays)
    record = Record(first)
    assert record.facts == {'x': [1, None]}
    assert record.failure is None
    assert 'mask' in record
    assert 'other' not in record
    for name, array in arrays.items():
        assert np.array_equal(record.array(name), array)
        assert record.array(name).dtype == array.dtype
    # Nothing of the moment gets in: equal content, equal bytes.
    second = write_record(tmp_path / 'b.zip', {'x': [1, None]}, iter(arrays.items()))
    assert first.read_bytes() == second.read_bytes()
    with pytest.raises(KeyError):
        record.array('other')


def test_a_record_never_holds_a_pickle(tmp_path):
    with pytest.raises(ValueError):
        write_record(tmp_path / 'a.zip', {}, {'a': np.array([object()])})
    assert not (tmp_path / 'a.zip').exists()


def test_a_bad_scan_becomes_a_failure_that_later_steps_pass_on(tmp_path):
    bad = tmp_path / 'sub-01_T1w.nii'
    bad.write_bytes(b'not an image')
    prepared = steps.prepare_scan(tmp_path / 'p.zip', bad, 'sub-01_T1w', 'T1w')
    failure = Record(prepared).failure
    assert failure['exit_code'] == ExitCode.BAD_DATA
    assert str(bad) in failure['message']
    assert '\n' not in failure['message']
    aligned = steps.align_session(tmp_path / 'a.zip', [prepared])
    finished = steps.finish_scan(tmp_path / 'f.zip', prepared, aligned)
    assert Record(finished).failure == failure
    assert harmonizing.load_scans([prepared], [finished], [aligned]) == []


def test_a_volume_of_a_pdt2_keeps_its_place_and_its_values(tmp_path):
    affine = np.diag([-2.0, 2, 2, 1])
    data = np.random.default_rng(0).integers(1, 1000, (20, 20, 20, 2)).astype(np.int16)
    image = nib.Nifti1Image(data, affine)
    image.header.set_slope_inter(0.5, 3)
    image.set_sform(affine, 1)
    nib.save(image, tmp_path / 'sub-01_PDT2.nii.gz')
    stored = nib.load(tmp_path / 'sub-01_PDT2.nii.gz').get_fdata(dtype=np.float32)
    for index in (0, 1):
        scan = steps.load_native(tmp_path / 'sub-01_PDT2.nii.gz', index, tmp_path)
        assert scan.geometry.shape == (20, 20, 20)
        assert np.allclose(scan.geometry.affine, affine)
        assert scan.geometry.codes == (0, 1)
        assert np.allclose(scan.volume.data, stored[::-1, :, :, index])
    with pytest.raises(ScanError, match='volume 5'):
        steps.load_native(tmp_path / 'sub-01_PDT2.nii.gz', 5, tmp_path)


def fake(tmp_path, name, contrast, zooms, thick=False, transform=None):
    facts = {
        'name': name,
        'contrast': contrast,
        'path': name,
        'site': None,
        'zooms': zooms,
        'thick': thick,
        'affine': np.diag([*zooms, 1]).tolist(),
        'transform': transform,
    }
    return write_record(tmp_path / f'{name}.zip', facts, {'data': np.ones((9, 9, 9), np.float32)})


@pytest.mark.parametrize(
    'scans, expected',
    [
        # A volumetric T1w wins even where another contrast is finer.
        ([('T2w', 0.8, False), ('T1w', 1.0, False)], 'T1w'),
        ([('T1w', 5.0, True), ('FLAIR', 1.0, False)], 'FLAIR'),
        ([('T2w', 3.0, True), ('FLAIR', 5.0, True)], 'T2w'),
        ([('FLAIR', 3.0, True), ('T2w', 3.0, True)], 'T2w'),
        ([('ce-gad_T1w', 0.8, False), ('T1w', 1.0, False)], 'T1w'),
    ],
)
def test_the_reference_is_a_volumetric_t1w_or_the_finest(tmp_path, scans, expected):
    records = [
        Record(fake(tmp_path, f'sub-1_{name}', name.split('_')[-1], [1.0, 1.0, z], thick))
        for name, z, thick in scans
    ]
    best = min(records, key=steps._reference_rank)
    assert best.facts['name'] == f'sub-1_{expected}'


@pytest.fixture
def register(monkeypatch):
    """A registration that says what it was given, with a quality by contrast (None fails)."""

    def make(**qualities):
        template, calls = load_template(), []

        def register_template(volume, contrast=None, given=None):
            calls.append((contrast, given))
            if qualities[contrast] is None:
                raise ScanError(f'sub-1_{contrast}: no head')
            maps = np.zeros((3, *template.brain.shape), np.uint8)
            rigid = np.eye(4) if given is None else given
            return TemplateRegistration(np.eye(4), rigid, template.brain, maps, qualities[contrast])

        module = 'harmony_app.imaging.registration'
        monkeypatch.setattr(f'{module}.register_template', register_template)
        monkeypatch.setattr(f'{module}.register_rigid', lambda *_: np.eye(4))
        return calls

    return make


def test_a_reference_that_cannot_be_registered_gives_way_to_the_next(tmp_path, register):
    register(T1w=None, T2w=0.3)
    scans = [fake(tmp_path, f'sub-1_{name}', name, [1.0, 1.0, 1.0]) for name in ('T1w', 'T2w')]
    record = Record(steps.align_session(tmp_path / 'a.zip', scans))
    assert record.facts['reference'] == 'sub-1_T2w'
    assert list(record.facts['failures']) == ['sub-1_T1w']
    assert list(record.facts['to_working']) == ['sub-1_T2w']
    assert record.facts['doubtful'] is True


@pytest.mark.parametrize(
    ('qualities', 'reference', 'tried'),
    [
        ({'T1w': 0.9, 'T2w': 1.0}, 'T1w', 1),
        ({'T1w': 0.3, 'T2w': 0.9}, 'T2w', 2),
        ({'T1w': 0.4, 'T2w': 0.3}, 'T1w', 2),
        ({'T1w': 0.1, 'T2w': 0.15}, None, 2),
    ],
)
def test_the_scan_that_lies_well_on_the_template_carries_its_session(
    tmp_path, register, qualities, reference, tried
):
    calls = register(**qualities)
    scans = [fake(tmp_path, f'sub-1_{name}', name, [1.0, 1.0, 1.0]) for name in qualities]
    record = Record(steps.align_session(tmp_path / 'a.zip', scans))
    assert len(calls) == tried
    if reference is None:
        assert record.facts['reference'] is None
        assert sorted(record.facts['failures']) == ['sub-1_T1w', 'sub-1_T2w']
        message = record.facts['failures']['sub-1_T1w']['message']
        assert 'quality 0.10' in message
        assert '--derivatives' in message
    else:
        assert record.facts['reference'] == f'sub-1_{reference}'
        assert sorted(record.facts['to_working']) == ['sub-1_T1w', 'sub-1_T2w']


def test_a_scan_with_a_transform_of_the_user_carries_its_session(tmp_path, register):
    calls = register(T1w=0.9, FLAIR=0.1)
    known = np.diag([1.0, 1, 1, 1])
    known[:3, 3] = 3, 4, 5
    scans = [
        fake(tmp_path, 'sub-1_T1w', 'T1w', [1.0, 1.0, 1.0]),
        fake(tmp_path, 'sub-1_FLAIR', 'FLAIR', [1.0, 1.0, 5.0], True, known.tolist()),
    ]
    record = Record(steps.align_session(tmp_path / 'a.zip', scans))
    assert [contrast for contrast, _ in calls] == ['FLAIR']
    assert np.array_equal(calls[0][1], known)
    assert record.facts['to_working']['sub-1_FLAIR'] == known.tolist()


def test_every_transform_of_the_user_is_kept(tmp_path, register):
    register(T1w=0.9, T2w=0.9)
    shifts = {'T1w': 3.0, 'T2w': -2.0}
    scans = []
    for name, shift in shifts.items():
        known = np.eye(4)
        known[0, 3] = shift
        scans.append(fake(tmp_path, f'sub-1_{name}', name, [1.0, 1.0, 1.0], False, known.tolist()))
    record = Record(steps.align_session(tmp_path / 'a.zip', scans))
    for name, shift in shifts.items():
        assert record.facts['to_working'][f'sub-1_{name}'][0][3] == pytest.approx(shift)


@pytest.mark.parametrize(
    'bare, words', [(None, ''), (True, 'a bare brain'), (False, 'a whole head')]
)
def test_whether_a_scan_is_a_bare_brain_can_be_said(tmp_path, monkeypatch, make_head, bare, words):
    """A head is told from a brain by its background, or by ``--skull-strip``."""
    head, matrix = make_head('T1w')
    nib.save(nib.Nifti1Image(head.data, head.affine), tmp_path / 'sub-01_T1w.nii')
    prepared = steps.prepare_scan(
        tmp_path / 'p.zip', tmp_path / 'sub-01_T1w.nii', 'x', 'T1w', sloppy=True, bare=bare
    )
    facts = Record(prepared).facts
    assert facts['skull_stripped'] is bool(bare)
    assert any(words in note for note in facts['notes']) if words else True
    asked = []

    def register(volume, contrast, given, **more):
        asked.append(more)
        template = load_template()
        tissues = np.rint(template.tissues * 255).astype(np.uint8)
        return TemplateRegistration(matrix, matrix, template.brain, tissues, 0.9)

    monkeypatch.setattr('harmony_app.imaging.registration.register_template', register)
    steps.align_session(tmp_path / 'a.zip', [prepared])
    assert asked == [{} if bare is None else {'bare': bare}]


@pytest.mark.parametrize('bare', [None, True, False])
def test_the_head_is_laid_on_a_template_of_its_kind(monkeypatch, make_head, bare):
    """What is fixed: the template's brain for a brain, brain and shells for a head."""
    from harmony_app.imaging import head as module

    class Seen(Exception):
        pass

    def look(stripped):
        raise Seen(stripped)

    monkeypatch.setattr(module, 'head_template', look)
    with pytest.raises(Seen) as seen:
        module.align_head(make_head('T1w')[0], bare)
    assert seen.value.args == (bool(bare),)


@pytest.mark.parametrize(
    'choice, factor, note',
    [('auto', 5, 'divided into 5 by self-supervised'), ('off', None, 'by cubic B-splines')],
)
def test_thick_slices_are_divided_before_the_one_interpolation(
    tmp_path, monkeypatch, choice, factor, note
):
    data = np.random.default_rng(0).uniform(50, 100, (100, 100, 24)).astype(np.float32)
    scan = nib.Nifti1Image(data, np.diag([1, 1, 5, 1.0]))
    nib.save(scan, tmp_path / 'sub-1_FLAIR.nii.gz')
    prepared = steps.prepare_scan(
        tmp_path / 'p.zip', tmp_path / 'sub-1_FLAIR.nii.gz', 'sub-1_FLAIR', 'FLAIR',
        sloppy=True, super_resolution=choice,
    )  # fmt: skip
    record = Record(prepared)
    assert record.facts['thin_factor'] == factor
    assert note in record.facts['notes'][-1]
    # what is harmonized on the native grid keeps the slices of the scan
    assert record.array('data').shape == (100, 100, 24)

    monkeypatch.setattr(
        super_resolution, 'super_resolve', partial(super_resolve, settings=FitSettings(steps=1))
    )
    resampled = []

    def resample(volume, *rest):
        resampled.append(volume.shape)
        raise ScanError('enough')

    monkeypatch.setattr(steps, 'resample', resample)
    session = {'failures': {}, 'to_working': {'sub-1_FLAIR': np.eye(4).tolist()}}
    aligned = write_record(tmp_path / 'a.zip', session)
    with pytest.raises(ScanError, match='enough'):
        steps.finish_scan(tmp_path / 'f.zip', prepared, aligned)
    assert resampled == [(100, 100, 24 * (factor or 1))]
