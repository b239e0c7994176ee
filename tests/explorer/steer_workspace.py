"""A toy model with one SAE, an index of it, and a server of any index in a thread."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import uvicorn

from diascope.dictionaries import Dictionary
from diascope.explorer.graphs import Graphs
from diascope.explorer.host import ModelHost
from diascope.explorer.live import Opened, encode
from diascope.explorer.server import bind, create_app
from diascope.latents.describe.shelf import Description
from diascope.latents.store import Index, Record, write_source
from diascope.models.model import Model

TOKEN = "secret"
DEAD = 9  # a latent that never fired


def opened_of(model: Model, d: Dictionary) -> Opened:
    """What the explorer's host opens."""
    return Opened((model, {"sae": d}))


def write_index(folder: Path, model: Model, d: Dictionary) -> Index:
    """An index of `d` as the source "sae", every latent described, its largest activation 2 but for one dead."""
    (folder / "corpus").mkdir(parents=True)
    np.save(folder / "corpus" / "tokens.npy", np.array([[2, *range(30, 49)]] * 3, np.int32))
    (folder / "corpus" / "strings.json").write_text("{}")
    columns = {"density": np.full(d.d_sae, 0.1, np.float32), "max_activation": np.full(d.d_sae, 2.0, np.float32), "level": np.ones(d.d_sae, np.int32)}  # fmt: skip
    columns["max_activation"][DEAD] = columns["density"][DEAD] = 0
    record = msgspec.msgpack.encode(Record([], [], [(40, 0.5)], [(41, -0.5)], [(1, 0.9)]))
    said = {i: [Description("judge", f"about {'rivers' if i < 6 else 'towns'} {i}", {})] for i in range(d.d_sae)}
    meta = {"name": "sae", "config": {}, "card": {}, "title": d.config.title, "tokens_swept": 60, "logit_vocabulary": 40}
    write_source(folder / "sources" / "0", meta, columns, [record] * d.d_sae, said)
    (folder / "index.json").write_text(json.dumps({"format": "diascope-index-2", "model": model.name}))
    return Index(folder)


@contextlib.contextmanager
def served(
    index: Index,
    opened: Any,
    *,
    graphs: Graphs | None = None,
    grace: float = 5.0,
    around: Callable[[Any, ModelHost], Any] = lambda app, host: app,
) -> Iterator[tuple[str, ModelHost]]:
    """The address of a server of `index` and `graphs`, and its host; `opened` is opened, or None for browsing only.

    `around` as in `diascope.explorer.server.serve`.
    """
    sock = bind(0)
    port = sock.getsockname()[1]
    host = ModelHost(None if opened is None else lambda: opened, grace=grace)
    app = around(create_app(index, host, encode, token=TOKEN, port=port, graphs=graphs), host)
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


class Slow:
    """An opened thing that steers as slowly as a test wants, and says when it began and that it was stopped."""

    def __init__(self, steps: int = 50, pause: float = 0.02) -> None:
        self.steps, self.pause = steps, pause
        self.told = 0
        self.stopped = threading.Event()
        self.begun = threading.Event()

    chat = True

    def steer(self, asked: Any, sample: Any, emit: Any) -> Any:
        """Emit numbered steps."""
        token = {"text": "x", "log_probability": -1.0, "top": [["x", -1.0]], "ends": False}
        self.begun.set()
        try:
            for _ in range(self.steps):
                emit("step", {"default": token, "steered": token})
                self.told += 1
                time.sleep(self.pause)
        except BaseException:
            self.stopped.set()
            raise
        return {}


def events(lines: Iterator[str]) -> Iterator[tuple[int, str, Any]]:
    """(id, kind, data) of each server-sent event."""
    found: dict[str, str] = {}
    for line in lines:
        if line:
            key, _, value = line.partition(": ")
            found[key] = value
        elif "event" in found:
            yield int(found["id"]), found["event"], json.loads(found["data"])
            found = {}
