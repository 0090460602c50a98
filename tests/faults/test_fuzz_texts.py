"""Sidecars, tables, options, settings and models that are not what they say: a clear error, or a result."""

import hashlib
import json
import os
import pickle
import re
import shutil

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from harmony_app.bids.atomic import read_json, write_json, write_table
from harmony_app.bids.derivatives import image_sidecar
from harmony_app.bids.discovery import discover
from harmony_app.bids.filters import Selection, read_filter_file
from harmony_app.bids.metadata import SCANNER_FIELDS, Metadata
from harmony_app.cli import main, make_parser
from harmony_app.config import RunConfig
from harmony_app.errors import HarmonyError, ModelError
from harmony_app.methods.model_folder import METADATA, WEIGHTS
from harmony_app.methods.registry import get_method, packaged_model
from harmony_app.workflows.checks import check_dataset, read_plugin
from harmony_app.workflows.model_making import plain_name
from harmony_app.workflows.targets import styles_of_target

CASES = [pytest.param(100), pytest.param(2000, marks=pytest.mark.faults)]
TRAINED = ('transfer', 'haca3', 'calamiti', 'imunity', 'mispel', 'dlest')

WORDS = st.text(max_size=12) | st.sampled_from(
    ['\ud800', '../../x', '/etc/passwd', '<script>', 'a\tb\nc', '\0', '${HOME}', '__class__', 'NaN']
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | WORDS
JSON = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)
DEEP = '[' * 100_000
NOT_JSON = ['', '{', DEEP, '\ufeff{}', '{"a": 1e999}', '{"a": ' + '9' * 5000 + '}', '"\\ud800"']


def fuzz(count):
    return settings(settings.get_profile('faults'), max_examples=count)


def refused(work, *given):
    """Why a function refuses its input, in one line; empty where it takes it."""
    message = ''
    try:
        work(*given)
    except HarmonyError as error:
        message = str(error)
    assert '\n' not in message
    return message


def dumped(value):
    """JSON as Python writes it, NaN and lone surrogates included."""
    return json.dumps(value)


@pytest.mark.parametrize('count', CASES)
def test_sidecars(make_dataset, tmp_path, count):
    """Whatever a sidecar holds, the scan is found, and what it passes on can be written."""
    root = make_dataset('sub-01/anat/sub-01_T1w.nii.gz').resolve()
    image, sidecar = root / 'sub-01/anat/sub-01_T1w.nii.gz', root / 'T1w.json'
    fields = st.dictionaries(st.sampled_from([*SCANNER_FIELDS, 'EchoTime', 'Other']), JSON)

    def check(text):
        sidecar.write_bytes(text.encode('utf-8', 'surrogatepass'))
        metadata = Metadata(root)
        raw = metadata.sidecar(image)
        site = metadata.site(image)
        assert site is None or isinstance(site, str)
        write_json(tmp_path / 'out.json', image_sidecar('preproc', [], False, None, raw))
        write_table(tmp_path / 'out.tsv', ['site'], [{'site': site}])
        assert len((tmp_path / 'out.tsv').read_text().splitlines()) == 2

    @fuzz(count)
    @given(fields.map(dumped) | JSON.map(dumped) | st.text() | st.sampled_from(NOT_JSON))
    def test(text):
        check(text)

    test()
    sidecar.write_bytes(b'\xff\xfe\0\1')
    assert Metadata(root).sidecar(image) == {}


@pytest.mark.parametrize('count', CASES)
def test_tables(make_dataset, count):
    """Whatever the tables of sites hold, the site is a word or unknown."""
    root = make_dataset('sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz').resolve()
    image = root / 'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz'
    tables = [
        root / 'participants.tsv',
        root / 'sub-01/sub-01_sessions.tsv',
        root / 'sub-01/ses-a/sub-01_ses-a_scans.tsv',
    ]
    keys = st.sampled_from(
        [
            'participant_id',
            'session_id',
            'filename',
            'site',
            'sub-01',
            'ses-a',
            image.name,
            'n/a',
            '',
        ]
    )
    rows = st.lists(st.lists(keys | WORDS, max_size=4).map('\t'.join), max_size=4).map('\n'.join)

    @fuzz(count)
    @given(st.sampled_from(tables), rows.map(lambda t: t.encode('utf-8', 'replace')) | st.binary())
    @example(tables[0], b'participant_id\tsite\nsub-01\tx\0y\n')
    @example(tables[0], b'participant_id\tparticipant_id\tsite\nsub-01\tsub-02\tz\n')
    def test(path, content):
        path.write_bytes(content)
        site = Metadata(root).site(image)
        assert site is None or (isinstance(site, str) and site == site.strip())
        path.unlink()

    test()


