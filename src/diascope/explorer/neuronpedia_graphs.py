"""Neuronpedia's graphs over the workspace's: get, list and generate.

GET  /api/graph/{model}/{slug}        what the site keeps of a graph, with the address of its JSON
GET  /api/graph/{model}/{slug}/json   ?node_share=&edge_share=: the graph in the viewers' schema
GET  /{model}/graph?slug=             where the client says that a graph can be looked at: the explorer's own page of it
POST /api/graph/list-owned            all of them
POST /api/graph/generate              modelId, prompt, slug, maxNLogits, desiredLogitProb, nodeThreshold, edgeThreshold: trace it

A slug is the name of a folder of the workspace's graphs: lowercase letters, digits, _ and -, looked up among those that there
are. The JSON's address carries the token, for programs fetch it without a header.
"""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import RedirectResponse
from starlette.routing import Route

from diascope.explorer.answers import Problem, answers, asked, job_of_model
from diascope.explorer.graphs import Graphs
from diascope.explorer.host import ModelHost
from diascope.explorer.neuronpedia_catalogue import wanted
from diascope.latents.exchange.ids import model_id
from diascope.latents.store import Index
from diascope.storage.files import read_json

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
LONGEST_PROMPT = 10_000  # characters


class _Generate(msgspec.Struct):
    modelId: str
    prompt: Annotated[str, Meta(min_length=1, max_length=LONGEST_PROMPT)]
    slug: str = ""
    maxNLogits: Annotated[int, Meta(ge=1, le=100)] = 10
    desiredLogitProb: Annotated[float, Meta(gt=0, le=1)] = 0.95
    nodeThreshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
    edgeThreshold: Annotated[float, Meta(gt=0, le=1)] = 0.98


class NpGraphs:
    """The handlers."""

    def __init__(self, graphs: Graphs | None, index: Index, host: ModelHost) -> None:
        self.graphs, self.index, self.host = graphs, index, host

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [
            Route("/api/graph/list-owned", self.owned, methods=["POST"]),
            Route("/api/graph/generate", self.generate, methods=["POST"]),
            Route("/api/graph/{model}/{slug}", self.get),
            Route("/api/graph/{model}/{slug}/json", self.json),
            Route("/{model}/graph", self.page),
        ]

    def _folder(self, request: Request) -> Path:
        model, slug = request.path_params["model"], request.path_params["slug"]
        folder = (self.graphs.found() if self.graphs else {}).get(slug)
        if folder is None or model not in _models(_about(folder)):
            raise Problem(404, f"There is no graph {model}/{slug}.")
        return folder

    @answers
    async def get(self, request: Request) -> Any:
        return _metadata(request, self._folder(request))

    @answers
    async def page(self, request: Request) -> Any:
        slug = request.query_params.get("slug", "")
        if not SLUG.fullmatch(slug):
            raise Problem(404, "There is no such graph.")
        return RedirectResponse(f"/#/circuits/{slug}", 303)

    @answers
    async def owned(self, request: Request) -> Any:
        found = []
        for folder in (self.graphs.found() if self.graphs else {}).values():
            try:
                found.append(_metadata(request, folder))
            except Problem:
                continue  # damaged: the explorer's own list says so
        return found

    @answers
    async def json(self, request: Request) -> Any:
        folder = self._folder(request)
        return await asyncio.to_thread(
            _viewer_json, folder, _share(request, "node_share", 0.8), _share(request, "edge_share", 0.98)
        )

    @answers
    async def generate(self, request: Request) -> Any:
        body = wanted(await asked(request, "modelId, prompt and slug"), _Generate)
        if body.modelId not in (self.index.meta["model"], model_id(self.index.meta["model"])):
            raise Problem(404, f"There is no model {body.modelId!r} here; there is {self.index.meta['model']}.")
        if not SLUG.fullmatch(body.slug):
            raise Problem(400, "A slug has up to 64 lowercase letters, digits, _ and -, and begins with a letter or digit.")
        if self.graphs is None:
            raise Problem(503, "This explorer has no folder for graphs.")
        if (self.graphs.folder / body.slug).exists():
            raise Problem(400, f"There is a graph {body.slug} already: choose another slug.")
        made = await self._made(body, self.graphs.folder / body.slug)
        told = _metadata(request, self.graphs.folder / body.slug)
        return {
            "message": "Graph saved",
            "s3url": told["url"],
            "url": told["url"],
            "numNodes": made["nodes"],
            "numLinks": made["links"],
        }

    async def _made(self, body: _Generate, folder: Path) -> dict[str, int]:
        def work(opened: Any, emit: Any) -> dict[str, int]:
            from diascope.explorer.neuronpedia_work import traced

            return traced(
                opened, body.prompt, folder, share=body.desiredLogitProb, most=body.maxNLogits, node_share=body.nodeThreshold,
                edge_share=body.edgeThreshold, progress=lambda done, total, note: emit("layer", [done, total]),
            )  # fmt: skip

        kind, data = "", {}
        async for event in job_of_model(self.host, work).follow():
            if event is not None:
                _, kind, data = event
        if kind != "done":
            raise Problem(422, f"{data.get('error', 'The trace was cancelled')}.")
        return data


def _about(folder: Path) -> dict[str, Any]:
    try:
        about = read_json(folder / "graph.json")
        return {"model": str(about["model"]), "tokens": [str(t) for t in about["tokens"]]}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise Problem(422, f"{folder.name} is damaged ({error}): trace again.") from error


def _models(about: dict[str, Any]) -> tuple[str, str]:
    return about["model"], model_id(about["model"])


def _metadata(request: Request, folder: Path) -> dict[str, Any]:
    about = _about(folder)
    model = model_id(about["model"])
    path = f"/api/graph/{quote(model, safe='')}/{quote(folder.name, safe='')}/json"
    key = request.headers.get("x-api-key")
    return {
        "id": f"{model}/{folder.name}", "modelId": model, "slug": folder.name, "promptTokens": about["tokens"],
        "prompt": "".join(about["tokens"]), "titlePrefix": "", "isFeatured": False, "userId": None, "user": None,
        "url": f"{request.url.scheme}://{request.url.netloc}{path}" + (f"?token={quote(key)}" if key else ""),
    }  # fmt: skip


def _viewer_json(folder: Path, node_share: float, edge_share: float) -> dict[str, Any]:
    from diascope.explorer.neuronpedia_work import viewer_json

    try:
        return viewer_json(folder, node_share=node_share, edge_share=edge_share)
    except ValueError as error:
        raise Problem(422, f"{error}.") from error


def _share(request: Request, key: str, usual: float) -> float:
    try:
        value = float(request.query_params.get(key, usual))
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise Problem(400, f"{key} is a share above 0 and at most 1.")
    return value
