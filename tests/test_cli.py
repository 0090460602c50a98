import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from harmony_app import __version__
from harmony_app.cli import main, make_config, make_parser
from harmony_app.cli_types import parse_memory
from harmony_app.config import RunConfig
from harmony_app.errors import OptionError

ROOT = Path(__file__).parents[1]
T1W = 'sub-01/anat/sub-01_T1w.nii.gz'


def config_of(*arguments):
    positional = ['in', 'out', 'participant']
    return make_config(make_parser().parse_intermixed_args([*positional, *arguments]))


def run_python(*arguments, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=os.environ | {'PYTHONPATH': str(ROOT)} | environment,
    )


@pytest.mark.parametrize(
    'text, gigabytes',
    [('8G', 8), ('1.5G', 1.5), ('8 GB', 8), ('16g', 16), ('8000', 8), ('500M', 0.5), ('8GiB', 8)],
)
def test_memory_in_any_usual_form(text, gigabytes):
    assert parse_memory(text) == pytest.approx(gigabytes)


@pytest.mark.parametrize('text', ['', 'G', '-1G', '0', '8X', 'eight'])
def test_memory_that_is_none(text):
    with pytest.raises(argparse.ArgumentTypeError):
        parse_memory(text)


def test_options_of_training_reach_the_settings(capsys):
    text = '--task train --phantom p.yaml --minutes 1.5 --steps 9 --batch_size 4 --patience 2'
    arguments = ['in', 'out', 'group', *text.split(), '--model-out', 'm', '--site', 'A b']
    arguments += ['--biology', 'age', 'sex', 'age']
    config = make_config(make_parser().parse_intermixed_args(arguments))
    assert (config.minutes, config.steps, config.batch_size, config.patience) == (1.5, 9, 4, 2)
    assert (config.phantom, config.model_out) == (Path.cwd() / 'p.yaml', Path.cwd() / 'm')
    assert config.site == 'A b'
    assert config.biology == ('age', 'sex')
    assert RunConfig.from_toml(config.to_toml()) == config
    for wrong in ('0', '-1', 'inf', 'soon'):
        with pytest.raises(SystemExit):
            make_parser().parse_intermixed_args(['in', 'out', 'group', '--minutes', wrong])
        assert 'is not a number above 0' in capsys.readouterr().err


def test_hyphen_and_underscore_are_the_same():
    parser = make_parser()
    for action in parser._actions:
        for option in action.option_strings:
            if option.startswith('--') and '-' in option[2:] and 'nipype' not in option:
                assert f'--{option[2:].replace("-", "_")}' in action.option_strings
    assert config_of('--participant_label', 'sub-01').participants == ('01',)
    assert config_of('--session_id', 'ses-a', 'b').sessions == ('a', 'b')
    assert config_of('--n_cpus', '3').nprocs == config_of('--nthreads', '3').nprocs == 3


def test_labels_may_stand_in_several_places():
    config = config_of('--participant-label', '01', '-v', '--participant-label', 'sub-02')
    assert config.participants == ('01', '02')


def test_targets_and_contrasts_keep_the_order_of_the_contrasts():
    config = config_of('--target', 'T1w=a', '--target', 'b.json', '--modalities', 'FLAIR', 'T1w')
    assert config.target == ('T1w=a', 'b.json')
    assert config.modalities == ('T1w', 'FLAIR')


def test_derivatives_are_named_once(tmp_path):
    config = config_of('-d', f'fmriprep={tmp_path}')
    assert dict(config.derivatives) == {'fmriprep': tmp_path}
    with pytest.raises(OptionError, match='twice'):
        config_of('-d', f'a={tmp_path}', f'a={tmp_path}')
    with pytest.raises(OptionError, match='not a folder'):
        config_of('-d', 'a=/no/such/folder')


def test_scratch_is_never_the_current_folder():
    work_dir = config_of().work_dir
    assert work_dir.is_absolute()
    assert Path.cwd() not in (work_dir, *work_dir.parents)


def test_options_of_reports_reach_the_settings():
    plain = config_of()
    assert (plain.reports_only, plain.report_3d, plain.aggregate_session_reports) == (
        False,
        False,
        4,
    )
    given = config_of('--reports_only', '--report-3d', '--aggregate-session-reports', '2')
    assert (given.reports_only, given.report_3d, given.aggregate_session_reports) == (True, True, 2)
    assert RunConfig.from_toml(given.to_toml()) == given
    assert given.result_settings() == plain.result_settings()


