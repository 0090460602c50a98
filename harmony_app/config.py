"""The settings of a run: one frozen record, saved as TOML beside the results."""

import hashlib
import json
import os
import platform
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from harmony_app import __version__
from harmony_app.errors import OptionError
from harmony_app.imaging.grid import SPACES
from harmony_app.methods.base import CONTRASTS

PACKAGES = (
    'antspyx',
    'nibabel',
    'nilearn',
    'nipype',
    'numpy',
    'pandas',
    'pybids',
    'safetensors',
    'scipy',
    'torch',
)
"""Packages whose versions are recorded."""

DEFAULT_SEED = 20231

DEFAULT_AGGREGATE = 4
"""Sessions of one report, at most; with more, every session has a page of its own."""

TASKS = ('report', 'evaluate', 'train', 'adapt', 'styles', 'synthesize')
"""What the group level can do; the first is the default."""


SUPER_RESOLUTION = ('auto', 'on', 'off')
"""Which slices are divided into thin ones: those above 2.5 mm, all that can be, none."""

IGNORABLE = ('bias-field', 'brain-mask')
"""What ``--ignore`` can leave out."""


@dataclass(frozen=True)
class RunConfig:
    """Everything a run was asked to do.

    Parameters
    ----------
    bids_dir, output_dir : Path
        Input dataset and results.
    analysis_level : str
        ``participant`` or ``group``.
    task : str
        What the group level does, one of :data:`TASKS`.
    participants, sessions : tuple of str
        Labels without prefix; empty for all.
    modalities : tuple of str
        Contrasts to harmonize, or to gather and evaluate.
    bids_filter_file : Path or None
        JSON with filters by contrast.
    skip_bids_validation : bool
        Whether the dataset description is taken as it is.
    bids_database_dir : Path or None
        Folder in which PyBIDS keeps its index of the dataset.
    bids_database_wipe : bool
        Whether that index is made anew.
    derivatives : dict of str to Path
        Datasets with masks or transforms already there, by name.
    method : str
        Name of the method.
    model : Path or None
        Model folder; None for the packaged one.
    target : tuple of str
        Targets as given, each with or without ``CONTRAST=`` in front; empty for the default styles.
    detail, fusion, noise : str or None
        Settings of methods that take them.
    site_average : str
        Whose averages of a scan's own site are taken: ``auto``, ``dataset`` or ``off``.
    super_resolution : str
        Which slices are divided into thin ones, one of :data:`SUPER_RESOLUTION`.
    impute : tuple of str
        Contrasts to make where they were not acquired.
    include_contrast_enhanced : bool
        Whether scans with ``ce-`` are harmonized.
    skull_strip : str
        Whether scans are bare brains: ``auto`` (it is seen), ``skip`` (they are), ``force`` (none is).
    ignore : tuple of str
        What is left out, of :data:`IGNORABLE`.
    output_spaces : tuple of str
        Grids that images are written on, of :data:`SPACES`.
    export_fmriprep : bool
        Whether the results are written once more, as fMRIPrep takes derivatives.
    export_dir : Path or None
        Where to; None for a folder of the results.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
    nprocs, omp_nthreads : int
        Processes at a time, and threads of each.
    memory_gb : float or None
        Memory that the nodes may take together; None for what is there.
    low_mem : bool
        Whether time is given for memory: small batches, a fresh process for each step.
    step_timeout : float
        Minutes after which a step counts as hanging; 0 for no limit.
    plugin_file : Path or None
        YAML with Nipype's plugin and its arguments.
    resource_monitor : bool
        Whether processor and memory of each step are measured.
    work_dir : Path
        Scratch.
    clean_workdir, keep_workdir, sloppy, dry_run, write_graph, stop_on_first_crash : bool
        As on the command line.
    overwrite, skip_existing : bool
        As on the command line.
    phantom : Path or None
        YAML of the phantom to train on.
    biology : tuple of str
        Columns of participants.tsv that a training is to keep.
    site : str or None
        Site to adapt to, to measure or to make slices of; None for every site.
    count : int
        Slices to make.
    model_out : Path or None
        Model folder to write; None for one in ``models`` of the results.
    minutes : float or None
        Budget of a training; None for the default of the method, as for those that follow.
    steps, batch_size, patience : int or None
        Budget in steps, examples of a step, validations without a better one. Where scans are
        harmonized, ``batch_size`` is the slices that go through a network at a time.
    precision : str
        ``auto``, ``float32`` or ``bfloat16``.
    random_seed : int
        Seed of everything that draws.
    verbose : int
        How often ``-v`` was given.
    reports_only : bool
        Whether pages are made of the results that are there, and nothing else is done.
    report_3d : bool
        Whether pages have a view in three dimensions.
    aggregate_session_reports : int
        Sessions of one page, at most.
    """

    bids_dir: Path
    output_dir: Path
    analysis_level: str = 'participant'
    task: str = 'report'
    participants: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    modalities: tuple[str, ...] = CONTRASTS
    bids_filter_file: Path | None = None
    skip_bids_validation: bool = False
    bids_database_dir: Path | None = None
    bids_database_wipe: bool = False
    derivatives: Mapping[str, Path] = field(default_factory=dict)
    method: str = 'transfer'
    model: Path | None = None
    target: tuple[str, ...] = ()
    detail: str | None = None
    fusion: str | None = None
    noise: str | None = None
    site_average: str = 'auto'
    super_resolution: str = 'auto'
    impute: tuple[str, ...] = ()
    include_contrast_enhanced: bool = False
    skull_strip: str = 'auto'
    ignore: tuple[str, ...] = ()
    output_spaces: tuple[str, ...] = SPACES
    export_fmriprep: bool = False
    export_dir: Path | None = None
    device: str = 'auto'
    nprocs: int = 1
    omp_nthreads: int = 1
    memory_gb: float | None = None
    low_mem: bool = False
    step_timeout: float = 240.0
    plugin_file: Path | None = None
    resource_monitor: bool = False
    work_dir: Path = Path('work')
    clean_workdir: bool = False
    keep_workdir: bool = False
    phantom: Path | None = None
    biology: tuple[str, ...] = ()
    site: str | None = None
    count: int = 20
    model_out: Path | None = None
    minutes: float | None = None
    steps: int | None = None
    batch_size: int | None = None
    patience: int | None = None
    precision: str = 'auto'
    random_seed: int = DEFAULT_SEED
    sloppy: bool = False
    dry_run: bool = False
    write_graph: bool = False
    stop_on_first_crash: bool = False
    overwrite: bool = False
    skip_existing: bool = False
    verbose: int = 0
    reports_only: bool = False
    report_3d: bool = False
    aggregate_session_reports: int = DEFAULT_AGGREGATE

    def result_settings(self) -> dict:
        """The settings that change voxels, and nothing else (no folders, no resources)."""
        names = ('method', 'target', 'detail', 'fusion', 'noise', 'site_average', 'random_seed')
        names += ('super_resolution',)
        settings = {name: _plain(getattr(self, name)) for name in names} | {
            'impute': sorted(self.impute),
            'sloppy': self.keeps_bias,
            'version': __version__,
        }
        # Named where they are not the usual ones: results from before these options stay finished.
        for name in ('skull_strip', 'output_spaces'):
            if getattr(self, name) != type(self).__dataclass_fields__[name].default:
                settings[name] = _plain(getattr(self, name))
        return settings

    @property
    def keeps_bias(self) -> bool:
        """Whether bias fields are left where they are."""
        return self.sloppy or 'bias-field' in self.ignore

    def to_toml(self, environment: Mapping | None = None) -> str:
        """The record as TOML, with what it ran on.

        Parameters
        ----------
        environment : mapping, optional
            Versions, machine, model; written to the table ``environment``.
        """
        tables: dict[str, dict] = {'run': {}}
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None:
                continue
            if isinstance(value, Mapping):
                tables[item.name] = {str(k): _plain(v) for k, v in value.items()}
            else:
                tables['run'][item.name] = _plain(value)
        if environment:
            tables['environment'] = {
                key: value for key, value in environment.items() if value is not None
            }
        return write_toml(tables)

    @classmethod
    def from_toml(cls, text: str) -> 'RunConfig':
        """Inverse of :meth:`to_toml`.

        Raises
        ------
        OptionError
            Where the text is not such a record.
        """
        try:
            tables = tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise OptionError(f'the configuration is not TOML: {error}') from error
        given = dict(tables.get('run', {}))
        if 'derivatives' in tables:
            given['derivatives'] = tables['derivatives']
        hints = typing.get_type_hints(cls)
        unknown = sorted(set(given) - set(hints))
        if unknown:
            raise OptionError(f'the configuration has unknown settings: {", ".join(unknown)}')
        restored = {}
        for name, value in given.items():
            try:
                restored[name] = _restore(value, hints[name])
            except (TypeError, ValueError, AttributeError) as error:
                raise OptionError(f'the configuration: {name} cannot be {value!r}') from error
        missing = sorted({'bids_dir', 'output_dir'} - set(restored))
        if missing:
            raise OptionError(f'the configuration lacks {" and ".join(missing)}')
        return cls(**restored)


