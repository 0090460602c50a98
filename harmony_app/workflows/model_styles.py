"""Average styles of sites, kept in a copy of a model."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from harmony_app.config import RunConfig
from harmony_app.errors import InputError, OptionError, ScanError
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.io import read_scan
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Method, Scan, Style
from harmony_app.methods.registry import get_method
from harmony_app.training.sessions import ScanFile, SessionFiles
from harmony_app.workflows.checks import check_device
from harmony_app.workflows.model_making import (
    folder_to_write,
    merge_styles,
    parent_model,
    with_lineage,
)
from harmony_app.workflows.targets import SITE_SESSIONS
from harmony_app.workflows.training_inputs import find_sessions, known_sites, white_matter_peaks

MIDDLE_SESSIONS = 2
"""Scans of a site and contrast, at most, of which the middle ground is measured."""

EVERYONE = 'group'
"""Name of the style of scans whose site nobody knows."""


def keep_styles(config: RunConfig) -> list[str]:
    """``--task styles``: measure the average style of sites and write a model that knows them.

    Parameters
    ----------
    config : RunConfig
        ``site`` for one site only.

    Raises
    ------
    InputError
        Where there are no preprocessed scans of the site.
    """
    folder, metadata = parent_model(config)
    out = folder_to_write(config, f'{config.method}-{config.site or "styles"}')
    sessions, notes = find_sessions(config)
    if not sessions:
        raise InputError(nothing_found(config))
    method = get_method(config.method, folder, check_device(config.device))
    if not method.takes_target:
        raise OptionError(
            f'--task styles --method {config.method}: it takes no target, so styles of sites would be '
            'of no use to it; --task adapt --site NAME fits it to a scanner'
        )
    styles = site_styles(method, sessions)
    if not styles:
        raise OptionError(
            f'--task styles: the model of {config.method} reaches none of these sites; '
            '--task adapt --site NAME fits it to one'
        )
    method.metadata = with_lineage(
        metadata,
        {
            'task': 'styles',
            'styles': [{'name': s.name, 'contrast': s.contrast, 'scans': s.scans} for s in styles],
        },
    ) | {'styles': merge_styles(metadata.get('styles', []), styles)}
    method.save(out)
    lines = [
        f'{style.name} {style.contrast}: {style.scans} scans, GM, WM, CSF at '
        + ', '.join(f'{level:.3f}' for level in style.profile.levels)
        for style in styles
    ]
    return [*lines, *(f'left out: {n}' for n in notes), f'written: {out}; use --model and --target']


def site_styles(method: Method, sessions: Sequence[SessionFiles]) -> list[Style]:
    """Average style of every site and contrast of some sessions.

    Parameters
    ----------
    method : Method
        Encodes them.
    sessions : sequence of SessionFiles
        At most ten of a site are measured, evenly over their names. Where no site is known at
        all, they are one, named ``group``. A style that the method cannot reach is left out.

    Returns
    -------
    list of Style
        By site, then by contrast.
    """
    styles = []
    for site in known_sites(sessions) or [None]:
        for contrast in CONTRASTS:
            chosen = _some_scans(sessions, site, contrast, SITE_SESSIONS)
            if not chosen or not method.reaches(site or EVERYONE, contrast):
                continue
            scans = [read_preprocessed(session, scan) for session, scan in chosen]
            style = method.encode_target(scans, site or EVERYONE)
            if hasattr(method, 'forget'):
                method.forget()
            styles.append(_with_peak(style, chosen))
    return styles


def middle_grounds(
    method: Method, sessions: Sequence[SessionFiles], simulated: Sequence[Scan]
) -> list[Style]:
    """The one style of each contrast of a method without a target, measured on what it makes.

    Parameters
    ----------
    method : Method
        Has ``middle_ground``; refuses scans that it was not trained for.
    sessions : sequence of SessionFiles
        At most two scans of each site and contrast are harmonized.
    simulated : sequence of Scan
        The same of the phantom.
    """
    styles = []
    for contrast in CONTRASTS:
        chosen = [
            pair
            for site in known_sites(sessions)
            for pair in _some_scans(sessions, site, contrast, MIDDLE_SESSIONS)
        ]
        scans = [read_preprocessed(session, scan) for session, scan in chosen]
        scans = [scan for scan in (*scans, *simulated) if scan.contrast == contrast]
        scans = [scan for scan in scans if _accepts(method, scan)]
        if scans:
            styles.append(_with_peak(method.middle_ground(scans), chosen))
    return styles


def _some_scans(
    sessions: Sequence[SessionFiles], site: str | None, contrast: str, count: int
) -> list[tuple[SessionFiles, ScanFile]]:
    """Scans of a site and contrast, at most so many, evenly over the names of their sessions."""
    found = [
        (session, scan)
        for session in sessions
        for scan in session.scans
        if (scan.site, scan.contrast) == (site, contrast)
    ]
    chosen = np.linspace(0, len(found) - 1, min(len(found), count))
    return [found[i] for i in chosen.round().astype(int)]


def _with_peak(style: Style, scans: Sequence[tuple[SessionFiles, ScanFile]]) -> Style:
    """The style in the unit of its scans, where that is known."""
    peaks = [white_matter_peaks(session).get(scan.name) for session, scan in scans]
    known = [peak for peak in peaks if peak is not None]
    return replace(style, wm_peak=float(np.median(known))) if known else style


def _accepts(method: Method, scan: Scan) -> bool:
    try:
        method.check_scan(scan)
    except ScanError:
        return False
    return True


def read_preprocessed(session: SessionFiles, scan: ScanFile) -> Scan:
    """A preprocessed scan as a method takes it; its own grid is the working grid.

    Raises
    ------
    ScanError
        Where a file is absent or corrupt.
    InputError
        Where a tissue is not seen.
    """
    volume = Volume(read_scan(scan.path).volume.data, WORKING_AFFINE)
    brain = read_scan(session.brain).volume.data > 0.5
    maps = np.stack([read_scan(path).volume.data for path in session.tissues])
    tissues = (255 * np.clip(maps, 0, 1)).round().astype(np.uint8)
    try:
        return Scan.of_working(scan.name, scan.contrast, volume, brain, tissues, scan.site)
    except ValueError as error:
        raise InputError(f'{scan.name}: {error}; leave it out with --participant-label') from error


def nothing_found(config: RunConfig) -> str:
    """Why there is nothing to learn from, and what to do."""
    if config.site is None:
        return (
            f'{config.output_dir} holds no preprocessed scans (desc-preproc) of the participants '
            'and contrasts asked for; run the participant level before'
        )
    sessions, _ = find_sessions(replace(config, site=None))
    sites = known_sites(sessions)
    told = f'sites are {", ".join(sites)}' if sites else 'the results name no site'
    raise OptionError(f'--site {config.site}: no preprocessed scan is of that site; {told}')
