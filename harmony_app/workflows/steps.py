"""The steps of a session as functions from records to records; Nipype wraps them.

A step that meets a :class:`~harmony_app.errors.HarmonyError` writes it down and passes on:
one bad scan costs that scan, and the rest of its session goes its way.
"""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from harmony_app.bids.transforms import read_itk_affine
from harmony_app.errors import ExitCode, HarmonyError, ScanError
from harmony_app.imaging.ants_setup import SEED
from harmony_app.imaging.bias import correct_bias, divide_field, tissue_field
from harmony_app.imaging.face import is_defaced
from harmony_app.imaging.grid import WORKING_AFFINE, WORKING_SHAPE
from harmony_app.imaging.headers import READ_ERRORS, one_line, open_image
from harmony_app.imaging.intensity import white_matter_peak
from harmony_app.imaging.io import NativeScan, is_thick, read_scan
from harmony_app.imaging.masks import is_skull_stripped
from harmony_app.imaging.profile import measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.slice_profile import thin_factor
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS
from harmony_app.workflows.records import Record, write_record

logger = logging.getLogger('harmony_app')

DEFACED_NOTE = 'the face was removed (defaced): the brain is harmonized as that of any scan'

SPLINE_NOTE = 'thick slices were brought to 1 mm by cubic B-splines'
SUPER_RESOLUTION_NOTE = (
    'each slice was divided into {} by self-supervised super-resolution for what lies on the '
    'template grid; the result on the grid of the scan has the slices of the scan'
)


def load_native(path: Path, volume: int | None, folder: Path) -> NativeScan:
    """Read a scan, or one volume of a PDT2 image.

    Parameters
    ----------
    path : Path
        Image file.
    volume : int or None
        Index of the volume in a PDT2.
    folder : Path
        Scratch for the volume as a file of its own.

    Raises
    ------
    ScanError
        Where the file cannot be read.
    """
    if volume is None:
        return read_scan(path)
    import nibabel as nib

    image = open_image(path)
    try:
        data = np.asarray(image.dataobj[..., volume], dtype=np.float32)
    except (*READ_ERRORS, IndexError) as error:
        raise ScanError(f'{path}: volume {volume} cannot be read ({one_line(error)})') from error
    header = image.header.copy()
    header.set_data_dtype(np.float32)
    header.set_slope_inter(1, 0)
    header.set_data_shape(data.shape)
    single = Path(folder) / f'volume-{volume}.nii'
    # Without an affine nibabel leaves the matrices and codes of the header alone.
    nib.save(type(image)(data, None, header), single)
    return read_scan(single)


def prepare_scan(
    out: Path,
    path: Path,
    name: str,
    contrast: str,
    volume: int | None = None,
    site: str | None = None,
    mask_file: Path | None = None,
    transform_file: Path | None = None,
    sloppy: bool = False,
    bare: bool | None = None,
    super_resolution: str = 'auto',
) -> Path:
    """Read a scan, check it, take its bias field off.

    Parameters
    ----------
    out : Path
        Record to write: ``data`` (RAS, own grid, own unit), ``mask`` where one is given.
    path : Path
        Image file.
    name, contrast, volume, site
        As in :class:`~harmony_app.bids.discovery.ScanInput`.
    mask_file : Path, optional
        Brain mask on the scan's grid, made by others.
    transform_file : Path, optional
        Transform to the template (ITK text), made by others.
    sloppy : bool
        Leave the bias field where it is.
    bare : bool, optional
        Whether the scan shows a brain only; by default its background tells.
    super_resolution : str
        Which slices :func:`finish_scan` divides
        (:func:`~harmony_app.imaging.slice_profile.thin_factor`).
    """
    facts = {'name': name, 'contrast': contrast, 'path': str(path), 'volume': volume, 'site': site}
    try:
        scan = load_native(path, volume, out.parent)
        notes = list(scan.notes)
        if bare is not None:
            notes = [note for note in notes if not note.startswith('skull-stripped')]
            notes.append(f'taken for {"a bare brain" if bare else "a whole head"}, as asked')
        mask = None
        if mask_file is not None:
            mask = read_scan(mask_file).volume
            if mask.shape != scan.volume.shape:
                raise ScanError(f'{mask_file}: is not on the grid of {path}; remove it')
            mask = mask.data > 0.5
        corrected, field = (scan.volume, None) if sloppy else correct_bias(scan.volume)
        if sloppy:
            notes.append('the bias field was not corrected, as asked')
        elif field is None:
            notes.append('no bias field could be estimated')
        thick = is_thick(scan.geometry.zooms)
        factor = thin_factor(scan.geometry.zooms, super_resolution)
        if factor:
            notes.append(SUPER_RESOLUTION_NOTE.format(factor))
        elif thick:
            notes.append(SPLINE_NOTE)
        facts |= {
            'affine': scan.volume.affine.tolist(),
            'zooms': list(scan.geometry.zooms),
            'axes': scan.geometry.axes,
            'thick': bool(thick),
            'thin_factor': factor,
            'skull_stripped': bool(is_skull_stripped(scan.volume) if bare is None else bare),
            'bare': bare,
            'bias_corrected': field is not None,
            'transform': None if transform_file is None else _read_transform(transform_file),
            'notes': notes,
        }
        arrays = {'data': corrected.data.astype(np.float32, copy=False)}
        if mask is not None:
            arrays['mask'] = mask
        return write_record(out, facts, arrays)
    except HarmonyError as error:
        return write_record(out, facts | {'failure': failure_of(error)})


