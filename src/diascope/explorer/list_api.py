"""Lists over HTTP (lists.py keeps them).

GET  /api/lists                    ?source=&latent=: all lists, each saying whether it `has` that latent
POST /api/lists                    {"name", "latents": [{"source", "latent", "note"}]}: a new list, or one that was exported
GET  /api/lists/{list}             with what the index says of each latent; null for one that it lacks
POST /api/lists/{list}/{change}    rename {"name"}, delete {}, add {"source", "latent", "note"}, remove {"source", "latent"},
                                   note {"source", "latent", "note", "was"}, move {"source", "latent", "before": [source, latent] or null}

A note that somebody else changed meanwhile is not overwritten: 409 with the note that stands. 503 where the lists cannot be
read or written now (without a team's database's own words, which may name places), 403 where that database forbids it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from diascope.explorer.answers import Problem, answers, asked
from diascope.explorer.list_store import Unavailable
from diascope.explorer.lists import FORMAT, NAME, Conflict, Entry, Key, Lists, Note
from diascope.explorer.lists import Name as ListName
from diascope.explorer.rows import line
from diascope.latents.store import Index


class Named(msgspec.Struct, forbid_unknown_fields=True):
    """A list as it is made or comes from a file; `format` and `model` are a file's."""

    name: ListName
    latents: list[Entry] = []
    format: str = FORMAT
    model: str = ""


class Renamed(msgspec.Struct, forbid_unknown_fields=True):
    """A list's new name."""

    name: ListName


class Of(msgspec.Struct, forbid_unknown_fields=True):
    """One latent."""

    source: str
    latent: int

    @property
    def key(self) -> Key:
        """Source and number."""
        return self.source, self.latent


class Noted(Of, forbid_unknown_fields=True):
    """A note, and the one that its writer saw."""

    note: Note
    was: str = ""


class Moved(Of, forbid_unknown_fields=True):
    """A latent and the one before which it is put; none for the end."""

    before: tuple[str, int] | None = None


class Nothing(msgspec.Struct, forbid_unknown_fields=True):
    """{}."""


class ListApi:
    """The handlers, over `lists` (a team's, or by default those of the workspace) and an index that says what their latents are."""

    def __init__(self, workspace: Path, index: Index, lists: Lists | None = None) -> None:
        self.lists, self.index = lists or Lists(workspace / NAME), index

    def routes(self) -> list[Route]:
        """Where the handlers answer."""
        return [
            Route("/api/lists", self.listed),
            Route("/api/lists", self.made, methods=["POST"]),
            Route("/api/lists/{list}", self.shown),
            Route("/api/lists/{list}/{change}", self.changed, methods=["POST"]),
        ]

    @answers
    async def listed(self, request: Request) -> Any:
        source, latent = request.query_params.get("source", ""), request.query_params.get("latent", "")
        key = (source, int(latent)) if source and latent.isascii() and latent.isdigit() and len(latent) < 10 else None
        return await _kept(lambda: self.lists.all(key))

    @answers
    async def made(self, request: Request) -> Any:
        given = _as(Named, await asked(request, "a name"))
        if given.format != FORMAT:
            raise Problem(422, f"This file has format {given.format!r}; lists are {FORMAT}.")
        id = await _kept(lambda: self.lists.make(given.name.strip(), given.latents))
        return {"id": id}

    @answers
    async def shown(self, request: Request) -> Any:
        found = await _kept(lambda: self.lists.get(request.path_params["list"]))
        return {**found, "model": self.index.meta["model"], "latents": [{**e, "row": self._row(e)} for e in found["latents"]]}

    def _row(self, entry: dict[str, Any]) -> dict[str, Any] | None:
        source = self.index.sources.get(entry["source"])
        return line(self.index, source, entry["latent"]) if source and entry["latent"] < len(source) else None

    @answers
    async def changed(self, request: Request) -> Any:
        id, change = request.path_params["list"], request.path_params["change"]
        if change not in _CHANGES:
            raise Problem(404, f"A list can be changed by {', '.join(_CHANGES)}, not by {change!r}.")
        kind, work = _CHANGES[change]
        given = _as(kind, await asked(request, "what is to change"))
        if isinstance(given, Entry):
            source = self.index.sources.get(given.source)
            if source is None or given.latent >= len(source):
                raise Problem(404, f"The index has no latent {given.latent} of {given.source!r}.")
        try:
            await _kept(lambda: work(self.lists, id, given))
        except Conflict as conflict:
            told = {"error": "This note was changed elsewhere meanwhile.", "note": conflict.note}
            return Response(msgspec.json.encode(told), 409, media_type="application/json")
        return {"id": id}


_CHANGES: dict[str, tuple[type, Callable[[Lists, str, Any], None]]] = {
    "rename": (Renamed, lambda lists, id, g: lists.rename(id, g.name.strip())),
    "delete": (Nothing, lambda lists, id, g: lists.delete(id)),
    "add": (Entry, lambda lists, id, g: lists.add(id, g)),
    "remove": (Of, lambda lists, id, g: lists.remove(id, g.key)),
    "note": (Noted, lambda lists, id, g: lists.write(id, g.key, g.note, g.was)),
    "move": (Moved, lambda lists, id, g: lists.move(id, g.key, g.before)),
}


def _as(kind: type, body: dict[str, Any]) -> Any:
    try:
        return msgspec.convert(body, kind)
    except msgspec.ValidationError as error:
        raise Problem(400, f"{error}.") from error


async def _kept(work: Callable[[], Any]) -> Any:
    """What `work` gives, off the server's thread: another writer may have to be waited for."""
    try:
        return await asyncio.to_thread(work)
    except LookupError as error:
        raise Problem(404, _sentence(error)) from error
    except ValueError as error:
        raise Problem(422, _sentence(error)) from error
    except PermissionError as error:
        raise Problem(403, _sentence(error)) from error
    except Unavailable as error:
        raise Problem(503, _sentence(error.sentence)) from error


def _sentence(error: Exception | str) -> str:
    text = str(error)
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith('?') else '.'}"
