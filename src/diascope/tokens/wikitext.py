"""Plain prose from a MediaWiki dump: markup is parsed by mwparserfromhell, then leftovers are dropped by line."""

from __future__ import annotations

import bz2
import re
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

VERSION = 2  # part of the cache's name: raise it when the text that comes out changes
_LEFTOVER = re.compile(r"^(thumb|left|right|frame|\d+px|Category:|File:|Image:|[*#:;|!{}]|[a-z-]{2,12}:\S)")
_END = ("References", "External links", "See also", "Notes", "Further reading", "Bibliography", "Footnotes")


def articles(dump: Path) -> Iterator[tuple[str, str]]:
    """(title, text) of every article of a bz2-compressed XML dump; redirects and other namespaces are passed over."""
    with bz2.open(dump) as file:
        for _, page in ElementTree.iterparse(file):
            if not page.tag.endswith("}page"):
                continue
            found = {child.tag.rpartition("}")[2]: child for child in page.iter()}
            title = found["title"].text or ""
            if "redirect" not in found and ":" not in title:
                yield title, prose(found["text"].text or "")
            page.clear()


def prose(markup: str) -> str:
    """The running text of one article, one paragraph a line, without tables, lists, captions and references."""
    import mwparserfromhell

    code = mwparserfromhell.parse(markup, skip_style_tags=True)
    for tag in code.filter_tags(matches=lambda node: str(node.tag).lower() in ("ref", "table", "gallery", "math")):
        try:
            code.remove(tag)
        except ValueError:
            pass  # it sat inside a node that is gone already
    paragraphs = []
    for line in code.strip_code().splitlines():
        line = re.sub(r"\s+", " ", re.sub(r"'{2,}", "", line)).strip()
        if line in _END:
            break
        if len(line) > 40 and not _LEFTOVER.match(line):
            paragraphs.append(line.replace(" ()", "").replace("( ", "("))
    return "\n".join(paragraphs)
