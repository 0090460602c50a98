"""What each option of the participant level does, by plans and graphs; nothing is computed."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest

from harmony_app import app
from harmony_app.app import make_plan
from harmony_app.bids.atomic import write_json
from harmony_app.bids.publish import write_marker
from harmony_app.cli import main, make_config, make_parser
from harmony_app.config import RunConfig
from harmony_app.errors import InputError, OptionError, OutputError
from harmony_app.imaging.grid import SPACE
from harmony_app.methods.registry import packaged_model
from harmony_app.workflows import plugin as plugin_module
from harmony_app.workflows.costs import estimate
from harmony_app.workflows.slurm import Slurm

T1W = 'sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz'
FILES = (
    T1W,
    'sub-01/ses-b/anat/sub-01_ses-b_run-1_T1w.nii.gz',
    'sub-01/ses-b/anat/sub-01_ses-b_run-2_T1w.nii.gz',
    'sub-01/ses-b/anat/sub-01_ses-b_ce-gd_T1w.nii.gz',
    'sub-02/ses-a/anat/sub-02_ses-a_T2w.nii.gz',
)


@pytest.fixture
def folders(make_dataset, make_style, tmp_path):
    """Arguments that every run here has: an empty dataset, quick method, style of a file."""
    raw = make_dataset(*FILES)
    styles = [make_style(contrast).to_dict() for contrast in ('T1w', 'T2w')]
    style = write_json(tmp_path / 'style.json', styles)
    positional = [str(raw), str(tmp_path / 'out'), 'participant']
    return positional, ['--target', str(style), '-w', str(tmp_path / 'work')]


@pytest.fixture
def config_of(folders):
    def make(*arguments, method='none'):
        argv = [*folders[0], *folders[1], '--method', method, *map(str, arguments)]
        return make_config(make_parser().parse_intermixed_args(argv), argv)

    return make


@pytest.fixture
def plan_of(config_of):
    return lambda *arguments, **more: make_plan(config_of(*arguments, **more))


def names(plan):
    return [scan.name for session in plan.sessions for scan in session.scans]


class Spy:
    """A plugin that keeps the graph and runs nothing."""

    def __init__(self):
        self.plugin_args = {}

    def run(self, graph, config, updatehash=False):
        self.nodes = {node.fullname.partition('.')[2]: node for node in graph.nodes()}
        self.execution = dict(config['execution'])


@pytest.fixture
def built(folders, monkeypatch):
    """Run the command with a plugin that runs nothing; gives the graph and how it was asked for."""
    make_plugin = plugin_module.make_plugin

    def run(*arguments, method='none'):
        spy = Spy()

        def keep(*given, **named):
            real, args = make_plugin(*given, **named)
            if hasattr(real, 'pool'):
                real.pool.shutdown(wait=False)
            spy.plugin, spy.args = real, args
            return spy, args

        monkeypatch.setattr(plugin_module, 'make_plugin', keep)
        monkeypatch.setattr(os, 'environ', dict(os.environ))
        argv = [*folders[0], *folders[1], '--method', method, '--participant-label', '01']
        everything = Path(folders[0][1]) / 'logs'
        before = set(everything.glob('2*'))
        code = main([*argv, '--session-label', 'a', *map(str, arguments)])
        # Two runs of one second sort by their random ends: only what is new is this run's.
        (logs,) = set(everything.glob('2*')) - before
        return SimpleNamespace(
            code=code,
            args=spy.args,
            plugin=spy.plugin,
            execution=spy.execution,
            logs=logs,
            prepare=spy.nodes['sub_01_ses_a_prepare_wf.prepare_T1w'].inputs,
            align=spy.nodes['sub_01_ses_a_prepare_wf.align'].inputs,
            harmonize=spy.nodes['sub_01_ses_a_wf.harmonize'],
            write=spy.nodes['sub_01_ses_a_wf.write'].inputs,
            environment=dict(os.environ),
        )

    return run


def test_labels_choose_participants_and_sessions(plan_of):
    assert {name[:6] for name in names(plan_of('--participant-label', '02'))} == {'sub-02'}
    assert all('ses-b' in name for name in names(plan_of('--session-label', 'b')))
    assert names(plan_of('--modalities', 'T2w')) == ['sub-02_ses-a_T2w']


def test_a_filter_file_chooses_scans(plan_of, tmp_path):
    asked = write_json(tmp_path / 'filter.json', {'t1w': {'run': 2}, 't2w': {'run': None}})
    plan = plan_of('--bids-filter-file', asked)
    assert names(plan) == ['sub-01_ses-b_run-2_T1w', 'sub-02_ses-a_T2w']


def test_scans_after_contrast_agent_are_taken_when_asked_for(plan_of):
    assert 'sub-01_ses-b_ce-gd_T1w' not in names(plan_of())
    assert 'sub-01_ses-b_ce-gd_T1w' in names(plan_of('--include-contrast-enhanced'))


def test_an_index_is_kept_and_made_anew(plan_of, folders, tmp_path):
    index = tmp_path / 'index'
    first = names(plan_of('--bids-database-dir', index))
    assert first == names(plan_of())
    assert any(index.iterdir())
    new = Path(folders[0][0]) / 'sub-01/ses-a/anat/sub-01_ses-a_acq-new_T1w.nii.gz'
    new.touch()
    # The index does not know it until it is made anew.
    assert names(plan_of('--bids-database-dir', index)) == first
    assert len(names(plan_of())) == len(first) + 1
    assert (
        len(names(plan_of('--bids-database-dir', index, '--bids-database-wipe'))) == len(first) + 1
    )
    only = plan_of('--bids-database-dir', index, '--participant-label', '02')
    assert names(only) == ['sub-02_ses-a_T2w']


def test_an_index_of_another_dataset_or_no_folder_is_refused(plan_of, folders, tmp_path):
    plan_of('--bids-database-dir', tmp_path / 'index')
    other = tmp_path / 'other'
    shutil.copytree(folders[0][0], other)
    folders[0][0] = str(other)
    with pytest.raises(InputError, match='index of another dataset'):
        plan_of('--bids-database-dir', tmp_path / 'index')
    (tmp_path / 'file').touch()
    with pytest.raises(OutputError, match='--bids-database-dir'):
        plan_of('--bids-database-dir', tmp_path / 'file' / 'index')


def test_masks_of_derivatives_reach_their_scans(plan_of, tmp_path):
    mask = tmp_path / 'masks/sub-01/ses-a/anat/sub-01_ses-a_desc-brain_mask.nii.gz'
    mask.parent.mkdir(parents=True)
    mask.touch()
    plan = plan_of('--derivatives', f'm={tmp_path / "masks"}')
    assert plan.sessions[0].given == {'sub-01_ses-a_T1w': {'mask_file': mask}}
    assert plan_of().sessions[0].given == {}


def test_method_model_and_device_reach_the_node(built, tmp_path):
    model = tmp_path / 'model'
    shutil.copytree(packaged_model('transfer'), model)
    given = built('--model', model, '--device', 'cpu', method='transfer').harmonize.inputs
    assert (given.method, given.device, given.model) == ('transfer', 'cpu', str(model))
    assert built(method='nyul').harmonize.inputs.method == 'nyul'


def test_settings_of_methods_reach_the_node(built):
    given = built('--detail', 'decoder', '--fusion', 'median', '--impute', 'FLAIR', method='haca3')
    assert given.harmonize.inputs.options == {'detail': 'decoder', 'fusion': 'median'}
    assert given.harmonize.inputs.impute == ['FLAIR']
    given = built('--noise', 'remove', method='transfer')
    assert given.harmonize.inputs.options == {'noise': 'remove'}


def test_bias_fields_are_left_where_they_are(built, plan_of):
    assert built().prepare.sloppy is False
    assert built('--sloppy').prepare.sloppy is True
    assert built('--ignore', 'bias-field').prepare.sloppy is True
    digests = {plan_of(*given).sessions[0].digest for given in ((), ('--ignore', 'bias-field'))}
    assert len(digests) == 2


def test_what_becomes_of_thick_slices_is_chosen(built, plan_of):
    choices = ('auto', 'on', 'off')
    given = [('--super-resolution', choice) for choice in choices]
    assert [built(*pair).prepare.super_resolution for pair in given] == [*choices]
    assert built().prepare.super_resolution == 'auto'
    assert len({plan_of(*pair).sessions[0].digest for pair in given}) == 3


def test_whether_a_scan_is_a_bare_brain_is_seen_or_said(built, plan_of):
    from nipype.interfaces.base import Undefined

    assert built('--skull-strip', 'auto').prepare.bare is Undefined
    assert built('--skull-strip', 'skip').prepare.bare is True
    assert built('--skull-strip', 'force').prepare.bare is False
    digests = {
        plan_of('--skull-strip', how).sessions[0].digest for how in ('auto', 'skip', 'force')
    }
    assert len(digests) == 3


def test_the_grids_of_the_results_are_chosen(built, plan_of):
    assert built().write.spaces == ['native', SPACE]
    assert built('--output-spaces', 'native').write.spaces == ['native']
    both = plan_of('--output-spaces', SPACE, 'native').sessions[0].digest
    assert both == plan_of().sessions[0].digest
    assert both != plan_of('--output-spaces', SPACE).sessions[0].digest


def test_processes_threads_and_memory(built):
    run = built('--nprocs', 3, '--omp-nthreads', 2, '--mem', '6G', method='transfer')
    assert (run.args['n_procs'], run.args['memory_gb']) == (3, 6)
    assert run.environment['OMP_NUM_THREADS'] == run.environment['MKL_NUM_THREADS'] == '2'
    assert run.harmonize.n_procs == 3
    assert built('--mem-gb', '1.5').args['memory_gb'] == built('--mem_mb', 1500).args['memory_gb']


def test_less_memory_is_a_fresh_process_for_each_step_and_few_slices(built):
    run = built('--low-mem', '--nprocs', 1, method='haca3')
    assert run.plugin.pool._max_tasks_per_child == 1
    assert run.harmonize.inputs.options == {'batch': 4}
    usual = built('--nprocs', 2, method='haca3')
    assert usual.plugin.pool._max_tasks_per_child is None
    assert usual.harmonize.inputs.options == {}
    # A method without slices still runs in fresh processes.
    assert built('--low-mem').harmonize.inputs.options == {}


def test_slices_at_a_time(built, config_of):
    run = built('--batch-size', 2, '--low-mem', method='haca3')
    assert run.harmonize.inputs.options == {'batch': 2}
    with pytest.raises(OptionError, match='--batch-size: method none sends no slices'):
        make_plan(config_of('--batch-size', 2))


def test_a_plugin_file_takes_the_place_of_our_plugin(built, tmp_path):
    file = tmp_path / 'plugin.yml'
    file.write_text('plugin: SLURM\nplugin_args: {sbatch_args: "-p long"}\n')
    run = built('--use-plugin', file)
    assert isinstance(run.plugin, Slurm)
    assert run.plugin.options == ['-p', 'long']
    assert run.args['sbatch_args'] == '-p long'
    file.write_text('plugin: SGE\n')
    assert built('--use-plugin', file).plugin == 'SGE'


def test_resources_are_watched_when_asked_for(built):
    run = built('--resource-monitor')
    assert run.args['monitor_dir'] == str(run.logs / 'resources')
    assert 'monitor_dir' not in built().args


def test_the_seed_reaches_the_samplers(built):
    run = built('--random-seed', 7)
    assert (run.align.seed, run.harmonize.inputs.seed, run.write.settings['RandomSeed']) == (
        7,
        7,
        7,
    )


def test_the_first_crash_stops_the_run_when_asked_for(built):
    assert built('--stop-on-first-crash').execution['stop_on_first_crash'] == 'true'
    assert built().execution['stop_on_first_crash'] == 'false'


def test_the_graph_is_drawn_into_the_logs(built):
    run = built('--write-graph')
    text = (run.logs / 'graph.dot').read_text()
    assert 'digraph' in text
    assert 'harmonize' in text
    assert (run.logs / 'graph.svg').is_file() == bool(shutil.which('dot'))
    assert not (built().logs / 'graph.dot').exists()


def test_scratch_lies_where_it_is_wanted_and_is_emptied_when_asked_for(built, config_of, tmp_path):
    config = config_of('--participant-label', '01', '--session-label', 'a')
    assert config.work_dir == tmp_path / 'work'
    built()
    old = app.work_folder(config) / 'old'
    assert old.parent.is_dir()
    old.touch()
    built()
    assert old.exists()
    built('--clean-workdir')
    assert not old.exists()


@pytest.mark.parametrize('keep', [False, True])
def test_scratch_of_a_written_session_is_kept_when_asked_for(
    config_of, monkeypatch, tmp_path, keep
):
    config = config_of(*['--keep-workdir'] * keep)
    workflow = SimpleNamespace(base_dir=tmp_path, name='wf', list_node_names=list)
    progress = app._make_progress(config, make_plan(config), workflow)
    scratch = tmp_path / 'wf' / 'sub_01_ses_a_wf'
    scratch.mkdir(parents=True)
    monkeypatch.setattr(app, 'is_finished', lambda *_: True)
    progress.written('sub-01_ses-a')
    assert scratch.exists() == keep


def test_what_is_there_is_left_or_computed_again(plan_of, folders):
    out = Path(folders[0][1])
    digest = plan_of().sessions[0].digest
    marker = {'digest': digest, 'run': 'r', 'files': [], 'scans': {}}
    write_marker(out, 'sub-01_ses-a', marker)
    assert plan_of().finished == ('sub-01_ses-a',)
    assert plan_of('--overwrite').finished == ()
    # Results of other settings: computed anew, unless every result shall stay.
    assert plan_of('--random-seed', 1).finished == ()
    assert plan_of('--random-seed', 1, '--skip-existing').finished == ('sub-01_ses-a',)


def test_settings_of_an_earlier_run_come_back_and_what_is_given_wins(config_of, folders, tmp_path):
    first = config_of('--random-seed', 5, '--participant-label', '01', '--mem', '2G', '--sloppy')
    file = tmp_path / 'harmony_app.toml'
    file.write_text(first.to_toml({'python': '3'}))

    def again(*arguments):
        argv = [*folders[0], '--config-file', str(file), *arguments]
        return make_config(make_parser().parse_intermixed_args(argv), argv)

    assert again() == first
    # A list on the command line takes the place of that of the file, and is not put behind it.
    other = again('--participant_label', '02', '--mem', '3G', '--nprocs', '9')
    assert (other.participants, other.memory_gb, other.nprocs) == (('02',), 3.0, 9)
    assert (other.random_seed, other.sloppy, other.target) == (5, True, first.target)
    # Given as the default: it was given all the same.
    assert again('--random-seed', '20231').random_seed == 20231


@pytest.mark.parametrize('text, error, words', [
    (None, InputError, 'cannot read --config-file'),
    ('[run', OptionError, 'is not TOML'),
    ('[run]\nbids_dir = "a"\noutput_dir = "b"\ncolour = 1\n', OptionError, 'colour'),
])  # fmt: skip
def test_a_file_of_settings_that_is_none_is_refused(config_of, tmp_path, text, error, words):
    file = tmp_path / 'other.toml'
    if text is not None:
        file.write_text(text)
    with pytest.raises(error, match=words):
        config_of('--config-file', file)


@pytest.mark.parametrize(
    'arguments, words',
    [
        (['--export-dir', 'x'], '--export-fmriprep'),
        (['--ignore', 'brain-mask'], '--export-fmriprep'),
        (['--bids-database-wipe'], '--bids-database-dir'),
        (['--export-fmriprep', '--output-spaces', SPACE], '--output-spaces native'),
        (['--impute', 'T2w', '--output-spaces', 'native'], 'leave out --output-spaces'),
        (['--use-plugin', 'x.yml', '--low-mem'], '--low-mem'),
        (['--use-plugin', 'x.yml', '--resource-monitor'], '--resource-monitor'),
    ],
)
def test_options_that_would_do_nothing_are_refused(config_of, arguments, words):
    with pytest.raises(OptionError, match=words):
        config_of(*arguments)


def test_overwriting_and_skipping_exclude_each_other(config_of, capsys):
    with pytest.raises(SystemExit):
        config_of('--overwrite', '--skip-existing')
    assert 'not allowed with' in capsys.readouterr().err


def test_both_levels_in_one_call(folders, monkeypatch):
    ran = []
    monkeypatch.setattr(
        app, 'run', lambda config, alone: ran.append((config.analysis_level, alone)) or 0
    )
    positional, rest = folders
    assert main([*positional, 'group', *rest, '--task', 'evaluate']) == 0
    assert ran == [('participant', False), ('group', False)]
    ran.clear()
    assert main([positional[0], positional[1], 'group']) == 0
    assert ran == [('group', True)]


def test_the_first_code_that_is_not_0_is_the_end(folders, monkeypatch):
    codes = {'participant': 1, 'group': 0}
    monkeypatch.setattr(app, 'run', lambda config, alone: codes[config.analysis_level])
    assert main([*folders[0], 'group', *folders[1]]) == 1


def test_a_dry_run_tells_the_cost_by_the_sizes_of_the_scans(folders, capsys, tmp_path):
    argv = [*folders[0], *folders[1], '--method', 'none', '--dry-run', '--nprocs', '2']
    assert main([*argv, '--session-label', 'a']) == 0
    told = capsys.readouterr().out
    assert '(2 headers cannot be read: taken for heads at 1 mm)' in told
    scan = Path(folders[0][0]) / T1W
    costs = []
    for edge in (64, 256):
        nib.save(nib.Nifti1Image(np.zeros((edge,) * 3, np.uint8), np.eye(4)), scan)
        alone = [*argv, '--participant-label', '01', '--session-label', 'a']
        config = make_config(make_parser().parse_intermixed_args(alone))
        costs.append(estimate(make_plan(config), config))
    assert costs[1].cpu_seconds > costs[0].cpu_seconds + 5
    assert costs[1].work_gb > costs[0].work_gb
    assert costs[1].results_gb > costs[0].results_gb
    assert not (tmp_path / 'out').exists()


def test_results_of_another_version_are_told(config_of, folders, caplog):
    from harmony_app.workflows.checks import check_folders

    out = Path(folders[0][1])
    made = {'GeneratedBy': [{'Name': 'harmony-app', 'Version': '0.0.1'}]}
    write_json(out / 'dataset_description.json', made)
    check_folders(config_of())
    assert 'results of harmony-app 0.0.1, and this is' in caplog.text


@pytest.mark.parametrize(
    'kind, words', [('docker', 'docker run -v'), ('singularity', 'apptainer run -B')]
)
def test_in_a_container_the_message_says_how_to_mount(config_of, monkeypatch, capsys, kind, words):
    monkeypatch.setenv('HARMONY_CONTAINER_TYPE', kind)
    assert main(['/no/such/folder', '/tmp/out', 'participant']) == 66
    assert words in capsys.readouterr().err


def test_levels_of_v_set_the_loggers(folders):
    import logging

    from harmony_app.logs import STEP_LEVEL, set_up_logging

    logger = logging.getLogger('harmony_app')
    before = logger.level, logging.getLogger().level
    try:
        levels = []
        for verbose in range(4):
            set_up_logging(verbose)
            levels.append((logger.level, logging.getLogger().level))
    finally:
        logger.setLevel(before[0])
        logging.getLogger().setLevel(before[1])
    assert [level for level, _ in levels] == [20, STEP_LEVEL, 10, 10]
    assert [root for _, root in levels] == [30, 30, 30, 10]


def test_what_the_nodes_say_comes_with_vv(built):
    import logging

    levels = []
    for flags in ([], ['-v'], ['-vv'], ['-vvv']):
        built(*flags)
        levels.append(logging.getLogger('nipype.workflow').level)
    assert levels == [50, 50, 20, 10]


def test_settings_of_the_record_survive_toml(config_of, tmp_path):
    config = config_of('--output-spaces', 'native', '--ignore', 'bias-field', '--low-mem',
                       '--export-fmriprep', '--export-dir', tmp_path / 'x')  # fmt: skip
    assert RunConfig.from_toml(config.to_toml()) == config


def test_the_descriptor_is_printed(capsys):
    with pytest.raises(SystemExit) as end:
        main(['--bids-exec-spec'])
    assert end.value.code == 0
    assert json.loads(capsys.readouterr().out)['name'] == 'harmony-app'


def test_a_target_is_what_scans_shall_look_like(plan_of, built, tmp_path, make_style):
    style = make_style('T1w', 'other')
    file = write_json(tmp_path / 'other.json', style.to_dict())
    plan = plan_of('--target', f'T1w={file}')
    assert plan.targets.names == {'T1w': 'other', 'T2w': 'made'}
    known = json.loads(built('--target', f'T1w={file}').harmonize.inputs.styles)
    assert known['T1w']['name'] == 'other'
    measured = plan_of('--target', 'sub-01_ses-a').targets
    assert [scan.name for scan in measured.scans['T1w']] == ['sub-01_ses-a_T1w']


@pytest.mark.parametrize('choice', ['auto', 'dataset', 'off'])
def test_averages_of_sites_are_measured_where_they_are_wanted(plan_of, monkeypatch, choice):
    """What each choice finds is tested beside find_site_averages."""
    asked = []
    find = app.find_site_averages
    monkeypatch.setattr(app, 'find_site_averages', lambda *a: asked.append(a[0]) or find(*a))
    plan_of('--site-average', choice, method='transfer')
    # A method that knows no averages has none measured.
    plan_of('--site-average', choice, method='none')
    assert asked == [choice, 'off']


def test_the_task_is_what_the_group_level_does(folders, monkeypatch):
    from harmony_app.workflows import model_tasks

    told = []
    monkeypatch.setattr(model_tasks, 'run_task', lambda config: told.append(config.task) or [])
    assert main([*folders[0][:2], 'group', *folders[1][2:], '--task', 'train']) == 0
    assert told == ['train']
    # The default gathers results, of which there are none.
    assert main([*folders[0][:2], 'group', *folders[1][2:]]) == 66


def test_the_budget_of_a_training_is_what_was_given(config_of):
    from harmony_app.training.base import LoopSettings
    from harmony_app.workflows.model_training import loop_settings

    def settings(*arguments):
        return loop_settings(config_of(*arguments), None, 'cpu', LoopSettings(minutes=9, steps=5))

    assert (settings('--minutes', 2).minutes, settings('--minutes', 2).steps) == (2, 0)
    given = settings('--steps', 7, '--patience', 3, '--precision', 'bfloat16', '--batch-size', 2)
    assert (given.minutes, given.steps, given.patience) == (9, 7, 3)
    assert (given.precision, given.batch) == ('bfloat16', 2)
