"""Judges: whoever answers a question about a latent in words.

    Judge.ask(messages, max_tokens) -> Answer    the whole protocol, beside a `name` and how many questions it takes at once
    Scripted(function)                           a plain function, for tests and for judges of your own
    Replay(judge, file)                          the same judge with a memory: what was answered once is never asked again
    endpoint.Endpoint, local.Local               an OpenAI-compatible server; a chat model in this process

A memory is keyed by the hash of (judge, messages, max_tokens), so a run that was broken off asks only what is left.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, cast, runtime_checkable

from diascope.latents.describe.lines import Lines

Message = dict[str, str]  # {"role", "content"}


class JudgeDown(RuntimeError):
    """The judge gives no answers now: what was answered is kept, and the same command goes on later."""


@dataclass(frozen=True)
class Answer:
    """What a judge said, and what it took."""

    text: str
    prompt_tokens: int
    answer_tokens: int


@runtime_checkable
class Judge(Protocol):
    """Anything with a name that answers a conversation with text."""

    name: str  # part of the memory's key: two judges that answer differently need two names
    parallel: int  # questions that may be asked at the same time
    failures: int  # attempts so far that gave no answer, each followed by another or by JudgeDown

    def ask(self, messages: Sequence[Message], max_tokens: int) -> Answer:
        """The answer to a conversation, of at most `max_tokens` tokens. Raises JudgeDown where none can be had."""
        ...


def rough_tokens(text: str) -> int:
    """About how many tokens `text` has, where nobody counted: four characters each."""
    return (len(text) + 3) // 4


def rough(messages: Sequence[Message], text: str) -> Answer:
    """The answer `text` with rough counts of tokens."""
    return Answer(text, sum(rough_tokens(m["content"]) for m in messages), rough_tokens(text))


class Scripted:
    """A judge that is a function of (messages, max_tokens)."""

    failures = 0

    def __init__(self, function: Callable[[Sequence[Message], int], str], name: str = "scripted", parallel: int = 1) -> None:
        self.function, self.name, self.parallel = function, name, parallel

    @classmethod
    def named(cls, place: str) -> Scripted:
        """The function at "package.module:function". Raises ValueError where there is none."""
        module, colon, name = place.partition(":")
        try:
            function = getattr(importlib.import_module(module), name) if colon and name else None
        except (ImportError, AttributeError, ValueError) as error:
            raise ValueError(f"there is no function {place!r} ({error}): give scripted:PACKAGE.MODULE:FUNCTION") from error
        if not callable(function):
            raise ValueError(f"{place!r} names no function: give scripted:PACKAGE.MODULE:FUNCTION")
        return cls(cast(Callable[[Sequence[Message], int], str], function), f"scripted:{place}")

    def ask(self, messages: Sequence[Message], max_tokens: int) -> Answer:
        """What the function returns."""
        return rough(messages, self.function(messages, max_tokens))


class Replay:
    """A judge with a memory in a file of JSON lines, one an answer, with its tokens and seconds."""

    def __init__(self, judge: Judge, path: str | Path) -> None:
        self.judge, self.name, self.parallel = judge, judge.name, judge.parallel
        self.replayed = 0  # answers found in memory
        self._lines = Lines(path)
        self._known: dict[str, str] = {line["key"]: line["answer"] for line in self._lines.read()}
        self._idle = threading.Condition()
        self._asking, self._closed = 0, False

    def __contains__(self, question: tuple[Sequence[Message], int]) -> bool:
        return self.key(*question) in self._known

    def key(self, messages: Sequence[Message], max_tokens: int) -> str:
        """The hash under which an answer is remembered."""
        asked = json.dumps([self.name, list(messages), max_tokens], sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(asked.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def text(self, messages: Sequence[Message], max_tokens: int) -> str:
        """The remembered answer, or the judge's own, which is then remembered. Raises JudgeDown, also once it is closed."""
        key = self.key(messages, max_tokens)
        if key in self._known:
            with self._idle:
                self.replayed += 1
            return self._known[key]
        with self._asked():
            began = time.perf_counter()
            answer = self.judge.ask(messages, max_tokens)
            self._remember(key, answer, time.perf_counter() - began)
        return answer.text

    def _remember(self, key: str, answer: Answer, seconds: float) -> None:
        took = {"prompt_tokens": answer.prompt_tokens, "answer_tokens": answer.answer_tokens, "seconds": round(seconds, 3)}
        with self._idle:  # another writer may have the file once this is closed
            if not self._closed:
                self._lines.append({"key": key, "answer": answer.text, **took})
                self._known[key] = answer.text

    @contextlib.contextmanager
    def _asked(self) -> Iterator[None]:
        with self._idle:
            if self._closed:
                raise JudgeDown("the run has ended")
            self._asking += 1
        try:
            yield
        finally:
            with self._idle:
                self._asking -= 1
                self._idle.notify_all()

    def close(self, wait: float = 0.0) -> None:
        """Ask nothing more; questions that are out have `wait` seconds to be answered, and are then given up."""
        with self._idle:
            self._idle.wait_for(lambda: not self._asking, wait)
            self._closed = True
