"""A chat-completions server for tests that answers, or misbehaves, as told."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """`behave(prompt, how often asked)` says what to do.

    That is "good", a status, a kind of trouble, ("say", text), or a function of the handler that answers by itself.
    """

    def __init__(self, behave):
        super().__init__(("127.0.0.1", 0), Handler)
        self.behave, self.asked, self.bodies = behave, Counter(), []
        self.running = self.most = 0
        self.pause = 2  # ms between tries, asked of the client
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        pass  # a client that goes away is part of some tests


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][-1]["content"]
        with server.lock:
            server.bodies.append(body | {"path": self.path, "key": self.headers["Authorization"],
                                         "headers": dict(self.headers)})
            server.asked[prompt] += 1
            server.running += 1
            server.most = max(server.most, server.running)
        kind = server.behave(prompt, server.asked[prompt])
        if callable(kind):
            with server.lock:
                server.running -= 1
            return kind(self)
        answer = {"id": "1", "object": "chat.completion", "created": 1, "model": "m",
                  "choices": [{"index": 0, "finish_reason": "stop",
                               "message": {"role": "assistant", "content": f" re: {prompt}\n"}}],
                  "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}}
        if isinstance(kind, tuple):
            answer["choices"][0]["message"]["content"] = kind[1]
        if kind == "empty":
            answer["choices"][0]["message"]["content"] = None
        if kind == "no choices":
            answer["choices"] = []
        broken = {"garbage": b"{ this is no JSON", "html": b"<html>a proxy's greeting</html>"}
        payload = broken.get(kind, json.dumps(answer).encode())
        with server.lock:
            server.running -= 1
        self.send_response(kind if isinstance(kind, int) else 200)
        self.send_header("Content-Type", "text/html" if kind == "html" else "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.send_header("retry-after-ms", str(server.pause))
        self.end_headers()
        self.wfile.write(payload)

    def log_message(self, *_):
        pass


def says(status, text, **headers):
    """An answer of that status, with the text as an error of the server and further headers."""
    def answer(handler):
        body = json.dumps({"error": {"message": text}}).encode()
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(body), **headers}.items():
            handler.send_header(name, str(value))
        handler.end_headers()
        handler.wfile.write(body)
    return answer


def without_end(piece, seconds=0.0, head=b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n", most=2**24):
    """An answer that goes on, a piece every so many seconds, until the other side has gone or `most` bytes are sent."""
    def answer(handler):
        handler.close_connection = True
        handler.wfile.write(head)
        for _ in range(most // len(piece)):
            handler.wfile.write(piece)
            handler.wfile.flush()
            if seconds:
                time.sleep(seconds)
    return answer


def start(behave) -> Server:
    server = Server(behave)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return server
