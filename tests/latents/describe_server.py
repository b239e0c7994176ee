"""An OpenAI-compatible server of this machine whose moods a test sets."""

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Answers by `answer(messages)`; `moods` are taken one a request, and then it is well again."""

    def __init__(self, answer):
        self.answer, self.moods, self.asked, self.headers = answer, [], [], []
        self.lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args):
                pass

            def do_GET(self):
                self.reply(200, json.dumps({"data": [{"id": "toy-judge"}]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with outer.lock:
                    outer.asked.append(body)
                    outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                    mood = outer.moods.pop(0) if outer.moods else "well"
                with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                    self.in_mood(mood, body)

            def in_mood(self, mood, body):
                if isinstance(mood, tuple):
                    self.reply(mood[0], b'{"error": "mood"}', mood[1])
                elif mood == "slow":
                    time.sleep(0.6)
                    self.well(body)
                elif mood == "drops":
                    self.send_response(200)
                    self.end_headers()
                    for _ in range(20):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                        time.sleep(0.1)
                elif mood == "cut":
                    self.send_response(200)
                    self.send_header("content-length", "1000")
                    self.end_headers()
                    self.wfile.write(b'{"choices": [{"mess')
                elif mood == "dead":
                    self.close_connection = True
                    self.connection.close()
                elif mood == "garbage":
                    self.reply(200, b"<html>\xff oops")
                elif mood == "other":
                    self.reply(200, b'{"choices": []}')
                elif mood == "null":
                    self.reply(200, b'{"choices": [{"message": {"content": null}}]}')
                else:
                    self.well(body)

            def well(self, body):
                text = outer.answer(body["messages"])
                data = {
                    "choices": [{"message": {"role": "assistant", "content": text}}],
                    "usage": {"prompt_tokens": 7, "completion_tokens": 3},
                }
                self.reply(200, json.dumps(data).encode())

            def reply(self, status, content, headers=None):
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **(headers or {})}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(content)

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.base = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.http.shutdown()
        self.http.server_close()


@contextlib.contextmanager
def serving(answer):
    server = Server(answer)
    try:
        yield server
    finally:
        server.close()