def align_session(out: Path, prepared: Sequence[Path], seed: int = SEED) -> Path:
    """Bring the scans of a session together, and to the template.

    Parameters
    ----------
    out : Path
        Record to write: ``brain`` and ``tissues`` on the working grid, ``fluid`` on that of 2 mm
        where several contrasts tell it; facts
        ``reference``, ``to_reference`` and ``to_working`` (by scan), ``failures``.
    prepared : sequence of Path
        Records of :func:`prepare_scan`.
    seed : int
        Seed of the samplers.
    """
    from harmony_app.imaging.registration import GOOD_QUALITY, register_rigid

    scans = [record for record in map(Record, prepared) if not record.failure]
    if not scans:
        return write_record(out, {'failures': {}, 'to_working': {}, 'reference': None})
    scans.sort(key=_reference_rank)
    found, failures = _register_session(scans)
    if found is None:
        return write_record(out, {'failures': failures, 'to_working': {}, 'reference': None})
    reference, template = found
    scans = [record for record in scans if record.facts['name'] not in failures]
    fixed = volume_of(reference)
    brain, tissues, rigid = template.brain, template.tissues, np.asarray(template.rigid)
    name = reference.facts['name']
    to_reference, to_working = {name: np.eye(4)}, {name: rigid}
    for record in scans:
        other = record.facts['name']
        if other == name:
            continue
        try:
            if record.facts['transform'] is None:
                to_reference[other] = register_rigid(volume_of(record), fixed, seed)
            else:
                to_reference[other] = np.linalg.inv(rigid) @ record.facts['transform']
            to_working[other] = rigid @ to_reference[other]
        except ScanError as error:
            failures[other] = failure_of(error)
    masks = [(record.facts['name'], record) for record in scans if 'mask' in record]
    if masks:
        other, record = masks[0]
        given = Volume(record.array('mask').astype(np.float32), np.array(record.facts['affine']))
        moved = resample(given, WORKING_SHAPE, WORKING_AFFINE, to_working[other], order=1)
        brain = moved.data > 0.5
        tissues = tissues * brain
    facts = {
        'reference': name,
        'reference_contrast': reference.facts['contrast'],
        'to_reference': {key: np.asarray(m).tolist() for key, m in to_reference.items()},
        'to_working': {key: np.asarray(m).tolist() for key, m in to_working.items()},
        'affine': np.asarray(template.affine).tolist(),
        'quality': float(template.quality),
        'doubtful': bool(template.quality < GOOD_QUALITY),
        'skull_stripped': bool(template.skull_stripped),
        'mask_given': bool(masks),
        'failures': failures,
    }
    arrays = {'brain': brain, 'tissues': tissues}
    fluid = _tell_fluid(scans, to_working, brain, tissues)
    return write_record(out, facts, arrays if fluid is None else arrays | {'fluid': fluid})


