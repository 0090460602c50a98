"""The repository keeps its own rules: one version, light imports, imports one way, no hosts."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import harmony_app

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / 'harmony_app'
VENDOR = PACKAGE / 'reports' / 'vendor'
MODULES = sorted(PACKAGE.rglob('*.py'))
HEAVY = ('torch', 'ants', 'nipype', 'nilearn', 'bids', 'pandas', 'matplotlib', 'scipy', 'skimage')

CLI = ('checks', 'descriptor', 'execution', 'help', 'reports', 'training', 'types', 'workflow')
"""Modules of the command line, all on one floor."""

FLOORS = (
    ('errors',),
    ('imaging',),
    ('engine', 'nets'),
    ('bids', 'reports', 'methods'),
    ('config', 'environment', 'logs', 'workflows'),
    ('app',),
    (*(f'cli_{part}' for part in CLI), 'cli', '__main__'),
)
"""Rooms of the house from the ground up: what is above may import what is below."""

BESIDE = ('training', 'phantom', 'evaluation')
"""Rooms that stand beside the workflow: reached from workflows and above, and by each other."""

FLOOR = {room: floor for floor, rooms in enumerate(FLOORS) for room in rooms}


@cache
def tracked_files():
    try:
        listed = subprocess.run(
            ['git', 'ls-files', '-z'], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip('not a git checkout')
    files = [ROOT / name for name in listed.stdout.split('\0') if name]
    return [path for path in files if path.is_file()]


def tracked_texts():
    for path in tracked_files():
        if VENDOR in path.parents:
            continue  # not ours: its own hash is tested
        try:
            yield path.relative_to(ROOT).as_posix(), path.read_text(encoding='utf-8')
        except UnicodeDecodeError:
            continue


@cache
def imports_of(path):
    """Modules of harmony_app that a module imports, those for type checking left out."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f'{path.relative_to(ROOT)} imports relatively'
            names |= {f'{node.module}.{alias.name}' for alias in node.names} | {node.module}
    return frozenset(names)


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix('').parts
    return '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)


def room_of(module):
    parts = module.split('.')
    return parts[1] if len(parts) > 1 else '__init__'


def test_one_version():
    version = (ROOT / 'version').read_text().strip()
    assert re.fullmatch(r'\d+\.\d+\.\d+([.-]?\w+)*', version)
    assert harmony_app.__version__ == version
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())
    assert 'version' not in project['project']
    assert project['tool']['setuptools']['dynamic']['version'] == {'file': 'version'}
    told = {
        'CITATION.cff': r'^version: (.+)$',
        'Dockerfile': r'^ARG VERSION=(.+)$',
        'CHANGES.md': r'^## (\S+)',
    }
    for name, pattern in told.items():
        assert re.search(pattern, (ROOT / name).read_text(), re.M)[1] == version, name
    try:
        assert importlib.metadata.version('harmony-app') == version
    except importlib.metadata.PackageNotFoundError:
        pass  # run from a source tree that is not installed


def test_pins_are_names_and_versions_that_fit_the_project():
    pins = {}
    for line in (ROOT / 'constraints.txt').read_text().splitlines():
        if line and not line.startswith('#'):
            name, _, pin = line.partition('==')
            assert re.fullmatch(r'[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*', line), line
            pins[name.lower().replace('_', '-')] = pin
    assert pins['torch'] == '2.13.0'
    project = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']
    for text in [*project['dependencies'], *project['optional-dependencies']['test']]:
        requirement = Requirement(text)
        assert requirement.specifier, f'{text} has no lower bound'
        assert pins[requirement.name.lower().replace('_', '-')] in requirement.specifier, text


