import json

import pytest

from harmony_app.errors import InputError, ModelError, OptionError
from harmony_app.methods.base import Style
from harmony_app.workflows import targets as targets_module
from harmony_app.workflows.targets import resolve_targets


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(
        'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz',
        'sub-01/ses-a/anat/sub-01_ses-a_T2w.nii.gz',
        'sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz',
        'sub-02/anat/sub-02_T1w.nii.gz',
        **{'participants.tsv': 'participant_id\tsite\nsub-01\tA 1\nsub-02\tB\n'},
    )


@pytest.fixture
def styles_file(tmp_path, make_style):
    def write(*contrasts, form=list):
        styles = [make_style(contrast, 'filed').to_dict() for contrast in contrasts]
        content = {
            list: styles,
            dict: {style['contrast']: style for style in styles},
            'model': {'method': 'transfer', 'styles': styles},
            'one': styles[0],
        }[form]
        path = tmp_path / 'styles.json'
        path.write_text(json.dumps(content))
        return str(path)

    return write


def names(scans):
    return [scan.name for scan in scans]


def test_a_session_a_subject_and_a_site_are_scans_to_measure(dataset):
    found = resolve_targets(['sub-01_ses-a'], dataset)
    assert found.contrasts == ('T1w', 'T2w')
    assert names(found.scans['T1w']) == ['sub-01_ses-a_T1w']
    both = resolve_targets(['sub-01'], dataset)
    assert names(both.scans['T1w']) == ['sub-01_ses-a_T1w', 'sub-01_ses-b_T1w']
    site = resolve_targets(['site:A 1'], dataset)
    assert names(site.scans['T1w']) == ['sub-01_ses-a_T1w', 'sub-01_ses-b_T1w']
    assert site.names['T2w'] == 'site:A 1'


def test_scans_of_a_contrast_that_nothing_is_brought_to_are_not_measured(dataset):
    found = resolve_targets(['sub-01_ses-a'], dataset, contrasts=('T1w',))
    assert found.contrasts == ('T1w',)
    assert list(found.scans) == ['T1w']


def test_a_large_site_is_averaged_over_some_sessions(make_dataset):
    root = make_dataset(
        *[f'sub-{n:02}/anat/sub-{n:02}_T1w.nii.gz' for n in range(40)],
        **{
            'participants.tsv': 'participant_id\tsite\n'
            + ''.join(f'sub-{n:02}\tA\n' for n in range(40))
        },
    )
    scans = resolve_targets(['site:A'], root).scans['T1w']
    assert [int(scan.subject) for scan in scans] == list(range(0, 40, 4))


@pytest.mark.parametrize('form', [list, dict, 'model'])
def test_style_files_of_any_form(dataset, styles_file, form):
    found = resolve_targets([styles_file('T1w', 'FLAIR', form=form)], dataset)
    assert found.contrasts == ('T1w', 'FLAIR')
    assert isinstance(found.styles['T1w'], Style)
    assert found.describe() == ['T1w: filed', 'FLAIR: filed']
    assert resolve_targets([styles_file('PDw', form='one')], dataset).contrasts == ('PDw',)


def test_each_contrast_can_have_a_target_of_its_own(dataset, styles_file):
    path = styles_file('T1w', 'T2w')
    found = resolve_targets([path, 't2w=sub-01_ses-a'], dataset)
    assert list(found.styles) == ['T1w']
    assert list(found.scans) == ['T2w']
    assert found.contrasts == ('T1w', 'T2w')
    later = resolve_targets(['T2w=sub-01_ses-a', path], dataset)
    assert sorted(later.styles) == ['T1w', 'T2w']
    assert not later.scans


def test_an_image_tells_its_contrast_by_its_name_or_is_told(dataset, tmp_path):
    (tmp_path / 'head_T1w.nii.gz').touch()
    (tmp_path / 'head.nii').touch()
    found = resolve_targets([str(tmp_path / 'head_T1w.nii.gz')], dataset)
    assert found.scans['T1w'][0].path == tmp_path / 'head_T1w.nii.gz'
    found = resolve_targets([f'FLAIR={tmp_path / "head.nii"}'], dataset)
    assert found.contrasts == ('FLAIR',)
    with pytest.raises(OptionError, match='--target T1w='):
        resolve_targets([str(tmp_path / 'head.nii')], dataset)


@pytest.mark.parametrize(
    'target, kind, message',
    [
        ('sub-09', OptionError, 'no sub-09'),
        ('sub-01_ses-z', OptionError, 'sessions of it are a, b'),
        ('sub-02_ses-z', OptionError, 'sessions of it are none'),
        ('site:C', OptionError, 'sites are A 1, B'),
        ('FLAIR=sub-01', OptionError, 'it has T1w, T2w, no FLAIR'),
        ('nowhere.nii.gz', InputError, 'no such file'),
        ('nowhere.json', InputError, 'No such file'),
    ],
)
def test_a_target_that_is_not_there_says_what_is(dataset, target, kind, message):
    with pytest.raises(kind, match=message):
        resolve_targets([target], dataset)


def test_a_named_style_is_that_of_the_model_or_a_packaged_one(
    dataset, tmp_path, make_style, styles_file, monkeypatch
):
    packaged = {'scanner-a': {'T1w': make_style('T1w', 'scanner-a')}}
    monkeypatch.setattr(targets_module, 'named_styles', lambda: packaged)
    assert resolve_targets(['scanner-a'], dataset).names == {'T1w': 'scanner-a'}
    with pytest.raises(OptionError, match=r'did you mean scanner-a\?'):
        resolve_targets(['scaner-a'], dataset)
    model = tmp_path / 'model'
    model.mkdir()
    styles_file('T1w', 'T2w', form='model')
    (tmp_path / 'styles.json').rename(model / 'model.json')
    assert resolve_targets(['filed'], dataset, model).contrasts == ('T1w', 'T2w')
    assert resolve_targets([], dataset, model).names == {'T1w': 'filed', 'T2w': 'filed'}
    (model / 'model.json').write_text('{"method": "transfer", "styles": [{"name": "x"}]}')
    with pytest.raises(ModelError, match='styles'):
        resolve_targets([], dataset, model)
