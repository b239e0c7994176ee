"""A judge behind an OpenAI-compatible server: POST <base>/chat/completions, with nothing but the standard library.

1. The key, where one is needed, is read from an environment variable; it is never written anywhere.
2. An attempt fails when the server cannot be reached, takes longer than `timeout`, breaks off, answers 408, 409, 425, 429 or
   5xx, or answers something that is no chat completion. It is made again after a wait that doubles, or after what
   `Retry-After` says (seconds or a date).
3. After `attempts` of them the judge is down (JudgeDown): answers so far are kept by Replay, and the same command goes on.
4. Any other refusal (401, 404, 400) is the caller's to mend: ValueError with the server's own words, at once.

A completion whose text is empty is an answer, if a bad one: whoever reads it counts it as wrong.
"""

from __future__ import annotations

import email.utils
import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from typing import Any

from diascope import rng
from diascope.config import within
from diascope.latents.describe.judge import Answer, JudgeDown, Message, rough

AGAIN = (408, 409, 425, 429)  # and 5xx: the same request may pass later
LONGEST_WAIT = 600.0  # seconds; a server that says "in an hour" is down for this run
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LARGEST_ANSWER = 4_000_000  # bytes; a completion of some hundred tokens has a few thousand


class _Failed(Exception):
    """An attempt that may be made again, and the seconds that the server asked to wait."""

    def __init__(self, why: str, wait: float | None = None) -> None:
        super().__init__(why)
        self.wait = wait


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the key would go along, to wherever the server says."""

    def redirect_request(self, *args: Any) -> None:
        return None


class Endpoint:
    """The chat model `model` of the server at `base` (".../v1")."""

    def __init__(
        self,
        base: str,
        model: str = "",
        *,
        key_env: str = "OPENAI_API_KEY",
        timeout: float = 120.0,
        attempts: int = 6,
        parallel: int = 8,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """`model` "" takes the first that the server lists; `timeout` in seconds; `sleep` is for tests.

        Raises ValueError for an address that is none, and JudgeDown where the models cannot be listed.
        """
        parts = urllib.parse.urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{base!r} is no address: give http://HOST:PORT/v1 or https://HOST/v1")
        within("timeout", timeout, 0.01, 86_400, "seconds")
        within("attempts", attempts, 1, 100)
        within("parallel", parallel, 1, 256, "requests")
        self.base, self.timeout, self.attempts, self.parallel = base.rstrip("/"), timeout, attempts, parallel
        self._key = os.environ.get(key_env, "")
        direct = [urllib.request.ProxyHandler({})] if parts.hostname in LOOPBACK else []  # no proxy reaches this machine
        self._open = urllib.request.build_opener(_Stay, *direct).open
        self._sleep, self._lock, self.failures = sleep, threading.Lock(), 0
        self.model = model or self._first_model()
        self.name = f"{self.model} at {parts.hostname}"

    def ask(self, messages: Sequence[Message], max_tokens: int) -> Answer:
        """One completion at temperature 0."""
        body = {"model": self.model, "messages": list(messages), "max_tokens": max_tokens, "temperature": 0}
        data, text = self._persist(lambda: self._completion(body))
        used = data.get("usage") if isinstance(data.get("usage"), dict) else {}
        guess = rough(messages, text)
        return Answer(
            text, _count(used, "prompt_tokens", guess.prompt_tokens), _count(used, "completion_tokens", guess.answer_tokens)
        )

    def _persist(self, attempt: Callable[[], Any]) -> Any:
        """What `attempt()` gives, made again after a wait while it fails."""
        for number in range(self.attempts):
            try:
                return attempt()
            except _Failed as failed:
                with self._lock:
                    self.failures += 1
                last = number == self.attempts - 1
                wait = failed.wait if failed.wait is not None else _backoff(number)
                if last or wait > LONGEST_WAIT:
                    later = f"it asks to wait {wait:,.0f} s" if wait > LONGEST_WAIT else f"{number + 1} attempts"
                    raise JudgeDown(
                        f"the judge at {self.base} gives no answers ({failed}; {later}): what it has answered is kept, "
                        "the same command goes on"
                    ) from failed
                self._sleep(wait)
        raise AssertionError

    def _completion(self, body: dict[str, Any]) -> tuple[dict[str, Any], str]:
        data = self._request("chat/completions", body)
        try:
            text = data["choices"][0]["message"]["content"]
        except (KeyError, IndexError, TypeError) as error:
            raise _Failed(f"its answer is no chat completion: {str(data)[:120]!r}") from error
        if text is not None and not isinstance(text, str):
            raise _Failed(f"its answer's content is no text: {str(text)[:120]!r}")
        return data, text or ""

    def _first_model(self) -> str:
        def listed() -> str:
            data = self._request("models", None)
            try:
                return str(data["data"][0]["id"])
            except (KeyError, IndexError, TypeError) as error:
                raise _Failed("it lists no model") from error

        return self._persist(listed)

    def _request(self, path: str, body: dict[str, Any] | None) -> Any:
        headers = {"content-type": "application/json", "accept": "application/json", "user-agent": "diascope"}
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.base}/{path}", data=data, headers=headers)
        try:
            with self._open(request, timeout=self.timeout) as answer:
                raw = self._all(answer)
        except urllib.error.HTTPError as error:
            raise self._refused(error) from error
        except (urllib.error.URLError, http.client.HTTPException, OSError) as error:  # TimeoutError is an OSError
            reason = getattr(error, "reason", None) or error
            raise _Failed(str(reason) or type(error).__name__) from error
        try:
            return json.loads(raw)
        except (ValueError, RecursionError) as error:
            raise _Failed(f"its answer is no JSON: {raw[:80]!r}") from error

    def _all(self, answer: Any) -> bytes:
        """The whole body, within `timeout` even where it comes in drops."""
        end, parts = time.monotonic() + self.timeout, []
        while part := answer.read1(1 << 16):
            parts.append(part)
            if time.monotonic() > end:
                raise TimeoutError("timed out in the middle of an answer")
            if sum(map(len, parts)) > LARGEST_ANSWER:
                raise _Failed(f"its answer is longer than {LARGEST_ANSWER:,} bytes")
        if answer.length:  # the server said that more would come
            raise http.client.IncompleteRead(b"".join(parts), answer.length)
        return b"".join(parts)

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        try:
            said = " ".join(error.read(2000).decode("utf-8", "replace").split())[:300]
        except (OSError, http.client.HTTPException):
            said = ""
        if error.code in AGAIN or error.code >= 500:
            return _Failed(f"{error.code} {said}".strip(), _retry_after(error.headers.get("retry-after")))
        hint = (
            "set its key in the environment (--key-env says in which variable)" if error.code in (401, 403) else "see --judge"
        )
        return ValueError(f"the judge at {self.base} refuses ({error.code} {said or error.reason}): {hint}")


def _count(used: Any, name: str, otherwise: int) -> int:
    value = used.get(name)
    return value if isinstance(value, int) and value >= 0 else otherwise


def _backoff(number: int) -> float:
    """1, 2, 4, ... up to 60 s, each up to a quarter longer, so that parallel requests do not come back together."""
    return min(60.0, 2.0**number) * (1 + 0.25 * rng.unit_hash(time.monotonic_ns(), "wait"))


def _retry_after(value: str | None) -> float | None:
    """Seconds that the header asks to wait: a number, or a date; None where it says neither."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except (ValueError, TypeError):
        return None
