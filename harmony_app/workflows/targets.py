"""What ``--target`` names: styles that exist, or scans to measure them on."""

import difflib
import logging
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harmony_app.bids.atomic import read_json
from harmony_app.bids.discovery import Inventory, ScanInput, discover, list_participants
from harmony_app.bids.entities import clean_label, parse_name
from harmony_app.bids.filters import Selection
from harmony_app.errors import InputError, ModelError, OptionError
from harmony_app.methods.base import CONTRASTS, Style
from harmony_app.methods.model_folder import read_metadata
from harmony_app.methods.registry import default_styles, named_styles

logger = logging.getLogger('harmony_app')

SITE_SESSIONS = 10
"""Sessions of a site, at most, whose average is its style; more would change it little."""


@dataclass(frozen=True)
class Targets:
    """The target of each contrast: a style, or scans whose style is measured in the run.

    Parameters
    ----------
    styles : dict of str to Style
        Styles that are known now.
    scans : dict of str to tuple of ScanInput
        Scans to encode, by contrast.
    names : dict of str to str
        Name of the target, by contrast.
    root : Path or None
        Dataset of the scans.
    """

    styles: Mapping[str, Style] = field(default_factory=dict)
    scans: Mapping[str, tuple[ScanInput, ...]] = field(default_factory=dict)
    names: Mapping[str, str] = field(default_factory=dict)

    @property
    def contrasts(self) -> tuple[str, ...]:
        """Contrasts that have a target."""
        return tuple(c for c in CONTRASTS if c in self.styles or c in self.scans)

    def describe(self) -> list[str]:
        """One line for each contrast."""
        lines = []
        for contrast in self.contrasts:
            count = len(self.scans.get(contrast, ()))
            measured = f', measured on {count} scan{"s" * (count > 1)}' if count else ''
            lines.append(f'{contrast}: {self.names[contrast]}{measured}')
        return lines


def resolve_targets(
    given: Sequence[str],
    root: Path,
    model: Path | None = None,
    contrasts: Collection[str] = CONTRASTS,
) -> Targets:
    """Find out what the targets are.

    Parameters
    ----------
    given : sequence of str
        Values of ``--target``; a later one wins for the contrasts it has.
    root : Path
        The input dataset.
    model : Path, optional
        Model folder of the method; its named styles come before the packaged ones.
    contrasts : collection of str
        Contrasts that results may have; of others no scan is measured.

    Raises
    ------
    OptionError, InputError, SelectionError
        Where a target is unknown or has no usable scan; the message says what there is.
    """
    if not given:
        styles = _default_styles(model)
        return Targets(styles, {}, {contrast: style.name for contrast, style in styles.items()})
    styles, scans, names = {}, {}, {}
    for item in given:
        contrast, target = _split(item)
        found = _resolve(target, contrast, root, model)
        wanted = [c for c in found if contrast in (None, c)]
        if not wanted:
            raise OptionError(f'--target {item}: it has {", ".join(found)}, no {contrast}')
        for c in wanted:
            styles.pop(c, None)
            scans.pop(c, None)
            names[c] = target
            if isinstance(found[c], Style):
                styles[c] = found[c]
                names[c] = found[c].name
            else:
                scans[c] = found[c]
    scans = {contrast: found for contrast, found in scans.items() if contrast in contrasts}
    return Targets(styles, scans, names)


def styles_of_target(target: str | None, model: Path | None = None) -> dict[str, Style]:
    """Styles by contrast that a name, a style file or nothing stands for; no dataset is needed.

    Parameters
    ----------
    target : str or None
        Named style, or path of a style JSON file; None for the default styles.
    model : Path, optional
        Model folder of the method.

    Raises
    ------
    OptionError, InputError
        Where there is no such style; the message says which there are.
    """
    if target is None:
        return _default_styles(model)
    return _style_file(target) if target.endswith('.json') else _named(target, model)


def _split(item: str) -> tuple[str | None, str]:
    """Take ``CONTRAST=`` off the front."""
    head, equals, rest = item.partition('=')
    by_name = {contrast.lower(): contrast for contrast in CONTRASTS}
    if equals and head.lower() in by_name:
        return by_name[head.lower()], rest
    return None, item


def _resolve(target: str, contrast: str | None, root: Path, model: Path | None) -> dict:
    """Styles or scans by contrast."""
    if target.startswith('site:'):
        return _site(target, root)
    if re.fullmatch(r'sub-[a-zA-Z0-9+]+(_ses-[a-zA-Z0-9+]+)?', target):
        return _session(target, root)
    if target.endswith(('.nii', '.nii.gz')):
        return _image(target, contrast)
    if target.endswith('.json'):
        return _style_file(target)
    return _named(target, model)


