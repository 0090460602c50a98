"""Parts of the page of a participant: pictures that are compared, outlines, weights."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from harmony_app.reports.html import image


@dataclass(frozen=True)
class Picture:
    """A picture of a stage.

    Parameters
    ----------
    stage : str
        ``before``, ``after`` or ``target``.
    png : bytes
    caption : str
        What it is, in words.
    """

    stage: str
    png: bytes
    caption: str


def comparison(pictures: Sequence[Picture], name: str) -> str:
    """Pictures of one layout and one window side by side; a script lets them be swiped.

    Parameters
    ----------
    pictures : sequence of Picture
        Of one size; the first two are compared first.
    name : str
        Of the scan, for those who do not see the pictures.
    """
    figures = '\n'.join(
        f'<figure data-stage="{escape(picture.stage)}">'
        f'{image(picture.png, f"{name}, {picture.stage}")}'
        f'<figcaption><b>{escape(picture.stage)}</b>: {escape(picture.caption)}</figcaption></figure>'
        for picture in pictures
    )
    told = '; '.join(f'{p.stage}: {p.caption}' for p in pictures)
    return (
        f'<div class="compare"><div class="stage" role="group" '
        f'aria-label="{escape(name)}: {escape(told)}">\n{figures}\n</div></div>'
    )


def outlined(png: bytes, lines: str, description: str, name: str) -> str:
    """A picture with outlines over it, which a box ticks away without a script.

    Parameters
    ----------
    png : bytes
    lines : str
        From :func:`~harmony_app.reports.outlines.outline_svg`.
    description : str
        For those who do not see it.
    name : str
        Identifier, one for each of a page.
    """
    return (
        f'<div><input type="checkbox" class="hide-outlines" id="{escape(name)}"> '
        f'<label for="{escape(name)}">hide the outlines</label>'
        f'<div class="outlined">{image(png, description)}{lines}</div>'
        '<p class="note"><span class="key"></span> brain mask '
        '<span class="key white"></span> white matter of the registered template</p></div>'
    )


def legend(stages: Sequence[str]) -> str:
    """Colours of the stages in the charts.

    Examples
    --------
    >>> legend(['before'])
    '<p class="note"><span class="key before"></span> before</p>'
    """
    keys = ' '.join(f'<span class="key {stage}"></span> {stage}' for stage in stages)
    return f'<p class="note">{keys}</p>'


def weights(shares: Mapping[str, float]) -> str:
    """Shares of one whole as bars with their numbers.

    Examples
    --------
    >>> '62 %' in weights({'sub-01_T1w': 0.62, 'sub-01_T2w': 0.38})
    True
    """
    rows = ''.join(
        f'<tr><td>{escape(name)}</td><td class="number">{100 * share:.0f} %</td>'
        f'<td><meter min="0" max="1" value="{share:.3f}">{100 * share:.0f} %</meter></td></tr>'
        for name, share in shares.items()
    )
    return f'<div class="wide"><table><tbody>{rows}</tbody></table></div>'


def base64_text(data: bytes) -> str:
    """Bytes as text of a page."""
    return base64.b64encode(data).decode('ascii')
