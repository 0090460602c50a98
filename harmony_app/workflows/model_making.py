"""What the tasks of the group level that make models share: folders, lineage, styles."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.config import RunConfig
from harmony_app.errors import ModelError, OptionError
from harmony_app.methods.base import Style
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import packaged_model
from harmony_app.training.monitor import EXAMPLES, LOG, VALIDATION_LOG


def folder_to_write(config: RunConfig, name: str) -> Path:
    """Model folder of ``--model-out``, or ``models/NAME`` of the results.

    Raises
    ------
    OptionError
        Where a model lies there already.
    """
    folder = config.model_out or config.output_dir / 'models' / plain_name(name)
    if (folder / 'model.json').exists() and not config.overwrite:
        raise OptionError(
            f'{folder} holds a model already: give --model-out FOLDER, or --overwrite to replace it'
        )
    return folder


def parent_model(config: RunConfig) -> tuple[Path, dict]:
    """Model folder to start from, ``--model`` or the packaged one, and its ``model.json``.

    Raises
    ------
    ModelError
        Where it is absent or of another method.
    """
    folder = config.model or packaged_model(config.method)
    metadata = read_metadata(folder)
    if metadata['method'] != config.method:
        raise ModelError(
            f'--model {folder} is a model of {metadata["method"]}: give --method '
            f'{metadata["method"]}, or a model of {config.method}'
        )
    return folder, metadata


def with_lineage(metadata: Mapping, entry: Mapping) -> dict:
    """Metadata of a model that was made of another one, which is told in ``lineage``.

    Parameters
    ----------
    metadata : mapping
        Of the parent, as read.
    entry : mapping
        What was done; hash and version of the parent are added.
    """
    own = dict(metadata)
    parent = {'parent_sha256': own.pop('weights_sha256', ''), 'version': __version__}
    return own | {'lineage': [*own.get('lineage', []), parent | dict(entry)]}


def merge_styles(old: Sequence[Mapping], new: Sequence[Style]) -> list[dict]:
    """Styles for ``model.json``: a new one takes the place of an old one of its name and contrast."""
    replaced = {(style.name, style.contrast) for style in new}
    kept = [dict(s) for s in old if (s.get('name'), s.get('contrast')) not in replaced]
    return kept + [style.to_dict() for style in new]


def keep_tables(run: Path, folder: Path) -> None:
    """Copy the curves and pictures of a training into its model folder."""
    target = folder / 'training'
    for name in (LOG, VALIDATION_LOG, EXAMPLES):
        if (run / name).exists():
            target.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(run / name, target / name)


def plain_name(name: str) -> str:
    """Name that any file system takes."""
    return ''.join(c if c.isalnum() or c in '-_.+' else '-' for c in name).strip('.') or 'model'
