"""``--task synthesize``: new slices in the style of a site, made of noise (Wu 2024, section 3.2.4)."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from harmony_app.bids.atomic import write_json
from harmony_app.config import RunConfig
from harmony_app.errors import InputError, OptionError
from harmony_app.evaluation.synthesis import MEASURES, compare_synthesis
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.io import write_volume
from harmony_app.imaging.volume import Volume
from harmony_app.methods.dlest import Dlest
from harmony_app.nets.dlest import energy_key
from harmony_app.training.dlest_draws import middle_slab, padded_inner
from harmony_app.workflows.checks import check_device
from harmony_app.workflows.group import write_group_table
from harmony_app.workflows.model_making import parent_model, plain_name
from harmony_app.workflows.model_styles import read_preprocessed
from harmony_app.workflows.training_inputs import find_sessions

METHOD = 'dlest'
"""The method that makes slices of noise."""

LEVELS = 3
"""Slices of every original that are compared."""

MOST = 12
"""Originals that are compared, at most, evenly over their names."""

BATCH = 8
"""Slices made at once."""

COLUMNS = {
    'contrast': 'Contrast',
    'data': 'original: slices of different people of the site; synthetic: each of these with each '
    'synthetic slice',
    'pairs': 'Number of pairs',
    **{
        f'{measure}_{moment}': f'{word} over pairs of {name}, within the brains of both'
        for measure, name in zip(
            MEASURES,
            (
                'the structural similarity',
                'the peak signal-to-noise ratio, dB',
                'the root mean squared error, in units of the brightest original',
                'the Pearson correlation',
            ),
            strict=True,
        )
        for moment, word in (('mean', 'Mean'), ('sd', 'Standard deviation'))
    },
}
"""Columns of ``comparison.tsv``."""


def folder_of_slices(config: RunConfig) -> Path:
    """Where the slices of a site go.

    Raises
    ------
    OptionError
        Where no site is named, the method makes none, or slices lie there already.
    """
    if config.method != METHOD:
        raise OptionError(f'--task synthesize --method {config.method}: only {METHOD} makes slices')
    if config.site is None:
        raise OptionError('--task synthesize: give --site NAME, a style or site of the model')
    folder = config.output_dir / 'synthetic' / plain_name(config.site)
    if (folder / 'synthetic.json').exists() and not config.overwrite:
        raise OptionError(f'{folder} holds slices already: give --overwrite to replace them')
    return folder


def synthesize(config: RunConfig) -> list[str]:
    """Make slices, and compare them with preprocessed scans of the site where there are any.

    Writes ``CONTRAST_slice-001.nii.gz`` and so on, one pixel a millimetre, white matter at 1000;
    ``synthetic.json``, which says what they are; and ``comparison.tsv`` (Table 2 of the paper).

    Raises
    ------
    OptionError
        Where the model has no energy for the site.
    """
    out = folder_of_slices(config)
    folder, metadata = parent_model(config)
    device = check_device(config.device)
    method = Dlest.load(folder, device)
    contrasts = [c for c in config.modalities if method.reaches(config.site, c)]
    if not contrasts:
        raise OptionError(
            f'--task synthesize --site {config.site}: the model has energies for '
            f'{", ".join(method.nets.energies) or "nothing"} (contrast:name); name one of them, or '
            f'fit one with --task adapt --site {config.site}'
        )
    rows, lines = [], []
    for contrast in contrasts:
        images = make_slices(method, config.site, contrast, config.count, config.random_seed)
        for stale in out.glob(f'{contrast}_slice-*.nii.gz'):
            stale.unlink()
        for number, image in enumerate(images, start=1):
            path = out / f'{contrast}_slice-{number:03d}.nii.gz'
            path.parent.mkdir(parents=True, exist_ok=True)
            write_volume(path, Volume(1000 * image[..., None], plane_affine(image.shape)))
        lines.append(f'{contrast}: {len(images)} slices')
        originals = _originals(config, contrast, images.shape[1:])
        if not originals:
            lines[-1] += '; no preprocessed scan of the site to compare them with'
            continue
        table = compare_synthesis(originals, list(images))
        rows += [{'contrast': contrast} | row for row in table]
        lines += [
            f'  {row["data"]}: SSIM {row["ssim_mean"]:.3f}, PSNR {row["psnr_mean"]:.1f} dB, '
            f'correlation {row["pcc_mean"]:.3f} over {row["pairs"]} pairs'
            for row in table
        ]
    if rows:
        write_group_table(out / 'comparison.tsv', COLUMNS, rows)
    facts = {
        'Description': 'Synthetic axial slices of brains that nobody has, made of noise',
        'Synthetic': True,
        'Method': METHOD,
        'Site': config.site,
        'Contrasts': contrasts,
        'Slices': config.count,
        'RandomSeed': config.random_seed,
        'ModelSHA256': metadata.get('weights_sha256', ''),
    }
    write_json(out / 'synthetic.json', facts)
    return [*lines, f'written: {out}']


def make_slices(method: Dlest, site: str, contrast: str, count: int, seed: int) -> np.ndarray:
    """Slices (count, H, W), float32, white matter about 1; the same for the same seed."""
    key, device = energy_key(site, contrast), method.compute.device
    generator = torch.Generator(device).manual_seed(seed)
    made = []
    for start in range(0, count, BATCH):
        with torch.no_grad():
            images = method.nets.synthesize(min(BATCH, count - start), key, generator)
        made.append(images[:, 0].float().cpu().numpy())
    return np.concatenate(made)


def plane_affine(shape: Sequence[int]) -> np.ndarray:
    """Affine of a slice in the middle of the working grid."""
    affine = WORKING_AFFINE.copy()
    corner = [(n - m) // 2 for n, m in zip(WORKING_SHAPE, (*shape, 1), strict=True)]
    affine[:3, 3] += affine[:3, :3] @ corner
    return affine


def _originals(
    config: RunConfig, contrast: str, shape: tuple[int, int]
) -> list[tuple[str, np.ndarray]]:
    """Slices of brains of the site: the person and the image."""
    sessions, _ = find_sessions(config)
    found = [(s, scan) for s in sessions for scan in s.scans if scan.contrast == contrast]
    if not found:
        return []
    chosen = np.linspace(0, len(found) - 1, min(len(found), MOST)).round().astype(int)
    originals = []
    for session, file in (found[i] for i in chosen):
        scan = read_preprocessed(session, file)
        if not scan.brain.any():
            raise InputError(f'{file.name}: its brain mask is empty')
        slab, _ = middle_slab([(scan.working.data * scan.brain)[None]], scan.brain)
        levels = np.linspace(0, slab.shape[-1] - 1, LEVELS).round().astype(int)
        originals += [(session.subject, padded_inner(slab[0, ..., i], shape)) for i in levels]
    return originals
