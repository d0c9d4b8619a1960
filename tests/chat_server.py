"""A chat endpoint on loopback that replies as a script says, and keeps what it was asked."""

import json
import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def said(text):
    """A reply with a message in it: (status, headers, body)."""
    return 200, {}, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]})


class Endpoint:
    """`script(number of the request, its body)` gives status, headers and body; `asked` holds (path, headers, body)."""

    def __init__(self, script):
        self.script, self.asked, self.url, self.lock = script, [], "", threading.Lock()

    @property
    def prompts(self):
        return [body["messages"][0]["content"] for _, _, body in self.asked]

    def answer(self, path, headers, body):
        with self.lock:
            self.asked.append((path, headers, body))
            number = len(self.asked) - 1
        return self.script(number, body)


@contextmanager
def serving(script):
    """An endpoint that is up while the block lasts; `script` is a function, or a list of replies, the last for good."""
    replies = script if callable(script) else lambda number, _: script[min(number, len(script) - 1)]
    endpoint = Endpoint(replies)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, text = endpoint.answer(self.path, dict(self.headers), body)
            payload = text.encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(payload)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(payload)

        def log_message(self, *args):
            pass

        def handle(self):
            with suppress(BrokenPipeError, ConnectionResetError):  # a client that gave up
                super().handle()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    endpoint.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield endpoint
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
