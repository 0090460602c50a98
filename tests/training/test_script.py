"""How command lines of training end."""

import pytest

from harmony_app.errors import ExitCode, InputError
from harmony_app.training.haca3_weights import main
from harmony_app.training.script import run_script


def test_an_input_that_is_absent_ends_a_command_with_its_message_and_code(capsys, tmp_path):
    absent = tmp_path / 'best.safetensors'
    with pytest.raises(SystemExit) as end:
        run_script(lambda: main([str(absent), str(tmp_path / 'model')]))
    assert end.value.code == ExitCode.NO_INPUT
    told = capsys.readouterr().err
    assert told.startswith('error: ')
    assert str(absent) in told
    with pytest.raises(InputError):
        main([str(absent), str(tmp_path / 'model')])


def test_a_command_that_succeeds_ends_without_a_code():
    assert run_script(lambda: None) is None
