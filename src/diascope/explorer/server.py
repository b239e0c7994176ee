"""The explorer's HTTP interface (docs/protocol.md, section 5) and its start.

GET  /api/status                            index facts, model state
GET  /api/sources                           sources with cards
GET  /api/sources/{source}/latents          ?sort=&order=&offset=&limit=&alive=
GET  /api/sources/{source}/latents/{i}      one latent: columns, descriptions and record, tokens as text
GET  /api/sources/{source}/search           ?q=&offset=&limit=: latents whose descriptions hold the words
POST /api/encode  {"text": ..., "source": ...}
     /api/graphs ...                        attribution graphs (graphs.py)
     /api/steer                             the playground (steer.py)
     /api/jobs ...                          following and cancelling what runs (events.py)
     /api/lists ...                         lists of latents with notes (list_api.py)
     /api/runs, /api/evaluations            training logs and cards of the workspace (run_api.py)
     /api/sources/{source}/map ...          the decoder map (map_api.py)
     /api/pairs, /api/pair                  two sources latent by latent (pair_api.py)
     /api/audits ...                        audits of the workspace and their reports (audit_api.py)
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from diascope.explorer.answers import Problem, answers, asked, of_model
from diascope.explorer.audit_api import AuditApi
from diascope.explorer.events import JobApi
from diascope.explorer.graphs import GraphApi, Graphs
from diascope.explorer.guard import Guard
from diascope.explorer.host import ModelHost
from diascope.explorer.list_api import ListApi
from diascope.explorer.lists import Lists
from diascope.explorer.map_api import MapApi
from diascope.explorer.pair_api import PairApi
from diascope.explorer.rows import latent_in, line, page_of, source_of, stretch, workspace_of
from diascope.explorer.run_api import RunApi
from diascope.explorer.steer import SteerApi
from diascope.latents.store import Index

LONGEST_TEXT = 20_000  # characters
LONGEST_SEARCH = 200  # characters
SCRIPTS = ("app", "circuit", "views")  # the page's own, and those that are loaded when a view is first visited
STATIC = {f"{name}.{end}": f"text/{kind}" for name in SCRIPTS for end, kind in (("js", "javascript"), ("css", "css"))}
Encoder = Callable[[Any, str, str], dict[str, Any]]


def create_app(
    index: Index,
    host: ModelHost,
    encode: Encoder,
    *,
    token: str,
    port: int,
    graphs: Graphs | None = None,
    workspace: Path | None = None,
    lists: Lists | None = None,
) -> Guard:
    """The ASGI application. `encode(opened, source, text)` runs in the model's thread.

    `workspace` holds lists, logs and dictionaries, by default the folder around the index.
    `lists` are a team's (lists.py), by default those of the workspace.
    """
    api, workspace = _Api(index, host, encode), workspace or workspace_of(index)
    static = Path(str(files("diascope.page") / "static"))
    routes = [
        Route("/", lambda _: FileResponse(static / "index.html")),
        *(Route(f"/{name}", _file(static / name, kind)) for name, kind in STATIC.items()),
        Route("/api/status", api.status),
        Route("/api/sources", api.sources),
        Route("/api/sources/{source}/latents", api.browse),
        Route("/api/sources/{source}/latents/{latent}", api.latent),
        Route("/api/sources/{source}/search", api.search),
        Route("/api/encode", api.encode, methods=["POST"]),
        *GraphApi(graphs, index, host).routes(),
        *SteerApi(index, host).routes(),
        *RunApi(workspace, index, host).routes(),
        *JobApi(host).routes(),
        *ListApi(workspace, index, lists).routes(),
        *MapApi(workspace, index).routes(),
        *PairApi(workspace, index).routes(),
        *AuditApi(workspace, index).routes(),
    ]
    return Guard(Starlette(routes=routes), token=token, port=port)


def _file(path: Path, kind: str) -> Callable[[Request], FileResponse]:
    return lambda _: FileResponse(path, media_type=kind)


class _Api:
    def __init__(self, index: Index, host: ModelHost, encode: Encoder) -> None:
        self.index, self.host, self._encode = index, host, encode

    @answers
    async def status(self, request: Request) -> Any:
        folder = "index" if self.index.folder.name == "index" else "."  # from the workspace, for programs that are copied
        return {"index": self.index.meta, "model": {"state": self.host.state, "problem": self.host.problem}, "folder": folder}

    @answers
    async def sources(self, request: Request) -> Any:
        return [
            {**s.meta, "latents": len(s), "alive": int((s.columns["density"] > 0).sum())} for s in self.index.sources.values()
        ]

    @answers
    async def browse(self, request: Request) -> Any:
        source, query = source_of(self.index, request.path_params["source"]), request.query_params
        try:
            # first what can be read off a row: latents that promote a token strongly
            sort = query.get("sort") or ("top_logit" if "top_logit" in source.columns else "density")
            offset, limit = stretch(query)
            total, latents = source.browse(
                sort=sort,
                descending=query.get("order", "desc") == "desc",
                offset=offset,
                limit=limit,
                alive=query.get("alive", "1") == "1",
            )
        except (ValueError, KeyError) as error:
            raise Problem(400, str(error).strip("'\"")) from error
        return {"total": total, "offset": offset, "sort": sort, "rows": [line(self.index, source, int(j)) for j in latents]}

    @answers
    async def search(self, request: Request) -> Any:
        source, query = source_of(self.index, request.path_params["source"]), request.query_params
        text = query.get("q", "")
        if len(text) > LONGEST_SEARCH:
            raise Problem(400, f"The search has {len(text):,} characters; the limit is {LONGEST_SEARCH}.")
        try:
            offset, limit = stretch(query)
            total, latents = source.find(text, offset=offset, limit=limit)
        except ValueError as error:
            raise Problem(400, str(error)) from error
        return {"total": total, "offset": offset, "q": text, "rows": [line(self.index, source, j) for j in latents]}

    @answers
    async def latent(self, request: Request) -> Any:
        source = source_of(self.index, request.path_params["source"])
        return await page_of(self.index, source, latent_in(source, request.path_params["latent"]))

    @answers
    async def encode(self, request: Request) -> Any:
        body = await asked(request, "text and source")
        text, source = body.get("text"), source_of(self.index, str(body.get("source")))
        if not isinstance(text, str) or not text.strip():
            raise Problem(400, "Give some text.")
        if len(text) > LONGEST_TEXT:
            raise Problem(413, f"The text has {len(text):,} characters; the limit is {LONGEST_TEXT:,}.")
        found = await of_model(self.host, lambda opened: self._encode(opened, source.name, text))
        fired = {latent for token in found.get("tokens", ()) for latent, _ in token["active"]}
        return {**found, "latents": {str(j): line(self.index, source, j) for j in sorted(fired)}}


def bind(port: int) -> socket.socket:
    """A listening socket on the loopback address; ValueError when the port is taken or no port."""
    if not 0 <= port < 65536:
        raise ValueError(f"{port} is no port: give a number from 0 to 65535")
    # TCP by name: asyncio switches Nagle's algorithm off only where it is named, and each answer would wait 40 ms for it
    s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        s.bind(("127.0.0.1", port))
        s.listen(128)  # so that whoever opens the URL as soon as it is told waits, and is not refused
    except OSError as error:
        s.close()
        reason = "needs privileges" if isinstance(error, PermissionError) else "is in use"
        raise ValueError(f"port {port} {reason}: pass --port with another number, or --port 0 for any free one") from error
    return s


def serve(
    index: Index,
    *,
    port: int = 7400,
    opener: Callable[[], Any] | None = None,
    encode: Encoder,
    announce: Callable[[str], None],
    graphs: Graphs | None = None,
    lists: Lists | None = None,
    around: Callable[[Guard, ModelHost], ASGIApp] = lambda app, host: app,
) -> None:
    """Serve until interrupted. `announce` gets the one URL to open; port 0 takes any free port.

    `around` puts another interface in front of the guarded one (np_compat.with_neuronpedia).

    Raises ValueError when the port is in use.
    """
    import uvicorn

    sock = bind(port)
    port = sock.getsockname()[1]
    token = secrets.token_urlsafe(24)
    host = ModelHost(opener)
    app = around(create_app(index, host, encode, token=token, port=port, graphs=graphs, lists=lists), host)

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            host.close()  # else it would wait for streams to end by themselves
            super().handle_exit(sig, frame)

    announce(f"http://127.0.0.1:{port}/?token={token}")
    try:
        Server(uvicorn.Config(app, log_level="warning", access_log=False)).run(sockets=[sock])
    finally:
        host.close()
        sock.close()
