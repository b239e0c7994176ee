"""Pages that open offline. Standard library only: whoever browses needs no torch.

static/                 the explorer's built page, made from explorer/web by `make page`; static_*.js answer in a copy of it
render_html             one of its views with its data as one file
markup, numbers         what evaluation cards (diascope.evals.report) and audit reports share
audit                   an audit's report
"""

from diascope.page.offline import render_html

__all__ = ["render_html"]
