"""What can be found wrong in seconds, before anything is indexed or computed."""

import logging
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import read_json
from harmony_app.bids.discovery import ScanInput
from harmony_app.config import RunConfig
from harmony_app.errors import (
    ExitCode,
    HarmonyError,
    InputError,
    ModelError,
    OptionError,
    OutputError,
    ScanError,
    one_line,
)
from harmony_app.methods.base import Method
from harmony_app.methods.registry import get_method, method_takes, packaged_model
from harmony_app.workflows.scratch import check_owner, is_shared
from harmony_app.workflows.targets import Targets

logger = logging.getLogger('harmony_app')

LOCAL_PLUGINS = ('Linear', 'MultiProc', 'LegacyMultiProc')
"""Plugins of Nipype that run nodes on this machine."""

CLUSTER_PLUGINS = ('SLURM', 'SGE', 'PBS', 'LSF', 'OAR', 'Condor')
"""Plugins that send nodes to others. Those that send a whole graph at once (``SLURMGraph``,
``SGEGraph``, ``CondorDAGMan``) return before it has run: nothing could be told of the scans."""


LOW_BATCH = 4
"""Slices at a time with ``--low-mem``."""


class DatasetError(HarmonyError):
    """The input is a folder, but not a raw BIDS dataset."""

    exit_code = ExitCode.INVALID_BIDS


def check_dataset(root: Path, skip_validation: bool = False) -> dict:
    """Read ``dataset_description.json`` of the input.

    Raises
    ------
    InputError
        Where the folder is absent.
    DatasetError
        Where it is not a raw BIDS dataset (unless validation is skipped).
    """
    check_input_folder(root)
    path = root / 'dataset_description.json'
    advice = 'give the root of a raw BIDS dataset, or --skip-bids-validation'
    try:
        description = read_json(path)
        problem = None if isinstance(description, dict) else f'{path} is no JSON object'
    except FileNotFoundError:
        description, problem = {}, f'{root} has no dataset_description.json'
    except PermissionError as error:
        raise InputError(f'cannot read {path}: {error.strerror}') from error
    except (OSError, ValueError) as error:
        description, problem = {}, f'{path} cannot be read as JSON ({error})'
    if problem is None and not (description.get('Name') and description.get('BIDSVersion')):
        problem = f'{path} lacks Name or BIDSVersion'
    if problem is None and description.get('DatasetType', 'raw') != 'raw':
        kind = description['DatasetType']
        problem = f'{root} is a {kind} dataset, and harmony-app reads raw scans'
    if problem and not skip_validation:
        raise DatasetError(f'{problem}: {advice}')
    return description if isinstance(description, dict) else {}


def check_input_folder(root: Path) -> None:
    """Raise InputError where the input is no folder."""
    if not root.is_dir():
        raise InputError(f'{root} is no folder (bids_dir){_mount_hint(root)}')


def _mount_hint(root: Path) -> str:
    """What is most often wrong with a folder inside a container, and outside of one."""
    kind = os.environ.get('HARMONY_CONTAINER_TYPE')
    if kind == 'docker':
        return f': mount it, docker run -v /my/bids:{root}:ro ...'
    if kind:
        return f': bind it, apptainer run -B /my/bids:{root}:ro ...'
    return '; in a container, check that it is mounted'


