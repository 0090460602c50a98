"""How the documentation becomes a site: ``make docs``."""

from pathlib import Path

project = 'harmony-app'
author = 'The harmony-app developers'
release = version = (Path(__file__).parents[1] / 'version').read_text().strip()

extensions = [
    'myst_parser',
    'sphinx.ext.autodoc',
    'sphinx.ext.autosummary',
    'sphinx.ext.napoleon',
]
source_suffix = {'.md': 'markdown', '.rst': 'restructuredtext'}
templates_path = ['_templates']

myst_enable_extensions = ['colon_fence', 'deflist']
# "#headings" of other pages may be linked
myst_heading_anchors = 3

napoleon_google_docstring = False
napoleon_use_rtype = False
autodoc_typehints = 'none'
autodoc_member_order = 'bysource'
# Pages of the interface are made anew from the code, never kept.
autosummary_generate = True

html_theme = 'furo'
html_title = f'harmony-app {release}'
html_show_sourcelink = False
