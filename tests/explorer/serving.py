"""A server with graphs, in a thread (steer_workspace.served has none)."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import uvicorn
from steer_workspace import TOKEN

from diascope.explorer.graphs import Graphs
from diascope.explorer.host import ModelHost
from diascope.explorer.live import encode
from diascope.explorer.server import bind, create_app
from diascope.latents.store import Index


@contextlib.contextmanager
def serving(index: Index, opened: Any, graphs: Graphs) -> Iterator[tuple[str, ModelHost]]:
    """The address of a server of `index` and `graphs`, and its host."""
    sock = bind(0)
    port = sock.getsockname()[1]
    host = ModelHost(lambda: opened)
    app = create_app(index, host, encode, token=TOKEN, port=port, graphs=graphs)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]}, daemon=True)
    thread.start()
    while not server.started or host.state == "loading":
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{port}", host
    finally:
        host.close()
        server.should_exit = True
        thread.join(10)
