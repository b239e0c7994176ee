"""Jobs over HTTP, as server-sent events: numbered, resumable, cancelled when their client is gone.

GET  /api/jobs/{job}          the job's events after the header Last-Event-ID (0 without one), to its end
POST /api/jobs/{job}/cancel   {}: end it

    id: 3
    event: step
    data: {...}

A comment every ten seconds without an event finds out clients that died without saying so. An id is looked up among the
jobs there are, and never becomes a path.
"""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from diascope.explorer.answers import Problem, answers
from diascope.explorer.host import ModelHost
from diascope.explorer.jobs import Event, Job


class Events(Response):
    """The stream of one job's events after number `after`."""

    media_type = "text/event-stream"

    def __init__(self, job: Job, after: int = 0) -> None:
        super().__init__(None, 200, {"x-accel-buffering": "no"}, self.media_type)
        del self.headers["content-length"]
        self.job, self.after = job, after

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the job is over or the client is gone, whichever comes first."""
        telling, leaving = asyncio.create_task(self._tell(send)), asyncio.create_task(_gone(receive))
        try:
            await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (telling, leaving):
                task.cancel()
            await asyncio.gather(telling, leaving, return_exceptions=True)  # so that the follower has left the job

    async def _tell(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        following = self.job.follow(self.after)
        try:
            async for event in following:
                await send({"type": "http.response.body", "body": written(event), "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await following.aclose()  # type: ignore[attr-defined]


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def written(event: Event | None) -> bytes:
    """An event as the standard writes it; a comment for None."""
    if event is None:
        return b": still here\n\n"
    number, kind, data = event
    return f"id: {number}\nevent: {kind}\ndata: ".encode() + msgspec.json.encode(data) + b"\n\n"


class JobApi:
    """The handlers over a host's jobs."""

    def __init__(self, host: ModelHost) -> None:
        self.host = host

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [
            Route("/api/jobs/{job}", self.followed),
            Route("/api/jobs/{job}/cancel", self.cancelled, methods=["POST"]),
        ]

    def _job(self, request: Request) -> Job:
        job = self.host.job(request.path_params["job"])
        if job is None:
            raise Problem(404, "There is no such job: it ended some time ago, or the explorer was started again.")
        return job

    @answers
    async def followed(self, request: Request) -> Any:
        job, given = self._job(request), request.headers.get("last-event-id", "0")
        if not (given.isascii() and given.isdigit() and len(given) < 10):
            raise Problem(400, "Last-Event-ID is the number of the last event that was seen.")
        return Events(job, int(given))

    @answers
    async def cancelled(self, request: Request) -> Any:
        job = self._job(request)
        job.cancel()
        return {"job": job.id, "state": job.state}
