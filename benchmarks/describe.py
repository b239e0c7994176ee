"""What descriptions of a real dictionary are worth, without any outside service: template, shuffled control and, where asked, a judge.

    python benchmarks/describe.py DICTIONARY [--latents 100] [--tokens 60000] [--judge smollm2-135m-instruct | scripted:rule_judge:judge --server] [--embedder minilm]

With --server the judge is put behind an OpenAI-compatible server of this machine that refuses every thirtieth request with 429 and
Retry-After, breaks every 33rd answer off and sends garbage for every 39th, and that dies after --dies requests; the run is then made again.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from rich.console import Console

from diascope.cli.describe import description_tables
from diascope.dictionaries import load_dictionary
from diascope.latents.describe.battery import FREE, JUDGED, Settings
from diascope.latents.describe.embedder import MiniLM
from diascope.latents.describe.endpoint import Endpoint
from diascope.latents.describe.judge import Judge, JudgeDown, Scripted
from diascope.latents.describe.local import Local
from diascope.latents.describe.run import describe
from diascope.models import load_model
from diascope.tokens import open_corpus, pack


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dictionary", help="folder of a dictionary")
    parser.add_argument("--model", default="gemma-3-270m", help="the model that it reads (default: gemma-3-270m)")
    parser.add_argument("--text", default="wikipedia-passages", help="text (default: wikipedia-passages)")
    parser.add_argument("--tokens", type=int, default=60_000, help="tokens of text (default: 60000)")
    parser.add_argument("--latents", type=int, default=100, help="latents (default: 100)")
    parser.add_argument("--judge", default="none", help="none, a chat model, or scripted:MODULE:FUNCTION (default: none)")
    parser.add_argument("--scorers", nargs="*", default=[*JUDGED, *FREE], help="scorers (default: all)")
    parser.add_argument("--embedder", default="none", help="none, minilm, or a zip of all-MiniLM-L6-v2 (default: none)")
    parser.add_argument("--folder", type=Path, help="folder of the run, to go on (default: a temporary one)")
    parser.add_argument("--server", action="store_true", help="put the judge behind a server of bad moods")
    parser.add_argument(
        "--dies", type=int, default=50, help="requests after which that server dies the first time (default: 50)"
    )
    parser.add_argument("--json", action="store_true", help="also print one line of JSON")
    args, out = parser.parse_args(), Console(width=150)
    model, d = load_model(args.model), load_dictionary(args.dictionary)
    sequences = pack(model, open_corpus(args.text).documents, context=512, max_tokens=args.tokens)
    embed = None if args.embedder == "none" else MiniLM(None if args.embedder == "minilm" else args.embedder)
    judge = _judge(args.judge)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as spare:

        def run(judge: Judge | None) -> dict[str, Any]:
            return describe(
                model, d, sequences, args.folder or spare, latents=args.latents, judge=judge, settings=Settings(scorers=tuple(args.scorers)),
                embed=embed, before=lambda e: out.print(str(e)),
            )  # fmt: skip

        report = _through_server(judge, run, args.dies, out) if args.server and judge else run(judge)
    for table in description_tables(report):
        out.print(table)
    out.print(f"{time.perf_counter() - began:.0f} s")
    if args.json:
        print(json.dumps({k: v for k, v in report.items() if k != "descriptions"}))


def _judge(name: str) -> Judge | None:
    if name == "none":
        return None
    return Scripted.named(name.removeprefix("scripted:")) if name.startswith("scripted:") else Local(load_model(name))


def _through_server(judge: Judge, run: Callable[[Judge], dict[str, Any]], dies: int, out: Console) -> dict[str, Any]:
    """The run through a server that dies after `dies` requests, and once more through one that lives."""
    life = dies
    while True:
        server = _Moody(judge, life)
        try:
            report = run(Endpoint(server.base, parallel=4, timeout=60))
            out.print(f"served {server.served} requests, {server.moods} of them badly")
            return report
        except JudgeDown as down:
            out.print(f"broken off after {server.served} requests: {down}")
        finally:
            server.http.shutdown()
            server.http.server_close()
        life = 10**9  # the next one lives


class _Moody:
    """`judge` behind an OpenAI-compatible server, most of the time."""

    def __init__(self, judge: Judge, life: int) -> None:
        self.served, self.moods, outer, lock = 0, 0, self, threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                self._reply(200, {"data": [{"id": judge.name}]})

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    outer.served += 1
                    number = outer.served
                if number > life:
                    self.close_connection = True
                    return
                bad = number % 30 == 0, number % 33 == 0, number % 39 == 0
                outer.moods += any(bad)
                if bad[0]:
                    self._reply(429, {"error": "slow down"}, {"retry-after": "0.2"})
                elif bad[1] or bad[2]:
                    self._reply(200, "<html>", {} if bad[2] else {"content-length": "999"})
                else:
                    text = judge.ask(body["messages"], body["max_tokens"]).text
                    self._reply(200, {"choices": [{"message": {"role": "assistant", "content": text}}]})

            def _reply(self, status: int, data: Any, headers: dict[str, str] | None = None) -> None:
                content = json.dumps(data).encode()
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.base = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


if __name__ == "__main__":
    main()
