"""A page that stands alone: style, pictures and scripts inside, readable anywhere, and without a script."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import files
from urllib.parse import quote

LONGEST_TABLE = 500
"""Rows of a table that a page shows; the file beside it has them all."""

LONGEST_LINE = 48
"""Characters of a cell that stay on one line."""


@dataclass(frozen=True)
class Link:
    """Words that lead to a file beside the page.

    Parameters
    ----------
    text : str
        Words.
    path : str
        Path relative to the page, with slashes.
    fragment : str
        Part of that page.
    """

    text: str
    path: str
    fragment: str = ''


def asset(name: str) -> str:
    """Text of a file that comes with the reports: a style sheet or a script."""
    return (files('harmony_app.reports') / name).read_text(encoding='utf-8')


def page(
    title: str, introduction: str, sections: Mapping[str, str], scripts: Sequence[str] = ()
) -> str:
    """Put a page together.

    Parameters
    ----------
    title : str
        Words.
    introduction : str
        HTML.
    sections : mapping of str to str
        Heading, words, and content, HTML.
    scripts : sequence of str, optional
        JavaScript; the page allows these, by their hashes, and no other.

    Returns
    -------
    str
        A whole HTML document that refers to nothing outside but its links.
    """
    names = list(enumerate(sections, 1))
    contents = ' '.join(f'<a href="#part{n}">{escape(heading)}</a>' for n, heading in names)
    body = '\n'.join(
        f'<section id="part{n}">\n<h2>{escape(heading)}</h2>\n{sections[heading]}\n</section>'
        for n, heading in names
    )
    policy = (
        "default-src 'none'; img-src data:; style-src 'unsafe-inline'; connect-src 'none'; "
        "base-uri 'none'; form-action 'none'"
    )
    if scripts:
        policy += f'; script-src {" ".join(map(_source_of, scripts))}'
    style = asset('assets/page.css')
    ending = ''.join(f'<script>{script}</script>\n' for script in scripts)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n'
        f'<h1>{escape(title)}</h1>\n{introduction}\n<nav>{contents}</nav>\n{body}\n'
        f'{ending}</body>\n</html>\n'
    )


def paragraph(text: str, note: bool = False) -> str:
    """Words as a paragraph.

    Examples
    --------
    >>> paragraph('a < b')
    '<p>a &lt; b</p>'
    """
    return f'<p{" class=" + chr(34) + "note" + chr(34) if note else ""}>{escape(text)}</p>'


def heading(text: str) -> str:
    """Heading inside a section."""
    return f'<h3>{escape(text)}</h3>'


def items(texts: Sequence[str]) -> str:
    """Sentences as a list.

    Examples
    --------
    >>> items(['one', 'two'])
    '<ul><li>one</li><li>two</li></ul>'
    """
    return '<ul>' + ''.join(f'<li>{escape(text)}</li>' for text in texts) + '</ul>'


def image(png: bytes, description: str) -> str:
    """A picture inside the page; the description is for those who do not see it."""
    data = base64.b64encode(png).decode('ascii')
    return f'<img src="data:image/png;base64,{data}" alt="{escape(description)}">'


def link(to: Link) -> str:
    """Words that lead somewhere.

    Examples
    --------
    >>> link(Link('one', 'sub-01.html', 'part2'))
    '<a href="sub-01.html#part2">one</a>'
    """
    part = f'#{quote(to.fragment)}' if to.fragment else ''
    return f'<a href="{escape(quote(to.path) + part)}">{escape(to.text)}</a>'


def message(kind: str, label: str, text: str) -> str:
    """A sentence that must not be overlooked: ``failed``, ``doubtful`` or ``good``.

    Examples
    --------
    >>> message('good', 'all well', '1 scan')
    '<p class="message good"><strong>all well</strong> 1 scan</p>'
    """
    return f'<p class="message {kind}"><strong>{escape(label)}</strong> {escape(text)}</p>'


def facts(pairs: Mapping[str, str]) -> str:
    """Short facts in a row, each with its name.

    Examples
    --------
    >>> facts({'method': 'nyul'})
    '<ul class="facts"><li>method: <b>nyul</b></li></ul>'
    """
    return (
        '<ul class="facts">'
        + ''.join(f'<li>{escape(k)}: <b>{escape(v)}</b></li>' for k, v in pairs.items())
        + '</ul>'
    )


def folded(title: str, content: str) -> str:
    """Content that opens on a click, without a script."""
    return f'<details><summary>{escape(title)}</summary>\n{content}\n</details>'


def table(rows: Sequence[Mapping], columns: Mapping[str, str], caption: str = '') -> str:
    """A table; columns that are empty in every row are left out.

    Parameters
    ----------
    rows : sequence of mapping
        Words, numbers, :class:`Link` or None, by column.
    columns : mapping of str to str
        Columns in order, and what each says.
    caption : str, optional
        Words above the table.

    Returns
    -------
    str
        HTML; at most :data:`LONGEST_TABLE` rows, and a sentence about the others.

    Examples
    --------
    >>> text = table([{'a': 0.123456, 'b': None}], {'a': 'A number', 'b': 'Nothing'})
    >>> '<td class="number">0.1235</td>' in text, 'Nothing' in text
    (True, False)
    """
    shown = [c for c in columns if any(row.get(c) not in (None, '') for row in rows)]
    head = ''.join(
        f'<th title="{escape(columns[c])}">{escape(c.replace("_", " "))}</th>' for c in shown
    )
    body = '\n'.join(
        '<tr>' + ''.join(_cell(row.get(column)) for column in shown) + '</tr>'
        for row in rows[:LONGEST_TABLE]
    )
    told = f'<caption>{escape(caption)}</caption>' if caption else ''
    text = (
        f'<div class="wide"><table>{told}<thead><tr>{head}</tr></thead>\n'
        f'<tbody>{body}</tbody></table></div>'
    )
    if len(rows) > LONGEST_TABLE:
        text += paragraph(
            f'The first {LONGEST_TABLE} of {len(rows)} rows; the TSV file has all of them.', True
        )
    return text


def _source_of(script: str) -> str:
    """What a security policy calls a script."""
    if '</script' in script.lower():
        raise ValueError('a script that holds its own end cannot stand in a page')
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode('ascii')
    return f"'sha256-{digest}'"


def _cell(value) -> str:
    if value is None or value == '':
        return '<td>n/a</td>'
    if isinstance(value, Link):
        return f'<td>{link(value)}</td>'
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number">{value}</td>'
    words = ' class="words"' if len(str(value)) > LONGEST_LINE else ''
    return f'<td{words}>{escape(str(value))}</td>'
