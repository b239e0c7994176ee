"""The audit report, drawn by diascope.page.audit (without torch): `report_html(audit)`, `report_parts(audit)`."""

from diascope.page.audit import report_html, report_parts

__all__ = ["report_html", "report_parts"]
