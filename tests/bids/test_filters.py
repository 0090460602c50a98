import json

import pytest

from harmony_app.bids.filters import read_filter_file, read_labels, rejects
from harmony_app.errors import InputError, OptionError


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_labels_come_with_prefix_without_it_and_from_files(tmp_path):
    listed = write(tmp_path / 'labels.txt', 'sub-03\n04\n\n')
    assert read_labels(['sub-01', '02', str(listed), '01'], 'sub') == ('01', '02', '03', '04')
    assert read_labels(['a,b'], 'ses') == ('a', 'b')
    with pytest.raises(OptionError, match='neither a label nor a file'):
        read_labels(['no/such/file.txt'], 'sub')


def test_filter_file_takes_names_of_pybids_and_keys_of_bids(tmp_path):
    path = write(
        tmp_path / 'filter.json',
        {
            't1w': {'acquisition': 'mprage', 'run': None, 'datatype': 'anat'},
            'FLAIR': {'rec': '*', 'ce': ['gad', 'ce-none']},
            'bold': {'task': 'rest'},
        },
    )
    assert read_filter_file(path) == {
        'T1w': {'acq': ('mprage',), 'run': None},
        'FLAIR': {'rec': '*', 'ce': ('gad', 'none')},
    }


@pytest.mark.parametrize(
    'content, message',
    [
        ({'t1': {'acq': 'a'}}, "did you mean 't1w'"),
        ({'t1w': {'aquisition': 'a'}}, "did you mean 'acquisition'"),
        ({'t1w': 'mprage'}, 'not of the form'),
        ('{', 'is not JSON'),
    ],
)
def test_a_filter_file_that_says_nothing_sensible_is_refused(tmp_path, content, message):
    with pytest.raises(OptionError, match=message):
        read_filter_file(write(tmp_path / 'filter.json', content))


def test_an_absent_filter_file_is_named(tmp_path):
    with pytest.raises(InputError, match='--bids-filter-file'):
        read_filter_file(tmp_path / 'nowhere.json')


@pytest.mark.parametrize(
    'entities, wanted, passes',
    [
        ({'acq': 'a'}, {}, True),
        ({'acq': 'a'}, {'acq': ('a', 'b')}, True),
        ({'acq': 'c'}, {'acq': ('a', 'b')}, False),
        ({}, {'acq': ('a',)}, False),
        ({}, {'acq': None}, True),
        ({'acq': 'a'}, {'acq': None}, False),
        ({'acq': 'a'}, {'acq': '*'}, True),
        ({}, {'acq': '*'}, False),
        ({'run': '01'}, {'run': ('1',)}, True),
        ({'run': '10'}, {'run': ('1',)}, False),
    ],
)
def test_null_asks_for_absence_and_star_for_presence(entities, wanted, passes):
    assert (rejects(entities, wanted) is None) == passes
