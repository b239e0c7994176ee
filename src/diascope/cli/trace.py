"""The verb that follows a computation: trace."""

from __future__ import annotations

from dataclasses import dataclass
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from diascope.cli.terminal import out
from diascope.config import within
from diascope.progress import Bars

if TYPE_CHECKING:
    from diascope.circuits import Graph
    from diascope.models import Model


@dataclass
class Trace:
    """Trace one prompt: an attribution graph of latents, verified by intervention, in a folder with a page to look at."""

    model: Annotated[str, tyro.conf.Positional]
    """Package alias, GGUF file, model folder or hub id; it runs in float32."""
    prompt: str
    """The text whose next token is explained."""
    dictionaries: tuple[str, ...] = ()
    """One transcoder a layer, or one cross-layer transcoder: folders (* may stand for the layers) or other names of them; empty
    takes the MLPs' own neurons, the baseline."""
    sites: tuple[str, ...] = ()
    """IN:OUT of each dictionary, for formats that do not say."""
    target: str = ""
    """The next token to explain; empty takes the likeliest ones (95 % of the probability, at most 10)."""
    against: str = ""
    """Explain the difference of two logits: that of --target less this token's."""
    least: float = 1e-4
    """A latent's inputs are computed where at least this share of the targets' influence passes through it."""
    edge_least: float = 1e-4
    """An edge is kept by itself where it is at least this share of all that enters its target."""
    window: int = 0
    """Positions before the end that are nodes of their own, earlier ones enter as constants; 0 takes all. Nothing is verified then."""
    verify: int = 64
    """Latents to ablate and double, to compare with what the edges predict; 0 leaves it out."""
    node_share: float = 0.8
    """Share of influence that the nodes of the page and of --viewer carry."""
    edge_share: float = 0.98
    """Share of influence that the edges between them carry."""
    out: Path = Path("graph")
    """Folder to write: graph.safetensors, graph.json, graph.html; it must not exist. Interrupted, the same command goes on."""
    viewer: Path | None = None
    """Also write the JSON of Anthropic's viewer, circuit-tracer and Neuronpedia to this file."""

    def run(self) -> None:
        from diascope.circuits import TokenTarget, TopLogits, TraceConfig, trace
        from diascope.circuits.trace import NEURONS
        from diascope.circuits.viewer_json import write_viewer
        from diascope.recipes.run import opened_model
        from diascope.storage.files import check_target

        self._check()
        config = TraceConfig(self.least, self.edge_least, self.window)
        given = self._loaded() or NEURONS
        target = TokenTarget(self.target, self.against or None) if self.target else TopLogits()
        parts = self.out.with_name(f".{self.out.name}.parts")
        check_target(parts)
        with Bars(out) as bars:
            model = opened_model(self.model, "float32", bars.stage)
            graph = trace(
                model, given, self.prompt, target=target, config=config, progress=bars.stage("trace", "layers"), parts=parts
            )
            graph, unverified = self._verified(graph, model, given, bars)
            graph = self._named(graph, model, given)
        _show(graph, self.node_share, self.edge_share)
        _say(f"not verified: {unverified}" if unverified else "")
        self._write(graph, parts)
        if self.viewer:
            out.print(
                f"for other viewers: {write_viewer(graph, self.viewer, node_share=self.node_share, edge_share=self.edge_share)}",
                style="dim",
            )

    def _verified(self, graph: Graph, model: Model, given: Any, bars: Bars) -> tuple[Graph, str]:
        """The graph tried by intervention, or as it is with the reason."""
        from diascope.circuits.verify import Unverifiable, verify

        if not self.verify or graph.about["first"]:
            return graph, ""
        try:
            return verify(graph, model, given, sample=self.verify, progress=bars.stage("verify", "interventions")), ""
        except Unverifiable as why:
            return graph, str(why)

    def _check(self) -> None:
        from diascope.circuits.verify import FEWEST
        from diascope.storage.files import check_target

        if not self.prompt.strip():
            raise ValueError("the prompt is empty: give a text whose next token is to be explained")
        if self.against and not self.target:
            raise ValueError("--against is the second of two tokens: give the first with --target")
        if self.out.exists():
            raise ValueError(f"{self.out} exists: choose another --out")
        if self.verify:
            within("verify", self.verify, FEWEST, 2**20, "latents, or 0 for none")
        within("node-share", self.node_share, 0.01, 1)
        within("edge-share", self.edge_share, 0.01, 1)
        if self.viewer:
            check_target(self.viewer)

    def _loaded(self) -> list:  # type: ignore[type-arg]
        from diascope.cli.terminal import ends
        from diascope.dictionaries import load_dictionary

        found = []
        for name in self.dictionaries:
            paths = sorted(glob(name)) if "*" in name else [name]
            if not paths:
                raise ValueError(f"nothing is called {name}")
            found += paths
        if self.sites and len(self.sites) != len(found):
            raise ValueError(f"{len(found)} dictionaries and {len(self.sites)} sites: give IN:OUT for each dictionary")
        each = [ends((s,)) for s in self.sites] or [None] * len(found)
        return [load_dictionary(path, sites=site) for path, site in zip(found, each)]

    def _named(self, graph: Graph, model: Model, given: Any) -> Graph:
        from diascope.circuits import prune
        from diascope.circuits.labels import promoted

        if isinstance(given, str) or graph.about["first"]:
            return graph
        return graph.labelled(promoted(prune(graph, node_share=self.node_share, edge_share=self.edge_share), model, given))

    def _write(self, graph: Graph, parts: Path) -> None:
        import shutil

        from diascope.circuits.view import view
        from diascope.page import render_html

        html = render_html("circuit", view(graph, node_share=self.node_share, edge_share=self.edge_share))
        graph.save(self.out, html=html)
        shutil.rmtree(parts, ignore_errors=True)
        out.print(f"graph: {self.out}; look at it: {self.out / 'graph.html'}", style="dim", markup=False, highlight=False)


def _show(graph: Graph, node_share: float, edge_share: float) -> None:
    """What was found, on the terminal."""
    from diascope.circuits import prune
    from diascope.tables import graph_tables

    small = prune(graph, node_share=node_share, edge_share=edge_share)
    out.print()
    for part in graph_tables(graph, small):
        out.print(part)
    _say(graph.about.get("verification", {}).get("says", ""))


def _say(sentence: str) -> None:
    if sentence:
        out.print(sentence, style="bold red" if "DO NOT" in sentence else "bold green", highlight=False)
