"""Graphs in the explorer: the folder's list, one graph as data, and interventions on it.

GET  /api/graphs                          what there is: id, prompt, targets, scores, what verification says
GET  /api/graphs/{graph}                  ?node_share=&edge_share=: `diascope.circuits.view`, with the sources to link to
POST /api/graphs/{graph}/intervene        {"latents": [[layer, position, index], ...], "factor": 0, "mode": "free"}
                                          as JSON; with `Accept: text/event-stream` as a job: job, stage (one a step), done

No torch here: what reads graphs and runs models (interventions.py) is handed in. A name is looked up among the
folder's, and never becomes a path.
"""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec
from starlette.requests import Request
from starlette.routing import Route

from diascope.explorer.answers import Problem, answers, asked, job_of_model, of_model
from diascope.explorer.events import Events
from diascope.explorer.host import ModelHost
from diascope.latents.store import Index, Source
from diascope.storage.files import read_json

MODES = ("free", "patterns frozen", "norms frozen")
MOST_LATENTS = 500  # of one intervention


class GraphWork(Protocol):
    """Who reads graphs and intervenes: `interventions.Work`."""

    def view(
        self, folder: Path, labels: Mapping[tuple[int, int], str], *, node_share: float, edge_share: float
    ) -> dict[str, Any]:
        """A graph as data; ValueError where it is damaged."""
        ...

    def intervene(
        self,
        opened: Any,
        folder: Path,
        latents: Sequence[tuple[int, int, int]],
        *,
        factor: float,
        mode: str,
        stage: Callable[[str], None],
    ) -> dict[str, Any]:
        """What the opened model says once latents are multiplied by a factor; ValueError where that cannot be. Tells each `stage`."""
        ...

    def sources(self, opened: Any, folder: Path, index: Index) -> dict[int, Source] | None:
        """By layer, the index's source of the graph's latents; None where what is open is not what the graph was made with."""
        ...


@dataclass(frozen=True)
class Graphs:
    """A folder of graphs, and how to get at who reads them."""

    folder: Path
    work: Callable[[], GraphWork]

    def found(self) -> dict[str, Path]:
        """Every graph by its name. The folder is read each time: a graph traced meanwhile appears."""
        return {p.parent.name: p.parent for p in sorted(self.folder.glob("*/graph.json")) if not p.parent.name.startswith(".")}


class GraphApi:
    """The handlers, over an index whose sources' latents the graphs are made of."""

    def __init__(self, graphs: Graphs | None, index: Index, host: ModelHost) -> None:
        self.graphs, self.index, self.host = graphs, index, host
        self._views: dict[Any, bytes] = {}
        self._one = threading.Lock()  # a graph is large: one is read at a time
        self._work: GraphWork | None = None

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [
            Route("/api/graphs", self.listed),
            Route("/api/graphs/{graph}", self.viewed),
            Route("/api/graphs/{graph}/intervene", self.intervened, methods=["POST"]),
        ]

    def _found(self) -> dict[str, Path]:
        return self.graphs.found() if self.graphs else {}

    def _folder(self, request: Request) -> Path:
        name, found = request.path_params["graph"], self._found()
        if name not in found:
            raise Problem(404, f"There is no graph {name!r}; {'there are ' + ', '.join(found) if found else 'there are none'}.")
        return found[name]

    def _worker(self) -> GraphWork:
        assert self.graphs is not None  # or no folder was found
        if self._work is None:
            self._work = self.graphs.work()
        return self._work

    @answers
    async def listed(self, request: Request) -> Any:
        return [_summary(name, path) for name, path in self._found().items()]

    @answers
    async def viewed(self, request: Request) -> Any:
        folder = self._folder(request)
        shares = {key: _share(request.query_params, key, usual) for key, usual in (("node_share", 0.8), ("edge_share", 0.98))}
        return await asyncio.to_thread(self._view, folder, shares)

    def _view(self, folder: Path, shares: dict[str, float]) -> bytes:
        with self._one:
            key = (folder.name, (folder / "graph.json").stat().st_mtime_ns, self.host.state == "ready", *shares.values())
            if key not in self._views:
                try:
                    sources = self._sources(folder)
                    found = self._worker().view(folder, _Labels(sources), **shares)
                except ValueError as error:
                    raise Problem(422, f"{error}.") from error
                links = {str(layer): source.name for layer, source in sources.items()}
                while len(self._views) >= 4:
                    self._views.pop(next(iter(self._views)))
                self._views[key] = msgspec.json.encode(found | {"graph": folder.name, "links": links})
            return self._views[key]

    def _sources(self, folder: Path) -> dict[int, Source]:
        """By layer, the source to link to: by the dictionaries themselves where they are open, else by their titles."""
        exact = self._worker().sources(self.host.opened, folder, self.index) if self.host.state == "ready" else None
        return _titled(self.index, read_json(folder / "graph.json")) if exact is None else exact

    @answers
    async def intervened(self, request: Request) -> Any:
        folder = self._folder(request)
        body = await asked(request, "latents, a factor and a mode")
        latents, factor, mode = _latents(body.get("latents")), body.get("factor"), body.get("mode", "free")
        if not isinstance(factor, int | float) or isinstance(factor, bool) or not abs(factor) <= 1e4:
            raise Problem(400, "The factor must be a number of at most 10,000 in size.")
        if mode not in MODES:
            raise Problem(400, f"The mode must be one of {', '.join(MODES)}.")

        def work(opened: Any, stage: Callable[[str], None]) -> Any:
            with self._one:
                worker = self._worker()
            return worker.intervene(opened, folder, latents, factor=float(factor), mode=mode, stage=stage)

        if "text/event-stream" in request.headers.get("accept", ""):
            title = f"intervening on {len(latents)} latent{'' if len(latents) == 1 else 's'} of {folder.name}"
            told = job_of_model(
                self.host, lambda opened, emit: work(opened, lambda what: emit("stage", {"what": what})), title=title
            )
            return Events(told)
        try:
            return await of_model(self.host, lambda opened: work(opened, lambda _: None))
        except ValueError as error:
            raise Problem(422, f"{error}.") from error


