"""The part of a participant's page that is about one scan: pictures, charts, numbers, settings."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from harmony_app.bids.derivatives import derivative_path, sidecar_path
from harmony_app.bids.entities import parse_name
from harmony_app.errors import ScanError
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.masks import head_mask
from harmony_app.imaging.profile import PERCENTILES, TISSUES
from harmony_app.imaging.volume import Volume
from harmony_app.reports import charts
from harmony_app.reports.canvas import foreground_box
from harmony_app.reports.figure import SMALLEST_DIFFERENCE, shared_window
from harmony_app.reports.html import (
    Link,
    facts,
    heading,
    image,
    items,
    link,
    message,
    paragraph,
)
from harmony_app.reports.outlines import outline_svg
from harmony_app.reports.tiles import Layout, difference_colours, difference_png, grey_png, lay_out
from harmony_app.reports.views import Picture, comparison, legend, outlined
from harmony_app.workflows.report_inputs import ReportScan, Subject
from harmony_app.workflows.report_measures import STAGES, measures, number, representations
from harmony_app.workflows.result_images import ResultImages, read_images, tissue_regions


@dataclass(frozen=True)
class Views:
    """What of a scan is drawn on a page.

    Parameters
    ----------
    detailed : bool
        Six slices or three.
    pictures : bool
        Whether pictures stand in the page at all; else it says where they are.
    """

    detailed: bool = True
    pictures: bool = True


@dataclass(frozen=True)
class ScanPart:
    """A scan as a part of a page.

    Parameters
    ----------
    html : str
    window : tuple of 2 float or None
        The intensities that its pictures show; None where it has none.
    """

    html: str
    window: tuple[float, float] | None = None


def scan_part(root: Path, subject: Subject, scan: ReportScan, views: Views) -> ScanPart:
    """Tell a scan.

    Parameters
    ----------
    root : Path
        Output folder.
    subject : Subject
        Of the scan: its other scans show where this one lies.
    scan : ReportScan
    views : Views
    """
    parts, window = _state(scan), None
    if scan.result is not None:
        parts.append(_settings(scan))
        if scan.notes:
            parts += [heading('What was noted'), items(scan.notes)]
        if views.pictures:
            drawn, window = _drawn(root, subject, scan, views)
            parts += drawn
        else:
            figure = scan.result.figure(root).relative_to(root).as_posix()
            parts.append(
                f'<p>The page has no room for its pictures: {link(Link(figure, figure))}.</p>'
            )
        parts += representations(subject, scan)
        parts += measures(root, scan)
    return ScanPart('\n'.join(parts), window)


def stage_volumes(root: Path, scan: ReportScan) -> dict[str, Volume]:
    """A scan before and after, white-matter peak of the target at 1.

    Raises
    ------
    ScanError, ValueError
        As :func:`~harmony_app.workflows.result_images.read_images`.
    """
    return _in_target_units(read_images(root, scan.result), scan.sidecar).stages


def imputed_part(contrast: str, path: Path) -> str:
    """Tell an image that was made without being acquired."""
    try:
        volume = read_scan(path).volume
    except ScanError as error:
        return message('failed', 'no picture', str(error))
    peak = _sidecar_number(path, 'WhiteMatterPeak')
    volume = volume.with_data(volume.data / np.float32(peak))
    shown = volume.data > 0.05
    layout = lay_out(shown, foreground_box(volume), detailed=False)
    picture = grey_png(volume, layout, shared_window(volume.data[shown], percentile=99))
    return message(
        'doubtful', 'a guess', f'This {contrast} image was not acquired: a network made it.'
    ) + image(picture, f'imputed {contrast}')


def _state(scan: ReportScan) -> list[str]:
    if scan.status == 'failed':
        told = scan.told
        if scan.result is not None:
            told += ' What follows is the result of an earlier run.'
        return [message('failed', 'failed', told)]
    if scan.status == 'skipped':
        return [message('doubtful', 'skipped', scan.message)]
    return [message('doubtful', 'check', doubt) for doubt in scan.doubts]


def _settings(scan: ReportScan) -> str:
    sidecar = scan.sidecar
    source = sidecar.get('SourceScan', {})
    told = {
        'method': sidecar.get('HarmonizationMethod') or scan.result.quality.get('method'),
        'target': sidecar.get('HarmonizationTarget') or scan.result.quality.get('target'),
        'site': scan.result.site,
        'voxels': ' x '.join(f'{size:g}' for size in source.get('VoxelSize', ())) + ' mm'
        if source.get('VoxelSize')
        else None,
        'artifacts': scan.result.quality.get('artifact_flag'),
        'device': sidecar.get('Device'),
        'run': scan.run,
    }
    return facts({key: str(value) for key, value in told.items() if value})


def _drawn(
    root: Path, subject: Subject, scan: ReportScan, views: Views
) -> tuple[list[str], tuple[float, float] | None]:
    """Pictures of a scan and their window; the figure of the run where images are absent."""
    try:
        images = _in_target_units(read_images(root, scan.result), scan.sidecar)
        return _pictures(root, subject, scan, images, views)
    except (ScanError, ValueError) as error:
        told = [message('doubtful', 'no images to compare', str(error))]
    try:
        figure = scan.result.figure(root).read_bytes()
    except OSError:
        return told, None
    return [*told, image(figure, f'{scan.name} before and after, and their difference')], None


def _in_target_units(images: ResultImages, sidecar: Mapping) -> ResultImages:
    """Before and after with the white-matter peak of the target at 1."""
    peak = np.float32(float(sidecar.get('WhiteMatterPeak') or 1))
    after = images.stages['after']
    stages = {**images.stages, 'after': after.with_data(after.data / peak)}
    return ResultImages(stages, images.brain, images.tissues)


def _pictures(
    root: Path, subject: Subject, scan: ReportScan, images: ResultImages, views: Views
) -> tuple[list[str], tuple[float, float]]:
    before, after = images.stages['before'], images.stages['after']
    brain = images.brain
    layout = lay_out(brain, foreground_box(before, after), views.detailed)
    window = shared_window(before.data[brain], after.data[brain])
    target, told = _target_picture(root, subject, scan, images)
    shown = [
        Picture('before', grey_png(before, layout, window), 'the scan, bias field removed'),
        Picture('after', grey_png(after, layout, window), 'the harmonized scan'),
    ]
    if target is not None:
        shown.append(Picture('target', grey_png(target, layout, window), told))
    difference = np.abs(after.data[brain] - before.data[brain])
    span = max(float(np.percentile(difference, 99)), SMALLEST_DIFFERENCE)
    scale = charts.colour_scale(
        difference_colours(), span, 'after - before, white-matter peak at 1', f'scale-{scan.name}'
    )
    changed = image(
        difference_png(before, after, head_mask(before), layout, span),
        f'{scan.name}, after less before',
    )
    parts = [
        heading('Before, after and target'),
        paragraph(
            f'One intensity window for all: {window[0]:.2f} to {window[1]:.2f}, where white matter '
            'is at 1. Left in the picture is left in the head.',
            note=True,
        ),
        comparison(shown, scan.name),
        heading('Difference'),
        f'<div class="difference">{changed}</div>{scale}',
        heading('Intensities of the tissues'),
        _histograms(scan, images),
        heading('Registration'),
        paragraph(
            'The brain mask and the white matter of the template, as they were laid on the scan. Lines '
            'that follow the borders of the brain say that the tissues were measured where they lie.',
            note=True,
        ),
        _registration(scan, images, window),
    ]
    return parts, window


def _target_picture(
    root: Path, subject: Subject, scan: ReportScan, images: ResultImages
) -> tuple[Volume | None, str]:
    """A scan of the target where the results hold one, else its levels on the scan's own maps."""
    path, name = _target_scan(root, subject, scan)
    if path is not None:
        try:
            volume = read_scan(path).volume
            if volume.shape == images.brain.shape:
                return volume, f'{name}, a scan of it: compare tissues, not places'
        except ScanError:
            pass
    levels = [number(scan, f'{tissue.lower()}_level_target') for tissue in TISSUES]
    if None in levels:
        return None, ''
    shares = images.tissues * images.brain
    drawn = np.tensordot(np.array(levels, np.float32), shares.astype(np.float32), axes=1)
    name = scan.result.quality.get('target', 'the target')
    told = f"a drawing, no scan: the levels of {name} on this head's registered tissue maps"
    return images.stages['before'].with_data(drawn), told


