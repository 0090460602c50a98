"""What can be seen of the images without building them; containers/check.sh builds them."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

import harmony_app

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / 'Dockerfile').read_text()
RECIPE = (ROOT / 'Singularity.def').read_text()
INSTALL = (ROOT / 'containers' / 'install.sh').read_text()


def instructions():
    """Instructions of the Dockerfile, one string each."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.startswith('#')]
    return [line for line in re.sub(r'\\\n', ' ', '\n'.join(lines)).splitlines() if line]


def stages():
    """Instructions of each stage by its name, the last one under ``final``."""
    found = {}
    for line in instructions():
        if match := re.match(r'FROM \S+(?: AS (\S+))?$', line):
            own = found.setdefault(match[1] or 'final', [])
        elif found:
            own.append(line)
    return found


def section(name):
    """Lines of a section of Singularity.def."""
    return re.search(rf'^%{name}\n(.*?)(?=^%|\Z)', RECIPE, re.M | re.S)[1]


def settings_of(instruction, lines):
    """NAME=VALUE pairs of ENV or LABEL."""
    words = [w for line in lines if line.startswith(instruction) for w in shlex.split(line)[1:]]
    return dict(word.split('=', 1) for word in words)


def test_what_is_built_from_is_let_through():
    needed = set(re.findall(r'for name in (.+); do', INSTALL)[0].split())
    needed |= set(re.findall(r'for name in (.+); do', INSTALL)[1].split())
    needed |= {'containers', 'constraints.txt'}
    ignored = (ROOT / '.dockerignore').read_text().splitlines()
    # All else stays out: git's own files, tests, environments, results of a demo.
    assert ignored[0] == '*'
    allowed = {line[1:] for line in ignored if line.startswith('!')}
    # A change of what checks the image is none of the image.
    assert allowed == needed - {'containers'} | {'containers/install.sh'}
    assert '**/__pycache__' in ignored
    copied = dict(line.split() for line in section('files').splitlines() if line.strip())
    assert copied == {name: f'/opt/source/{name}' for name in needed}
    for name in needed:
        assert (ROOT / name).exists(), name


def test_both_images_are_made_by_the_same_script():
    ran = [line for lines in stages().values() for line in lines if line.startswith('RUN')]
    assert ran == [
        f'RUN /opt/source/containers/install.sh {step} /opt/source /opt/venv /opt/harmony-app'
        for step in ('dependencies', 'app')
    ]
    assert 'install.sh "$step" /opt/source /opt/venv /opt/harmony-app' in section('post')
    assert 'for step in dependencies app' in section('post')
    # Layers of an image never shrink; one image of Singularity has a single one.
    assert 'rm -r /opt/source' in section('post')


def test_code_does_not_renew_the_layer_of_the_dependencies():
    own = stages()
    copied = [line for line in own['dependencies'] if line.startswith('COPY')]
    assert copied == [
        'COPY pyproject.toml constraints.txt /opt/source/',
        'COPY containers/install.sh /opt/source/containers/',
    ]
    final = [line for line in own['final'] if line.startswith(('COPY', 'RUN', 'ADD'))]
    assert final == [
        'COPY --from=dependencies /opt/venv /opt/venv',
        'COPY --from=app /opt/harmony-app /opt/harmony-app',
    ]
    # An argument that is another each time comes after them.
    assert own['final'].index('ARG REVISION=') > own['final'].index(final[1])


def test_mirrors_and_the_build_of_torch_are_arguments_of_every_step_that_installs():
    own = stages()
    for name in ('dependencies', 'app'):
        arguments = {line.split()[1].split('=')[0] for line in own[name] if line.startswith('ARG')}
        assert {'PIP_INDEX_URL', 'PIP_EXTRA_INDEX_URL', 'PIP_FIND_LINKS', 'PIP_CERT'} <= arguments
    assert 'ARG TORCH_BUILD=' in own['dependencies']
    assert not [line for line in own['final'] if 'PIP_' in line]


def test_everything_is_pinned_and_nothing_of_the_tests_is_installed():
    assert '--constraint "$source_tree/constraints.txt"' in INSTALL
    assert "project['optional-dependencies']['training']" in INSTALL
    assert "['test']" not in INSTALL


def test_both_images_set_the_same_environment():
    docker = settings_of('ENV', stages()['final'])
    exports = re.findall(r'^    export (.+)$', section('environment'), re.M)
    recipe = dict(shlex.split(line)[0].split('=', 1) for line in exports)
    assert docker.pop('HARMONY_CONTAINER_TYPE') == 'docker'
    assert recipe.pop('HARMONY_CONTAINER_TYPE') == 'singularity'
    # The tag is that of the version, which only a recipe can read from a file.
    assert docker.pop('HARMONY_CONTAINER_TAG') == 'harmony-app:${VERSION}'
    assert recipe.pop('HARMONY_CONTAINER_TAG') == 'harmony-app:$(cat /opt/harmony-app/version)'
    assert docker.pop('USER') == 'harmony'
    assert recipe.pop('USER') == '${USER:-harmony}'
    # Only docker needs to be told to show the accelerators; apptainer has --nv.
    assert docker.pop('NVIDIA_VISIBLE_DEVICES') == 'all'
    assert docker.pop('NVIDIA_DRIVER_CAPABILITIES') == 'compute,utility'
    assert docker == recipe
    assert docker['PYTHONNOUSERSITE'] == docker['NO_ET'] == '1'
    assert 'unset PYTHONPATH PYTHONHOME' in section('environment')


def test_both_images_run_the_same_program():
    program = ['/opt/venv/bin/python', '/opt/harmony-app/run.py']
    assert f'ENTRYPOINT {str(program).replace(chr(39), chr(34))}' in stages()['final']
    assert section('runscript').strip() == f'exec {" ".join(program)} "$@"'
    assert 'USER 10001:10001' in stages()['final']


def test_labels_say_what_it_is():
    docker = settings_of('LABEL', stages()['final'])
    recipe = dict(line.split(maxsplit=1) for line in section('labels').splitlines() if line.strip())
    prefix = 'org.opencontainers.image.'
    assert docker[f'{prefix}version'] == '${VERSION}'
    assert f'ARG VERSION={harmony_app.__version__}' in stages()['final']
    assert f'{prefix}version $(cat /opt/harmony-app/version)' in section('post')
    for name in ('title', 'description', 'licenses'):
        assert docker[f'{prefix}{name}'] == recipe[f'{prefix}{name}']
    assert f'license: {docker[prefix + "licenses"]}' in (ROOT / 'CITATION.cff').read_text()


@pytest.mark.parametrize('name', ('install.sh', 'check.sh'))
def test_scripts_can_be_read(name):
    shell = 'sh' if name == 'install.sh' else 'bash'
    path = ROOT / 'containers' / name
    subprocess.run([shell, '-n', path], check=True)


def test_a_step_that_does_not_exist_is_refused(tmp_path):
    script = ROOT / 'containers' / 'install.sh'
    result = subprocess.run(
        [script, 'all', ROOT, tmp_path / 'venv', tmp_path / 'app'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert 'give dependencies or app' in result.stderr
    assert not (tmp_path / 'venv').exists()