class _Labels(Mapping[tuple[int, int], str]):
    """Descriptions of an index's latents by layer and index, read when one is asked for."""

    def __init__(self, sources: Mapping[int, Source]) -> None:
        self.sources = sources

    def __getitem__(self, key: tuple[int, int]) -> str:
        source = self.sources[key[0]]
        if not 0 <= key[1] < len(source):
            raise KeyError(key)
        return source.description(key[1])

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((layer, i) for layer, source in self.sources.items() for i in range(len(source)))

    def __len__(self) -> int:
        return sum(map(len, self.sources.values()))


def _titled(index: Index, about: dict[str, Any]) -> dict[int, Source]:
    """By layer, the one source of the graph's model whose dictionary has the title of that layer's latents.

    Two runs of one recipe have one title: this is for when the dictionaries are not open.
    """
    if about.get("model") != index.meta["model"]:
        return {}
    titles: dict[str, list[Source]] = {}
    for source in index.sources.values():
        titles.setdefault(str(source.meta.get("title")), []).append(source)
    named = {layer: titles.get(title, []) for layer, title in enumerate(about.get("latents_are", [])) if title}
    return {layer: found[0] for layer, found in named.items() if len(found) == 1}  # of two nobody knows which it is


def _summary(name: str, folder: Path) -> dict[str, Any]:
    try:
        about = read_json(folder / "graph.json")
        says = (about.get("verification") or {}).get("says")
        return {"id": name} | {k: about[k] for k in ("model", "tokens", "targets", "scores")} | {"says": says}
    except (ValueError, KeyError, TypeError, OSError) as error:
        return {"id": name, "problem": f"{folder.name} is damaged ({error}): trace again"}


def _share(query: Mapping[str, str], key: str, usual: float) -> float:
    try:
        value = float(query.get(key, usual))
    except ValueError:
        value = math.nan
    if not 0 < value <= 1:
        raise Problem(400, f"{key} is a share above 0 and at most 1, not {query.get(key)!r}.")
    return value


def _latents(given: Any) -> list[tuple[int, int, int]]:
    whole = isinstance(given, list) and all(
        isinstance(k, list) and len(k) == 3 and all(isinstance(v, int) and not isinstance(v, bool) for v in k) for k in given
    )
    if not whole or not 0 < len(given) <= MOST_LATENTS:
        raise Problem(400, f"Give 1 to {MOST_LATENTS} latents, each as [layer, position, index].")
    return list(dict.fromkeys(map(tuple, given)))
