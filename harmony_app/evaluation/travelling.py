"""A travelling subject at two sites: how much of the gap between them is closed.

Four columns for every metric: before, after, the ceiling (a second scan at the target)
and the share of the way from before to the ceiling that harmonization went.
"""


def gap_closed(before: float, after: float, ceiling: float) -> float:
    """Share of the way from before to the ceiling; 1 is all of it, below 0 is farther away.

    It holds for metrics that rise and that fall alike; NaN where there is no gap.

    Examples
    --------
    >>> round(gap_closed(before=20.0, after=28.0, ceiling=30.0), 9)
    0.8
    >>> gap_closed(before=4, after=5, ceiling=2)  # an error that grew
    -0.5
    """
    gap = ceiling - before
    return float((after - before) / gap) if gap else float('nan')
