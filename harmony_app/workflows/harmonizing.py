"""From preprocessed scans to styles and harmonized scans: where the method is called."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from harmony_app.errors import HarmonyError, ScanError
from harmony_app.imaging.bias import divide_field
from harmony_app.imaging.grid import WORKING_AFFINE
from harmony_app.imaging.profile import TissueProfile
from harmony_app.imaging.volume import Volume
from harmony_app.methods.base import CONTRASTS, Harmonized, Method, Scan, Style
from harmony_app.workflows.records import Record, write_record
from harmony_app.workflows.steps import failure_of, volume_of


def load_scans(
    prepared: Sequence[Path], finished: Sequence[Path], aligned: Sequence[Path]
) -> list[Scan]:
    """Scans for a method; those that failed are left out.

    Parameters
    ----------
    prepared, finished, aligned : sequence of Path
        Records of each scan, and of the session that each scan belongs to.
    """
    scans = []
    maps: dict[Path, dict] = {}
    for first, second, session in zip(prepared, finished, aligned, strict=True):
        ready = Record(second)
        if ready.failure:
            continue
        record = Record(first)
        session = Path(session)
        if session not in maps:
            shared = Record(session)
            maps[session] = {
                'brain': shared.array('brain'),
                'tissues': shared.array('tissues'),
                'fluid': shared.array('fluid') if 'fluid' in shared else None,
                'doubtful': bool(shared.facts['doubtful']),
            }
        native, to_working = volume_of(record), np.array(ready.facts['to_working'])
        if 'field' in ready:
            native = divide_field(native, ready.array('field'), to_working)
        scale = np.float32(1 / ready.facts['wm_peak'])
        scans.append(
            Scan(
                name=record.facts['name'],
                contrast=record.facts['contrast'],
                working=Volume(ready.array('working'), WORKING_AFFINE),
                native=native.with_data(np.maximum(native.data * scale, 0)),
                native_to_working=to_working,
                profile=TissueProfile.from_dict(ready.facts['profile']),
                site=record.facts['site'],
                **maps[session],
            )
        )
    return scans


def with_site_averages(
    scans: Sequence[Scan], averages: Mapping[str, Mapping[str, Mapping]]
) -> list[Scan]:
    """Scans that know the average of their site, where there is one.

    Parameters
    ----------
    scans : sequence of Scan
    averages : mapping
        By site and contrast: a profile as plain data.
    """
    known = []
    for scan in scans:
        found = averages.get(scan.site or '', {}).get(scan.contrast)
        profile = None if found is None else TissueProfile.from_dict(dict(found))
        known.append(replace(scan, site_average=profile))
    return known


def encode_style(
    method: Method, scans: Sequence[Scan], name: str, peaks: Mapping[str, float]
) -> Style:
    """Style of target scans of one contrast, in their own unit.

    Parameters
    ----------
    method : Method
        The method that will use it.
    scans : sequence of Scan
        Target scans.
    name : str
        Name of the target, as given.
    peaks : mapping of str to float
        White-matter peak of each scan, by its name; the median is the style's.
    """
    style = method.encode_target(scans, name)
    return replace(style, wm_peak=float(np.median([peaks[scan.name] for scan in scans])))


def harmonize_session(
    out: Path,
    method: Method,
    scans: Sequence[Scan],
    styles: Mapping[str, Style],
    impute: Sequence[str] = (),
    device: str = 'cpu',
) -> Path:
    """Harmonize the scans of a session to the styles of their contrasts.

    Parameters
    ----------
    out : Path
        Record to write: for result ``i`` the arrays ``i/working``, ``i/native`` and, where
        the method keeps it beside its result, ``i/decoder``; facts ``results`` and
        ``failures`` (by contrast, or by the name of a scan that the method refuses).
    method : Method
        Ready to use.
    scans : sequence of Scan
        Scans of one session.
    styles : mapping of str to Style
        Targets by contrast.
    impute : sequence of str
        Contrasts to make where they were not acquired.
    device : str
        Where the method runs; kept in the record.
    """
    facts: dict = {'results': [], 'failures': {}, 'device': device}
    accepted = []
    for scan in scans:
        try:
            method.check_scan(scan)
            accepted.append(scan)
        except ScanError as error:
            facts['failures'][scan.name] = failure_of(error)
    acquired = {scan.contrast for scan in accepted}
    wanted = [c for c in CONTRASTS if c in styles and (c in acquired or c in impute)]

    def arrays():
        for contrast in wanted if accepted else ():
            try:
                results = method.harmonize(accepted, styles[contrast])
            except HarmonyError as error:
                facts['failures'][contrast] = failure_of(error)
                continue
            for result in results:
                index = len(facts['results'])
                facts['results'].append(_describe(result))
                yield f'{index}/working', result.working.data.astype(np.float32, copy=False)
                if result.native is not None:
                    yield f'{index}/native', result.native.data.astype(np.float32, copy=False)
                if _has_decoder(result):
                    yield f'{index}/decoder', result.decoder.data.astype(np.float32, copy=False)

    return write_record(out, facts, arrays())


def _describe(result: Harmonized) -> dict:
    return {
        'source': result.source,
        'contrast': result.contrast,
        'native': result.native is not None,
        'decoder': _has_decoder(result),
        'theta': {key: list(map(float, values)) for key, values in result.theta.items()},
        'eta': {key: list(map(float, values)) for key, values in result.eta.items()},
        'artifacts': {key: [float(level), word] for key, (level, word) in result.artifacts.items()},
        'attention': {key: float(value) for key, value in result.attention.items()},
        'settings': result.settings,
    }


def _has_decoder(result: Harmonized) -> bool:
    """Whether there is a decoder image that is not the result itself."""
    return result.decoder is not None and result.decoder is not result.working