def _target_scan(root: Path, subject: Subject, scan: ReportScan) -> tuple[Path | None, str]:
    """Preprocessed scan of the target among the results, and its name."""
    name = scan.result.quality.get('target', '')
    if name.startswith('site:'):
        own = [s for s in subject.scans if s.result and s.result.site == name.removeprefix('site:')]
        for other in own:
            if other.contrast == scan.contrast and other.name != scan.name:
                return other.result.image(root, 'preproc'), other.name
        return None, ''
    entities = parse_name(f'{name}_{scan.contrast}')[0]
    if set(entities) - {'sub', 'ses'} or 'sub' not in entities:
        return None, ''
    path = derivative_path(root, entities, scan.contrast, desc='preproc', space=SPACE, res='1')
    if path.is_file():
        return path, path.name.split('_space-')[0]
    pattern = f'sub-{entities["sub"]}_*space-{SPACE}_res-1_desc-preproc_{scan.contrast}.nii.gz'
    folder = root / f'sub-{entities["sub"]}'
    folder = folder / f'ses-{entities["ses"]}' if 'ses' in entities else folder
    found = sorted(folder.rglob(pattern))
    return (found[0], found[0].name.split('_space-')[0]) if found else (None, '')


def _histograms(scan: ReportScan, images: ResultImages) -> str:
    before, after = images.stages['before'].data, images.stages['after'].data
    regions = tissue_regions(images)
    drawn = []
    for region, where in regions.items():
        values = {'before': before[where], 'after': after[where]}
        if region == 'brain' and scan.target is not None:
            values['target'] = np.interp(
                np.linspace(PERCENTILES[0], PERCENTILES[-1], 20_000),
                PERCENTILES,
                scan.target.profile.brain,
            )
        marks = {}
        if region != 'brain':
            for stage in STAGES:
                level = number(scan, f'{region.lower()}_level_{stage}')
                if level is not None:
                    marks[stage] = level
        upper = 1.05 * max(
            [float(np.percentile(v, 99.5)) for v in values.values()] + list(marks.values())
        )
        curves = [
            charts.Curve(stage, *charts.density(found, upper)) for stage, found in values.items()
        ]
        levels = ', '.join(f'{stage} {level:.2f}' for stage, level in marks.items())
        drawn.append(
            charts.curve_chart(
                region,
                curves,
                marks,
                upper,
                'intensity / white-matter peak',
                f'{scan.name}: intensities of {region} {"; levels: " + levels if levels else ""}',
            )
        )
    told = (
        'Each tissue under the registered map. Upright lines are its levels, before, after and of the '
        'target; the curve of the target is known for the brain as a whole.'
    )
    return legend(STAGES) + f'<div class="charts">{"".join(drawn)}</div>' + paragraph(told, True)


def _registration(scan: ReportScan, images: ResultImages, window: tuple[float, float]) -> str:
    volume = images.stages['before']
    layout: Layout = lay_out(images.brain, foreground_box(volume), detailed=False)
    white = images.tissues[TISSUES.index('WM')] * images.brain
    lines = outline_svg({'brain': images.brain, 'white': white}, layout)
    return outlined(
        grey_png(volume, layout, window),
        lines,
        f'{scan.name} with the outlines of the brain mask and of white matter',
        f'outlines-{scan.name}',
    )


def _sidecar_number(path: Path, key: str) -> float:
    try:
        return float(json.loads(sidecar_path(path).read_text(encoding='utf-8'))[key])
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0
