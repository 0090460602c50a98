"""The files of a session: images, sidecars, masks, transforms, tables and figures."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from harmony_app.bids.atomic import write_json
from harmony_app.bids.derivatives import derivative_path, image_sidecar, raw_uri, sidecar_path
from harmony_app.bids.metadata import Metadata
from harmony_app.bids.transforms import write_itk_affine
from harmony_app.imaging.edges import edge_agreement
from harmony_app.imaging.grid import SPACE, SPACES, WORKING_AFFINE
from harmony_app.imaging.io import Geometry, write_like, write_volume
from harmony_app.imaging.profile import TISSUES, TissueProfile, measure_profile
from harmony_app.imaging.resample import resample
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import Style
from harmony_app.workflows.records import Record
from harmony_app.workflows.steps import DEFACED_NOTE, load_native

TEMPLATE_GRID = {'space': SPACE, 'res': '1'}


@dataclass
class SessionOutputs:
    """Writes the results of one session into a staging folder.

    Parameters
    ----------
    staging : Path
        Where files are written, as if it were the output folder.
    raw : Path
        The input dataset.
    entities : dict of str to dict
        Entities of each scan by its name.
    shared : dict
        Entities of the session.
    settings : dict
        Method, model, seed and device, for the sidecars.
    aligned : Record
        Record of the session.
    prepared : sequence of Record
        Scans of the session that could be prepared.
    scratch : Path
        Folder for volumes of PDT2 images.
    spaces : tuple of str
        Grids that images are written on, of :data:`SPACES`.
    """

    staging: Path
    raw: Path
    entities: dict[str, dict[str, str]]
    shared: dict[str, str]
    settings: dict
    aligned: Record
    prepared: Sequence[Record]
    scratch: Path
    spaces: tuple[str, ...] = SPACES
    files: dict[str, list[str]] = field(default_factory=dict)
    rows: list[dict] = field(default_factory=list)
    style_rows: list[dict] = field(default_factory=list)

    def __post_init__(self):
        self._metadata = Metadata(self.raw)
        self._maps: dict[str, np.ndarray] = {}
        self._geometries: dict[str, Geometry] = {}
        self._defaced: set[str] = set()

    def map(self, name: str) -> np.ndarray:
        """Brain mask or tissue maps of the session on the working grid."""
        if name not in self._maps:
            self._maps[name] = self.aligned.array(name)
        return self._maps[name]

    def write_preprocessed(self, prepared: Record, finished: Record) -> None:
        """Write what does not depend on the target: preproc, native mask, transforms."""
        name, contrast = prepared.facts['name'], prepared.facts['contrast']
        if finished.facts.get('defaced'):
            self._defaced.add(name)
        self._image(
            name,
            contrast,
            'preproc',
            Volume(finished.array('working'), WORKING_AFFINE),
            prepared,
            WhiteMatterPeak=1.0,
            SourceWhiteMatterPeak=finished.facts['wm_peak'],
            TissueFieldRange=finished.facts['field_range'],
        )
        self._write_native_mask(prepared, finished)
        self._write_transforms(prepared, finished)

    def write_session_maps(self) -> None:
        """Write the brain mask and tissue maps of the session on the template grid."""
        if SPACE not in self.spaces:
            return
        reference = self.aligned.facts['reference']
        common = {
            'Sources': [self._uri(r) for r in self.prepared if r.facts['name'] == reference],
            'SpatialReference': SPACE,
            'Resolution': 'Template grid, 1 mm isotropic, 192 x 224 x 192 voxels',
        }
        path = derivative_path(self.staging, self.shared, 'mask', desc='brain', **TEMPLATE_GRID)
        write_volume(self._made('', path), Volume(self.map('brain'), WORKING_AFFINE), np.uint8)
        given = self.aligned.facts['mask_given']
        write_json(
            self._made('', sidecar_path(path)),
            {
                'Description': 'Brain mask given by a derivative dataset'
                if given
                else 'Brain mask of the registered template',
                'Type': 'Brain',
            }
            | common,
        )
        for tissue, data in zip(TISSUES, self.map('tissues'), strict=True):
            path = derivative_path(
                self.staging, self.shared, 'probseg', label=tissue, **TEMPLATE_GRID
            )
            volume = Volume(data.astype(np.float32) / np.float32(255), WORKING_AFFINE)
            write_volume(self._made('', path), volume)
            write_json(
                self._made('', sidecar_path(path)),
                {'Description': f'Registered {tissue} map of the template'} | common,
            )

    def write_result(
        self,
        result: dict,
        index: int,
        results: Record,
        style: Style,
        prepared: Record | None,
        finished: Record | None,
    ) -> None:
        """Write one harmonized scan, or one imputed contrast (no ``prepared``)."""
        name = result['source'] or ''
        contrast, peak = result['contrast'], np.float32(style.wm_peak)
        working = Volume(results.array(f'{index}/working'), WORKING_AFFINE)
        details = {
            'WhiteMatterPeak': float(style.wm_peak),
            'HarmonizationTarget': style.name,
            'HarmonizationSettings': result['settings'] or None,
        }
        level, flag = result['artifacts'].get(name, (None, None))
        if flag is not None:
            details |= {'SourceArtifactLevel': level, 'SourceArtifactFlag': flag}
        desc = 'harmonized' if prepared is not None else 'imputed'
        scaled = working.with_data(working.data * peak)
        self._image(name, contrast, desc, scaled, prepared, **details)
        if result['native'] and prepared is not None:
            self._write_native(results.array(f'{index}/native') * peak, prepared, details)
        if result['decoder']:
            decoded = working.with_data(results.array(f'{index}/decoder') * peak)
            self._image(name, contrast, 'decoder', decoded, prepared, **details)
        self._tabulate_style(name or f'imputed {contrast}', result)
        if prepared is not None and finished is not None:
            before = Volume(finished.array('working'), WORKING_AFFINE)
            profile = TissueProfile.from_dict(finished.facts['profile'])
            self._tabulate(name, style, before, working, profile, prepared, finished)
            self.rows[-1] |= {'artifact_level': level, 'artifact_flag': flag}
            self._draw(name, before, working, style)

    def _image(
        self,
        name: str,
        contrast: str,
        desc: str,
        volume: Volume,
        prepared: Record | None,
        **details,
    ) -> None:
        """Write an image of the working grid and its sidecar."""
        if SPACE not in self.spaces:
            return
        entities = self.entities[name] if name else self.shared
        path = derivative_path(self.staging, entities, contrast, desc=desc, **TEMPLATE_GRID)
        write_volume(self._made(name, path), volume)
        self._sidecar(name, path, desc, prepared, SPACE, details)

    def _write_native(self, data: np.ndarray, prepared: Record, details: dict) -> None:
        """Write a harmonized scan on its own grid."""
        if 'native' not in self.spaces:
            return
        name, contrast = prepared.facts['name'], prepared.facts['contrast']
        path = derivative_path(self.staging, self.entities[name], contrast, desc='harmonized')
        write_like(self._made(name, path), data, self._geometry(prepared))
        self._sidecar(name, path, 'harmonized', prepared, None, details)

    def _sidecar(
        self,
        name: str,
        image: Path,
        desc: str,
        prepared: Record | None,
        space: str | None,
        details: dict,
    ) -> None:
        described = dict(details)
        if desc != 'preproc':
            described |= self.settings
        if prepared is None:
            sources = [self._uri(record) for record in self.prepared]
            stripped = self.aligned.facts['skull_stripped']
            raw: dict = {}
        else:
            facts = prepared.facts
            sources = [self._uri(prepared)]
            stripped = facts['skull_stripped'] or self.aligned.facts['skull_stripped']
            raw = self._metadata.sidecar(Path(facts['path']))
            described['SourceScan'] = {
                'VoxelSize': [round(z, 4) for z in facts['zooms']],
                'Orientation': facts['axes'],
                'ThickSlices': facts['thick'],
                'BiasFieldCorrected': facts['bias_corrected'],
                'Notes': facts['notes'] + self._seen(name) + self._doubts(),
            }
            if facts['transform'] is not None:
                described['SourceScan']['TransformGiven'] = True
            divided = facts['thin_factor'] is not None
            if divided:
                described['SourceScan']['SuperResolutionFactor'] = facts['thin_factor']
            if facts['volume'] is not None:
                described['SourceScan']['Volume'] = facts['volume']
            if space:
                before = 'super-resolution of slices, then ' if divided else ''
                described['Interpolation'] = f'{before}cubic B-spline, once'
        fields = image_sidecar(desc, sources, stripped, space, raw, **described)
        write_json(self._made(name, sidecar_path(image)), fields)

    def _seen(self, name: str) -> list[str]:
        return [DEFACED_NOTE] if name in self._defaced else []

    def _doubts(self) -> list[str]:
        if not self.aligned.facts['doubtful']:
            return []
        quality = self.aligned.facts['quality']
        return [f'the registration to the template is doubtful (quality {quality:.2f})']

    def _write_native_mask(self, prepared: Record, finished: Record) -> None:
        if 'native' not in self.spaces:
            return
        name, contrast = prepared.facts['name'], prepared.facts['contrast']
        mask = native_mask(self.map('brain'), prepared, np.array(finished.facts['to_working']))
        # Masks of several contrasts would share a name: BIDS has no entity for the contrast.
        desc = 'brain' if contrast == 'T1w' else f'brain{contrast}'
        path = derivative_path(self.staging, self.entities[name], 'mask', desc=desc)
        write_like(self._made(name, path), mask, self._geometry(prepared), np.uint8)
        write_json(
            self._made(name, sidecar_path(path)),
            {
                'Description': f'Brain mask on the grid of the {contrast} scan',
                'Type': 'Brain',
                'Sources': [self._uri(prepared)],
            },
        )

    def _write_transforms(self, prepared: Record, finished: Record) -> None:
        """Transforms of the scan to the template, and to the reference of its session."""
        name, contrast = prepared.facts['name'], prepared.facts['contrast']
        reference = self.aligned.facts['reference']
        ways = [(contrast, SPACE, np.array(finished.facts['to_working']))]
        if name != reference:
            target = self.aligned.facts['reference_contrast']
            start = contrast if contrast != target else 'orig'
            ways.append((start, target, np.array(self.aligned.facts['to_reference'][name])))
        for start, end, matrix in ways:
            path = derivative_path(
                self.staging,
                self.entities[name],
                'xfm',
                '.txt',
                from_=start,
                to=end,
                mode='image',
            )
            write_itk_affine(self._made(name, path), matrix)

    def _tabulate(
        self,
        name: str,
        style: Style,
        before: Volume,
        after: Volume,
        profile: TissueProfile,
        prepared: Record,
        finished: Record,
    ) -> None:
        """Add a row to the quality table."""
        brain = self.map('brain')
        row: dict = {
            'scan': name,
            'contrast': style.contrast,
            'site': prepared.facts['site'],
            'method': self.settings['HarmonizationMethod'],
            'target': style.name,
            'wm_peak_before': finished.facts['wm_peak'],
            'wm_peak_after': float(style.wm_peak),
            'edge_agreement': edge_agreement(before.data, after.data, brain),
            'registration_quality': self.aligned.facts['quality'],
            'brain_ml': float(brain.sum() / 1000),
        }
        try:
            fluid = self.aligned.array('fluid') if 'fluid' in self.aligned else None
            reached = measure_profile(after.data, brain, self.map('tissues'), fluid)
        except ValueError:
            reached = None
        for stage, measured in (('before', profile), ('after', reached), ('target', style.profile)):
            for kind in ('median', 'level'):
                values = getattr(measured, f'{kind}s') if measured else (None,) * 3
                for tissue, value in zip(TISSUES, values, strict=True):
                    row[f'{tissue.lower()}_{kind}_{stage}'] = value
        for prefix, measure in (('', 'medians'), ('level_', 'levels')):
            row[f'{prefix}distance_before'] = profile.distance(style.profile, measure)
            row[f'{prefix}distance_after'] = (
                reached.distance(style.profile, measure) if reached else None
            )
        self.rows.append(row)

    def _tabulate_style(self, name: str, result: dict) -> None:
        """Add the rows of one result to the table of representations."""
        for scan in {**result['theta'], **result['eta'], **result['attention']}:
            row = {'result': name, 'scan': scan, 'attention': result['attention'].get(scan)}
            if scan in result['artifacts']:
                row['artifact_level'], row['artifact_flag'] = result['artifacts'][scan]
            for kind in ('theta', 'eta'):
                for number, value in enumerate(result[kind].get(scan, ()), 1):
                    row[f'{kind}_{number}'] = value
            self.style_rows.append(row)

    def _draw(self, name: str, before: Volume, after: Volume, style: Style) -> None:
        from harmony_app.reports.figure import scan_figure

        path = derivative_path(
            self.staging,
            self.entities[name],
            style.contrast,
            '.png',
            folder='figures',
            desc='harmonized',
        )
        scan_figure(self._made(name, path), before, after, style, self.map('brain'), title=name)

    def _geometry(self, prepared: Record) -> Geometry:
        facts = prepared.facts
        if facts['name'] not in self._geometries:
            scan = load_native(Path(facts['path']), facts['volume'], self.scratch)
            self._geometries[facts['name']] = scan.geometry
        return self._geometries[facts['name']]

    def _uri(self, record: Record) -> str:
        return raw_uri(Path(record.facts['path']), self.raw)

    def _made(self, name: str, path: Path) -> Path:
        """Note a file as a result of a scan (or of the session: no name), and make its folder."""
        path.parent.mkdir(parents=True, exist_ok=True)
        self.files.setdefault(name, []).append(path.relative_to(self.staging).as_posix())
        return path


def native_mask(brain: np.ndarray, prepared: Record, to_working: np.ndarray) -> np.ndarray:
    """Brain mask of a session on the grid of one of its scans.

    Parameters
    ----------
    brain : ndarray of bool
        Mask on the working grid.
    prepared : Record
        The scan.
    to_working : ndarray, shape (4, 4)
        RAS mm of the scan to mm of the working grid.

    Returns
    -------
    ndarray of bool, shape of the scan in RAS
    """
    mask = resample(
        Volume(brain.astype(np.float32), WORKING_AFFINE),
        prepared.array('data').shape,
        np.array(prepared.facts['affine']),
        np.linalg.inv(to_working),
        order=1,
    )
    return mask.data > 0.5
