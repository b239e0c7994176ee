"""A self-contained page in a frame of a notebook's output, and as a file."""

from __future__ import annotations

import html
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diascope.notebook.channel import open_channel
from diascope.notebook.desk import Desk
from diascope.storage.files import check_target, commit_file


@dataclass(frozen=True)
class Shown:
    """What a cell shows: a whole HTML page, `height` px high; `save` writes it to a file that opens offline.

    With a `desk` the page is live while the kernel runs: it asks the desk for what was not recorded.
    """

    page: str
    height: int = 640
    title: str = "diascope"
    id: str = ""
    desk: Desk | None = field(default=None, repr=False, compare=False)

    def _repr_html_(self) -> str:
        """The frame. Scripts may run in it and press its buttons, in an origin of its own that has no access to the notebook; the
        page's own policy lets nothing be sent anywhere."""
        return (
            f'<iframe sandbox="allow-scripts allow-forms" srcdoc="{html.escape(self.page, quote=True)}" title="{html.escape(self.title, quote=True)}" '
            f'data-diascope="{self.id}" style="width: 100%; height: {int(self.height)}px; border: 0; border-radius: 8px" loading="lazy"></iframe>'
        )

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> dict[str, str]:
        """Called by IPython when a cell shows this: HTML and text; opens the channel to this kernel."""
        if self.desk is not None:
            open_channel(self.id, self.desk)
        return {"text/html": self._repr_html_(), "text/plain": repr(self)}

    def __repr__(self) -> str:
        """Where there is no HTML, as in a terminal."""
        return f"<{self.title}: {len(self.page):,} characters of HTML; .save(path) writes them to a file>"

    def save(self, path: str | Path) -> Path:
        """Write the page to `path`, an .html file. Raises ValueError where it cannot be written."""
        path = Path(path)
        check_target(path)
        with commit_file(path) as work:
            work.write_text(self.page, encoding="utf-8", errors="replace")
        return path
