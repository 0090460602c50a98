"""The Boutiques descriptor tells the command line as the parser has it."""

import argparse
import json
import re
from pathlib import Path

import pytest

from harmony_app import __version__
from harmony_app.cli import make_config, make_parser
from harmony_app.cli_descriptor import describe, option_of, write_descriptor
from harmony_app.errors import ExitCode

FILE = Path(__file__).parents[1] / 'boutiques' / 'harmony-app.json'
PRINTING = {'--help', '--version', '--bids-exec-spec'}


@pytest.fixture(scope='module')
def descriptor():
    return json.loads(FILE.read_text())


def test_the_file_is_that_of_the_parser():
    """Where it fails: ``harmony-app --bids-exec-spec > boutiques/harmony-app.json``."""
    assert FILE.read_text() == write_descriptor(make_parser())


def test_the_option_prints_the_same(capsys):
    with pytest.raises(SystemExit):
        make_parser().parse_intermixed_args(['--bids-exec-spec'])
    assert capsys.readouterr().out == FILE.read_text()


def test_every_option_of_the_parser_is_told(descriptor):
    options = {option_of(a) for a in make_parser()._actions if a.option_strings} - PRINTING
    told = [
        item['command-line-flag'] for item in descriptor['inputs'] if 'command-line-flag' in item
    ]
    assert sorted(told) == sorted(options)
    plain = [item['id'] for item in descriptor['inputs'] if 'command-line-flag' not in item]
    assert plain == ['bids_dir', 'output_dir', 'analysis_level']


def test_it_keeps_the_rules_of_boutiques(descriptor):
    """Schema 0.5: required fields, unique identifiers, keys of the command line, types."""
    required = {'name', 'description', 'tool-version', 'schema-version', 'command-line', 'inputs'}
    assert required <= descriptor.keys()
    assert descriptor['schema-version'] == '0.5'
    assert descriptor['tool-version'] == __version__
    inputs = descriptor['inputs']
    for key in ('id', 'value-key'):
        assert len({item[key] for item in inputs}) == len(inputs)
    for item in inputs:
        assert item['type'] in ('String', 'File', 'Flag', 'Number')
        assert re.fullmatch(r'\w+', item['id'])
        assert item['value-key'] in descriptor['command-line'].split()
        if item['type'] == 'Flag':
            assert item['optional']
            assert 'default-value' not in item
        if 'value-choices' in item and 'default-value' in item:
            given = item['default-value']
            assert set(given if isinstance(given, list) else [given]) <= set(item['value-choices'])
        assert item['description']
    names = {item['id'] for item in inputs}
    for group in descriptor['groups']:
        assert set(group['members']) <= names
    for file in descriptor['output-files']:
        assert {'id', 'name', 'path-template'} <= file.keys()
    codes = {item['code'] for item in descriptor['error-codes']}
    assert codes == {int(code) for code in ExitCode} - {0, int(ExitCode.UNKNOWN_LEVEL)}


def test_an_invocation_made_from_it_is_parsed(descriptor, tmp_path):
    """What a Boutiques runner would put together goes through the parser."""
    values = {'bids_dir': '/in', 'output_dir': '/out', 'analysis_level': ['participant', 'group']}
    values |= {'target': ['T1w=a.nii.gz', 'b'], 'modalities': ['T1w', 'FLAIR'], 'nprocs': 3}
    values |= {'mem_gb': '6', 'dry_run': True, 'minutes': 1.5}
    line = descriptor['command-line']
    for item in descriptor['inputs']:
        value = values.get(item['id'])
        text = ''
        if item['type'] == 'Flag':
            text = item['command-line-flag'] if value else ''
        elif value is not None:
            parts = value if item.get('list') else [value]
            text = item.get('list-separator', ' ').join(map(str, parts))
            text = f'{item["command-line-flag"]} {text}' if 'command-line-flag' in item else text
        line = line.replace(item['value-key'], text)
    argv = line.split()[1:]
    config = make_config(make_parser().parse_intermixed_args(argv), argv)
    assert (config.bids_dir, config.target) == (Path('/in'), ('T1w=a.nii.gz', 'b'))
    assert (config.modalities, config.nprocs, config.memory_gb) == (('T1w', 'FLAIR'), 3, 6)
    assert (config.dry_run, config.minutes) == (True, 1.5)


def test_a_new_option_would_be_told():
    parser = argparse.ArgumentParser(description='x')
    parser.add_argument('--new-option', type=int, default=3, help='a number')
    (item,) = describe(parser)['inputs']
    assert item == {
        'id': 'new_option',
        'name': 'new option',
        'value-key': '[NEW_OPTION]',
        'type': 'Number',
        'optional': True,
        'description': 'a number',
        'integer': True,
        'command-line-flag': '--new-option',
        'default-value': 3,
    }