def test_names_that_bids_does_not_have_are_skipped_and_told(make_dataset):
    """A label with a dash or a letter that is none: results could not be named."""
    names = ['acq-high-res', 'acq-é', 'acq-a.b', 'acq-', 'x-y', 'acq-../../x'.replace('/', '∕')]
    root = make_dataset(
        'sub-01/anat/sub-01_T1w.nii.gz', *[f'sub-01/anat/sub-01_{n}_T1w.nii.gz' for n in names]
    )
    inventory = discover(root, Selection())
    assert [scan.name for scan in inventory.scans] == ['sub-01_T1w']
    reasons = {row.path.name: row.reason for row in inventory.rows}
    assert 'acq-high-res' in reasons['sub-01_acq-high-res_T1w.nii.gz']
    assert 'letters and digits' in reasons['sub-01_acq-high-res_T1w.nii.gz']


FILES = {
    'dataset': lambda path: check_dataset(path.parent),
    'filter': read_filter_file,
    'style': lambda path: styles_of_target(f'{path}'),
    'settings': lambda path: RunConfig.from_toml(path.read_text(errors='replace')),
    'plugin': read_plugin,
}


@pytest.mark.parametrize('what', FILES)
@pytest.mark.parametrize('count', CASES)
def test_files_that_options_name(tmp_path, what, count, make_style):
    """Filters, styles, settings, plugins and the description of the dataset."""
    path = tmp_path / 'dataset_description.json'
    style = make_style('T1w').to_dict()
    parts = {
        'dataset': st.fixed_dictionaries({'Name': JSON, 'BIDSVersion': JSON, 'DatasetType': JSON}),
        'filter': st.dictionaries(
            st.sampled_from(['t1w', 'flair', 'bold', 'x']),
            st.dictionaries(st.sampled_from(['acq', 'run', 'acquisition', 'y']), JSON),
        ),
        'style': st.tuples(st.sampled_from(sorted(style)), JSON).map(lambda kv: style | dict([kv])),
        'settings': JSON,
        'plugin': st.fixed_dictionaries(
            {'plugin': st.just('MultiProc') | JSON, 'plugin_args': JSON}
        ),
    }
    texts = parts[what].map(dumped) | JSON.map(dumped) | st.text() | st.sampled_from(NOT_JSON)
    if what == 'settings':
        names = st.sampled_from(sorted(RunConfig.__dataclass_fields__))
        values = st.sampled_from(
            ['1', '"x"', 'true', '[]', '[1]', '{}', '1e99', '1979-05-27', '""']
        )
        lines = st.lists(st.tuples(names, values).map(' = '.join), max_size=3)
        texts = lines.map(lambda found: '\n'.join(['[run]', *found])) | st.text()

    @fuzz(count)
    @given(texts)
    def test(text):
        path.write_bytes(text.encode('utf-8', 'surrogatepass'))
        refused(FILES[what], path)

    test()
    path.write_bytes(b'\xff\xfe\0\1')
    refused(FILES[what], path)


def test_yaml_makes_no_objects(tmp_path):
    path = tmp_path / 'plugin.yml'
    path.write_text('plugin: !!python/object/apply:os.system ["touch owned"]')
    with pytest.raises(HarmonyError, match='is not YAML'):
        read_plugin(path)
    assert yaml.safe_load('a: 1') == {'a': 1}


OPTIONS = [
    name
    for action in make_parser()._actions
    for name in action.option_strings
    if name not in ('-h', '--help', '--version', '--bids-exec-spec', '--bids_exec_spec', '--task')
]
VALUES = [
    'T1w',
    'none',
    'transfer',
    '0',
    '-1',
    '1e99',
    'nan',
    'cuda:99',
    '01',
    '8G',
    '/dev/null',
    '',
]
VALUES += ['sub-01', 'site:x', 'a=b', '../../..', 'x' * 5000, 'native', 'auto', '\udcff', '%s{0}']


@pytest.mark.parametrize('count', [pytest.param(60), pytest.param(1000, marks=pytest.mark.faults)])
def test_the_command_line(make_dataset, tmp_path, capsys, monkeypatch, count):
    """Any options in any order: an exit code that the documentation names, and no traceback."""
    raw = make_dataset('sub-01/anat/sub-01_T1w.nii.gz', 'sub-02/anat/sub-02_T2w.nii')
    monkeypatch.setattr(os, 'environ', dict(os.environ))
    monkeypatch.chdir(tmp_path)
    # No shell passes on a null byte.
    free = WORDS.filter(lambda word: '\0' not in word)
    words = st.lists(st.sampled_from(OPTIONS) | st.sampled_from(VALUES) | free, max_size=6)
    before = {path.name for path in tmp_path.iterdir()}
    codes = {0, 1, 2, 16, 18, 64, 65, 66, 73, 74, 75}

    @fuzz(count)
    @given(words)
    @example(['--derivatives', 'x' * 5000])
    @example(['--config-file', '\udcff'])
    def test(given):
        argv = [str(raw), str(tmp_path / 'out'), 'participant', *given, '--dry-run']
        try:
            code = main(argv)
        except SystemExit as end:
            code = end.code
        assert code in codes
        shown = capsys.readouterr()
        assert 'Traceback' not in shown.err + shown.out
        if code not in (0, 1):
            assert shown.err.strip()

    test()
    # A dry run writes nothing, whatever it is asked.
    assert {path.name for path in tmp_path.iterdir()} == before


