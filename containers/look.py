"""Look at an image from inside: all that is needed is there, and nothing else."""

import importlib.metadata
import json
import os
import re
import site
import socket
import sys
from hashlib import sha256
from pathlib import Path

APP = Path('/opt/harmony-app')
UNWANTED = {'pip', 'pytest', 'pytest-xdist', 'hypothesis', 'ruff', 'bids-validator-deno'}


def key(name):
    """Name of a package as all its spellings have it."""
    return re.sub(r'[-_.]+', '-', name).lower()


problems = []
pins = {}
for line in (APP / 'constraints.txt').read_text().splitlines():
    if line and not line.startswith('#'):
        name, _, pin = line.partition('==')
        pins[key(name)] = pin
found = {key(d.metadata['Name']): d.version for d in importlib.metadata.distributions()}
for name, version in sorted(found.items()):
    if name in UNWANTED:
        problems.append(f'{name} is in the image')
    if name not in ('harmony-app', 'setuptools') and pins.get(name) != version.partition('+')[0]:
        problems.append(f'{name} {version} is not pinned: {pins.get(name)}')

if site.ENABLE_USER_SITE:
    problems.append('packages of the user would be imported')
if 'HOME' in os.environ:
    problems.append('HOME is set')
if len(socket.if_nameindex()) > 1:
    problems.append('there is a network')
for place in ('/', '/opt/venv', '/opt/harmony-app', '/var/tmp', '/data'):
    if os.access(place, os.W_OK):
        problems.append(f'{place} can be written')

models = sorted(APP.glob('harmony_app/weights/*/model.json'))
if not models:
    problems.append('there is no model')
for model in models:
    told = json.loads(model.read_text())['weights_sha256']
    weights = model.with_name('weights.safetensors').read_bytes()
    if sha256(weights).hexdigest() != told:
        problems.append(f'the weights of {model.parent.name} are not those of its model.json')

for folder in (APP, Path(site.getsitepackages()[0])):
    for path in folder.rglob('*'):
        if not path.is_symlink() and not os.access(path, os.R_OK):
            problems.append(f'{path} cannot be read by uid {os.getuid()}')
    sources = [p for p in folder.rglob('*.py') if 'harmony_app' in p.parts or p.parent == folder]
    for path in sources:
        compiled = path.parent / '__pycache__' / f'{path.stem}.{sys.implementation.cache_tag}.pyc'
        if path.name != 'run.py' and not compiled.is_file():
            problems.append(f'{path} is not compiled')

from harmony_app import __version__  # noqa: E402
from harmony_app.imaging.template import load_template  # noqa: E402

if (APP / 'version').read_text().strip() != __version__:
    problems.append('the version is not that of the file')
load_template()
if problems:
    sys.exit('\n'.join(problems))
sys.stdout.write(
    f'harmony-app {__version__}, Python {sys.version.split()[0]}, torch {found["torch"]}, '
    f'{len(found)} packages, models {", ".join(m.parent.name for m in models)}\n'
)
