"""A workspace's graphs for the explorer: torch is imported when the first of them is looked at, not when the server starts."""

from __future__ import annotations

from pathlib import Path

from diascope.explorer.graphs import Graphs, GraphWork


def graphs_in(folder: str | Path) -> Graphs:
    """The graphs in `folder`, which need not exist yet."""

    def work() -> GraphWork:
        from diascope.explorer.interventions import Work

        return Work()

    return Graphs(Path(folder), work)