def finish_scan(out: Path, prepared: Path, aligned: Path) -> Path:
    """Resample a scan once to the working grid, take the field off that its tissues show, scale, measure.

    Thick slices are divided into thin ones on the scan's own axes first, where
    :func:`prepare_scan` found that they can be.

    Parameters
    ----------
    out : Path
        Record to write: ``working`` (white-matter peak 1) and, where one was found, ``field``
        (:func:`~harmony_app.imaging.bias.tissue_field`); facts ``wm_peak`` (own unit),
        ``profile``, ``to_working``, ``field_range`` and ``defaced``.
    prepared, aligned : Path
        Records of the scan and of its session.
    """
    scan, session = Record(prepared), Record(aligned)
    name = scan.facts['name']
    facts = {key: scan.facts[key] for key in ('name', 'contrast', 'site')}
    failure = scan.failure or session.facts['failures'].get(name)
    if failure or name not in session.facts['to_working']:
        failure = failure or {'message': f'{name}: not aligned', 'exit_code': int(ExitCode.FAILURE)}
        return write_record(out, facts | {'failure': failure})
    to_working = np.array(session.facts['to_working'][name])
    volume = volume_of(scan)
    if scan.facts['thin_factor']:
        from harmony_app.engine.super_resolution import super_resolve

        volume = super_resolve(volume, scan.facts['thin_factor'])
    working = resample(volume, WORKING_SHAPE, WORKING_AFFINE, to_working)
    brain, tissues = session.array('brain'), session.array('tissues')
    fluid = session.array('fluid') if 'fluid' in session else None
    field = None
    try:
        peak = white_matter_peak(working.data, brain, tissues)
        if scan.facts['bias_corrected']:
            field = tissue_field(working.data / np.float32(peak), brain, tissues)
        if field is not None:
            working = divide_field(working, field, np.eye(4))
            peak = white_matter_peak(working.data, brain, tissues)
        data = np.maximum(working.data / np.float32(peak), 0)
        profile = measure_profile(data, brain, tissues, fluid)
    except ValueError as error:
        message = f'{scan.facts["path"]}: {error}; is this a brain, and its whole?'
        return write_record(out, facts | {'failure': failure_of(ScanError(message))})
    facts |= {
        'wm_peak': float(peak),
        'profile': profile.to_dict(),
        'to_working': to_working.tolist(),
        'field_range': None if field is None else np.exp([field.min(), field.max()]).tolist(),
        'defaced': is_defaced(volume_of(scan), to_working, scan.facts['skull_stripped']),
    }
    arrays = {'working': data} if field is None else {'working': data, 'field': field}
    return write_record(out, facts, arrays)


def volume_of(record: Record) -> Volume:
    """Scan of a record of :func:`prepare_scan`, on its own grid."""
    return Volume(record.array('data'), np.array(record.facts['affine']))


def failure_of(error: HarmonyError) -> dict:
    """An error as plain data."""
    return {'message': ' '.join(str(error).split()), 'exit_code': int(error.exit_code)}


def _tell_fluid(
    scans: Sequence[Record], to_working: dict, brain: np.ndarray, tissues: np.ndarray
) -> np.ndarray | None:
    """Share of fluid by the first scan of each contrast that lies on the template."""
    from harmony_app.imaging.fluid import session_fluid

    firsts: dict[str, Record] = {}
    for record in scans:
        if record.facts['name'] in to_working:
            firsts.setdefault(record.facts['contrast'], record)
    return session_fluid(
        [volume_of(record) for record in firsts.values()],
        [np.asarray(to_working[record.facts['name']]) for record in firsts.values()],
        brain,
        tissues,
    )


def _reference_rank(record: Record) -> tuple:
    """One with a transform of the user's, a 3D T1w, else the finest voxels; ``ce-`` last."""
    facts = record.facts
    volumetric_t1w = facts['contrast'] == 'T1w' and not facts['thick']
    enhanced = '_ce-' in facts['name']
    fineness = round(max(facts['zooms']), 2), round(float(np.prod(facts['zooms'])), 3)
    order = CONTRASTS.index(facts['contrast'])
    unknown = facts.get('transform') is None
    return unknown, not volumetric_t1w, enhanced, *fineness, order, facts['name']


def _register_session(scans: list[Record]) -> tuple[tuple | None, dict[str, dict]]:
    """The first scan that lies well on the template, or the best, and the failures by scan.

    A scan with a transform of the user's comes first, and is not doubted.
    """
    from harmony_app.imaging.registration import (
        GOOD_QUALITY,
        LEAST_QUALITY,
        register_template,
    )

    found, failures = [], {}
    for record in scans:
        name, given = record.facts['name'], record.facts['transform']
        bare = record.facts.get('bare')
        try:
            template = register_template(
                volume_of(record),
                record.facts['contrast'],
                None if given is None else np.asarray(given),
                **({} if bare is None else {'bare': bare}),
            )
        except ScanError as error:
            failures[name] = failure_of(error)
            continue
        found.append((record, template))
        if template.quality >= GOOD_QUALITY or given is not None:
            return found[-1], failures
    if not found:
        return None, failures
    record, template = max(found, key=lambda pair: pair[1].quality)
    if template.quality >= LEAST_QUALITY:
        return (record, template), failures
    for record, template in found:
        message = (
            f'{record.facts["path"]}: cannot be laid on the template (quality '
            f'{template.quality:.2f}); if it shows a whole brain, look at the orientation in its '
            'header, or give a transform of your own with --derivatives'
        )
        failures[record.facts['name']] = failure_of(ScanError(message))
    return None, failures


def _read_transform(path: Path) -> list:
    try:
        return read_itk_affine(path).tolist()
    except (OSError, ValueError, np.linalg.LinAlgError) as error:
        raise ScanError(f'{path}: cannot be read as an affine transform ({error})') from error
