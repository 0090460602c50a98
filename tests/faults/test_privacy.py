"""What of a person or a hospital reaches results, pages and logs: what is listed, and nothing else."""

import gzip
import json
import re
from pathlib import Path

import nibabel as nib
import pytest

from harmony_app.bids.derivatives import SCANNER_METADATA, SEQUENCE_METADATA
from harmony_app.bids.metadata import SCANNER_FIELDS

DOCUMENT = Path(__file__).parents[2] / 'docs' / 'reliability.md'

PASSED_ON = {
    'Manufacturer',
    'ManufacturersModelName',
    'DeviceSerialNumber',
    'SoftwareVersions',
    'MagneticFieldStrength',
    'InstitutionName',
    'BodyPart',
    'ProtocolName',
    'MRAcquisitionType',
    'PulseSequenceType',
    'SequenceName',
    'RepetitionTime',
    'RepetitionTimeExcitation',
    'EchoTime',
    'InversionTime',
    'FlipAngle',
    'ParallelReductionFactorInPlane',
    'ContrastBolusIngredient',
}
"""Fields of sidecars that results may carry; ``ProtocolName`` as a part of the name of a site."""

WORDS = """
PatientName PatientID PatientBirthDate PatientSex PatientAge PatientSize PatientWeight PatientAddress
PatientComments PatientTelephoneNumbers OtherPatientIDs EthnicGroup Occupation MilitaryRank
AccessionNumber AdditionalPatientHistory PregnancyStatus ReferringPhysicianName OperatorsName
PerformingPhysicianName RequestingPhysician AcquisitionDate AcquisitionTime AcquisitionDateTime
StudyDate StudyTime SeriesDate ContentDate StudyID StudyInstanceUID SeriesInstanceUID
FrameOfReferenceUID InstitutionAddress InstitutionalDepartmentName StationName StudyDescription
SeriesDescription ImageComments ProcedureStepDescription RequestedProcedureDescription
DeidentificationMethod global
"""
SECRET = WORDS.split()
"""Fields that converters write, and that are nobody's business."""


def word(field):
    """A value that is found again wherever it went."""
    return f'zq{field.lower()}qz'


@pytest.fixture(scope='module')
def told_of(new_study, make_small_study, tmp_path_factory):
    """A study full of secrets, harmonized, exported and reported; and what the runs told."""
    folder = tmp_path_factory.mktemp('privacy')
    raw = make_small_study(folder / 'raw', people=2)
    fields = {field: word(field) for field in (*PASSED_ON, *SECRET)}
    fields['global'] = {'const': {'PatientName': word('global')}}
    (raw / 'T1w.json').write_text(json.dumps({field: fields[field] for field in SECRET[::2]}))
    near = raw / 'sub-01/anat/sub-01_T1w.json'
    near.write_text(json.dumps(fields))
    rows = [
        'participant_id\tage\tsex\tname\tcomments',
        'sub-01\tzqageqz\tzqsexqz\tzqnameqz\tzqcommentsqz',
    ]
    (raw / 'participants.tsv').write_text('\n'.join([*rows, 'sub-02\tn/a\tn/a\tn/a\tn/a']) + '\n')
    scans = (
        'filename\tacq_time\toperator\nanat/sub-01_T1w.nii.gz\t1969-07-20T20:17:40\tzqoperatorqz\n'
    )
    (raw / 'sub-01/sub-01_scans.tsv').write_text(scans)
    path = raw / 'sub-01/anat/sub-01_T1w.nii.gz'
    image = nib.load(path)
    data = image.get_fdata().astype('int16')
    header = image.header
    for field in ('descrip', 'aux_file', 'db_name', 'intent_name', 'data_type'):
        header[field] = word(field)[: header[field].dtype.itemsize]
    header.extensions.append(nib.nifti1.Nifti1Extension('comment', b'zqextensionqz'))
    nib.save(nib.Nifti1Image(data, None, header), path)
    study = new_study(folder, raw)
    runs = [
        study.run('--export-fmriprep', '-vv', '--write-graph'),
        study.zygote.run(raw, study.out, 'group', '-w', study.work),
    ]
    # A crash tells a lot.
    crash = 'from harmony_app.workflows import harmonizing\ndef fail(*_, **__):\n    raise RuntimeError\n'
    crash += 'harmonizing.harmonize_session = fail'
    runs.append(study.run('--overwrite', fault={'patch': crash}))
    assert [run.code for run in runs] == [0, 0, 1], [run.told for run in runs]
    found = {'told': '\n'.join(run.told for run in runs)}
    for path in study.out.rglob('*'):
        if path.is_file():
            content = path.read_bytes()
            content = gzip.decompress(content)[:4096] if path.name.endswith('.gz') else content
            found[path.relative_to(study.out).as_posix()] = content.decode('latin-1').lower()
    return study, found


def test_nothing_that_is_not_listed_is_passed_on(told_of):
    _, found = told_of
    assert any('crash-' in name for name in found)
    assert any(name.startswith('derivatives/for-fmriprep') for name in found)
    allowed = {word(field) for field in PASSED_ON}
    leaked = {
        (secret, name)
        for name, text in found.items()
        for secret in re.findall('zq[a-z_]+qz', text.lower())
        if secret not in allowed
    }
    assert not leaked
    times = [name for name, text in found.items() if '1969-07-20' in text or '20:17:40' in text]
    assert not times


def test_what_is_listed_is_passed_on_where_it_is_true(told_of):
    """The test above can fail: these words do reach the results."""
    study, found = told_of
    anat = study.out / 'sub-01/anat'
    before = (anat / 'sub-01_space-MNI152NLin2009aSym_res-1_desc-preproc_T1w.json').read_text()
    after = (anat / 'sub-01_desc-harmonized_T1w.json').read_text()
    for field in SCANNER_METADATA:
        assert word(field) in before
        assert word(field) in after
    for field in SEQUENCE_METADATA:
        assert word(field) in before
        assert word(field) not in after
    (table,) = [text for name, text in found.items() if name.endswith('inputs.tsv')][:1]
    for field in SCANNER_FIELDS:
        assert word(field) in table


def test_the_list_is_that_of_the_code_and_of_the_documentation():
    assert {*SCANNER_METADATA, *SEQUENCE_METADATA, *SCANNER_FIELDS} == PASSED_ON
    text = DOCUMENT.read_text()
    section = text.partition('## What is passed on')[2].partition('\n## ')[0]
    assert set(re.findall(r'`([A-Z][A-Za-z]+)`', section)) >= PASSED_ON
    assert not set(re.findall(r'`([A-Z][A-Za-z]+)`', section)) & {*SECRET[:-1]}


def test_images_carry_no_text(told_of):
    """No extension, and nothing in the fields of a header that are free text."""
    study, _ = told_of
    paths = list(study.out.rglob('*.nii.gz'))
    assert len(paths) > 10
    for path in paths:
        header = nib.load(path).header
        assert not header.extensions
        for field in ('descrip', 'aux_file', 'db_name', 'intent_name', 'data_type'):
            assert bytes(header[field].item()).strip(b'\0') == b'', (path, field)
