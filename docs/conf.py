"""Sphinx configuration: ``make docs`` builds the pages without warnings."""

from zs3_mmseg import __version__

project = 'zs3_mmseg'
author = 'zs3_mmseg contributors'
copyright = author
release = __version__

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon']
exclude_patterns = ['_build']
myst_enable_extensions = ['deflist', 'dollarmath']
myst_heading_anchors = 3

autodoc_typehints = 'description'
autodoc_typehints_description_target = 'documented'
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': True}
napoleon_use_ivar = True
napoleon_use_rtype = False

html_theme = 'furo'
html_title = f'zs3_mmseg {release}'