def test_no_registry_host_and_no_path_of_a_machine():
    host = re.compile(
        r'(--(extra-)?index-url|https?://[\w.-]*(pypi|pythonhosted|npmjs|debian|pytorch)\.\w)'
    )
    # Written in two parts, so that this file does not hold what it looks for.
    machine = re.compile(
        '|'.join(('/wo' + 'rk/(main|shared)', '/ro' + 'ot/', r'/home/(?!user\b)\w'))
    )
    for name, text in tracked_texts():
        assert not (found := host.search(text)), f'{name} names a package host: {found[0]}'
        assert not (found := machine.search(text)), f'{name} names a path: {found[0]}'


def test_no_large_file():
    """What everyone clones: models are the largest, together at most 30 MB, then the 3D viewer."""
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked_files()}
    weights = sum(size for name, size in sizes.items() if '/weights/' in name)
    assert weights <= 30_000_000
    viewer = 'harmony_app/reports/vendor/niivue.umd.js'
    assert sizes[viewer] < 3_000_000
    assert (
        max(size for name, size in sizes.items() if '/weights/' not in name and name != viewer)
        < 2_000_000
    )


@pytest.mark.parametrize(
    'name', ('.ci/run', 'containers/check.sh', 'containers/install.sh', 'run.py')
)
def test_scripts_can_be_run(name):
    assert os.access(ROOT / name, os.X_OK)
    assert (ROOT / name).read_bytes().startswith(b'#!')


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_a_module_is_one_idea(path):
    lines = len(path.read_text().splitlines())
    assert lines <= 400
    assert ast.get_docstring(ast.parse(path.read_text())), 'no docstring says what it is'


