"""Neuronpedia's steering over the playground's own: its payload becomes pushes, its answer is made of the same events.

POST /api/steer        prompt, modelId, features [{modelId, layer, index, strength}], strength_multiplier, temperature, n_tokens, seed
POST /api/steer-chat   the same with defaultChatMessages and steeredChatMessages

A feature's push is strength * strength_multiplier of its decoder row; SIMPLE_ADDITIVE adds it, ORTHOGONAL_DECOMP sets what stands
along it. The answer has STEERED, DEFAULT, steeredLogProbs and defaultLogProbs; with `stream` it comes as events, each with all that
is written so far. What differs from the site: special tokens are never steered, whatever `steer_special_tokens` says;
`freq_penalty` is read and not applied, as there now; nothing is kept, so there is no id and no shareUrl.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diascope.explorer.answers import Problem, answers, asked, job_of_model
from diascope.explorer.host import ModelHost
from diascope.explorer.jobs import Event, Job
from diascope.explorer.neuronpedia_catalogue import Catalogue, wanted
from diascope.explorer.steer import LARGEST_DOSE, LONGEST_PROMPT, MOST_MESSAGES, MOST_NEW, MOST_PUSHES, SAMPLE, Asked, PushAsked
from diascope.explorer.steer import Message as ChatMessage

METHODS: dict[str, Literal["additive", "orthogonal"]] = {"SIMPLE_ADDITIVE": "additive", "ORTHOGONAL_DECOMP": "orthogonal"}
SIDES = {"steered": "STEERED", "default": "DEFAULT"}


class _Feature(msgspec.Struct):
    modelId: str
    layer: str
    index: str | int
    strength: float


class _Said(msgspec.Struct):
    role: Literal["user", "assistant", "system", "model", "developer"]
    content: str


class _Payload(msgspec.Struct, kw_only=True):
    modelId: str
    features: Annotated[list[_Feature], Meta(max_length=MOST_PUSHES)]
    temperature: Annotated[float, Meta(ge=0, le=100)]
    n_tokens: Annotated[int, Meta(ge=1, le=MOST_NEW)]
    seed: Annotated[float, Meta(ge=-1e8, le=1e8)]
    strength_multiplier: Annotated[float, Meta(ge=0, le=LARGEST_DOSE)]
    freq_penalty: float = 0.0
    steer_method: Literal["SIMPLE_ADDITIVE", "ORTHOGONAL_DECOMP"] = "SIMPLE_ADDITIVE"
    stream: bool = False


class _Completion(_Payload, kw_only=True):
    prompt: Annotated[str, Meta(min_length=1, max_length=LONGEST_PROMPT)]


class _Chat(_Payload, kw_only=True):
    defaultChatMessages: Annotated[list[_Said], Meta(min_length=1, max_length=MOST_MESSAGES)]
    steeredChatMessages: Annotated[list[_Said], Meta(min_length=1, max_length=MOST_MESSAGES)]
    steer_special_tokens: bool = False


@dataclass
class _Side:
    """One side as far as it is written."""

    raw: str = ""  # the prompt as the model reads it
    text: str = ""
    chances: list[dict[str, Any]] = field(default_factory=list)

    def add(self, token: dict[str, Any]) -> None:
        """One token, as the playground tells it."""
        self.text += "" if token["ends"] else token["text"]
        top = [{"token": text, "logprob": p} for text, p in token["top"]]
        self.chances.append({"token": token["text"], "logprob": token["log_probability"], "topLogprobs": top})


@dataclass(frozen=True)
class Run:
    """What is asked of the model once, and which sides of it count."""

    asked: Asked
    sides: tuple[str, ...]


class NpSteer:
    """The handlers. `site` is the explorer's own application, whose POST /api/steer has another payload."""

    def __init__(self, catalogue: Catalogue, host: ModelHost, site: ASGIApp) -> None:
        self.catalogue, self.host, self.site = catalogue, host, site

    def routes(self) -> list[Route]:
        """Where the handlers answer; the client ends its paths with a slash."""
        chat = [Route(f"/api/steer-chat{slash}", self.chat, methods=["POST"]) for slash in ("", "/")]
        return [Route(f"/api/steer{slash}", self.completion, methods=["POST"]) for slash in ("", "/")] + chat

    @answers
    async def completion(self, request: Request) -> Any:
        body = await asked(request, "prompt, modelId and features")
        if "pushes" in body:  # the page's
            return _Again(self.site, msgspec.json.encode(body))
        payload = wanted(body, _Completion)
        run = Run(self._asked(payload, payload.features, prompt=payload.prompt), tuple(SIDES))
        return await self._answer(request, payload, [run])

    @answers
    async def chat(self, request: Request) -> Any:
        payload = wanted(await asked(request, "the messages of a chat, modelId and features"), _Chat)
        steered, default = _messages(payload.steeredChatMessages), _messages(payload.defaultChatMessages)
        if steered == default:
            runs = [Run(self._asked(payload, payload.features, messages=steered), tuple(SIDES))]
        else:
            runs = [Run(self._asked(payload, payload.features, messages=steered), ("steered",)),
                    Run(self._asked(payload, [], messages=default), ("default",))]  # fmt: skip
        return await self._answer(request, payload, runs)

    def _asked(self, payload: _Payload, features: list[_Feature], **prompt: Any) -> Asked:
        pushes = []
        for f in features:
            source, _ = self.catalogue.source(f.modelId, f.layer)
            dose = f.strength * payload.strength_multiplier
            if not abs(dose) <= LARGEST_DOSE:
                raise Problem(400, f"strength * strength_multiplier is {dose}; the limit is {LARGEST_DOSE:g}.")
            pushes.append(PushAsked(dose, source=source.name, latent=self.catalogue.latent(source, f.index), factor=1.0))
        return Asked(
            pushes, method=METHODS[payload.steer_method], unit="activation", max_new_tokens=payload.n_tokens,
            temperature=payload.temperature, seed=int(payload.seed) % 2**53, **prompt,
        )  # fmt: skip

    async def _answer(self, request: Request, payload: _Payload, runs: list[Run]) -> Any:
        model = self.catalogue.index.meta["model"]
        if payload.modelId not in (model, *(n.model for n in self.catalogue.names.values())):
            raise Problem(404, f"There is no model {payload.modelId!r} here; there is {model}.")
        sequences, tokens = SAMPLE
        sample = self.catalogue.index.tokens[:sequences, :tokens].tolist()
        job = job_of_model(self.host, lambda opened, emit: _work(opened, runs, sample, emit))
        if payload.stream:
            return StreamingResponse(_streamed(job, payload), media_type="text/event-stream")
        return await _attended(request, _whole(job, payload))


