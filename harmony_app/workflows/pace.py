"""How long a run still takes, by the steps that it has done itself."""

from collections.abc import Iterable

CACHED = 0.1
"""Seconds below which a step was found in the scratch and not done."""

Step = tuple[str, str]
"""Session and name of a step."""


class Pace:
    """Steps of a run, how long each kind took in it, and what is left.

    Nothing is known of other runs or machines: a kind of step of which none has ended yet has no
    duration, and an estimate without it is a lower bound, and says so.

    Parameters
    ----------
    steps : iterable of (str, str)
        Session and name of every step.

    Examples
    --------
    >>> pace = Pace([('sub-01', 'write'), ('sub-02', 'write')])
    >>> pace.start(('sub-01', 'write'), 0.0)
    >>> pace.end(('sub-01', 'write'), 4.0)
    4.0
    >>> pace.left(4.0)
    (4.0, True)
    """

    def __init__(self, steps: Iterable[Step]):
        self.open = set(steps)
        self.count = len(self.open)
        self.running: dict[Step, float] = {}
        self._durations: dict[str, list[float]] = {}
        self._begun: float | None = None
        self._busy = 0.0

    @property
    def ended(self) -> int:
        """Steps that have ended, or will not come."""
        return self.count - len(self.open)

    def start(self, step: Step, now: float) -> None:
        """Note that a step begins."""
        self._begun = now if self._begun is None else self._begun
        self.running[step] = now

    def end(self, step: Step, now: float, failed: bool = False) -> float:
        """Note that a step ends, and give its seconds; after a failure its session stops."""
        seconds = now - self.running.pop(step, now)
        self.open.discard(step)
        self._busy += seconds
        if failed:
            self.open -= {s for s in self.open if s[0] == step[0] and s not in self.running}
        elif seconds >= CACHED:
            self._durations.setdefault(_kind(step), []).append(seconds)
        return seconds

    def left(self, now: float, session: str | None = None) -> tuple[float, bool]:
        """Seconds that are left, and whether every kind of step in them is known.

        Parameters
        ----------
        now : float
            Time of day, seconds.
        session : str, optional
            Of this session alone, step after step; else of the run, as many at a time as
            there were until now.
        """
        seconds, complete = 0.0, True
        for step in self.open:
            if session not in (None, step[0]):
                continue
            known = self._durations.get(_kind(step))
            if known is None:
                complete = False
                continue
            passed = now - self.running[step] if step in self.running else 0.0
            seconds += max(sum(known) / len(known) - passed, 0.0)
        return (seconds if session else seconds / self._at_a_time(now)), complete

    def tell(self, now: float, session: str | None = None) -> str:
        """What is left in words; empty where nothing is known or left."""
        seconds, complete = self.left(now, session)
        if seconds < 1:
            return ''
        return f'{"about" if complete else "more than"} {in_words(seconds)} left'

    def _at_a_time(self, now: float) -> float:
        """Steps that ran at the same time, on average."""
        if self._begun is None or now <= self._begun:
            return 1.0
        busy = self._busy + sum(now - start for start in self.running.values())
        return max(busy / (now - self._begun), 1.0)


def in_words(seconds: float) -> str:
    """A duration as a person says it.

    Examples
    --------
    >>> [in_words(s) for s in (4, 59.6, 100, 3700, 90000)]
    ['4 s', '1 min', '2 min', '1 h 2 min', '25 h']
    """
    if seconds < 59.5:
        return f'{seconds:.0f} s'
    minutes = round(seconds / 60)
    if minutes < 60:
        return f'{minutes} min'
    hours, rest = divmod(minutes, 60)
    return f'{hours} h {rest} min' if rest and hours < 10 else f'{hours} h'


def _kind(step: Step) -> str:
    return step[1].split('_')[0]
