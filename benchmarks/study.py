"""A study of travelling phantoms: who is scanned where, and in which order it is harmonized."""

import json
import os
import shutil
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import yaml

from harmony_app.bids.atomic import write_json
from harmony_app.errors import InputError, OptionError
from harmony_app.methods.base import CONTRASTS
from harmony_app.phantom.sites import find_sites, load_sites
from harmony_app.phantom.writer import Settings, write_dataset

PAIRS = ('next', 'all')
STAMP = 'study.json'


@dataclass(frozen=True)
class Study:
    """What a study is told.

    Parameters
    ----------
    subjects : int
        People; each is scanned at every site. Two at least: a style is that of others.
    sites : tuple of str
        Names of sites, two at least.
    contrasts : tuple of str
        Contrasts.
    pairs : str
        ``next``: each site to the one after it; ``all``: every ordered pair.
    seed : int
        Of heads and scans.
    lesions : float
        Mean volume of white-matter lesions in ml.
    resolution : float
        No voxel edge is shorter, mm; 0 leaves the protocols as they are.
    site_file : str, optional
        YAML with sites of one's own.
    label_maps : str, optional
        Folder of whole-head label maps; the ICBM head where it is not given.
    reference : str, optional
        Site that all scans are brought to in the second part; the first of ``sites`` by default.
    """

    subjects: int = 4
    sites: tuple[str, ...] = ('siteA', 'siteC', 'siteF', 'ge-signa')
    contrasts: tuple[str, ...] = ('T1w',)
    pairs: str = 'next'
    seed: int = 7
    lesions: float = 10.0
    resolution: float = 0.0
    site_file: str | None = None
    label_maps: str | None = None
    reference: str | None = None

    def __post_init__(self):
        if self.subjects < 2:
            raise OptionError('a study has two subjects at least: a style is that of others')
        if len(self.sites) < 2:
            raise OptionError('a study has two sites at least')
        if self.reference is not None and self.reference not in self.sites:
            raise OptionError(
                f'the reference {self.reference} is no site of the study: '
                f'choose one of {", ".join(self.sites)}'
            )
        if self.pairs not in PAIRS:
            raise OptionError(f'pairs is one of {", ".join(PAIRS)}, not {self.pairs!r}')
        for contrast in self.contrasts:
            if contrast not in CONTRASTS:
                raise OptionError(f'unknown contrast {contrast!r}: use {", ".join(CONTRASTS)}')

    @classmethod
    def read(cls, path: Path) -> 'Study':
        """Read a YAML file; OptionError where it says what is not known."""
        try:
            content = yaml.safe_load(path.read_text(encoding='utf-8')) or {}
        except (OSError, yaml.YAMLError) as error:
            raise InputError(f'{path}: cannot be read ({error})') from error
        known = {field.name for field in fields(cls)}
        if not isinstance(content, dict) or not content.keys() <= known:
            raise OptionError(f'{path}: a study knows {", ".join(sorted(known))}')
        for key in ('sites', 'contrasts'):
            if key in content:
                content[key] = tuple(content[key])
        for key in ('site_file', 'label_maps'):
            if content.get(key):
                content[key] = str((path.parent / content[key]).resolve())
        return cls(**content)

    def quick(self) -> 'Study':
        """The same with two people, two sites and one contrast."""
        sites = self.sites[:2]
        reference = self.reference if self.reference in sites else None
        return replace(
            self, subjects=2, sites=sites, contrasts=self.contrasts[:1], reference=reference
        )

    @property
    def reference_session(self) -> str:
        """Label of the sessions at the reference site."""
        return ''.join(c for c in self.reference or self.sites[0] if c.isalnum())

    def make(self, out: Path) -> Path:
        """Write the dataset, unless the same one is there.

        Raises
        ------
        OptionError
            Where the folder holds another study.
        """
        bids, stamp = out / 'bids', out / STAMP
        described = asdict(self) | {'sites': list(self.sites), 'contrasts': list(self.contrasts)}
        # another reference needs no other scans
        del described['reference']
        if stamp.exists():
            if json.loads(stamp.read_text(encoding='utf-8')) != described:
                raise OptionError(f'{out} holds another study: name another folder')
            return bids
        if bids.exists():
            raise OptionError(f'{bids} is there and is not of a study: name another folder')
        sites = find_sites(list(self.sites), load_sites(_path(self.site_file)))
        settings = Settings(
            subjects=self.subjects,
            sites=sites,
            seed=self.seed,
            contrasts=self.contrasts,
            label_maps=_path(self.label_maps),
            lesions=self.lesions,
            resolution=self.resolution,
        )
        # one that was interrupted is no dataset
        begun = out / 'bids.begun'
        shutil.rmtree(begun, ignore_errors=True)
        write_dataset(begun, settings)
        os.replace(begun, bids)
        write_json(stamp, described)
        return bids


def session_pairs(sessions: list[str], pairs: str) -> list[tuple[str, str]]:
    """Ordered pairs of sessions.

    Examples
    --------
    >>> session_pairs(['A', 'B', 'C'], 'next')
    [('A', 'B'), ('B', 'C'), ('C', 'A')]
    >>> len(session_pairs(['A', 'B', 'C'], 'all'))
    6
    """
    if pairs == 'all':
        return [(a, b) for a in sessions for b in sessions if a != b]
    return [(a, sessions[(i + 1) % len(sessions)]) for i, a in enumerate(sessions)]


def others_than(subject: str, subjects: list[str], one: bool = False) -> list[str]:
    """The people whose scans show a site's style: all but the subject, or the next one.

    Examples
    --------
    >>> others_than('2', ['1', '2', '3']), others_than('2', ['1', '2', '3'], one=True)
    (['3', '1'], ['3'])
    """
    start = subjects.index(subject) + 1
    others = [*subjects[start:], *subjects[: start - 1]]
    return others[:1] if one else others


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)
