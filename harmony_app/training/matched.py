"""Matched sets: scans of one person and one contrast at several scanners.

They may lie in different sessions; a person who was not at every scanner counts as far as it goes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harmony_app.methods.base import CONTRASTS
from harmony_app.training.sessions import Session, SessionFiles


@dataclass(frozen=True)
class MatchedSet:
    """Scans of a person in one contrast, by scanner.

    Parameters
    ----------
    subject, contrast : str
    scans : dict of str to tuple of (session, scan)
        Two scanners at least, each by the site label of its scans, in the order of their names.
    """

    subject: str
    contrast: str
    scans: Mapping[str, tuple[tuple, ...]]


def find_matched(sessions: Sequence[Session | SessionFiles]) -> list[MatchedSet]:
    """Matched sets of some sessions, by subject and contrast; scans of no known site are in none."""
    found: dict[tuple[str, int], dict[str, list]] = {}
    for session in sessions:
        for scan in session.scans:
            if scan.site:
                key = session.subject, CONTRASTS.index(scan.contrast)
                found.setdefault(key, {}).setdefault(scan.site, []).append((session, scan))
    return [
        MatchedSet(subject, CONTRASTS[contrast], {s: tuple(scans[s]) for s in sorted(scans)})
        for (subject, contrast), scans in sorted(found.items())
        if len(scans) > 1
    ]


def units_of(sets: Sequence[MatchedSet]) -> list[tuple[str, str]]:
    """Contrast and scanner of each unit that can be learned from some sets."""
    known = {(CONTRASTS.index(s.contrast), scanner) for s in sets for scanner in s.scans}
    return [(CONTRASTS[contrast], scanner) for contrast, scanner in sorted(known)]


def apart(groups: Iterable[Iterable[str]]) -> list[list[str]]:
    """Scanners in groups that no person joins.

    Parameters
    ----------
    groups : iterable of iterables of str
        Scanners of each person.

    Examples
    --------
    >>> apart([['A', 'B'], ['C', 'D'], ['D', 'E']])
    [['A', 'B'], ['C', 'D', 'E']]
    """
    found: list[set[str]] = []
    for group in map(set, groups):
        joined = [other for other in found if other & group]
        found = [other for other in found if not other & group]
        found.append(group.union(*joined))
    return sorted(sorted(group) for group in found)
