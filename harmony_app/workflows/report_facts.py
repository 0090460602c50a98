"""What was really done to the scans of the results, for the methods text: from their sidecars."""

from collections.abc import Mapping, Sequence

from harmony_app import __version__
from harmony_app.config import PACKAGES
from harmony_app.methods.base import CONTRASTS
from harmony_app.reports.methods_text import Facts, MethodFacts, TargetFacts
from harmony_app.workflows.report_inputs import ReportScan, ReportSession, Subject


def gather_facts(subjects: Sequence[Subject]) -> Facts | None:
    """Facts of the harmonized scans of some participants.

    Parameters
    ----------
    subjects : sequence of Subject

    Returns
    -------
    Facts or None
        None where no scan was harmonized.
    """
    sessions = [session for subject in subjects for session in subject.sessions]
    scans = [s for session in sessions for s in session.scans if s.sidecar]
    if not scans:
        return None
    corrected = {bool(_source(scan).get('BiasFieldCorrected')) for scan in scans}
    settings = {name: run.settings for subject in subjects for name, run in subject.runs.items()}
    environment = settings[max(settings)].get('environment', {}) if settings else {}
    return Facts(
        methods=_methods(sessions),
        version=max(str(scan.sidecar.get('HarmonyAppVersion', __version__)) for scan in scans),
        scans=len(scans),
        sessions=sum(any(s.sidecar for s in session.scans) for session in sessions),
        thick=_in_order(
            s.contrast
            for s in scans
            if _source(s).get('ThickSlices') and not _source(s).get('SuperResolutionFactor')
        ),
        divided=_in_order(s.contrast for s in scans if _source(s).get('SuperResolutionFactor')),
        bias_corrected='some' if len(corrected) > 1 else 'all' if True in corrected else 'none',
        tissue_field=any(scan.before.get('TissueFieldRange') for scan in scans),
        several=any(sum(bool(s.sidecar) for s in session.scans) > 1 for session in sessions),
        masks_given=any(session.mask_given for session in sessions),
        transforms_given=any(_source(scan).get('TransformGiven') for scan in scans),
        packages={name: str(environment[name]) for name in PACKAGES if name in environment},
    )


def _methods(sessions: Sequence[ReportSession]) -> tuple[MethodFacts, ...]:
    """Facts by method, model and seed."""
    groups: dict[tuple, list[ReportScan]] = {}
    imputed: dict[tuple, list[str]] = {}
    for session in sessions:
        keys = [_key(scan) for scan in session.scans if scan.sidecar]
        for scan, key in zip([s for s in session.scans if s.sidecar], keys, strict=True):
            groups.setdefault(key, []).append(scan)
        if keys:
            imputed.setdefault(keys[0], []).extend(contrast for contrast, _ in session.imputed)
    return tuple(
        _method(key, scans, imputed.get(key, ())) for key, scans in sorted(groups.items(), key=str)
    )


def _method(key: tuple, scans: Sequence[ReportScan], imputed: Sequence[str]) -> MethodFacts:
    method, model, seed = key
    settings = [scan.sidecar.get('HarmonizationSettings', {}) for scan in scans]
    targets = {
        (scan.contrast, str(scan.sidecar.get('HarmonizationTarget', ''))): scan.target
        for scan in scans
    }
    return MethodFacts(
        method=method,
        contrasts=_in_order(scan.contrast for scan in scans),
        targets=tuple(
            TargetFacts(contrast, name, style.scans if style else 0)
            for (contrast, name), style in sorted(
                targets.items(), key=lambda item: (CONTRASTS.index(item[0][0]), item[0][1])
            )
            if name
        ),
        details=frozenset(s['Detail'] for s in settings if 'Detail' in s),
        fusions=frozenset(s['Fusion'] for s in settings if 'Fusion' in s),
        noises=frozenset(_noise(s) for s in settings if 'TransferNoiseKept' in s),
        site_average=any(s.get('TransferStart') == 'site average' for s in settings),
        fluid=any('TransferFluidLevel' in s for s in settings),
        imputed=_in_order(imputed),
        model=model,
        device=str(scans[0].sidecar.get('Device', '')),
        seed=seed,
    )


def _key(scan: ReportScan) -> tuple:
    sidecar = scan.sidecar
    return (
        str(sidecar.get('HarmonizationMethod', '')),
        str(sidecar.get('HarmonizationModelSHA256', '')),
        sidecar.get('RandomSeed'),
    )


def _noise(settings: Mapping) -> str:
    kept = float(settings['TransferNoiseKept'])
    return 'kept' if kept >= 1 else 'reduced' if kept > 0 else 'removed'


def _source(scan: ReportScan) -> Mapping:
    return scan.sidecar.get('SourceScan', {})


def _in_order(contrasts) -> tuple[str, ...]:
    found = set(contrasts)
    return tuple(contrast for contrast in CONTRASTS if contrast in found)
