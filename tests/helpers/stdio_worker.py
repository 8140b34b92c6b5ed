"""A worker for the stdio adapters, with the standard library only. Run by tests; `--how` says which rule it breaks."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import queue
import struct
import sys
import threading
import time
from collections.abc import Callable
from typing import Any


class Cancelled(Exception):
    """The host wants the call to end."""


# MessagePack, as much of it as is needed: https://github.com/msgpack/msgpack/blob/master/spec.md


def pack(value: Any) -> bytes:
    """A value as MessagePack, always in the longest form."""
    if value is None or isinstance(value, bool):
        return {None: b"\xc0", False: b"\xc2", True: b"\xc3"}[value]
    if isinstance(value, int):
        return struct.pack(">Bq", 0xD3, value) if value < 1 << 63 else struct.pack(">BQ", 0xCF, value)
    if isinstance(value, float):
        return struct.pack(">Bd", 0xCB, value)
    if isinstance(value, str):
        return struct.pack(">BI", 0xDB, len(value.encode())) + value.encode()
    if isinstance(value, bytes):
        return struct.pack(">BI", 0xC6, len(value)) + value
    if isinstance(value, list):
        return struct.pack(">BI", 0xDD, len(value)) + b"".join(map(pack, value))
    items = [part for pair in value.items() for part in pair]
    return struct.pack(">BI", 0xDF, len(value)) + b"".join(map(pack, items))


_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_SIZES = {
    0xC4: (">B", "bin"), 0xC5: (">H", "bin"), 0xC6: (">I", "bin"), 0xD9: (">B", "str"), 0xDA: (">H", "str"),
    0xDB: (">I", "str"), 0xDC: (">H", "list"), 0xDD: (">I", "list"), 0xDE: (">H", "map"), 0xDF: (">I", "map"),
}  # fmt: skip


class Unpacker:
    """Reads one value."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def value(self) -> Any:
        (code,) = self._take(1)
        if code < 0x80 or code >= 0xE0:
            return code if code < 0x80 else code - 0x100
        if code < 0xC0:
            kind, size = (
                ("map", code & 15) if code < 0x90 else ("list", code & 15) if code < 0xA0 else ("str", code & 31)
            )
            return self._sized(kind, size)
        if code in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        form, kind = _SIZES[code]
        return self._sized(kind, self._number(form))

    def _sized(self, kind: str, size: int) -> Any:
        if kind == "list":
            return [self.value() for _ in range(size)]
        if kind == "map":
            return {self.value(): self.value() for _ in range(size)}
        data = self._take(size)
        return data.decode() if kind == "str" else data

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._take(struct.calcsize(form)))[0]

    def _take(self, size: int) -> bytes:
        self._at += size
        return self._data[self._at - size : self._at]


