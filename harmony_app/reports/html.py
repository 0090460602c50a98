"""A page that stands alone: style and pictures inside, no script, readable anywhere."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from urllib.parse import quote

LONGEST_TABLE = 500
"""Rows of a table that a page shows; the file beside it has them all."""

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #222; background: #fff;
  max-width: 72rem; margin: 0 auto; padding: 1rem 1.5rem 4rem; }
h1 { font-size: 1.7rem; margin: 1rem 0 .2rem; }
h2 { font-size: 1.25rem; margin: 2.2rem 0 .5rem; border-bottom: 1px solid #ccc; }
h3 { font-size: 1.05rem; margin: 1.4rem 0 .4rem; }
nav a { margin-right: 1rem; }
img { max-width: 100%; height: auto; display: block; margin: .5rem 0; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .85rem; }
caption { text-align: left; color: #555; padding-bottom: .3rem; }
th, td { padding: .2rem .6rem; border-bottom: 1px solid #e3e3e3; text-align: left;
  white-space: nowrap; }
th { background: #f4f4f4; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
th[title] { text-decoration: underline dotted #999; cursor: help; }
summary { cursor: pointer; margin: .5rem 0; }
.note { color: #555; }
"""


@dataclass(frozen=True)
class Link:
    """Words that lead to a file beside the page.

    Parameters
    ----------
    text : str
        Words.
    path : str
        Path relative to the page, with slashes.
    """

    text: str
    path: str


def page(title: str, introduction: str, sections: Mapping[str, str]) -> str:
    """Put a page together.

    Parameters
    ----------
    title : str
        Words.
    introduction : str
        HTML.
    sections : mapping of str to str
        Heading, words, and content, HTML.

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
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f'<h1>{escape(title)}</h1>\n{introduction}\n<nav>{contents}</nav>\n{body}\n'
        '</body>\n</html>\n'
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


def _cell(value) -> str:
    if value is None or value == '':
        return '<td>n/a</td>'
    if isinstance(value, Link):
        return f'<td><a href="{escape(quote(value.path))}">{escape(value.text)}</a></td>'
    if isinstance(value, float):
        return f'<td class="number">{value:.4g}</td>'
    if isinstance(value, int) and not isinstance(value, bool):
        return f'<td class="number">{value}</td>'
    return f'<td>{escape(str(value))}</td>'
