"""Runs, evaluations and jobs over HTTP.

GET /api/runs                 every training log of the workspace: step, rows, when it was written, who is at work
GET /api/runs/{run}           ?after=&file=: its lines from a byte on, a column a quantity (runs.py)
GET /api/evaluations          the cards of the workspace's dictionaries
GET /api/jobs                 what runs, waits, or ended lately in the model's thread

The folder is read at every request: a run that goes on is followed by asking again from where the last answer ended.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.routing import Route

from diascope.explorer.answers import Problem, answers
from diascope.explorer.host import ModelHost
from diascope.explorer.runs import cards, logs, stretch, summary
from diascope.latents.store import Index


class RunApi:
    """The handlers, over a workspace, the index in it and the model's host."""

    def __init__(self, workspace: Path, index: Index, host: ModelHost) -> None:
        self.workspace, self.index, self.host = workspace, index, host

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [
            Route("/api/runs", self.listed),
            Route("/api/runs/{run:path}", self.curves),
            Route("/api/evaluations", self.evaluations),
            Route("/api/jobs", self.jobs),
        ]

    @answers
    async def listed(self, request: Request) -> Any:
        return await asyncio.to_thread(
            lambda: [{"run": name} | summary(self.workspace, path) for name, path in logs(self.workspace).items()]
        )

    @answers
    async def curves(self, request: Request) -> Any:
        name, query = request.path_params["run"], request.query_params
        found = await asyncio.to_thread(logs, self.workspace)
        if name not in found:  # a name is looked up, and never becomes a path
            raise Problem(404, f"There is no run {name!r}; {'there are ' + ', '.join(found) if found else 'there are none'}.")
        after = query.get("after", "0")
        if not (after.isascii() and after.isdigit() and len(after) < 16):
            raise Problem(400, "after is the number `next` of the last answer.")
        try:
            return await asyncio.to_thread(stretch, found[name], after=int(after), of=query.get("file", ""))
        except FileNotFoundError as error:
            raise Problem(404, f"The log of {name} has just been taken away.") from error

    @answers
    async def evaluations(self, request: Request) -> Any:
        known = {name: source.meta for name, source in self.index.sources.items()}
        return await asyncio.to_thread(cards, self.workspace, known)

    @answers
    async def jobs(self, request: Request) -> Any:
        return {"state": self.host.state, "ahead": self.host.ahead, "jobs": [job.told() for job in self.host.jobs()]}
