"""What a model sees between the contrasts of a study, for the page of the evaluation."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harmony_app.config import RunConfig
from harmony_app.errors import HarmonyError
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.volume import Volume
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import get_method, packaged_model
from harmony_app.reports.theta_figure import theta_figure
from harmony_app.workflows.evaluation_inputs import ResultScan

DECODING = ('haca3', 'calamiti')
"""Methods whose theta can be decoded with any anatomy."""

UNKNOWN = 'unknown site'


def theta_walks(
    config: RunConfig, scans: Sequence[ResultScan]
) -> tuple[list[tuple[bytes, str]], list[str]]:
    """Pictures of one anatomy at a lattice of thetas, as Figure 9 of CALAMITI.

    One for each contrast over the thetas of its sites, and one over those of all contrasts.

    Parameters
    ----------
    config : RunConfig
        ``model`` is taken where the results are of it, else the packaged one.
    scans : sequence of ResultScan
        The results, with thetas.

    Returns
    -------
    pictures : list of (bytes, str)
        PNG and what it shows.
    notes : list of str
        What was left out, and why.
    """
    pictures: list[tuple[bytes, str]] = []
    notes: list[str] = []
    for name in DECODING:
        own = [s for s in scans if s.quality.get('method') == name and len(s.theta) == 2]
        made = sorted({found for s in own if (found := _model_of(config, s, name))})
        if not made:
            continue
        try:
            folder = _folder(config, name, made)
            if folder is None:
                notes.append(
                    f'no images between the thetas of {name}: the results are not all of one '
                    'model that is here; name it with --model'
                )
                continue
            pictures += _walks(config, get_method(name, folder), own)
        except (HarmonyError, ValueError) as error:
            notes.append(f'no images between the thetas of {name}: {error}')
    return pictures, notes


def _walks(config: RunConfig, method, scans: Sequence[ResultScan]) -> list[tuple[bytes, str]]:
    from harmony_app.evaluation.theta_space import decode_thetas, theta_lattice

    contrasts = list(dict.fromkeys(scan.contrast for scan in scans))
    groups = {
        f'{contrast} scans by site': [
            (scan, scan.site or UNKNOWN) for scan in scans if scan.contrast == contrast
        ]
        for contrast in contrasts
    }
    if len(contrasts) > 1:
        groups['scans of all contrasts'] = [(scan, scan.contrast) for scan in scans]
    pictures = []
    for title, labelled in groups.items():
        thetas = np.array([scan.theta for scan, _ in labelled])
        lattice = theta_lattice(thetas)
        near = np.linalg.norm(thetas - np.median(thetas, axis=0), axis=1).argmin()
        source, _ = labelled[int(near)]
        data = read_scan(source.image(config.output_dir, 'preproc')).volume.data
        images = decode_thetas(method.nets, Volume(data, WORKING_AFFINE), lattice, method.compute)
        labels = np.array([label for _, label in labelled])
        points = {label: thetas[labels == label] for label in sorted(set(labels))}
        png = theta_figure(points, np.array(source.theta), lattice, images)
        pictures.append((png, f'Thetas of {title}, and {source.name} decoded at nine of them'))
    return pictures


def _folder(config: RunConfig, name: str, made: Sequence[str]) -> Path | None:
    """The one model that all results are of, or None."""

    def fits(folder: Path) -> bool:
        metadata = read_metadata(folder)
        return metadata['method'] == name and [metadata.get('weights_sha256')] == list(made)

    if config.model is not None and fits(config.model):
        return config.model
    folder = packaged_model(name)
    return folder if fits(folder) else None


def _model_of(config: RunConfig, scan: ResultScan, method: str) -> str | None:
    """Hash of the weights that a result was made with, as its sidecar tells."""
    image = scan.image(config.output_dir, 'harmonized')
    sidecar = image.with_name(image.name.removesuffix('.nii.gz') + '.json')
    try:
        told = json.loads(sidecar.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return None
    return told.get(f'{method.capitalize()}Model') if isinstance(told, dict) else None
