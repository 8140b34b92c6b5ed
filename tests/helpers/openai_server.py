"""A server that speaks as much of OpenAI's chat protocol as language models need, on a thread of the test's process."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECES = ["[[ ## reasoning ## ]]\n", "because ", "it ", "is so\n\n", "[[ ## answer ## ]]\n", "forty", "-", "two\n\n"]
END = "[[ ## completed ## ]]"


class Server(ThreadingHTTPServer):
    """Answers with `PIECES`; `mode` is "answer", "block" (until the client hangs up) or "refuse" (telling the key)."""

    daemon_threads = False
    block_on_close = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = "answer"
        self.requests: list[dict[str, Any]] = []
        self.arrived = threading.Event()
        self.hung_up = threading.Event()
        #: After the first pieces of a stream it waits for this.
        self.go_on = threading.Event()
        self.go_on.set()

    @property
    def config(self) -> dict[str, Any]:
        """What `configure_dspy` needs to come here."""
        base = f"http://127.0.0.1:{self.server_port}/v1"
        return {"model": "m", "api_base": base, "api_key": "sk-very-secret-0123", "num_retries": 0}

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients may leave."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        key = self.headers["authorization"].removeprefix("Bearer ")
        self.server.requests.append({"path": self.path, "key": key, **body})
        self.close_connection = True
        if self.server.mode == "block":
            self._block()
        elif self.server.mode == "refuse":
            self._send(401, {"error": {"message": f"the key {key} is wrong", "type": "auth", "code": "invalid"}})
        elif body.get("stream"):
            self._stream()
        else:
            message = {"role": "assistant", "content": "".join(PIECES) + END}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            self._send(200, {**_head("chat.completion"), "choices": [choice], "usage": usage})

    def _block(self) -> None:
        self.server.arrived.set()
        assert self.connection.recv(1) == b""
        self.server.hung_up.set()

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.send_header("connection", "close")  # else a client may send its next request just before it is closed
        self.end_headers()
        self.wfile.write(data)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for number, piece in enumerate([*PIECES, END]):
            if number == 4:
                self.server.go_on.wait(30)
            self._event({"delta": {"role": "assistant", "content": piece}, "finish_reason": None})
        self._event({"delta": {}, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _event(self, choice: dict[str, Any]) -> None:
        data = {**_head("chat.completion.chunk"), "choices": [{"index": 0, **choice}]}
        self.wfile.write(f"data: {json.dumps(data)}\n\n".encode())
        self.wfile.flush()


def _head(kind: str) -> dict[str, Any]:
    return {"id": "x", "object": kind, "created": 1, "model": "m"}


@contextmanager
def serving() -> Iterator[Server]:
    """A server, while the block runs; afterwards nothing of it is left, provided that its clients have hung up."""
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server
        finally:
            server.go_on.set()
            server.shutdown()
            thread.join()