def describe_environment() -> dict:
    """Versions, interpreter and machine, as flat entries for TOML (no host name, no user)."""
    described = {
        'harmony_app': __version__,
        'python': platform.python_version(),
        'system': platform.system(),
        'machine': platform.machine(),
        'cpus': len(os.sched_getaffinity(0))
        if hasattr(os, 'sched_getaffinity')
        else os.cpu_count(),
    }
    for package in PACKAGES:
        try:
            described[package] = version(package)
        except PackageNotFoundError:
            described[package] = 'absent'
    return described


def digest(fields_: Mapping) -> str:
    """Short hash of plain data, the same in each process and for any order of keys."""
    text = json.dumps(fields_, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_toml(tables: Mapping[str, Mapping]) -> str:
    """Tables of plain values as TOML.

    Examples
    --------
    >>> print(write_toml({'run': {'seed': 1, 'labels': ['01'], 'sloppy': False}}), end='')
    [run]
    seed = 1
    labels = ["01"]
    sloppy = false
    """
    blocks = []
    for name, table in tables.items():
        lines = [f'[{name}]'] + [f'{_key(k)} = {_toml(v)}' for k, v in table.items()]
        blocks.append('\n'.join(lines) + '\n')
    return '\n'.join(blocks)


def _plain(value):
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _restore(value, hint):
    """A TOML value as the type that the field has; TypeError for one of another type."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
    origin = typing.get_origin(hint)
    if hint is Path:
        return Path(_of(str, value))
    if hint is float:
        return float(_of(int | float, value))
    if origin is tuple:
        return tuple(_of(str, item) for item in _of(list, value))
    if origin is not None and issubclass(origin, Mapping):
        return {name: Path(_of(str, path)) for name, path in _of(dict, value).items()}
    return _of(hint, value)


def _of(kind: type, value):
    """A value that has to be of a type; a truth value is no number."""
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise TypeError(f'{value!r} is not of {kind}')
    return value


def _key(name: str) -> str:
    bare = name and all(c.isascii() and (c.isalnum() or c in '_-') for c in name)
    return name if bare else _toml(name)


def _toml(value) -> str:
    if isinstance(value, bool):
        return 'true' if value else 'false'
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return '[' + ', '.join(_toml(item) for item in value) + ']'
    # A JSON string is a TOML basic string but for the DEL character.
    return json.dumps(str(value), ensure_ascii=False).replace('\x7f', '\\u007f')
