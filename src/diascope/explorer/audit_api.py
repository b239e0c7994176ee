"""Audits of the workspace over HTTP.

GET /api/audits           audits/*/audit.json (and audit/audit.json): model, verdicts, when it was written; or problem
GET /api/audits/{audit}   its report: style and markup for a shadow tree, latents linked to their pages where the index has them

1. The folder is read at every request; a name is looked up among what was found, and never becomes a path.
2. The report is made here from the JSON, with every string escaped (diascope.page.audit): a report.html in the folder is not shown,
   since anybody could have written it.
3. Latents are linked where exactly one source of the index has the audit's dictionary: title, site, width and model are compared,
   for an index does not keep a dictionary's hash.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from diascope.explorer.answers import Problem, answers
from diascope.latents.store import Index
from diascope.page.audit import report_parts
from diascope.storage.files import finite

FILE = "audit.json"
PLACES = (f"audit/{FILE}", f"audits/{FILE}", f"audits/*/{FILE}")
LARGEST = 64_000_000  # bytes of an audit that is read


class AuditApi:
    """The handlers, over a workspace and the index that its latents are shown from."""

    def __init__(self, workspace: Path, index: Index) -> None:
        self.workspace, self.index = workspace, index

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [Route("/api/audits", self.listed), Route("/api/audits/{audit:path}", self.shown)]

    @answers
    async def listed(self, request: Request) -> Any:
        return await asyncio.to_thread(lambda: [_summary(name, path) for name, path in audits(self.workspace).items()])

    @answers
    async def shown(self, request: Request) -> Any:
        return await asyncio.to_thread(self._report, request.path_params["audit"])

    def _report(self, name: str) -> dict[str, Any]:
        found = audits(self.workspace)
        if name not in found:
            raise Problem(404, f"There is no audit {name!r}; {'there are ' + ', '.join(found) if found else 'there are none'}.")
        try:
            audit = _read(found[name])
            source = source_of_dictionary(self.index, audit)
            style, markup = report_parts(audit, link=lambda latent: self._page(source, latent))
        except (OSError, ValueError) as error:
            raise Problem(422, f"The audit {name} cannot be shown: {error}.") from error
        return {
            "audit": name,
            "path": str(found[name].relative_to(self.workspace)),
            "source": source,
            "style": style,
            "markup": markup,
        }

    def _page(self, source: str, latent: int) -> str:
        known = source and 0 <= latent < len(self.index.sources[source])
        return f"#/s/{quote(source, safe='')}/{latent}" if known else ""


def audits(workspace: Path) -> dict[str, Path]:
    """Every audit of the workspace by its folder's name there, the newest first."""
    found = {
        p.parent.relative_to(workspace).as_posix().removeprefix("audits/"): p for place in PLACES for p in workspace.glob(place)
    }
    shown = {name: p for name, p in found.items() if not any(part.startswith(".") for part in name.split("/"))}
    return dict(sorted(shown.items(), key=lambda item: -item[1].stat().st_mtime))


def source_of_dictionary(index: Index, audit: dict[str, Any]) -> str:
    """The one source of the index that the audit's dictionary is; "" where there is none, or several that could be it."""
    d = (audit.get("facts") or {}).get("dictionary") or {}
    wanted = (d.get("title"), d.get("site"), d.get("d_sae"), d.get("model"))
    found = [name for name, source in index.sources.items() if _identity(source.meta) == wanted]
    return found[0] if len(found) == 1 else ""


def _identity(meta: dict[str, Any]) -> tuple[Any, ...]:
    config = meta.get("config") or {}
    return (meta.get("title"), next(iter(config.get("sites_in") or ()), None), config.get("d_sae"), config.get("model"))


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size:,} bytes, the most is {LARGEST:,}")
    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(f"it is no JSON object ({error})") from error


def _summary(name: str, path: Path) -> dict[str, Any]:
    """An audit as a line of a list."""
    told: dict[str, Any] = {"audit": name}
    try:
        told["modified"] = path.stat().st_mtime
        audit = _read(path)
        facts, results = audit["facts"], audit["results"]
        verdicts = [{key: str(r.get(key, "")) for key in ("protocol", "verdict", "why")} for r in results]
        d = facts.get("dictionary") or {}
        return finite(
            told
            | {
                "model": str(facts.get("model", "")),
                "seed": facts.get("seed"),
                "dictionary": str(d.get("title", "")),
                "verdicts": verdicts,
            }
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return told | {"problem": f"it cannot be read ({error})"}
