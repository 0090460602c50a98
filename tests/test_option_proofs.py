"""Every option of the parser has a test of its effect; a new one without fails here."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from harmony_app.cli import make_parser
from harmony_app.cli_descriptor import option_of

TESTS = Path(__file__).parent

PROOFS = {
    '--help': 'test_cli.py::test_help_is_light_and_imports_nothing_heavy',
    '--version': 'test_cli.py::test_run_py_tells_the_version_without_a_home',
    '--bids-exec-spec': 'test_descriptor.py::test_the_option_prints_the_same',
    '--participant-label': 'test_options.py::test_labels_choose_participants_and_sessions',
    '--session-label': 'test_options.py::test_labels_choose_participants_and_sessions',
    '--modalities': 'test_options.py::test_labels_choose_participants_and_sessions',
    '--bids-filter-file': 'test_options.py::test_a_filter_file_chooses_scans',
    '--skip-bids-validation': 'test_cli.py::test_results_of_an_app_are_not_raw_scans',
    '--bids-database-dir': 'test_options.py::test_an_index_is_kept_and_made_anew',
    '--bids-database-wipe': 'test_options.py::test_an_index_is_kept_and_made_anew',
    '--include-contrast-enhanced': (
        'test_options.py::test_scans_after_contrast_agent_are_taken_when_asked_for'
    ),
    '--derivatives': 'test_options.py::test_masks_of_derivatives_reach_their_scans',
    '--method': 'test_options.py::test_method_model_and_device_reach_the_node',
    '--model': 'test_options.py::test_method_model_and_device_reach_the_node',
    '--target': 'test_options.py::test_a_target_is_what_scans_shall_look_like',
    '--detail': 'test_options.py::test_settings_of_methods_reach_the_node',
    '--fusion': 'test_options.py::test_settings_of_methods_reach_the_node',
    '--noise': 'test_options.py::test_settings_of_methods_reach_the_node',
    '--impute': 'test_options.py::test_settings_of_methods_reach_the_node',
    '--site-average': 'test_options.py::test_averages_of_sites_are_measured_where_they_are_wanted',
    '--super-resolution': 'test_options.py::test_what_becomes_of_thick_slices_is_chosen',
    '--skull-strip': 'test_options.py::test_whether_a_scan_is_a_bare_brain_is_seen_or_said',
    '--ignore': 'test_options.py::test_bias_fields_are_left_where_they_are',
    '--output-spaces': 'test_options.py::test_the_grids_of_the_results_are_chosen',
    '--export-fmriprep': (
        'workflows/test_fmriprep_export.py::test_a_run_exports_what_was_finished_before_too'
    ),
    '--export-dir': 'workflows/test_fmriprep_export.py::test_the_export_lies_where_it_is_wanted',
    '--reports-only': 'test_app.py::test_pages_are_made_again_without_the_input',
    '--report-3d': 'workflows/test_reporting.py::test_volumes_are_put_in_on_request',
    '--aggregate-session-reports': (
        'workflows/test_reporting.py::test_sessions_are_split_when_they_are_many'
    ),
    '--device': 'test_options.py::test_method_model_and_device_reach_the_node',
    '--nprocs': 'test_options.py::test_processes_threads_and_memory',
    '--omp-nthreads': 'test_options.py::test_processes_threads_and_memory',
    '--mem': 'test_options.py::test_processes_threads_and_memory',
    '--mem-gb': 'test_options.py::test_processes_threads_and_memory',
    '--low-mem': (
        'test_options.py::test_less_memory_is_a_fresh_process_for_each_step_and_few_slices'
    ),
    '--step-timeout': 'faults/test_workers.py::test_a_step_that_hangs_is_stopped_and_the_others_go_on',
    '--use-plugin': 'test_options.py::test_a_plugin_file_takes_the_place_of_our_plugin',
    '--resource-monitor': 'test_options.py::test_resources_are_watched_when_asked_for',
    '--verbose': 'test_options.py::test_what_the_nodes_say_comes_with_vv',
    '--config-file': (
        'test_options.py::test_settings_of_an_earlier_run_come_back_and_what_is_given_wins'
    ),
    '--work-dir': (
        'test_options.py::test_scratch_lies_where_it_is_wanted_and_is_emptied_when_asked_for'
    ),
    '--clean-workdir': (
        'test_options.py::test_scratch_lies_where_it_is_wanted_and_is_emptied_when_asked_for'
    ),
    '--keep-workdir': ('test_options.py::test_scratch_of_a_written_session_is_kept_when_asked_for'),
    '--random-seed': 'test_options.py::test_the_seed_reaches_the_samplers',
    '--sloppy': 'test_options.py::test_bias_fields_are_left_where_they_are',
    '--dry-run': 'test_options.py::test_a_dry_run_tells_the_cost_by_the_sizes_of_the_scans',
    '--write-graph': 'test_options.py::test_the_graph_is_drawn_into_the_logs',
    '--stop-on-first-crash': ('test_options.py::test_the_first_crash_stops_the_run_when_asked_for'),
    '--overwrite': 'test_options.py::test_what_is_there_is_left_or_computed_again',
    '--skip-existing': 'test_options.py::test_what_is_there_is_left_or_computed_again',
    '--batch-size': 'test_options.py::test_slices_at_a_time',
    '--task': 'test_options.py::test_the_task_is_what_the_group_level_does',
    '--phantom': 'workflows/test_model_making.py::test_haca3_learns_from_scans_and_phantom',
    '--biology': 'workflows/test_model_making.py::test_imunity_keeps_biology_and_is_fitted_to_a_site',
    '--site': 'workflows/test_model_making.py::test_styles_are_kept_beside_the_old_ones',
    '--n': 'workflows/test_synthesis.py::test_slices_are_made_and_compared_with_those_of_the_site',
    '--model-out': 'workflows/test_model_making.py::test_haca3_learns_from_scans_and_phantom',
    '--minutes': 'test_options.py::test_the_budget_of_a_training_is_what_was_given',
    '--steps': 'test_options.py::test_the_budget_of_a_training_is_what_was_given',
    '--patience': 'test_options.py::test_the_budget_of_a_training_is_what_was_given',
    '--precision': 'test_options.py::test_the_budget_of_a_training_is_what_was_given',
}
"""The test that shows what an option does: file and function."""

SETTINGS = {
    '--participant-label': 'participants',
    '--session-label': 'sessions',
    '--use-plugin': 'plugin_file',
    '--n': 'count',
    '--verbose': '-vv',
}
"""What a test may name instead, where the setting or the short option is called otherwise."""

OPTIONS = sorted(option_of(a) for a in make_parser()._actions if a.option_strings)


@cache
def functions(file):
    """Source of each function of a test file, decorators included, and of its fixtures."""
    text = (TESTS / file).read_text()
    lines = text.splitlines()
    found = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.FunctionDef):
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            found[node.name] = '\n'.join(lines[first - 1 : node.end_lineno])
    return found


@pytest.mark.parametrize('option', OPTIONS)
def test_an_option_has_a_test_of_its_effect(option):
    assert option in PROOFS, f'no test shows what {option} does: write one, and name it in PROOFS'
    file, _, name = PROOFS[option].partition('::')
    assert (TESTS / file).is_file(), file
    assert name in functions(file), f'{file} has no {name}'
    source = functions(file)[name]
    words = {option, option.strip('-').replace('-', '_'), SETTINGS.get(option, option)}
    told = any(re.search(rf'(?<![\w-]){re.escape(word)}(?![\w-])', source) for word in words)
    assert told, f'{name} does not name {option}'
    assert 'assert' in source or 'raises' in source


def test_no_proof_is_of_an_option_that_is_gone():
    assert set(PROOFS) <= set(OPTIONS)


def test_the_guide_explains_every_option():
    """A row of docs/usage.md for each option, with all its spellings but the underscores."""
    guide = (TESTS.parent / 'docs' / 'usage.md').read_text()
    cells = [line.split('|')[1] for line in guide.splitlines() if line.startswith('| `-')]
    rows = [set(re.findall(r'(?<![\w-])--?[a-z][a-z0-9-]*', cell)) for cell in cells]
    told = set().union(*rows)
    for action in make_parser()._actions:
        names = {name for name in action.option_strings if '_' not in name}
        assert not names or any(names <= row for row in rows), f'docs/usage.md lacks {names}'
    known = {name for action in make_parser()._actions for name in action.option_strings}
    assert told - {'-vv', '-vvv'} <= known


def test_the_page_of_help_fits_and_teaches(monkeypatch):
    monkeypatch.setenv('COLUMNS', '200')
    text = make_parser().format_help()
    assert max(map(len, text.splitlines())) <= 100
    assert text.count('\n  harmony-app ') >= 5
    assert 'docs/usage.md' in text
    groups = re.findall(r'^(Options .*|Other options):$', text, re.M)
    assert groups[0] == 'Options for filtering BIDS queries'
    assert len(groups) >= 7
    for action in make_parser()._actions:
        assert action.help, action.dest