def signed(folder, described, weights):
    """A model folder whose hash is right, so that what is behind it is looked at."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / WEIGHTS).write_bytes(weights)
    described = dict(described) | {'weights_sha256': hashlib.sha256(weights).hexdigest()}
    (folder / METADATA).write_text(json.dumps(described))
    return folder


def changed(described, path, value):
    """A description with another value at a path."""
    copy = json.loads(json.dumps(described))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return copy


def paths_of(value, start=()):
    """Paths to everything that a description of networks holds."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in items:
        yield (*start, key)
        if isinstance(item, dict | list):
            yield from paths_of(item, (*start, key))


@pytest.mark.parametrize('count', [pytest.param(15), pytest.param(1000, marks=pytest.mark.faults)])
@pytest.mark.parametrize('method', TRAINED)
def test_descriptions_of_models(tmp_path, method, count):
    """Any value in any place: refused by name, or a method all the same."""
    source = packaged_model(method)
    described = json.loads((source / METADATA).read_text())
    weights = (source / WEIGHTS).read_bytes()
    shape = {
        k: v for k, v in described.items() if k in ('network', 'networks', 'energies', 'fusion')
    }
    paths = st.sampled_from(sorted(paths_of(shape), key=str))
    odd = JSON | st.sampled_from([10**9, 10**6, 4096, -1, 0, 2**70, [1] * 500, 1e300, float('nan')])

    @fuzz(count)
    @given(paths, odd)
    def test(path, value):
        folder = signed(tmp_path / 'model', changed(described, path, value), weights)
        message = refused(get_method, method, folder)
        assert not message or str(folder) in message

    test()


class Owned:
    """A pickle that runs code where it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), 'w')


@pytest.mark.parametrize('method', TRAINED)
def test_models_that_are_no_models(tmp_path, method):
    source = packaged_model(method)
    described = json.loads((source / METADATA).read_text())
    weights = (source / WEIGHTS).read_bytes()
    owned = tmp_path / 'owned'
    length = int.from_bytes(weights[:8], 'little')
    header = json.loads(weights[8 : 8 + length])
    name = next(key for key in header if key != '__metadata__')

    def with_header(**fields):
        text = json.dumps(header | {name: header[name] | fields}).encode()
        return len(text).to_bytes(8, 'little') + text + weights[8 + length :]

    hostile = {
        'pickle': pickle.dumps(Owned(owned)),
        'empty': b'',
        'cut': weights[: len(weights) // 2],
        'huge tensor': with_header(shape=[2**40, 2**40]),
        'far away': with_header(data_offsets=[0, 2**62]),
        'other shape': with_header(shape=[1]),
        'unknown type': with_header(dtype='OBJECT'),
        'huge header': (2**62).to_bytes(8, 'little') + b'{}',
    }
    for kind, content in hostile.items():
        folder = signed(tmp_path / 'model', described, content)
        with pytest.raises(ModelError) as caught:
            get_method(method, folder)
        assert str(folder) in str(caught.value), kind
    assert not owned.exists()
    # The hash is of the file that is read, not of one beside it.
    folder = signed(tmp_path / 'model', described, weights)
    tampered = bytearray(weights)
    tampered[-1] ^= 1
    (folder / WEIGHTS).write_bytes(tampered)
    with pytest.raises(ModelError, match='sha256 differs'):
        get_method(method, folder)


def test_networks_larger_than_their_weights_are_not_made(tmp_path):
    """A description asks for more memory than any machine has: no tensor of that size is made."""
    source = packaged_model('transfer')
    described = json.loads((source / METADATA).read_text())
    described['network'] |= {'width': 512}
    folder = signed(tmp_path / 'model', described, (source / WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match='they have [0-9]+ numbers, and the weights 199616'):
        get_method('transfer', folder)
    described['network'] |= {'width': 10**9}
    folder = signed(tmp_path / 'model', described, (source / WEIGHTS).read_bytes())
    with pytest.raises(ModelError, match='a size of 1000000000'):
        get_method('transfer', folder)


def test_weights_too_large_to_be_a_model_are_not_read(tmp_path):
    described = json.loads((packaged_model('transfer') / METADATA).read_text())
    folder = signed(tmp_path / 'model', described, b'')
    with open(folder / WEIGHTS, 'wb') as stream:
        stream.truncate(2**40)
    with pytest.raises(ModelError, match='larger than any model'):
        get_method('transfer', folder)


def test_what_is_read_as_json_can_be_written_again(tmp_path):
    path = tmp_path / 'a.json'

    @fuzz(100)
    @given(JSON)
    def test(value):
        path.write_text(json.dumps(value))
        content = read_json(path)
        write_json(path, [content])
        assert read_json(path) == [content]

    test()
    for text in NOT_JSON[:3]:
        path.write_text(text)
        with pytest.raises(ValueError):
            read_json(path)


@pytest.mark.parametrize('name', ['../../evil', '/tmp/evil', 'a/b', '..', '.', '\0', 'é', ''])
def test_names_never_lead_out_of_the_results(name):
    """Of a site, from tables and options: it names folders of models and slices."""
    plain = plain_name(name)
    assert re.fullmatch(r'[\w+-][\w.+-]*', plain), plain
