"""How the explorer answers: JSON, or a sentence with a status."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from diascope.explorer.host import Busy, ModelHost
from diascope.explorer.jobs import Job, Work
from diascope.storage.seals import Damaged

LARGEST_BODY = 1_000_000  # bytes
BUSY = "The model is busy with other requests: try again shortly."


class Problem(Exception):
    """What cannot be answered: an HTTP status and a sentence for a person."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def answers(function: Callable[[Any, Request], Any]) -> Callable[[Any, Request], Any]:
    """Turn what a handler returns into JSON (a Response stays as it is), and a Problem into a sentence with its status.

    A file of the index that is not what was written is status 500, and named.
    """

    async def handler(self: Any, request: Request) -> Response:
        try:
            data, status, headers = await function(self, request), 200, {}
        except Problem as problem:
            data, status = {"error": str(problem)}, problem.status
            headers = {"retry-after": "2"} if status == 429 else {}
        except Damaged as damage:
            data, status, headers = {"error": f"{damage}."}, 500, {}
        if isinstance(data, Response):  # a stream of events
            return data
        content = data if isinstance(data, bytes) else msgspec.json.encode(data)
        return Response(content, status, headers, "application/json")

    return handler


async def asked(request: Request, wanted: str) -> dict[str, Any]:
    """The request's JSON object; a Problem says that it must hold what is `wanted`."""
    try:
        return msgspec.json.decode(await _body(request), type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        raise Problem(400, f"The body must be a JSON object with {wanted}.") from error


async def of_model(host: ModelHost, function: Callable[[Any], Any]) -> Any:
    """What `function(opened)` gives in the model's thread; a Problem where there is no model, or the queue is full."""
    need_model(host)
    try:
        return await host.call(function)
    except Busy as error:
        raise Problem(429, BUSY) from error


def job_of_model(host: ModelHost, work: Work, *, title: str = "") -> Job:
    """`work(opened, emit)` queued as a job called `title`; a Problem where there is no model, or the queue is full."""
    need_model(host)
    try:
        return host.start(work, title=title)
    except Busy as error:
        raise Problem(429, BUSY) from error


def need_model(host: ModelHost) -> None:
    """A Problem unless the model is open."""
    if host.state != "ready":
        sentence = {
            "loading": "The model is still loading: try again in a few seconds.",
            "absent": "This explorer was started for browsing only, without a model.",
        }
        raise Problem(503, sentence.get(host.state, f"The model could not be loaded: {host.problem}"))


async def _body(request: Request) -> bytes:
    """The request's body, refused as soon as it grows too large."""
    parts, size = [], 0
    try:
        async for part in request.stream():
            size += len(part)
            if size > LARGEST_BODY:
                raise Problem(413, f"The body is larger than {LARGEST_BODY:,} bytes.")
            parts.append(part)
    except ClientDisconnect as error:
        raise Problem(400, "The request broke off.") from error
    return b"".join(parts)


def number(value: Any) -> float | int | None:
    """A number as JSON has it: None for what is not finite."""
    found = value.item() if isinstance(value, np.generic) else value
    return found if np.isfinite(found) else None
