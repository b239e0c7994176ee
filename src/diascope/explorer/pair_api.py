"""Pairs of sources over HTTP (pairs.py says which are pairs and what is compared).

GET /api/pairs                                           all pairs: a, b {label, source, model, title, tokens}, why
GET /api/pair?a=&b=&sort=&order=&offset=&limit=          latent by latent, by default those whose density changed most surprisingly
GET /api/pair/latent?a=&b=&latent=                       one latent's page on both sides
"""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.routing import Route

from diascope.explorer.answers import Problem, answers, number
from diascope.explorer.pairs import Pair, ordered, pairs, sides
from diascope.explorer.rows import latent_in, page_of, stretch
from diascope.latents.store import Index


class PairApi:
    """The handlers, over an index and those beside it in the workspace."""

    def __init__(self, workspace: Path, index: Index) -> None:
        self.workspace, self.index = workspace, index
        self._found: dict[tuple[str, str], Pair] | None = None
        self._columns: dict[tuple[str, str], dict[str, np.ndarray]] = {}
        self._one = threading.Lock()  # decoders are large: they are compared one pair at a time

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [
            Route("/api/pairs", self.listed),
            Route("/api/pair", self.table),
            Route("/api/pair/latent", self.latent),
        ]

    def _pairs(self) -> dict[tuple[str, str], Pair]:
        with self._one:
            if self._found is None:
                try:
                    self._found = {(p.a.label, p.b.label): p for p in pairs(sides(self.index, self.workspace))}
                except ValueError as error:
                    raise Problem(422, f"{error}.") from error
            return self._found

    def _pair(self, request: Request) -> Pair:
        key = (request.query_params.get("a", ""), request.query_params.get("b", ""))
        found = self._pairs()
        if key not in found:
            raise Problem(404, f"{key[0]!r} and {key[1]!r} are no pair here.")
        return found[key]

    @answers
    async def listed(self, request: Request) -> Any:
        found = await asyncio.to_thread(self._pairs)
        return [{"a": p.a.about, "b": p.b.about, "why": p.why} for p in found.values()]

    @answers
    async def table(self, request: Request) -> Any:
        return await asyncio.to_thread(self._table, request)

    def _table(self, request: Request) -> dict[str, Any]:
        pair, query = self._pair(request), request.query_params
        columns = self._compared(pair)
        try:
            offset, limit = stretch(query)
            sort, descending = query.get("sort") or "change", query.get("order", "desc") == "desc"
            total, latents = ordered(columns, sort=sort, descending=descending, offset=offset, limit=limit)
        except (ValueError, KeyError) as error:
            raise Problem(400, str(error).strip("'\"")) from error
        rows = [
            {k: number(c[j]) for k, c in columns.items()}
            | {"latent": j, "said_a": pair.a.source.description(j), "said_b": pair.b.source.description(j)}
            for j in latents
        ]
        told = {"a": pair.a.about, "b": pair.b.about, "why": pair.why, "same_texts": pair.same_texts}
        return told | {"total": total, "offset": offset, "sort": sort, "rows": rows}

    def _compared(self, pair: Pair) -> dict[str, np.ndarray]:
        key = (pair.a.label, pair.b.label)
        with self._one:
            if key not in self._columns:
                self._columns[key] = pair.columns()
            return self._columns[key]

    @answers
    async def latent(self, request: Request) -> Any:
        pair = await asyncio.to_thread(self._pair, request)
        j = latent_in(pair.a.source, request.query_params.get("latent", ""))
        columns = await asyncio.to_thread(self._compared, pair)
        shown = {side: {**s.about, "latent": await page_of(s.index, s.source, j)} for side, s in (("a", pair.a), ("b", pair.b))}
        return shown | {"compared": {k: number(c[j]) for k, c in columns.items()}, "why": pair.why}
