"""The key tests fail where what they guard is broken: each breaks one line and runs one test."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]

QUICK = (
    (
        'weights of another hash',
        'methods.model_folder',
        "!= metadata.get('weights_sha256')",
        "== 'never'",
        'methods/test_model_folder.py::test_a_single_changed_byte_is_found',
    ),
    (
        'slope and intercept ignored',
        'imaging.io',
        "image.get_fdata(dtype=np.float32, caching='unchanged')",
        'image.dataobj.get_unscaled().astype(np.float32)',
        'imaging/test_io.py::test_every_number_type_and_scale_is_read',
    ),
    (
        'affine of the file for that of RAS',
        'imaging.io',
        'affine @ inv_ornt_aff(orientation, shape),',
        'affine,',
        'imaging/test_io.py::test_reorientation_keeps_every_voxel_where_it_is',
    ),
)

LONG = (
    (
        'qform not that of the input',
        'imaging.io',
        '    header.extensions.clear()',
        "    header.extensions.clear(); header['qoffset_x'] += 1",
        'imaging/test_io.py::test_native_round_trip_is_bit_for_bit',
    ),
    (
        'slope ignored in a run',
        'imaging.io',
        "image.get_fdata(dtype=np.float32, caching='unchanged')",
        'image.dataobj.get_unscaled().astype(np.float32)',
        'faults/test_geometry.py::test_numbers_and_files_change_no_voxel',
    ),
    (
        'plain writing',
        'bids.atomic',
        '    with atomic_path(path) as temporary:\n        temporary.write_bytes(',
        '    with atomic_path(path.with_name("x")), path.open("wb") as temporary:\n        temporary.write(',
        'faults/test_writes.py::test_a_write_that_fails_leaves_what_was_there',
    ),
    (
        'no fsync',
        'bids.atomic',
        '            os.fsync(written.fileno())',
        '            pass',
        'faults/test_writes.py::test_a_file_goes_to_the_disk_before_it_gets_its_name',
    ),
    (
        'results written where they are seen',
        'bids.publish',
        '            yield folder\n',
        '            yield Path(root)\n',
        'bids/test_publish.py::test_what_fails_halfway_is_not_seen',
    ),
    (
        'half-replaced results taken for whole',
        'bids.publish',
        " or 'unfinished' in marker",
        '',
        'faults/test_writes.py::test_results_of_other_settings_that_were_half_replaced_are_not_taken_for_whole',
    ),
    (
        'results of other settings taken for these',
        'bids.publish',
        "digest not in (None, marker.get('digest'))",
        'False',
        'bids/test_publish.py::test_a_session_is_finished_when_whole_and_of_these_settings',
    ),
    (
        'no lock',
        'bids.locks',
        '            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)',
        '            pass',
        'faults/test_writes.py::test_two_runs_of_one_command_at_once',
    ),
    (
        'headers believed',
        'imaging.headers',
        '    if voxels * size > held:',
        '    if False:',
        'faults/test_fuzz_images.py::test_a_header_that_promises_more_than_there_is',
    ),
    (
        'free text passed on',
        'imaging.io',
        "            header[field] = b''",
        '            pass',
        'faults/test_fuzz_images.py::test_free_text_of_a_header_goes_no_further',
    ),
    (
        'an address passed on',
        'bids.derivatives',
        "    'InstitutionName',\n    'BodyPart',\n",
        "    'InstitutionName',\n    'InstitutionAddress',\n    'BodyPart',\n",
        'faults/test_privacy.py::test_nothing_that_is_not_listed_is_passed_on',
    ),
    (
        'networks of any size made',
        'methods.model_folder',
        '        if asked > given:',
        '        if False:',
        'faults/test_fuzz_texts.py::test_networks_larger_than_their_weights_are_not_made',
    ),
    (
        'Ctrl-C taken for a failure of the step',
        'workflows.plugin',
        '                if interrupts:',
        '                if False:',
        'faults/test_writes.py::test_asked_to_end',
    ),
    (
        'neighbours of a killed worker lost',
        'workflows.workers',
        '        if len(lost) == 1:\n            ((number, _),) = lost.items()\n',
        '        for number in lost:\n',
        'faults/test_workers.py::test_a_killed_worker_costs_nothing_that_ran_beside_it',
    ),
    (
        'another device in silence',
        'workflows.device_memory',
        '    if falls_back:',
        '    if True:',
        'faults/test_device_memory.py::test_a_device_that_was_asked_for_is_never_left_in_silence',
    ),
)

CASES = [pytest.param(*case[1:], id=case[0]) for case in QUICK]
CASES += [pytest.param(*case[1:], id=case[0], marks=pytest.mark.faults) for case in LONG]


@pytest.mark.parametrize('module, old, new, test', CASES)
def test_a_key_test_fails_where_its_line_is_broken(tmp_path, module, old, new, test):
    mutant = json.dumps({'module': f'harmony_app.{module}', 'old': old, 'new': new})
    places = (ROOT, HERE / 'mutant')
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'pytest', '-q', '-x', '-p', 'mutant', '-p', 'no:cacheprovider'),
            *('-p', 'no:xdist', '--basetemp', str(tmp_path / 'base')),
            str(ROOT / 'tests' / test),
        ],
        env=os.environ
        | {'HARMONY_MUTANT': mutant, 'PYTHONPATH': os.pathsep.join(map(str, places))},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    # 1 is that of tests that ran and failed; 2 and above mean that they did not run.
    assert done.returncode == 1, done.stdout + done.stderr
    assert ' failed' in done.stdout
    assert 'does not hold the line' not in done.stdout + done.stderr
    assert ' error' not in done.stdout.splitlines()[-1], done.stdout
