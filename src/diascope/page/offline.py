"""One view with its data as a single HTML file that opens without a server or a network.

1. The view's built script and style are put into the file as they are; the data beside them as JSON, with every `<`
   escaped, so that nothing in a prompt ends its element.
2. The file's own policy lets exactly that script run (by its hash) and forbids all connections.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from importlib.resources import files
from typing import Any

VIEWS = {"circuit": "circuit"}  # name of a view: of its files in page/static


def render_html(view: str, data: dict[str, Any], *, title: str = "") -> str:
    """A self-contained page that shows `data` with `view`: "circuit" takes what `diascope.circuits.view.view` returns.

    `title` is the window's; else the prompt of `data`. ValueError for an unknown view, and for data that JSON cannot hold.
    """
    if view not in VIEWS:
        raise ValueError(f"there is no view {view!r}: there is {', '.join(VIEWS)}")
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the data of a page must be plain JSON without NaN: {error}") from error
    script = _static(f"{VIEWS[view]}.js")
    style = _static("app.css") + _static(f"{VIEWS[view]}.css")
    assert "</script" not in script.lower() and "</style" not in style.lower(), "the build would end its own element"
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"
    prompt = " ".join("".join(data.get("tokens", ())).split())[:80]
    name = html.escape((title or prompt or "diascope").encode(errors="replace").decode())  # half a character is no UTF-8
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">'
        f'<meta http-equiv="content-security-policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{name}</title><link rel="icon" href="data:,"><style>{style}</style>\n</head>\n<body><div id="app"></div>\n'
        f'<script type="application/json" id="data">{_inert(text)}</script>\n<script>{script}</script>\n</body>\n</html>\n'
    )


def _static(name: str) -> str:
    return (files("diascope.page") / "static" / name).read_text(encoding="utf-8")


def _inert(text: str) -> str:
    """ASCII JSON that HTML reads as text: the escapes mean the same to JSON."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