class Worker:
    """Serves until its stdin ends, each call on a thread of its own."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._lock = threading.Lock()
        self._cancels: dict[int, threading.Event] = {}
        self._answers: dict[int, queue.SimpleQueue[dict[str, Any]]] = {}

    def run(self) -> None:
        print("the worker is here", file=sys.stderr, flush=True)
        if self._options.how == "silent":
            time.sleep(1000)
        while (frame := self._hear()) is not None:
            if "answer" in frame:
                self._answers[frame["answer"]].put(frame)
            elif "cancel" in frame:
                self._cancels[frame["id"]].set()
            elif frame["command"] == "hello":
                self._hello(frame)
                self._go_deaf(self._options.deaf)
            else:
                self._cancels[frame["id"]] = threading.Event()
                threading.Thread(target=self._serve, args=[frame], daemon=True).start()

    def _hello(self, frame: dict[str, Any]) -> None:
        assert frame == {"id": 0, "command": "hello", "args": {}, "session": None, "timeout": None, "stream": False}
        how = self._options.how
        if how == "error_hello":
            self.say({"id": 0, "error": "what is a hello?"})
        elif how == "wrong_tools":
            self.say({"id": 0, "result": {"tools": [{"name": 5}]}})
        elif how == "early":
            self.say({"id": 1, "result": None})
        else:
            tools = [
                {"name": "echo", "description": "It says it."},
                {"name": "sleep"},
                {"name": "count", "streaming": True},
            ]
            self.say({"id": 0, "result": {"tools": tools, "cancel": self._options.cancel, "version": "of the tests"}})

    def _go_deaf(self, path: str) -> None:
        """The first worker that finds no such file reads no more."""
        with contextlib.suppress(FileExistsError):
            if path:
                open(path, "x").close()
                time.sleep(1000)

    def _serve(self, frame: dict[str, Any]) -> None:
        call_id = frame["id"]
        try:
            tool = TOOLS[frame["command"]]
            if frame["stream"]:
                for chunk in tool(self, frame, **frame["args"]):
                    self.say({"id": call_id, "chunk": chunk})
                self.say({"id": call_id, "end": True})
            else:
                self.say({"id": call_id, "result": tool(self, frame, **frame["args"])})
        except Cancelled:
            self.say({"id": call_id, "error": {"type": "cancelled", "message": "as you wish"}})
        except ArithmeticError as error:
            self.say({"id": call_id, "error": str(error)})
        except Exception as error:
            said = {"type": type(error).__name__, "message": str(error), "traceback": "in line 7"}
            self.say({"id": call_id, "error": said})

    def ask(self, frame: dict[str, Any], number: int, command: str, args: dict[str, Any]) -> Any:
        answers: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._answers[number] = answers
        self.say({"ask": number, "id": frame["id"], "command": command, "args": args})
        answer = answers.get()
        if "error" in answer:
            raise RuntimeError(f"{answer['error']['type']}: {answer['error']['message']}")
        return answer["result"]

    def is_cancelled(self, frame: dict[str, Any]) -> bool:
        return self._cancels[frame["id"]].is_set()

    def say(self, frame: dict[str, Any]) -> None:
        self.say_bytes(pack(frame) if self._options.msgpack else json.dumps(frame).encode())

    def say_bytes(self, data: bytes) -> None:
        with self._lock:
            sys.stdout.buffer.write(struct.pack(">I", len(data)) + data)
            sys.stdout.buffer.flush()

    def _hear(self) -> dict[str, Any] | None:
        header = sys.stdin.buffer.read(4)
        if len(header) < 4:
            return None
        data = sys.stdin.buffer.read(struct.unpack(">I", header)[0])
        found: dict[str, Any] = Unpacker(data).value() if self._options.msgpack else json.loads(data)
        return found


def _note(path: str | None, text: str) -> None:
    if path is not None:
        with open(path, "a") as file:
            file.write(f"{text}\n")


def _echo(_worker: Worker, _frame: dict[str, Any], value: Any = None) -> Any:
    return value


def _frame_of(_worker: Worker, frame: dict[str, Any]) -> Any:
    return frame


def _fail(_worker: Worker, _frame: dict[str, Any], how: str) -> Any:
    kinds = {"value": ValueError, "surrogate": ValueError, "plain": ArithmeticError, "cancelled": Cancelled}
    raise kinds[how]("half of a \ud83d" if how == "surrogate" else "no luck")


def _sleep(worker: Worker, frame: dict[str, Any], path: str | None = None) -> Any:
    while not worker.is_cancelled(frame):
        _note(path, "asleep")
        time.sleep(0.01)
    _note(path, "cancelled")
    raise Cancelled


def _count(worker: Worker, frame: dict[str, Any], n: int, size: int = 0, path: str | None = None) -> Any:
    for number in range(n):
        if worker.is_cancelled(frame):
            raise Cancelled
        yield "x" * size or number
        _note(path, str(number))


def _count_and_fail(_worker: Worker, _frame: dict[str, Any]) -> Any:
    yield 0
    raise ValueError("no more")


def _die(_worker: Worker, _frame: dict[str, Any]) -> Any:
    print("these are my last words", file=sys.stderr, flush=True)
    os.write(1, struct.pack(">I", 1000) + b"the middle of a frame")
    os._exit(3)


def _big(_worker: Worker, _frame: dict[str, Any], size: int, bytes: bool = False) -> Any:
    return b"x" * size if bytes else "x" * size


def _say(worker: Worker, frame: dict[str, Any], frames: list[dict[str, Any]]) -> Any:
    for said in frames:
        worker.say({key: frame["id"] if part == "my id" else part for key, part in said.items()})
    time.sleep(1000)


def _log(worker: Worker, frame: dict[str, Any], logs: list[Any], times: int = 1) -> Any:
    for _ in range(times):
        for said in logs:
            worker.say({"id": frame["id"], "log": said})
    worker.say({"log": {"message": "of no call"}})
    worker.say({"id": 1 << 40, "log": {"message": "of another call"}})
    return times


def _write(_worker: Worker, _frame: dict[str, Any], hex: str) -> Any:
    os.write(1, bytes.fromhex(hex))
    time.sleep(1000)


def _say_packed(worker: Worker, frame: dict[str, Any], key: str, hex: str) -> Any:
    """Answer with a value in MessagePack that `pack` does not write."""
    worker.say_bytes(pack({"id": frame["id"], key: None})[:-1] + bytes.fromhex(hex))
    time.sleep(1000)


def _ask(worker: Worker, frame: dict[str, Any], command: str, args: Any, number: int = 1) -> Any:
    return worker.ask(frame, number, command, args)


def _ask_many(worker: Worker, frame: dict[str, Any], n: int) -> Any:
    """Ask without hearing any answer first."""
    for number in range(n):
        worker.say({"ask": number, "id": frame["id"], "command": "call_host_tool", "args": {"name": "wait"}})
    time.sleep(1000)


def _set_and_go(worker: Worker, frame: dict[str, Any], name: str, value: Any) -> Any:
    """Not interested in the answer."""
    worker._answers[77] = queue.SimpleQueue()
    worker.say({"ask": 77, "id": frame["id"], "command": "set_variable", "args": {"name": name, "value": value}})


def _call_and_go(worker: Worker, frame: dict[str, Any], name: str) -> Any:
    worker._answers[78] = queue.SimpleQueue()
    worker.say({"ask": 78, "id": frame["id"], "command": "call_host_tool", "args": {"name": name}})


def _last_answer(worker: Worker, _frame: dict[str, Any], number: int) -> Any:
    return worker._answers[number].get()


def _ask_for(worker: Worker, frame: dict[str, Any], call_id: Any) -> Any:
    worker._answers[79] = queue.SimpleQueue()
    worker.say({"ask": 79, "id": call_id, "command": "list_host_tools", "args": {}})
    return worker._answers[79].get()


TOOLS: dict[str, Callable[..., Any]] = {
    name.removeprefix("_"): function for name, function in list(globals().items()) if callable(function)
}


def main() -> None:
    """Serve until stdin ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--msgpack", action="store_true")
    parser.add_argument("--cancel", action="store_true")
    parser.add_argument("--how", default="")
    parser.add_argument("--deaf", default="")
    Worker(parser.parse_args()).run()


if __name__ == "__main__":
    main()