def check_folders(config: RunConfig) -> None:
    """Refuse folders that would write into the input, and make those to write into.

    Results may lie in ``derivatives`` of the input, as fMRIPrep allows; nothing else may.

    Raises
    ------
    OptionError
        Where output or work folder lie in the input.
    OutputError
        Where one cannot be written.
    """
    folders = (config.bids_dir, config.output_dir, config.work_dir)
    for folder in folders:
        try:
            str(folder).encode()
        except UnicodeEncodeError as error:
            # Tables and sidecars could not name it.
            raise OptionError(f'{folder}: the path is not in UTF-8; rename the folder') from error
    raw, out, work = (Path(folder).resolve() for folder in folders)
    if out == raw:
        raise OptionError(
            f'output_dir is the input dataset; give another folder, '
            f'for example {config.bids_dir / "derivatives" / "harmony-app"}'
        )
    if raw in out.parents and raw / 'derivatives' not in out.parents:
        raise OptionError(
            f'output_dir {config.output_dir} lies in the input dataset; give a folder outside '
            f'it or in {config.bids_dir / "derivatives"}'
        )
    if out in raw.parents and (out / 'dataset_description.json').is_file():
        raise OptionError(f'output_dir {config.output_dir} is a dataset that holds the input')
    if work == raw or raw in work.parents:
        raise OptionError(f'--work-dir {config.work_dir} lies in the input dataset; move it out')
    if work == out:
        raise OptionError(f'--work-dir {config.work_dir} is the output folder; give another')
    if config.export_dir:
        _check_export(config.export_dir, raw, out)
    _warn_of_version(out)
    if config.resource_monitor and not os.path.exists('/proc/self/statm'):
        raise OptionError('--resource-monitor reads /proc, which this system lacks; leave it out')
    if not config.dry_run:
        _probe(config.output_dir, 'output_dir')
        _probe(config.work_dir, '--work-dir')
        check_owner(config.work_dir)
        if config.export_dir:
            _probe(config.export_dir, '--export-dir')


def check_device(device: str, plugin_file: Path | None = None) -> str:
    """Device to run on.

    Parameters
    ----------
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    plugin_file : Path, optional
        YAML with a plugin. Where it sends nodes to other machines, what this one has tells
        nothing: CUDA that is asked for is taken to be there, and ``auto`` is the CPU.

    Raises
    ------
    OptionError
        Where a device is asked for that is not there. Never a silent fallback.
    """
    if device == 'cpu':
        return 'cpu'
    if plugin_file is not None and read_plugin(plugin_file)[0] in CLUSTER_PLUGINS:
        return 'cpu' if device == 'auto' else device
    if device == 'auto' and not _may_have_gpu():
        return 'cpu'
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == 'auto':
        return 'cuda' if count else 'cpu'
    index = int(device.partition(':')[2] or 0)
    if index >= count:
        there = f'there are cuda:0 to cuda:{count - 1}' if count else 'torch finds no CUDA device'
        raise OptionError(
            f'--device {device}: {there}; give --device cpu, or start the container '
            'with --gpus all (docker) or --nv (apptainer)'
        )
    return device


def check_method(config: RunConfig) -> tuple[Path | None, str, Method]:
    """Load the method once, on the CPU, so that a bad model is found now.

    Returns
    -------
    model : Path or None
        Model folder in use.
    model_hash : str
        sha256 of its weights.
    method : Method
        The method.

    Raises
    ------
    ModelError, OptionError
        As :func:`~harmony_app.methods.registry.get_method`.
    """
    from harmony_app.methods.model_folder import read_metadata

    folder = config.model
    if folder is not None and not folder.is_dir():
        raise ModelError(f'--model {folder} is no folder; give a model folder with model.json')
    method = get_method(config.method, folder, 'cpu', **method_options(config))
    if not method.needs_training:
        folder = None
    elif folder is None:
        folder = packaged_model(config.method)
    if config.impute and not method.can_impute:
        raise OptionError(f'--impute: method {config.method} cannot make a contrast; try haca3')
    if config.target and not method.takes_target:
        raise OptionError(
            f'--target {config.target[0]}: method {config.method} brings all scans to the middle ground '
            'of the scanners that it was trained on, so there is no target to choose: leave --target out'
        )
    model_hash = read_metadata(folder).get('weights_sha256', '') if folder else ''
    return folder, model_hash, method


def check_scans(method: Method, scans: Sequence[ScanInput]) -> None:
    """Refuse a dataset of which the method can harmonize nothing; say which scans it cannot.

    Raises
    ------
    ScanError
        Where it refuses every scan: what it says of the first.
    """
    refused = []
    for scan in scans:
        try:
            method.check_scan(scan)
        except ScanError as error:
            refused.append(error)
    if refused and len(refused) == len(scans):
        raise refused[0]
    for error in refused:
        logger.warning('%s', error)