def test_settings_survive_toml(tmp_path):
    config = config_of('-d', f'a b={tmp_path}', '--target', 'T1w="odd"\\', '--mem', '2G', '-vv')
    assert RunConfig.from_toml(config.to_toml({'torch': '2', 'none': None})) == config
    with pytest.raises(OptionError, match='unknown settings: colour'):
        RunConfig.from_toml('[run]\nbids_dir = "a"\noutput_dir = "b"\ncolour = 1\n')


def test_settings_that_change_no_voxel_change_no_hash():
    settings = config_of().result_settings()
    same = config_of('--nprocs', '7', '-w', '/elsewhere', '-v', '--participant-label', '01')
    assert same.result_settings() == settings
    for other in (
        '--method none',
        '--random-seed 1',
        '--target x',
        '--sloppy',
        '--super-resolution off',
    ):
        assert config_of(*other.split()).result_settings() != settings


def test_help_is_light_and_imports_nothing_heavy():
    code = (
        'import sys\n'
        'from harmony_app.cli import main\n'
        'try: main(["--help"])\n'
        'except SystemExit as end: assert end.code == 0\n'
        'heavy = {"torch", "ants", "nipype", "nilearn", "pandas", "bids", "nibabel", "scipy"}\n'
        'print(sorted(heavy & set(sys.modules)))\n'
    )
    done = run_python('-c', code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == '[]'
    assert 'Options for filtering BIDS queries' in done.stdout


def test_run_py_tells_the_version_without_a_home():
    done = run_python('run.py', '--version', HOME='/nonexistent')
    assert done.stdout.strip() == f'harmony-app {__version__}'


@pytest.fixture
def dataset(make_dataset):
    return make_dataset(T1W, 'sub-02/anat/sub-02_T1w.nii.gz', 'sub-03/anat/sub-03_bold.nii.gz')


@pytest.fixture
def style_file(tmp_path, make_style):
    path = tmp_path / 'style.json'
    path.write_text(json.dumps(make_style('T1w').to_dict()))
    return path


def attempt(capsys, *arguments):
    """Exit code and last line of stderr; a traceback is never shown."""
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as end:
        code = end.code
    message = capsys.readouterr().err.strip()
    assert 'Traceback' not in message
    return code, message.splitlines()[-1] if message else ''


@pytest.mark.parametrize(
    'arguments, expected, words',
    [
        (['--no-such-flag'], 2, 'unrecognized'),
        (['--method', 'magic'], 2, 'invalid choice'),
        (['--method', 'ravel'], 2, 'invalid choice'),
        (['--method', 'ssimh'], 64, 'give an image, sub-XX or site:NAME'),
        (['--device', 'tpu'], 2, 'none of auto, cpu, cuda'),
        (['--nprocs', '0'], 2, 'not a positive number'),
        (['--mem', 'lots'], 2, 'no amount of memory'),
        (['--participant-label', '99'], 18, 'there are 01, 02, 03'),
        (['--participant-label', '03'], 66, 'sub-03_bold.nii.gz (other modality: bold)'),
        (['--modalities', 'FLAIR'], 18, 'the filters leave no scan'),
        (['--participant-label', 'no/file'], 64, 'neither a label'),
        (['--bids-filter-file', '/no/file'], 66, '--bids-filter-file'),
        (['--target', 'no-such.json'], 66, '--target no-such.json'),
        (['--target', 'sub-77'], 64, 'there is no sub-77'),
        (['--target', 'site:Mars'], 64, 'the dataset names no site'),
        (['--target', 'image.nii.gz'], 66, 'no such file'),
        (['--device', 'cuda:99'], 64, '--device cpu'),
        (['--model', '/no/model'], 65, '/no/model'),
        (['--fusion', 'median'], 64, 'no option fusion'),
        (['--noise', 'remove'], 64, 'no option noise'),
        (['--noise', 'loud'], 2, 'invalid choice'),
        (['--impute', 'T2w'], 64, 'cannot make a contrast'),
        (['--use-plugin', '/no/file.yml', '-v'], 64, '--use-plugin'),
    ],
)
def test_errors_say_what_and_end_with_their_code(
    capsys, dataset, style_file, tmp_path, arguments, expected, words
):
    target = [] if '--target' in arguments else ['--target', style_file]
    common = [dataset, tmp_path / 'out', 'participant', '--method', 'none', '-w', tmp_path / 'work']
    code, message = attempt(capsys, *common, *target, *arguments)
    assert (code, words in message) == (expected, True), message


def test_folders_that_cannot_be_used(capsys, dataset, style_file, tmp_path):
    tail = ['participant', '--method', 'none', '--target', style_file, '-w', tmp_path / 'work']
    (tmp_path / 'file').touch()
    cases = [
        ([tmp_path / 'nowhere', tmp_path / 'out'], 66, 'is no folder'),
        ([tmp_path, tmp_path / 'out'], 16, 'has no dataset_description.json'),
        ([dataset, dataset], 64, 'output_dir is the input dataset'),
        ([dataset, dataset / 'out'], 64, 'lies in the input dataset'),
        ([dataset, dataset / 'sub-01' / 'derivatives' / 'x'], 64, 'lies in the input dataset'),
        ([dataset, tmp_path / 'file' / 'out'], 73, 'cannot be written'),
    ]
    for folders, expected, words in cases:
        code, message = attempt(capsys, *folders, *tail)
        assert (code, words in message) == (expected, True), message
    for work, expected, words in [
        (dataset / 'work', 64, '--work-dir'),
        (tmp_path / 'file' / 'work', 73, '--work-dir'),
        (tmp_path / 'out', 64, 'is the output folder'),
    ]:
        code, message = attempt(capsys, dataset, tmp_path / 'out', *tail[:-1], work)
        assert (code, words in message) == (expected, True), message


def test_results_of_an_app_are_not_raw_scans(capsys, dataset, style_file, tmp_path):
    description = {'Name': 'x', 'BIDSVersion': '1.10.0', 'DatasetType': 'derivative'}
    (dataset / 'dataset_description.json').write_text(json.dumps(description))
    common = [dataset, tmp_path / 'out', 'participant', '--method', 'none', '--dry-run']
    common += ['--target', style_file, '-w', tmp_path / 'work']
    code, message = attempt(capsys, *common)
    assert code == 16
    assert 'derivative' in message
    assert '--skip-bids-validation' in message
    assert attempt(capsys, *common, '--skip_bids_validation')[0] == 0


def test_a_dry_run_tells_the_plan_and_writes_nothing(capsys, dataset, style_file, tmp_path):
    arguments = [dataset, tmp_path / 'out', 'participant', '--method', 'none', '--dry-run']
    arguments += ['--target', style_file, '-w', tmp_path / 'work']
    assert main([str(argument) for argument in arguments]) == 0
    told = capsys.readouterr().out
    assert '2 scans in 2 sessions' in told
    assert 'sub-01: T1w' in told
    assert 'skipped sub-03_bold.nii.gz: other modality: bold' in told
    assert not (tmp_path / 'out').exists()
    assert not (tmp_path / 'work').exists()


def test_the_group_level_needs_results(capsys, dataset, tmp_path):
    code, message = attempt(capsys, dataset, tmp_path / 'out', 'group')
    assert code == 66
    assert 'participant level' in message


def test_what_the_group_level_does(capsys):
    def task_of(*arguments):
        return make_config(make_parser().parse_intermixed_args(arguments)).task

    assert task_of('in', 'out', 'group') == 'report'
    assert task_of('in', 'out', 'group', '--task', 'evaluate') == 'evaluate'
    assert task_of('--task', 'report', 'in', 'out', 'participant') == 'report'
    with pytest.raises(OptionError, match='--task evaluate is for the group level'):
        task_of('in', 'out', 'participant', '--task', 'evaluate')
    with pytest.raises(SystemExit):
        task_of('in', 'out', 'group', '--task', 'dance')
    assert "'evaluate'" in capsys.readouterr().err


def test_the_evaluation_needs_results(capsys, dataset, tmp_path):
    code, message = attempt(capsys, dataset, tmp_path / 'out', 'group', '--task', 'evaluate')
    assert code == 66
    assert 'participant level' in message
    assert not (tmp_path / 'out').exists()
