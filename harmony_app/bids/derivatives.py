"""How results are named and described."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from harmony_app import __version__
from harmony_app.bids.atomic import write_json, write_table, write_text
from harmony_app.bids.entities import build_name
from harmony_app.imaging.grid import SPACE

BIDS_VERSION = '1.10.0'
"""Version of BIDS that the results follow."""

RAW_LINK = 'raw'
"""Name of the input in ``DatasetLinks``: ``bids:raw:sub-01/anat/...``."""

SCANNER_METADATA = (
    'Manufacturer',
    'ManufacturersModelName',
    'DeviceSerialNumber',
    'SoftwareVersions',
    'MagneticFieldStrength',
    'InstitutionName',
    'BodyPart',
)
"""Fields of the source's sidecar that hold for every image made of it, and say nothing of a person.

What tells scanners apart is passed on; addresses, departments and names of stations are not.
"""

SEQUENCE_METADATA = (
    'MRAcquisitionType',
    'PulseSequenceType',
    'SequenceName',
    'RepetitionTime',
    'RepetitionTimeExcitation',
    'EchoTime',
    'InversionTime',
    'FlipAngle',
    'ParallelReductionFactorInPlane',
    'ContrastBolusIngredient',
)
"""Fields that tell the contrast: true of the preprocessed scan, no longer of the harmonized one."""

DESCRIPTIONS = {
    'harmonized': 'Scan in the contrast of the target',
    'decoder': 'Plain image of the network, without the detail of the scan',
    'imputed': 'Contrast that was not acquired, made by the network',
    'preproc': 'Scan without bias field, white-matter peak at 1, not harmonized',
    'brain': 'Brain mask, on the template grid or on that of a T1w scan',
    'brainT2w': 'Brain mask on the grid of a T2w scan',
    'brainPDw': 'Brain mask on the grid of a PDw scan',
    'brainFLAIR': 'Brain mask on the grid of a FLAIR scan',
    'style': 'Contrast, artifact and attention representation of each scan',
}
"""What each ``desc-`` of the results says."""

BIDSIGNORE = ('*.html', 'group_*', 'figures', 'log', 'models', '*_xfm.*', '*_qc.*')
"""Results that BIDS has no name for (no trailing slashes: the validator matches them so)."""


def derivative_path(
    root: Path,
    entities: Mapping[str, str],
    suffix: str,
    extension: str = '.nii.gz',
    folder: str = 'anat',
    **added: str | None,
) -> Path:
    """Path of a result.

    Parameters
    ----------
    root : Path
        Output folder.
    entities : mapping of str to str
        Entities of the source, at least ``sub``.
    suffix, extension : str
        For example ``T1w`` and ``.nii.gz``.
    folder : str
        ``anat``, or ``figures`` (beside the sessions).
    **added : str or None
        Entities of the result: ``space``, ``res``, ``desc``, ``to`` ... (``from_`` for ``from``).

    Examples
    --------
    >>> derivative_path(Path('out'), {'sub': '01', 'ses': 'a'}, 'T1w', desc='harmonized').as_posix()
    'out/sub-01/ses-a/anat/sub-01_ses-a_desc-harmonized_T1w.nii.gz'
    """
    named = dict(entities) | {key.rstrip('_'): label for key, label in added.items() if label}
    parent = Path(root) / f'sub-{named["sub"]}'
    if folder != 'figures' and named.get('ses'):
        parent = parent / f'ses-{named["ses"]}'
    return parent / folder / build_name(named, suffix, extension)


def sidecar_path(image: Path) -> Path:
    """JSON beside an image.

    Examples
    --------
    >>> sidecar_path(Path('sub-01_T1w.nii.gz')).name
    'sub-01_T1w.json'
    """
    return image.with_name(image.name.removesuffix('.gz').removesuffix('.nii') + '.json')


def raw_uri(path: Path, root: Path) -> str:
    """BIDS URI of an input image; an image outside the dataset is named only.

    Examples
    --------
    >>> raw_uri(Path('/d/sub-01/anat/sub-01_T1w.nii'), Path('/d'))
    'bids:raw:sub-01/anat/sub-01_T1w.nii'
    """
    return f'bids:{RAW_LINK}:{path.relative_to(root).as_posix()}'


def image_sidecar(
    desc: str,
    sources: Sequence[str],
    skull_stripped: bool,
    space: str | None = None,
    raw: Mapping | None = None,
    **details,
) -> dict:
    """Sidecar of an image of the results.

    Parameters
    ----------
    desc : str
        Key of :data:`DESCRIPTIONS`.
    sources : sequence of str
        BIDS URIs of the direct parents.
    skull_stripped : bool
        Whether everything outside the brain is zero.
    space : str, optional
        Label of the template space; None for the scan's own grid.
    raw : mapping, optional
        Sidecar of the source scan; the fields that still hold are kept.
    **details
        Further fields, names as in BIDS; None is left out.
    """
    fields: dict = {'Description': DESCRIPTIONS[desc], 'Sources': list(sources)}
    fields['SkullStripped'] = bool(skull_stripped)
    if space:
        fields['SpatialReference'] = space
        fields['Resolution'] = {'1': 'Template grid, 1 mm isotropic, 192 x 224 x 192 voxels'}['1']
    kept = SCANNER_METADATA if desc != 'preproc' else SCANNER_METADATA + SEQUENCE_METADATA
    fields |= {key: raw[key] for key in kept if raw and key in raw}
    return fields | {key: value for key, value in details.items() if value is not None}


def write_dataset_files(root: Path, raw: Path, description: Mapping) -> None:
    """Write what stands at the top of the results; existing files are brought up to date.

    Parameters
    ----------
    root : Path
        Output folder.
    raw : Path
        The input dataset.
    description : mapping
        ``dataset_description.json`` of the input.

    Raises
    ------
    OutputError
        Where the folder cannot be written.
    """
    write_json(root / 'dataset_description.json', dataset_description(root, raw, description))
    write_text(root / '.bidsignore', '\n'.join(BIDSIGNORE) + '\n')
    write_text(root / 'README.md', _README.format(version=__version__, space=SPACE))
    write_table(
        root / 'descriptions.tsv',
        ['desc_id', 'description'],
        [{'desc_id': f'desc-{key}', 'description': text} for key, text in DESCRIPTIONS.items()],
    )


def dataset_description(root: Path, raw: Path, description: Mapping) -> dict:
    """``dataset_description.json`` of the results."""
    generator = {
        'Name': 'harmony-app',
        'Version': __version__,
        'Description': 'Harmonization of the contrast of brain MR images',
    }
    if tag := os.environ.get('HARMONY_CONTAINER_TAG'):
        kind = os.environ.get('HARMONY_CONTAINER_TYPE', 'docker')
        generator['Container'] = {'Type': kind, 'Tag': tag}
    fields = {
        'Name': f'harmony-app results of {description.get("Name") or raw.name}',
        'BIDSVersion': BIDS_VERSION,
        'DatasetType': 'derivative',
        'GeneratedBy': [generator],
        'DatasetLinks': {RAW_LINK: link_to(raw, root)},
    }
    if doi := description.get('DatasetDOI'):
        url = doi if '://' in doi else f'https://doi.org/{doi.removeprefix("doi:")}'
        fields['SourceDatasets'] = [{'URL': url, 'DOI': doi}]
    else:
        fields['SourceDatasets'] = [{'URL': link_to(raw, root)}]
    if licence := description.get('License'):
        fields['License'] = licence
    return fields


def link_to(raw: Path, root: Path) -> str:
    """URI of the input as seen from the results: relative where they lie inside it."""
    raw, root = Path(raw).resolve(), Path(root).resolve()
    if raw in root.parents:
        return os.path.relpath(raw, root)
    return raw.as_uri()


_README = """# harmony-app {version}: harmonized brain MR images

Each scan of the input in the contrast of one target.

- `*_desc-harmonized_<contrast>.nii.gz`: on the scan's own grid (same shape, affine and
  xform codes as the input); with `space-{space}_res-1` on the template grid.
- `*_space-{space}_res-1_desc-preproc_<contrast>.nii.gz`: before harmonization,
  white-matter peak at 1.
- `*_desc-brain_mask.nii.gz`, `*_probseg.nii.gz`: brain and tissues of the registered template.
- `*_xfm.txt`: transforms, ITK text.
- `*_desc-harmonized_qc.tsv`: tissue profile of each scan before, after and of the target.
- `*_desc-style_qc.tsv`: contrast, artifact and attention values of the networks.
- `sub-*.html`: the report of each participant; open it in any browser.
- `sub-*/figures/`: each scan before and after, in one intensity window.
- `logs/`: for each run its settings, the list of inputs used or skipped and why, and errors;
  `CITATION.md` says what to write and to cite in a paper.
"""
