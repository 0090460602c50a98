"""What a group trains on: preprocessed sessions among the results, and the phantom."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from harmony_app.bids.atomic import read_table
from harmony_app.bids.derivatives import derivative_path, sidecar_path
from harmony_app.bids.entities import parse_name
from harmony_app.config import RunConfig
from harmony_app.errors import InputError, OptionError
from harmony_app.imaging.grid import SPACE
from harmony_app.imaging.profile import TISSUES
from harmony_app.imaging.registration import GOOD_QUALITY
from harmony_app.methods.base import CONTRASTS
from harmony_app.training.biology import Biology, read_biology
from harmony_app.training.material import PhantomConfig
from harmony_app.training.sessions import ScanFile, SessionFiles
from harmony_app.workflows.names import session_name


def read_phantom(path: Path) -> PhantomConfig:
    """Read the file of ``--phantom``; folders are relative to it.

    Raises
    ------
    InputError
        Where it, or a folder that it names, is absent.
    OptionError
        Where it is not such a file.
    """
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding='utf-8'))
    except OSError as error:
        raise InputError(f'--phantom {path}: {error.strerror}') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise OptionError(f'--phantom {path} is not YAML: {error}') from error
    if not isinstance(content, Mapping):
        raise OptionError(f'--phantom {path} holds no settings (heads: FOLDER, share: 0.5, ...)')
    known = {item.name: item.type for item in fields(PhantomConfig)}
    if unknown := sorted(set(content) - set(known)):
        raise OptionError(
            f'--phantom {path} has unknown keys {", ".join(map(str, unknown))}; '
            f'it takes {", ".join(known)}'
        )
    given = dict(content)
    for name in ('heads', 'label_maps'):
        if given.get(name) is not None:
            folder = path.parent / Path(str(given[name])).expanduser()
            if not folder.is_dir():
                raise InputError(f'--phantom {path}: {name} {folder} is no folder')
            given[name] = folder
    for name in ('share', 'minutes', 'steps', 'batch', 'size', 'subjects_per_head', 'patience'):
        if given.get(name) is not None and (
            isinstance(given[name], bool) or not isinstance(given[name], int | float)
        ):
            raise OptionError(f'--phantom {path}: {name} is a number, not {given[name]!r}')
    for name in ('sites', 'contrasts'):
        named = given.get(name)
        if named is None:
            continue
        if not isinstance(named, list) or not named or not all(isinstance(n, str) for n in named):
            raise OptionError(f'--phantom {path}: {name} is a list of names, not {named!r}')
    if unknown := sorted(set(given.get('contrasts') or ()) - set(CONTRASTS)):
        raise OptionError(
            f'--phantom {path}: unknown contrast {", ".join(unknown)}; use {", ".join(CONTRASTS)}'
        )
    config = PhantomConfig(**given)
    if not 0 < config.share <= 1:
        raise OptionError(f'--phantom {path}: share lies above 0 and not above 1')
    if config.subjects_per_head < 1:
        raise OptionError(f'--phantom {path}: subjects_per_head is at least 1')
    return config


def find_sessions(config: RunConfig) -> tuple[list[SessionFiles], list[str]]:
    """Preprocessed sessions among the results of the participant level.

    Participants, sessions, contrasts and the site are those asked for. A session whose
    registration to the template is doubtful is left out.

    Parameters
    ----------
    config : RunConfig
        ``output_dir`` and filters are used.

    Returns
    -------
    sessions : list of SessionFiles
        By name.
    notes : list of str
        What was left out and why.
    """
    root, notes = config.output_dir, []
    images: dict[tuple[str, str | None], list[Path]] = {}
    pattern = f'*_space-{SPACE}_*desc-preproc_*.nii.gz'
    for folder in ('sub-*/anat', 'sub-*/ses-*/anat'):
        for path in sorted(root.glob(f'{folder}/{pattern}')):
            entities, suffix, _ = parse_name(path.name)
            subject, session = entities.get('sub', ''), entities.get('ses')
            if suffix not in config.modalities:
                continue
            if config.participants and subject not in config.participants:
                continue
            if config.sessions and session is not None and session not in config.sessions:
                continue
            images.setdefault((subject, session), []).append(path)
    sessions = []
    for (subject, session), paths in sorted(images.items(), key=lambda item: str(item[0])):
        found = _session(root, subject, session, paths, notes)
        if found is not None and config.site is not None:
            found = replace(found, scans=tuple(s for s in found.scans if s.site == config.site))
        if found is not None and found.scans:
            sessions.append(found)
    return sessions, notes


def known_sites(sessions: Sequence[SessionFiles]) -> list[str]:
    """Sites of sessions, each once."""
    return sorted({scan.site for session in sessions for scan in session.scans if scan.site})


def biology_of(config: RunConfig, people: Sequence[str]) -> Biology:
    """What ``participants.tsv`` tells of people in the columns of ``--biology``.

    Parameters
    ----------
    config : RunConfig
        ``bids_dir`` and ``biology`` are used.
    people : sequence of str
        Labels without ``sub-``.

    Raises
    ------
    InputError
        Where there is no such table or column, or nobody to tell apart.
    """
    path = config.bids_dir / 'participants.tsv'
    if not people:
        raise InputError(
            '--biology: there are no preprocessed scans of people to learn it from; run the '
            'participant level first, or leave it out'
        )
    try:
        rows = read_table(path)
    except OSError as error:
        raise InputError(f'--biology: {path}: {error.strerror}') from error
    return read_biology(rows, config.biology, people)


def white_matter_peaks(files: SessionFiles) -> dict[str, float]:
    """White-matter peak of each scan in its own units, where its sidecar tells it."""
    import json

    peaks = {}
    for scan in files.scans:
        try:
            told = json.loads(sidecar_path(scan.path).read_text(encoding='utf-8'))
            peaks[scan.name] = float(told['SourceWhiteMatterPeak'])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return peaks


def _session(
    root: Path, subject: str, session: str | None, paths: list[Path], notes: list[str]
) -> SessionFiles | None:
    shared = {'sub': subject} | ({'ses': session} if session else {})
    name = session_name(subject, session)
    table = derivative_path(root, shared, 'qc', '.tsv', desc='harmonized')
    rows = {row['scan']: row for row in read_table(table)} if table.is_file() else {}
    scans = []
    for path in paths:
        entities, suffix, _ = parse_name(path.name)
        kept = [f'{k}-{v}' for k, v in entities.items() if k not in ('space', 'res', 'desc')]
        scan = '_'.join([*kept, suffix])
        scans.append(ScanFile(scan, suffix, path, rows.get(scan, {}).get('site')))
    scans.sort(key=lambda scan: (CONTRASTS.index(scan.contrast), scan.name))
    own = [rows[scan.name] for scan in scans if scan.name in rows]
    qualities = [float(row['registration_quality']) for row in own if 'registration_quality' in row]
    if qualities and min(qualities) < GOOD_QUALITY:
        notes.append(f'{name}: its registration to the template is doubtful')
        return None
    return SessionFiles(
        name,
        subject,
        tuple(scans),
        derivative_path(root, shared, 'mask', desc='brain', space=SPACE, res='1'),
        tuple(
            derivative_path(root, shared, 'probseg', label=tissue, space=SPACE, res='1')
            for tissue in TISSUES
        ),
    )