def _work(opened: Any, runs: list[Run], sample: list[list[int]], emit: Any) -> dict[str, Any]:
    """In the model's thread: each run, its steps told by side."""
    for run in runs:
        raw = _prompt(opened[0], run.asked)
        emit("prompt", dict.fromkeys(run.sides, raw))

        def told(kind: str, data: Any, sides: tuple[str, ...] = run.sides) -> None:
            emit(kind, {side: data[side] for side in sides} if kind == "step" else data)

        opened.steer(run.asked, sample, told)
    return {}


def _prompt(model: Any, asked: Asked) -> str:
    if not asked.messages:
        return asked.prompt
    return model.tokenizer.decode(model.chat_tokens([msgspec.to_builtins(m) for m in asked.messages]))


def _messages(said: list[_Said]) -> list[ChatMessage]:
    """Theirs as ours: model is assistant, developer is system. A Problem where the last is not the user's."""
    roles: dict[str, Literal["system", "user", "assistant"]] = {"model": "assistant", "assistant": "assistant", "developer": "system", "system": "system", "user": "user"}  # fmt: skip
    if said[-1].role != "user" or not said[-1].content.strip():
        raise Problem(400, "The last message must be the user's, with some text in it.")
    if sum(len(m.content) for m in said) > LONGEST_PROMPT:
        raise Problem(413, f"The messages are longer than {LONGEST_PROMPT:,} characters.")
    return [ChatMessage(roles[m.role], m.content) for m in said]


