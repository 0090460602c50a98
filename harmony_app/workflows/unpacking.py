"""Results of a session as plain NIfTI files, for pipelines that name their own outputs."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from nipype.interfaces.base import (
    BaseInterfaceInputSpec,
    File,
    InputMultiObject,
    SimpleInterface,
    TraitedSpec,
    traits,
)

from harmony_app.errors import ExitCode, HarmonyError, ScanError
from harmony_app.workflows.interfaces import styles_of
from harmony_app.workflows.records import Record

SCAN_FILES = ('harmonized', 'mask', 'template', 'to_template', 'to_first')
"""What is unpacked of each scan."""


def unpack_scans(
    folder: Path,
    prepared: Sequence[Path],
    finished: Sequence[Path],
    aligned: Path,
    results: Path,
    peaks: Mapping[str, float],
) -> dict[str, list[str] | str]:
    """Write what a session was turned into.

    Parameters
    ----------
    folder : Path
        Where to write.
    prepared, finished : sequence of Path
        Records of its scans, in one order.
    aligned, results : Path
        Records of the session.
    peaks : mapping of str to float
        White-matter peak of the target, by contrast.

    Returns
    -------
    dict of str to list of str
        Files of :data:`SCAN_FILES` in the order of the scans, and ``template_mask``.

    Raises
    ------
    ScanError
        Where a scan has no result: what is wrong with it.
    """
    from harmony_app.bids.transforms import write_itk_affine
    from harmony_app.imaging.grid import WORKING_AFFINE
    from harmony_app.imaging.io import write_like, write_volume
    from harmony_app.imaging.volume import Volume
    from harmony_app.workflows.outputs import native_mask
    from harmony_app.workflows.steps import load_native

    session, made = Record(aligned), Record(results)
    brain = session.array('brain') if 'brain' in session else None
    found: dict[str, list[str]] = {key: [] for key in SCAN_FILES}
    first = None
    for number, (one, two) in enumerate(zip(prepared, finished, strict=True), 1):
        scan, ready = Record(one), Record(two)
        index = _result_of(scan, ready, made)
        contrast = scan.facts['contrast']
        peak = np.float32(peaks[contrast])
        to_template = np.array(ready.facts['to_working'])
        first = to_template if first is None else first
        geometry = load_native(Path(scan.facts['path']), scan.facts['volume'], folder).geometry
        paths = {
            key: folder / f'{key}_{number}_{contrast}{".txt" if key[:3] == "to_" else ".nii.gz"}'
            for key in SCAN_FILES
        }
        write_like(paths['harmonized'], made.array(f'{index}/native') * peak, geometry)
        write_like(paths['mask'], native_mask(brain, scan, to_template), geometry, np.uint8)
        working = Volume(made.array(f'{index}/working') * peak, WORKING_AFFINE)
        write_volume(paths['template'], working)
        write_itk_affine(paths['to_template'], to_template)
        write_itk_affine(paths['to_first'], np.linalg.inv(first) @ to_template)
        for key, path in paths.items():
            found[key].append(str(path))
    mask = folder / 'template_mask.nii.gz'
    write_volume(mask, Volume(brain, WORKING_AFFINE), np.uint8)
    return found | {'template_mask': str(mask)}


def _result_of(scan: Record, ready: Record, made: Record) -> int:
    """Number of the result of a scan; ScanError where it has none."""
    name, contrast = scan.facts['name'], scan.facts['contrast']
    failures = made.facts['failures']
    failure = ready.failure or failures.get(name) or failures.get(contrast)
    for index, result in enumerate(made.facts['results']):
        if result['source'] == name and result['native']:
            return index
    said = failure or {'message': f'no target was given for {contrast}'}
    error = ScanError(f'{scan.facts["path"]}: {said["message"]}')
    error.exit_code = ExitCode(said.get('exit_code', HarmonyError.exit_code))
    raise error


class _UnpackInputSpec(BaseInterfaceInputSpec):
    prepared = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    finished = InputMultiObject(File(exists=True), mandatory=True, desc='records of the scans')
    aligned = File(exists=True, mandatory=True, desc='record of the session')
    results = File(exists=True, mandatory=True, desc='record of the harmonized scans')
    styles = traits.Str('{}', usedefault=True, desc='JSON: a style for each contrast')
    styles_file = File(exists=True, desc='JSON file with further styles')


class _UnpackOutputSpec(TraitedSpec):
    harmonized = traits.List(File(exists=True), desc='scans in the contrast of the target')
    mask = traits.List(File(exists=True), desc='brain masks on the grids of the scans')
    template = traits.List(File(exists=True), desc='harmonized scans on the template grid')
    to_template = traits.List(File(exists=True), desc='rigid transforms to the template')
    to_first = traits.List(File(exists=True), desc='rigid transforms to the first scan')
    template_mask = File(exists=True, desc='brain mask on the template grid')


class UnpackScans(SimpleInterface):
    """Write the results of a session as files, in the order of its scans."""

    input_spec = _UnpackInputSpec
    output_spec = _UnpackOutputSpec

    def _run_interface(self, runtime):
        given = self.inputs
        styles = styles_of(given)
        self._results |= unpack_scans(
            Path(runtime.cwd),
            [Path(p) for p in given.prepared],
            [Path(p) for p in given.finished],
            Path(given.aligned),
            Path(given.results),
            {contrast: style.wm_peak for contrast, style in styles.items()},
        )
        return runtime
