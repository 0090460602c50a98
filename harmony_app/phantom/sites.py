"""Sites: scanners and the protocols they run, read from YAML."""

import difflib
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from importlib import resources
from pathlib import Path

import yaml

from harmony_app.errors import InputError, OptionError
from harmony_app.phantom.protocol import SEQUENCES, Protocol

CONTRASTS = ('T1w', 'T2w', 'PDw', 'FLAIR')
"""Contrasts that a site may have a protocol for (BIDS suffixes)."""

RECEIVE_FIELDS = ('birdcage', 'dielectric', 'array')
"""Shapes of the receive field: see :func:`harmony_app.phantom.acquisition.receive_field`."""

SOURCES = ('published', 'typical')
"""Where the numbers of a protocol come from."""

# Key of the YAML: unit, least and greatest value that a scanner of the last decades knows.
_RANGES = {
    'field': ('T', 0.2, 7.0),
    'repetition_time': ('ms', 4.0, 20000.0),
    'echo_time': ('ms', 0.5, 700.0),
    'nominal_echo_time': ('ms', 0.5, 700.0),
    'inversion_time': ('ms', 100.0, 5000.0),
    'excitation_interval': ('ms', 3.0, 40.0),
    'flip_angle': ('degrees', 1.0, 180.0),
    'zooms': ('mm', 0.3, 12.0),
    'snr': ('', 1.0, 1000.0),
    'bias': ('', 0.0, 0.9),
    'point_spread': ('voxels', 0.0, 5.0),
    'intensity': ('', 10.0, 20000.0),
}
_PLANES = ('axial', 'coronal', 'sagittal')
_PROTOCOL_KEYS = {f.name for f in fields(Protocol)} - {'contrast', 'field'} | {
    'source',
    'nominal_echo_time',
}
_PROTOCOL_NEEDS = ('sequence', 'repetition_time', 'echo_time', 'zooms', 'acquisition', 'plane')
_SITE_NEEDS = ('manufacturer', 'model', 'field', 'protocols')
_SITE_KEYS = {
    *_SITE_NEEDS,
    'aliases',
    'description',
    'receive_field',
    'point_spread',
    'intensity',
}


