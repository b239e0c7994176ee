"""The audit report: one HTML file that opens offline, from what audit.json holds.

    report_html(audit)      the whole file, from `Audit.data()` or a read audit.json
    report_parts(audit)     (style, markup) of the same, to be put into another page (the explorer's)

Nothing is fetched and nothing needs a script. Every number says its interval, n, split and seed when it is pointed at or
focused, and in print. Colours follow the reader's light or dark and never stand alone: verdicts have signs, marks have shapes.
Every string is escaped, those of a hostile transcript too.
"""

from diascope.page.audit.document import report_html, report_parts

__all__ = ["report_html", "report_parts"]