def check_measured(method: Method, targets: Targets) -> None:
    """Refuse scans as the target of a method that reaches the styles of its model alone.

    Raises
    ------
    OptionError
        With what to do instead.
    """
    if method.measures_targets or not targets.scans:
        return
    contrast = next(iter(targets.scans))
    raise OptionError(
        f'--target {targets.names[contrast]}: method {method.name} reaches the styles of its model '
        'alone, not any scan: name one of them, or fit the model to a site with harmony-app BIDS '
        f'OUT group --task adapt --method {method.name} --site NAME and give --model and '
        '--target NAME'
    )


def method_options(config: RunConfig) -> dict:
    """Settings of the method that were given on the command line."""
    options = {
        name: getattr(config, name)
        for name in ('detail', 'fusion', 'noise')
        if getattr(config, name) is not None
    }
    slices = method_takes(config.method, 'batch')
    if config.batch_size is not None and not slices:
        raise OptionError(
            f'--batch-size: method {config.method} sends no slices through a network; leave it out'
        )
    if slices and (config.batch_size or config.low_mem):
        options['batch'] = config.batch_size or LOW_BATCH
    return options


def read_plugin(path: Path) -> tuple[str, dict]:
    """Nipype plugin and its arguments from a YAML file.

    Raises
    ------
    OptionError
        Where the file cannot be read, names no plugin that can be used, or one whose commands
        are not there.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise OptionError(f'--use-plugin {path}: {error.strerror}') from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise OptionError(f'--use-plugin {path} is not YAML: {one_line(error)}') from error
    if not isinstance(content, Mapping) or not isinstance(content.get('plugin'), str):
        raise OptionError(f'--use-plugin {path} names no plugin (plugin: SLURM, plugin_args: ...)')
    name, args = content['plugin'], content.get('plugin_args') or {}
    if name not in LOCAL_PLUGINS + CLUSTER_PLUGINS:
        known = ', '.join(LOCAL_PLUGINS + CLUSTER_PLUGINS)
        raise OptionError(f'--use-plugin {path}: plugin {name} is none of {known}')
    if not isinstance(args, Mapping):
        raise OptionError(f'--use-plugin {path}: plugin_args is no mapping (sbatch_args: ...)')
    if name == 'SLURM' and not shutil.which('sbatch'):
        raise OptionError(
            f'--use-plugin {path}: sbatch is not on the PATH; start harmony-app on a node that can '
            'submit jobs (in a container there is none: send one job for each participant instead)'
        )
    return name, dict(args)


def _warn_of_version(out: Path) -> None:
    """Say that the results in a folder are of another version."""
    try:
        makers = read_json(out / 'dataset_description.json').get('GeneratedBy', [])
        versions = [m.get('Version') for m in makers if m.get('Name') == 'harmony-app']
    except (OSError, ValueError, AttributeError, TypeError):
        return
    if versions and __version__ not in versions:
        logger.warning(
            'output_dir %s holds results of harmony-app %s, and this is %s: their voxels may differ; '
            'keep one version for a study, or give another folder',
            out,
            versions[0],
            __version__,
        )


def _check_export(folder: Path, raw: Path, out: Path) -> None:
    """Refuse to export into the input or over the results."""
    export = folder.resolve()
    if export == out or export in out.parents:
        raise OptionError(f'--export-dir {folder} holds the results; give a folder of its own')
    if export == raw or (raw in export.parents and raw / 'derivatives' not in export.parents):
        raise OptionError(f'--export-dir {folder} lies in the input dataset; give another folder')


def _probe(folder: Path, what: str) -> None:
    """Make a folder and write a file there."""
    try:
        # Scratch may hold images of people: nobody else's business where everybody may look.
        mode = 0o700 if what == '--work-dir' and is_shared(folder.parent) else 0o777
        folder.mkdir(mode, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix='.probe-'):
            pass
    except OSError as error:
        raise OutputError(
            f'{what} {folder} cannot be written ({error.strerror}); choose another folder '
            '(in a container, one that is mounted for writing)'
        ) from error


def _may_have_gpu() -> bool:
    """A cheap look, so that torch is imported only where it is worth it."""
    return os.path.exists('/proc/driver/nvidia') or bool(os.environ.get('CUDA_VISIBLE_DEVICES'))