def _site(target: str, root: Path) -> dict:
    site = target.removeprefix('site:')
    inventory = discover(root, Selection())
    scans = [scan for scan in inventory.scans if scan.site == site]
    if not scans:
        sites = sorted({scan.site for scan in inventory.scans if scan.site})
        raise OptionError(
            f'--target {target}: no scan is of that site; '
            + (f'sites are {", ".join(sites)}' if sites else 'the dataset names no site')
        )
    sessions = sorted({(scan.subject, scan.session or '') for scan in scans})
    if len(sessions) > SITE_SESSIONS:
        sessions = evenly_spread(sessions)
        logger.info('%s: the style is the average of %d sessions', target, SITE_SESSIONS)
    return _by_contrast(s for s in scans if (s.subject, s.session or '') in sessions)


def _session(target: str, root: Path) -> dict:
    entities = dict(part.split('-', 1) for part in target.split('_'))
    if entities['sub'] not in list_participants(root):
        raise OptionError(f'--target {target}: there is no sub-{entities["sub"]} in {root}')
    inventory: Inventory = discover(root, Selection(participants=(entities['sub'],)))
    sessions = sorted({scan.session for scan in inventory.scans if scan.session})
    wanted = entities.get('ses')
    if wanted is not None and wanted not in sessions:
        raise OptionError(f'--target {target}: sessions of it are {", ".join(sessions) or "none"}')
    return _by_contrast(s for s in inventory.scans if wanted in (None, s.session))


def _image(target: str, contrast: str | None) -> dict:
    path = Path(target).expanduser().resolve()
    if not path.is_file():
        raise InputError(f'--target {target}: no such file')
    _, suffix, _ = parse_name(path.name)
    contrast = contrast or (suffix if suffix in CONTRASTS else None)
    if contrast is None:
        raise OptionError(
            f'--target {target}: its name does not end with a contrast; '
            f'say which it is: --target T1w={target}'
        )
    label = clean_label(path.name.split('.')[0]) or 'image'
    entities = (('sub', 'target'), ('acq', label))
    return {contrast: (ScanInput(path, 'target', None, contrast, entities),)}


def _style_file(target: str) -> dict:
    """One style, a list of styles, styles by contrast, or anything with ``styles`` (a model)."""
    try:
        content = read_json(Path(target).expanduser())
    except OSError as error:
        raise InputError(f'--target {target}: {error.strerror}') from error
    except ValueError as error:
        raise OptionError(f'--target {target} is not JSON: {error}') from error
    if isinstance(content, dict):
        content = content.get('styles', content)
    if isinstance(content, dict):
        content = [content] if 'profile' in content else list(content.values())
    try:
        styles = [Style.from_dict(fields) for fields in content]
    except (KeyError, TypeError, ValueError) as error:
        raise OptionError(f'--target {target} holds no style ({error})') from error
    found = {style.contrast: style for style in reversed(styles)}
    unknown = [contrast for contrast in found if contrast not in CONTRASTS]
    if unknown or not found:
        raise OptionError(f'--target {target} has no style of {", ".join(CONTRASTS)}')
    return found


def _named(target: str, model: Path | None) -> dict:
    named = model_styles(model) or named_styles()
    if target not in named:
        match = difflib.get_close_matches(target, named, n=1, cutoff=0.4)
        hint = f' (did you mean {match[0]}?)' if match else ''
        raise OptionError(
            f'--target {target} is no named style{hint}: there are {", ".join(named)}; '
            'or give an image, sub-XX, site:NAME or a style JSON file'
        )
    return named[target]


def _default_styles(model: Path | None) -> dict[str, Style]:
    """First style of each contrast: of the model itself, else of the packaged one."""
    styles: dict[str, Style] = {}
    for by_contrast in model_styles(model).values():
        for contrast, style in by_contrast.items():
            styles.setdefault(contrast, style)
    return styles or default_styles()


def model_styles(model: Path | None) -> dict[str, dict[str, Style]]:
    """Named styles of a model folder, empty where it has none."""
    if model is None:
        return {}
    named: dict[str, dict[str, Style]] = {}
    try:
        for fields in read_metadata(model).get('styles', []):
            style = Style.from_dict(fields)
            named.setdefault(style.name, {})[style.contrast] = style
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(f'{model}: the styles of its model.json cannot be read') from error
    return named


def evenly_spread(items: Sequence) -> list:
    """At most :data:`SITE_SESSIONS` items of a sorted list, so that no order of recruitment weighs in.

    Examples
    --------
    >>> evenly_spread(range(25))
    [0, 2, 5, 7, 10, 12, 15, 17, 20, 22]
    """
    step = max(1.0, len(items) / SITE_SESSIONS)
    return [items[int(i * step)] for i in range(min(len(items), SITE_SESSIONS))]


def _by_contrast(scans) -> dict[str, tuple[ScanInput, ...]]:
    grouped: dict[str, list[ScanInput]] = {}
    for scan in scans:
        grouped.setdefault(scan.contrast, []).append(scan)
    return {contrast: tuple(group) for contrast, group in grouped.items()}
