"""The command line as a Boutiques descriptor, made from the parser itself."""

import argparse
import json
import re
import sys
from collections.abc import Iterator, Sequence

from harmony_app import __version__
from harmony_app.cli_types import above_zero, positive

SCHEMA = '0.5'
"""Version of the Boutiques schema."""

_NUMBERS = {int: True, positive: True, float: False, above_zero: False}
"""Types of options that are numbers, and whether they are whole."""


_READ = ('bids_dir', 'bids_filter_file', 'model', 'use_plugin', 'config_file', 'phantom')
"""Files and folders that must be there; the other ones are made."""


class PrintDescriptor(argparse.Action):
    """Print the descriptor of the parser and end, as ``--version`` does.

    ``const`` makes the parser anew: the one that is parsing has changed its arguments for it.
    """

    def __init__(self, option_strings: Sequence[str], dest: str, const, **named):
        nothing = argparse.SUPPRESS
        super().__init__(option_strings, nothing, nargs=0, const=const, default=nothing, **named)

    def __call__(self, parser, namespace, values, option_string=None):
        """Print and exit."""
        sys.stdout.write(write_descriptor(self.const()))
        parser.exit()


def write_descriptor(parser: argparse.ArgumentParser) -> str:
    """Text of the descriptor, as it stands in ``boutiques/harmony-app.json``."""
    return json.dumps(describe(parser), indent=2, ensure_ascii=False) + '\n'


def describe(parser: argparse.ArgumentParser) -> dict:
    """Boutiques descriptor of a parser.

    Parameters
    ----------
    parser : ArgumentParser
        Of harmony-app.

    Returns
    -------
    dict
        With an input for each argument; those that print something and end are left out.
    """
    inputs = [_input(action) for action in _arguments(parser)]
    keys = [item['value-key'] for item in inputs]
    return {
        'schema-version': SCHEMA,
        'name': 'harmony-app',
        'tool-version': __version__,
        'description': ' '.join(parser.description.split()),
        'author': 'The harmony-app authors',
        'command-line': ' '.join(['harmony-app', *keys]),
        'container-image': {'type': 'docker', 'image': f'harmony-app:{__version__}'},
        'tags': {'domain': ['neuroinformatics', 'mri'], 'app-type': ['bids-app']},
        'inputs': inputs,
        'groups': _exclusive(parser),
        'output-files': [
            {
                'id': 'output_folder',
                'name': 'Output folder',
                'description': 'BIDS derivative dataset with the harmonized scans',
                'path-template': '[OUTPUT_DIR]',
                'optional': False,
            }
        ],
        'error-codes': [
            {'code': 1, 'description': 'A scan failed; all others are complete.'},
            {'code': 2, 'description': 'The command line cannot be read.'},
            {'code': 16, 'description': 'The input is no BIDS dataset.'},
            {'code': 18, 'description': 'The filters select nothing.'},
            {'code': 64, 'description': 'Options do not fit together or this machine.'},
            {'code': 65, 'description': 'A scan, target or model cannot be used.'},
            {'code': 66, 'description': 'The input or a target is not there.'},
            {'code': 73, 'description': 'A result cannot be written.'},
            {'code': 74, 'description': 'Reading or writing failed.'},
            {'code': 75, 'description': 'The machine failed in a way that may pass.'},
        ],
    }


def option_of(action: argparse.Action) -> str:
    """The spelling of an option that is told: with hyphens.

    Examples
    --------
    >>> option_of(argparse.ArgumentParser().add_argument('-w', '--work-dir', '--work_dir'))
    '--work-dir'
    """
    return next(o for o in action.option_strings if o.startswith('--') and '_' not in o)


def _arguments(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    printing = ('help', 'version', 'bids_exec_spec')
    for action in parser._actions:
        name = option_of(action).strip('-').replace('-', '_') if action.option_strings else ''
        if name not in printing:
            yield action


def _identity(action: argparse.Action) -> str:
    """Name of an argument: an option that shares its value with another keeps its own."""
    text = option_of(action).strip('-') if action.option_strings else action.dest
    return re.sub(r'\W', '_', text)


def _input(action: argparse.Action) -> dict:
    name = _identity(action)
    fields: dict = {
        'id': name,
        'name': name.replace('_', ' '),
        'value-key': f'[{name.upper()}]',
        'type': _kind(action),
        'optional': bool(action.option_strings),
        'description': ' '.join((action.help or '').replace('%%', '%').split()),
    }
    if fields['type'] == 'Number':
        fields['integer'] = _NUMBERS[action.type]
    if action.option_strings:
        fields['command-line-flag'] = option_of(action)
    if action.nargs == '+' or _is_repeated(action):
        fields['list'] = True
        fields['min-list-entries'] = 1
    if _is_repeated(action):
        # Boutiques has no options that come again: each value brings its own.
        fields['list-separator'] = f' {option_of(action)} '
    if action.choices:
        fields['value-choices'] = list(action.choices)
    default = action.default
    if action.option_strings and action.nargs != 0 and not _is_plain_default(default):
        fields['default-value'] = list(default) if isinstance(default, tuple) else default
    return fields


def _is_plain_default(value) -> bool:
    """Whether a default says nothing: absent, empty or not given."""
    return value is None or value is False or value == [] or value == argparse.SUPPRESS


def _is_repeated(action: argparse.Action) -> bool:
    return isinstance(action, argparse._AppendAction) and action.nargs is None


def _kind(action: argparse.Action) -> str:
    if action.nargs == 0:
        return 'Flag'
    if action.type in _NUMBERS:
        return 'Number'
    return 'File' if action.dest in _READ else 'String'


def _exclusive(parser: argparse.ArgumentParser) -> list[dict]:
    """Groups of options of which one may be given."""
    return [
        {
            'id': '_or_'.join(_identity(action) for action in group._group_actions),
            'name': ' or '.join(option_of(action) for action in group._group_actions),
            'members': [_identity(action) for action in group._group_actions],
            'mutually-exclusive': True,
        }
        for group in parser._mutually_exclusive_groups
    ]