@dataclass(frozen=True)
class Site:
    """A scanner and its protocols.

    Parameters
    ----------
    name : str
        As on the command line.
    manufacturer, model : str
        For the sidecars.
    field : float
        Field strength in tesla.
    protocols : dict of str to Protocol
        By contrast (T1w, T2w, PDw, FLAIR).
    description : str
        One line.
    aliases : tuple of str
        Other names that find this site.
    receive_field : str
        Shape of the receive field, one of :data:`RECEIVE_FIELDS`.
    point_spread : float
        Full width at half maximum of the point spread that filter and readout leave, in
        acquired voxels.
    intensity : float
        Mean white-matter intensity of the stored images.
    nominal_echo_times : dict of str to float
        Echo time in ms that the sidecar tells, where it is not the contrast-equivalent one
        of the protocol (variable flip angles, combined echoes).
    sources : dict of str to str
        ``published`` or ``typical``, by contrast.
    """

    name: str
    manufacturer: str
    model: str
    field: float
    protocols: dict[str, Protocol]
    description: str = ''
    aliases: tuple[str, ...] = ()
    receive_field: str = 'birdcage'
    point_spread: float = 1.0
    intensity: float = 500.0
    nominal_echo_times: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Name with letters and digits only, for BIDS entities."""
        return ''.join(character for character in self.name if character.isalnum())


def load_sites(path: Path | str | None = None) -> dict[str, Site]:
    """Read the sites of a YAML file, those of the package by default.

    Parameters
    ----------
    path : path, optional
        A file of the same schema as ``sites.yaml`` of this package.

    Returns
    -------
    dict of str to Site
        In the order of the file.

    Raises
    ------
    InputError
        Where the file is absent or is no YAML.
    OptionError
        Where a key is unknown or missing, or a value is impossible or in the wrong unit.

    Examples
    --------
    >>> sites = load_sites()
    >>> sites['siteC'].protocols['T1w'].repetition_time
    1900.0
    """
    if path is None:
        text = resources.files('harmony_app.phantom').joinpath('sites.yaml').read_text('utf-8')
        origin = 'sites.yaml'
    else:
        origin = str(path)
        try:
            text = Path(path).read_text('utf-8')
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f'{origin}: cannot be read as a site file ({error})') from error
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = ' '.join(str(error).split())
        raise InputError(f'{origin}: not valid YAML ({reason})') from error
    if not isinstance(content, dict) or not isinstance(content.get('sites'), dict):
        raise OptionError(f"{origin}: a site file has one mapping 'sites' of names to sites")
    _known(content, {'sites'}, origin)
    if not content['sites']:
        raise OptionError(f'{origin}: no site in it')
    sites = {str(name): _site(str(name), entry, origin) for name, entry in content['sites'].items()}
    _distinct(sites, origin)
    return sites


def find_sites(names: Sequence[str], sites: dict[str, Site]) -> list[Site]:
    """Sites by name, alias (``A``, ``calamiti-A``) or label, whatever the case.

    Raises
    ------
    OptionError
        Where a name is unknown or named twice.

    Examples
    --------
    >>> [site.name for site in find_sites(['A', 'siteD', 'mispelge'], load_sites())]
    ['siteA', 'siteD', 'mispel-ge']
    """
    by_name = {}
    for site in sites.values():
        for name in (site.name, site.label, *site.aliases):
            by_name.setdefault(name.lower(), site)
    found = []
    for name in names:
        site = by_name.get(name.strip().lower())
        if site is None:
            close = difflib.get_close_matches(name.lower(), by_name, n=1)
            hint = f'; did you mean {by_name[close[0]].name}?' if close else '.'
            raise OptionError(f'unknown site {name!r}{hint} Known sites: {", ".join(sites)}')
        if site in found:
            raise OptionError(f'site {site.name} is named twice')
        found.append(site)
    return found


def _site(name: str, entry: object, origin: str) -> Site:
    where = f'{origin}: site {name}'
    _mapping(entry, where)
    _known(entry, _SITE_KEYS, where)
    _needed(entry, _SITE_NEEDS, where)
    strength = _number(entry['field'], 'field', where)
    _mapping(entry['protocols'], f'{where}: protocols')
    _known(entry['protocols'], set(CONTRASTS), f'{where}: protocols')
    if not entry['protocols']:
        raise OptionError(f'{where}: no protocol in it')
    protocols, nominal, sources = {}, {}, {}
    for contrast, given in entry['protocols'].items():
        here = f'{where}: {contrast}'
        _mapping(given, here)
        protocols[contrast] = _protocol(contrast, strength, given, here)
        sources[contrast] = _choice(given.get('source', 'typical'), SOURCES, 'source', here)
        if 'nominal_echo_time' in given:
            value = given['nominal_echo_time']
            nominal[contrast] = _number(value, 'nominal_echo_time', here)
    aliases = entry.get('aliases', [])
    if not isinstance(aliases, list):
        raise OptionError(f'{where}: aliases is a list of names, not {aliases!r}')
    site = Site(
        name=name,
        manufacturer=str(entry['manufacturer']),
        model=str(entry['model']),
        field=strength,
        protocols={c: protocols[c] for c in CONTRASTS if c in protocols},
        description=str(entry.get('description', '')),
        aliases=tuple(str(alias) for alias in aliases),
        receive_field=_choice(
            entry.get('receive_field', 'birdcage'), RECEIVE_FIELDS, 'receive_field', where
        ),
        point_spread=_number(entry.get('point_spread', 1.0), 'point_spread', where),
        intensity=_number(entry.get('intensity', 500.0), 'intensity', where),
        nominal_echo_times=nominal,
        sources=sources,
    )
    if not site.label.isascii() or not site.label:
        raise OptionError(f'{where}: the name needs letters a-z or digits, it becomes a session')
    return site


def _protocol(contrast: str, strength: float, given: dict, where: str) -> Protocol:
    _known(given, _PROTOCOL_KEYS, where)
    _needed(given, _PROTOCOL_NEEDS, where)
    sequence = _choice(given['sequence'], SEQUENCES, 'sequence', where)
    if sequence in ('MPRAGE', 'FLAIR'):
        _needed(given, ('inversion_time',), f'{where} ({sequence})')
    if sequence == 'MPRAGE':
        _needed(given, ('excitation_interval',), f'{where} ({sequence})')
    values = {
        key: _number(given[key], key, where)
        for key in (
            'repetition_time',
            'echo_time',
            'inversion_time',
            'excitation_interval',
            'flip_angle',
            'snr',
            'bias',
        )
        if key in given
    }
    zooms = given['zooms']
    if not isinstance(zooms, list) or len(zooms) != 3:
        raise OptionError(
            f'{where}: zooms are three lengths in mm (two in the plane, one across), not {zooms!r}'
        )
    protocol = Protocol(
        contrast=contrast,
        sequence=sequence,
        field=strength,
        zooms=tuple(_number(zoom, 'zooms', where) for zoom in zooms),
        acquisition=_choice(given['acquisition'], ('2D', '3D'), 'acquisition', where),
        plane=_choice(given['plane'], _PLANES, 'plane', where),
        **values,
    )
    if protocol.echo_time >= protocol.repetition_time:
        raise OptionError(
            f'{where}: echo_time {protocol.echo_time:g} ms is not below repetition_time '
            f'{protocol.repetition_time:g} ms'
        )
    if protocol.inversion_time >= protocol.repetition_time:
        raise OptionError(
            f'{where}: inversion_time {protocol.inversion_time:g} ms is not below '
            f'repetition_time {protocol.repetition_time:g} ms'
        )
    if sequence != 'SPGR' and protocol.repetition_time < 500:
        raise OptionError(
            f'{where}: repetition_time {protocol.repetition_time:g} ms is too short for {sequence}'
            ' (for MPRAGE it runs from inversion to inversion; is it in s?)'
        )
    return protocol


def _number(value: object, key: str, where: str) -> float:
    unit, low, high = _RANGES[key]
    if isinstance(value, str):
        # "2400 ms" is as good as 2400; any other unit is not guessed
        parts = value.split()
        try:
            number = float(parts[0])
        except (IndexError, ValueError):
            raise OptionError(f'{where}: {key} is a number, not {value!r}') from None
        if parts[1:] and parts[1:] != [unit]:
            raise OptionError(
                f'{where}: {key} is given in {unit or "plain numbers"}, not in '
                f'{" ".join(parts[1:])} ({value!r})'
            )
    elif isinstance(value, bool) or not isinstance(value, int | float):
        raise OptionError(f'{where}: {key} is a number, not {value!r}')
    else:
        number = float(value)
    if not (math.isfinite(number) and low <= number <= high):
        hint = ''
        if unit == 'ms' and 0 < number < low:
            hint = f'; is it in s? Then write {1000 * number:g}'
        raise OptionError(
            f'{where}: {key} {number:g} {unit} is outside {low:g} to {high:g} {unit}'.rstrip()
            + hint
        )
    return number


def _choice(value: object, known: Sequence[str], key: str, where: str) -> str:
    if value not in known:
        raise OptionError(f'{where}: {key} is one of {", ".join(known)}, not {value!r}')
    return value


def _mapping(value: object, where: str) -> None:
    if not isinstance(value, dict):
        raise OptionError(f'{where}: needs a mapping of keys to values, not {value!r}')


def _known(given: dict, known: set[str], where: str) -> None:
    for key in given:
        if key not in known:
            close = difflib.get_close_matches(str(key), known, n=1)
            hint = f'; did you mean {close[0]}?' if close else '.'
            raise OptionError(
                f'{where}: unknown key {key!r}{hint} Known keys: {", ".join(sorted(known))}'
            )


def _needed(given: dict, needed: Sequence[str], where: str) -> None:
    missing = [key for key in needed if key not in given]
    if missing:
        raise OptionError(f'{where}: missing {", ".join(missing)}')


def _distinct(sites: dict[str, Site], origin: str) -> None:
    """Two sites with one label would write into one session."""
    seen = {}
    for site in sites.values():
        for name in {site.label.lower(), site.name.lower(), *(a.lower() for a in site.aliases)}:
            if seen.setdefault(name, site.name) != site.name:
                raise OptionError(f'{origin}: {site.name} and {seen[name]} share the name {name}')