async def _states(job: Job) -> AsyncIterator[dict[str, _Side]]:
    """Both sides after every event that changes them; a Problem where the job fails."""
    sides = {side: _Side() for side in SIDES}
    async for event in job.follow():
        if event is not None and _taken(event, sides):
            yield sides


def _taken(event: Event, sides: dict[str, _Side]) -> bool:
    _, kind, data = event
    if kind == "failed":
        raise Problem(422, f"{data['error']}.")
    if kind == "cancelled":
        raise Problem(503, "The run was cancelled.")
    for side in SIDES if kind in ("prompt", "step") else ():
        if data.get(side) is not None:
            if kind == "step":
                sides[side].add(data[side])
            else:
                sides[side].raw = data[side]
    return kind == "step"


async def _whole(job: Job, payload: _Payload) -> dict[str, Any]:
    last = {side: _Side() for side in SIDES}
    async for sides in _states(job):
        last = sides
    return _result(last, payload)


async def _streamed(job: Job, payload: _Payload) -> AsyncIterator[bytes]:
    try:
        async for sides in _states(job):
            yield b"data: " + msgspec.json.encode(_result(sides, payload)) + b"\n\n"
    except Problem as problem:  # the status is sent already
        yield b"data: " + msgspec.json.encode({"error": str(problem), "message": str(problem)}) + b"\n\n"


def _result(sides: dict[str, _Side], payload: _Payload) -> dict[str, Any]:
    """The answer as the site gives it: the text with its prompt, or a chat's raw text and messages."""
    chances = {f"{side}LogProbs": sides[side].chances for side in SIDES}
    told = {"id": None, "shareUrl": None, "limit": None}
    if not isinstance(payload, _Chat):
        return {SIDES[side]: s.raw + s.text for side, s in sides.items()} | chances | told
    given = {"steered": payload.steeredChatMessages, "default": payload.defaultChatMessages}
    texts = {
        SIDES[side]: {"raw": s.raw + s.text, "logprobs": s.chances,
                      "chatTemplate": [*msgspec.to_builtins(given[side]), {"role": "assistant", "content": s.text}]}
        for side, s in sides.items()
    }  # fmt: skip
    settings = ("temperature", "n_tokens", "freq_penalty", "seed", "strength_multiplier", "steer_method")
    return texts | chances | told | {"settings": {k: getattr(payload, k) for k in settings} | {"steer_special_tokens": False}}


async def _attended(request: Request, answer: Any) -> Any:
    """The answer, given up when its client leaves: the job then has no follower, and ends."""
    telling, leaving = asyncio.create_task(answer), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({telling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not telling.done():
            raise Problem(400, "The request broke off.")
        return telling.result()
    finally:
        for task in (telling, leaving):
            task.cancel()
        await asyncio.gather(telling, leaving, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


class _Again(Response):
    """The answer of another application to the same request, whose body was read already."""

    def __init__(self, app: ASGIApp, body: bytes) -> None:
        super().__init__()
        self.app, self.again = app, body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hand it on, its body first."""
        sent = False

        async def body_first() -> Message:
            nonlocal sent
            if sent:
                return await receive()
            sent = True
            return {"type": "http.request", "body": self.again, "more_body": False}

        headers = [(k, v) for k, v in scope["headers"] if k != b"content-length"]
        path = scope["path"].rstrip("/")
        await self.app({**scope, "headers": headers, "path": path, "raw_path": path.encode()}, body_first, send)
