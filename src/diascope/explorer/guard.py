"""Who may talk to the server: this machine's browser that was given the token, and nobody else's page.

1. Host must be a loopback name with our port, so that a rebinding DNS name is turned away.
2. A per-start token: in the first URL, then an HttpOnly SameSite=Strict cookie; programs send `Authorization: Bearer`.
3. Writes must be JSON, and from our own Origin if they carry one. No CORS headers are ever sent.
"""

from __future__ import annotations

import hmac

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp, *, token: str, port: int) -> None:
        self.app, self.token = app, token
        self.cookie = f"diascope_token_{port}"  # cookies ignore ports: two explorers must not log each other out
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Request(scope))
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        if request.headers.get("host", "") not in self.hosts:
            return PlainTextResponse("This server answers on its loopback address only.", 421)
        offered = request.query_params.get("token")
        if offered is not None and self._is_token(offered) and request.method == "GET":
            answer = RedirectResponse("/" + request.url.path.lstrip("/\\"), 303)  # "//host" would lead elsewhere
            answer.set_cookie(self.cookie, self.token, httponly=True, samesite="strict")
            return answer
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ")
        if not (self._is_token(request.cookies.get(self.cookie, "")) or self._is_token(bearer)):
            return PlainTextResponse("Open the address that `diascope explore` printed: it carries this start's token.", 401)
        if request.method not in ("GET", "HEAD"):
            origin = request.headers.get("origin")
            if origin is not None and origin.removeprefix("http://") not in self.hosts:
                return PlainTextResponse("Requests from other pages are not accepted.", 403)
            if request.headers.get("content-type", "").partition(";")[0] != "application/json":
                return PlainTextResponse("Send application/json.", 415)
        return None

    def _is_token(self, offered: str) -> bool:
        return hmac.compare_digest(offered.encode(), self.token.encode())
