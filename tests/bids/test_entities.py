import pytest
from hypothesis import given
from hypothesis import strategies as st

from harmony_app.bids.entities import ENTITY_ORDER, build_name, parse_name

LABELS = st.text('abcXYZ0189', min_size=1, max_size=6)
OTHERS = st.dictionaries(st.sampled_from([key for key in ENTITY_ORDER if key != 'sub']), LABELS)


@given(
    sub=LABELS,
    others=OTHERS,
    suffix=st.sampled_from(['T1w', 'T2w', 'PDw', 'FLAIR', 'PDT2', 'mask', 'xfm']),
    extension=st.sampled_from(['.nii.gz', '.nii', '.json', '.tsv']),
)
def test_a_built_name_parses_to_what_it_was_built_of(sub, others, suffix, extension):
    entities = {'sub': sub} | others
    name = build_name(entities, suffix, extension)
    assert parse_name(name) == (entities, suffix, extension)
    keys = [part.split('-')[0] for part in name.split('_')[:-1]]
    assert keys == sorted(keys, key=ENTITY_ORDER.index)


def test_desc_comes_last_and_part_before_space():
    entities = {'desc': 'x', 'space': 'orig', 'part': 'mag', 'ce': 'gad', 'acq': 'a', 'sub': '1'}
    expected = 'sub-1_acq-a_ce-gad_part-mag_space-orig_desc-x_T1w.nii'
    assert build_name(entities, 'T1w', '.nii') == expected


def test_order_is_that_of_the_bids_schema():
    schema = pytest.importorskip('bidsschematools.schema').load_schema()
    official = [schema['objects']['entities'][long]['name'] for long in schema['rules']['entities']]
    ours = [key for key in ENTITY_ORDER if key in official]
    assert ours == [key for key in official if key in ours]
    assert set(ENTITY_ORDER) - set(official) == {'from', 'to', 'mode'}


@pytest.mark.parametrize(
    'entities, suffix',
    [
        ({'sub': '01', 'acq': 'a-b'}, 'T1w'),
        ({'sub': '01', 'colour': 'red'}, 'T1w'),
        ({'sub': '01'}, 'T1_w'),
        ({'sub': '../x'}, 'T1w'),
    ],
)
def test_names_that_bids_has_not_are_refused(entities, suffix):
    with pytest.raises(ValueError):
        build_name(entities, suffix, '.nii.gz')
