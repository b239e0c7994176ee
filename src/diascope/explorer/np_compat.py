"""Neuronpedia's interface over an index, so that its client and its users' notebooks work against this machine.

    USE_LOCALHOST=true NEURONPEDIA_API_KEY=<this start's token> python notebook.py    # it asks http://localhost:3000/api

GET  /api/feature/{model}/{source}/{index}    a latent with examples and descriptions: neuronpedia_read.py, also what follows
POST /api/activation/new                      one latent's activations on a text, or on several
POST /api/activation/source                   all latents' activations on texts
POST /api/search-all                          a text's latents over the sources of a set
POST /api/search-topk-by-token                a text's latents, token by token
POST /api/explanation/search, search-model    latents whose descriptions hold some words
POST /api/steer, /api/steer-chat              neuronpedia_steer.py
     /api/graph/...                           neuronpedia_graphs.py

Names are theirs (latents/exchange/ids.py); a source answers to its own name too. Payloads are those of the site
(hijohnnylin/neuronpedia, apps/webapp/app/api). The explorer's own page is served beside them: POST /api/steer is told apart by
its payload. All guards stay; the token may come as `x-api-key`, which no foreign page can send unasked.
"""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp, Receive, Scope, Send

from diascope.explorer.graphs import Graphs
from diascope.explorer.guard import Guard
from diascope.explorer.host import ModelHost
from diascope.explorer.neuronpedia_catalogue import Catalogue
from diascope.explorer.neuronpedia_graphs import NpGraphs
from diascope.explorer.neuronpedia_read import NpApi
from diascope.explorer.neuronpedia_steer import NpSteer
from diascope.latents.store import Index

PORT = 3000  # where the client looks


class ApiKey:
    """ASGI middleware before the Guard: `x-api-key: T` counts as `Authorization: Bearer T`, and says that what comes is JSON.

    A page of another origin cannot send this header without being allowed to, which it never is.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = list(scope["headers"])
            key = next((value for name, value in headers if name == b"x-api-key"), None)
            if key is not None:
                headers = [(name, value) for name, value in headers if name != b"authorization"]
                headers.append((b"authorization", b"Bearer " + key))
                if not any(name == b"content-type" for name, _ in headers):
                    headers.append((b"content-type", b"application/json"))
                scope = {**scope, "headers": headers}
        await self.app(scope, receive, send)


def with_neuronpedia(app: Guard, index: Index, host: ModelHost, graphs: Graphs | None) -> ApiKey:
    """The guarded explorer `app` with Neuronpedia's interface in front of its own."""
    catalogue, site = Catalogue(index), app.app
    routes = [
        *NpApi(catalogue, host).routes(),
        *NpSteer(catalogue, host, site).routes(),
        *NpGraphs(graphs, index, host).routes(),
    ]
    app.app = Starlette(routes=[*routes, Mount("/", app=site)])
    return ApiKey(app)
