"""Averages of the sites that scans come from, so that people keep what they differ in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from harmony_app.bids.discovery import ScanInput, discover
from harmony_app.bids.filters import Selection
from harmony_app.imaging.profile import TissueProfile
from harmony_app.workflows.records import Record
from harmony_app.workflows.targets import Targets, evenly_spread, model_styles

CHOICES = ('auto', 'dataset', 'off')
"""Whose averages are taken: the model's, and the dataset's where a target is a site of it; the
dataset's for every target; none."""

FEWEST_PEOPLE = 3
"""People whose average is taken for that of a site."""


@dataclass(frozen=True)
class SiteAverages:
    """Average style of each site and contrast: known, or of scans that are measured in the run.

    Parameters
    ----------
    profiles : mapping of str to mapping of str to TissueProfile
        By site, then by contrast.
    scans : mapping of str to mapping of str to tuple of ScanInput
        The same for those that are to be measured.
    """

    profiles: Mapping[str, Mapping[str, TissueProfile]] = field(default_factory=dict)
    scans: Mapping[str, Mapping[str, tuple[ScanInput, ...]]] = field(default_factory=dict)

    def describe(self) -> list[str]:
        """One line for each site."""
        lines = []
        for site in sorted({*self.profiles, *self.scans}):
            told = [*self.profiles.get(site, {})]
            told += [f'{c} ({len(s)} scans)' for c, s in self.scans.get(site, {}).items()]
            lines.append(f'average of {site}: {", ".join(told)}')
        return lines


def find_site_averages(
    choice: str,
    scans: Sequence[ScanInput],
    targets: Targets,
    root: Path,
    model: Path | None,
) -> SiteAverages:
    """Find out which averages there are for the sites of some scans.

    They do not depend on which participants a run is about.

    Parameters
    ----------
    choice : str
        One of :data:`CHOICES`.
    scans : sequence of ScanInput
        Scans that will be harmonized.
    targets : Targets
        Their targets.
    root : Path
        The input dataset.
    model : Path or None
        Model folder; a style of it that has the name of a site is that site's average.
    """
    wanted = {(s.site, s.contrast) for s in scans if s.site and s.contrast in targets.contrasts}
    if choice == 'off' or not wanted:
        return SiteAverages()
    profiles: dict[str, dict[str, TissueProfile]] = {}
    styles = model_styles(model)
    for site, contrast in sorted(wanted):
        style = styles.get(site, {}).get(contrast)
        if style is not None and style.scans >= FEWEST_PEOPLE:
            profiles.setdefault(site, {})[contrast] = style.profile
    measured = {
        (site, contrast)
        for site, contrast in wanted
        if contrast not in profiles.get(site, {})
        and (choice == 'dataset' or targets.names[contrast].startswith('site:'))
    }
    return SiteAverages(profiles, _scans_of(measured, root) if measured else {})


def average_sites(
    finished: Sequence[Path],
    aligned: Sequence[Path],
    wanted: Mapping[str, Mapping[str, Sequence[str]]],
) -> dict[str, dict[str, dict]]:
    """Average profiles of preprocessed scans.

    Parameters
    ----------
    finished, aligned : sequence of Path
        Record of each scan, and of its session.
    wanted : mapping
        By site and contrast: names of the scans.

    Returns
    -------
    dict
        By site and contrast: the profile as plain data. An average is left out where too few of
        its scans could be used; those that may lie wrongly on the template are not.
    """
    profiles = {}
    for path, session in zip(finished, aligned, strict=True):
        record = Record(path)
        if not (record.failure or Record(session).facts['doubtful']):
            profiles[record.facts['name']] = TissueProfile.from_dict(record.facts['profile'])
    averages: dict[str, dict[str, dict]] = {}
    for site, by_contrast in wanted.items():
        for contrast, names in by_contrast.items():
            found = [profiles[name] for name in names if name in profiles]
            if len(found) >= FEWEST_PEOPLE:
                average = TissueProfile.average(found).to_dict()
                averages.setdefault(site, {})[contrast] = average
    return averages


def _scans_of(
    wanted: set[tuple[str, str]], root: Path
) -> dict[str, dict[str, tuple[ScanInput, ...]]]:
    """Scans of the dataset by site and contrast, one of each person."""
    firsts: dict[tuple[str, str], dict[str, ScanInput]] = {}
    for scan in discover(root, Selection()).scans:
        if (scan.site, scan.contrast) in wanted:
            firsts.setdefault((scan.site, scan.contrast), {}).setdefault(scan.subject, scan)
    found: dict[str, dict[str, tuple[ScanInput, ...]]] = {}
    for (site, contrast), people in sorted(firsts.items()):
        if len(people) >= FEWEST_PEOPLE:
            chosen = evenly_spread([people[subject] for subject in sorted(people)])
            found.setdefault(site, {})[contrast] = tuple(chosen)
    return found