@pytest.mark.parametrize('path', MODULES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_one_way(path):
    importer = room_of(name_of(path))
    for name in imports_of(path):
        if not name.startswith('harmony_app.'):
            continue
        room = room_of(name)
        if importer == '__init__':
            pytest.fail(f'the package itself imports {name}: every import would pay for it')
        if room not in FLOOR and room not in BESIDE:
            continue  # a name of the package itself, as __version__
        if importer in BESIDE:
            assert room in BESIDE or FLOOR[room] <= FLOOR['methods'], name
        elif room in BESIDE:
            assert FLOOR[importer] >= FLOOR['workflows'], name
        else:
            assert FLOOR[room] <= FLOOR[importer], name


def test_every_room_has_its_floor():
    rooms = {room_of(name_of(path)) for path in MODULES} - {'__init__'}
    assert rooms <= FLOOR.keys() | set(BESIDE)


@pytest.mark.parametrize('room', ('imaging', 'engine', 'nets', 'methods'))
def test_lower_floors_know_no_bids_and_no_nipype(room):
    for path in (PACKAGE / room).rglob('*.py'):
        outside = {name.split('.')[0] for name in imports_of(path)}
        assert not outside & {'bids', 'nipype', 'argparse'}, path


def test_no_import_circles():
    graph = {name_of(path): imports_of(path) for path in MODULES}
    graph = {name: {other for other in others if other in graph} for name, others in graph.items()}
    _assert_no_circle(graph)
    rooms = {}
    for name, others in graph.items():
        rooms.setdefault(room_of(name), set()).update(map(room_of, others))
    _assert_no_circle({room: others - {room} for room, others in rooms.items()})


def _assert_no_circle(graph):
    done, path = set(), []

    def visit(node):
        assert node not in path, f'imports in a circle: {" -> ".join([*path, node])}'
        if node in done:
            return
        path.append(node)
        for other in sorted(graph.get(node, ())):
            visit(other)
        path.pop()
        done.add(node)

    for node in sorted(graph):
        visit(node)


@pytest.mark.parametrize(
    'start',
    (
        'import harmony_app',
        'from harmony_app.cli import main',
        'import sys; sys.argv[1:] = ["--help"]; from harmony_app.cli import main; main()',
        'import sys; sys.argv[1:] = ["--version"]; from harmony_app.cli import main; main()',
        'import sys; sys.argv[1:] = ["--help"]; from harmony_app.phantom.cli import main; main()',
        'from harmony_app.methods.registry import METHOD_NAMES',
    ),
)
def test_starting_is_light(start):
    """The first answer needs no heavy library, and less than a second of the processor."""
    code = (
        'import atexit, sys, time\n'
        'def told():\n'
        f'    heavy = [name for name in {HEAVY!r} if name in sys.modules]\n'
        '    print(heavy, time.process_time(), file=sys.stderr)\n'
        'atexit.register(told)\n'
        f'{start}\n'
    )
    result = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    heavy, _, seconds = result.stderr.strip().splitlines()[-1].rpartition(' ')
    assert heavy == '[]'
    assert float(seconds) < 1


def test_links_of_the_documents_lead_somewhere():
    for path in tracked_files():
        if path.suffix != '.md':
            continue
        for link in re.findall(r'\]\(([^)\s]+)\)', path.read_text()):
            if not re.match(r'[a-z]+:|#', link):
                assert (path.parent / link.split('#')[0]).exists(), f'{path.name}: {link}'


def test_the_documents_name_only_options_that_exist():
    from harmony_app.cli import make_parser
    from harmony_app.phantom.cli import build_parser

    # of docker, apptainer and pip-audit
    known = {'--rm', '--build-arg', '--gpus', '--nv', '--no-deps', '--disable-pip'}
    for parser in (make_parser(), build_parser()):
        known |= {option for action in parser._actions for option in action.option_strings}
    for path in (ROOT / 'README.md', ROOT / 'Makefile', *sorted((ROOT / 'docs').glob('*.md'))):
        text = path.read_text()
        if path.name == 'Makefile':
            text = '\n'.join(line for line in text.splitlines() if 'BIN)/harmony' in line)
        elif path.name == 'training.md':
            scripts = ''.join(script.read_text() for script in (PACKAGE / 'training').glob('*.py'))
            others = {'--nproc-per-node', '--ntasks', '--gpus-per-task', '--gpu-bind', '--signal'}
            own = others | set(re.findall(r"add(?:_argument)?\(\s*'(--[a-z0-9-]+)'", scripts))
            text = re.sub('|'.join(f'{option}(?![a-z-])' for option in sorted(own)), '', text)
        elif path.name == 'integration.md':
            # Options of the pipelines that it leads to.
            known |= {'--subject-anatomical-reference', '--anat-only', '--output-resolution'}
        elif path.name == 'hpc.md':
            # of SLURM, apptainer and torchrun
            others = {
                '--array',
                '--partition',
                '--time',
                '--account',
                '--gres',
                '--state',
                '--bind',
            }
            others |= {'--cleanenv', '--containall', '--nv', '--nproc-per-node', '--ntasks'}
            others |= {'--gpus-per-task'} | set(re.findall(r'^#SBATCH (--[a-z-]+)', text, re.M))
            text = re.sub('|'.join(f'{option}(?![a-z-])' for option in sorted(others)), '', text)
        elif path.name == 'benchmarks.md':
            scripts = ''.join(script.read_text() for script in (ROOT / 'benchmarks').glob('*.py'))
            known |= set(re.findall(r"add_argument\(\s*'(--[a-z-]+)'", scripts))
        unknown = set(re.findall(r'(?<![\w-])--[a-z][a-z0-9_-]*', text)) - known
        assert not unknown, f'{path.name}: {sorted(unknown)}'


def test_the_readme_tells_every_method_and_the_exit_codes():
    from harmony_app.errors import ExitCode
    from harmony_app.methods.registry import METHOD_NAMES

    readme = (ROOT / 'README.md').read_text()
    guide = (ROOT / 'docs' / 'methods.md').read_text()
    for name in METHOD_NAMES:
        assert f'| `{name}`' in readme
        assert f'## {name}\n' in guide or f'- `{name}`' in guide
    rows = re.findall(r'^\| (\d+(?:, \d+)*) \|', readme, re.M)
    told = {int(code) for row in rows for code in row.split(', ')}
    # An unknown level is refused by the parser of the command line, with 2.
    assert told == {int(code) for code in ExitCode} - {int(ExitCode.UNKNOWN_LEVEL)}
