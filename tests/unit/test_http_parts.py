"""The parts of the HTTP app that need no pool."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import trio

import bridge_py
import snakepit_trio as snakepit
from bridge_py.wire.errors import InvalidArguments, SnakepitError, ToolError
from snakepit_trio import errors
from snakepit_trio._calls.progress import Progress
from snakepit_trio._serving.asgi import ClientLeft
from snakepit_trio._serving.events import Event, Outbox, send_events
from snakepit_trio._serving.http_guard import Guard
from snakepit_trio._serving.http_requests import Headers, options_of, path_of, quality, read_body, wants_events
from snakepit_trio._serving.problems import KINDS, PREFIX, Problem, problem_of
from snakepit_trio.errors import PoolSaturated, Tainted, WorkerCrashed

PAGE = Path(__file__).parents[2] / "docs" / "http.md"


def headers(**values: str) -> Headers:
    return Headers([(name.replace("_", "-").encode(), value.encode()) for name, value in values.items()])


def test_the_page_has_the_status_of_each_error() -> None:
    rows = re.findall(r"^\| (\d+) \| `([\w-]+)` \| (.*) \|$", PAGE.read_text(), re.MULTILINE)
    told = {(int(status), name): text for status, name, text in rows}
    for kind in KINDS:
        assert kind.error.__name__ in told[kind.status, kind.name], kind
    source = "".join(path.read_text() for path in (Path(__file__).parents[2] / "snakepit_trio/_serving").glob("*.py"))
    for _, name in told:
        assert f'"{name}"' in source


def test_no_error_is_hidden_by_a_row_above_it() -> None:
    for number, kind in enumerate(KINDS):
        assert not any(issubclass(kind.error, above.error) for above in KINDS[:number]), kind


#: Errors without a row, and the row that they share with others. An error that is in neither place has been forgotten.
SHARED = {
    errors.PoolNotReady: "pool",
    errors.VariableExists: "session-conflict",
    errors.VersionConflict: "session-conflict",
    errors.WorkerFailure: "no-worker",
    errors.WorkerStartError: "no-worker",
    bridge_py.HostToolError: "tool-error",
}
#: Roots; of these themselves, no call raises any.
NEVER = {SnakepitError, bridge_py.UsageError}


def public_errors() -> set[type[SnakepitError]]:
    named = [(module, name) for module in (snakepit, errors, bridge_py) for name in module.__all__]
    found = [getattr(module, name) for module, name in named]
    return {each for each in found if isinstance(each, type) and issubclass(each, SnakepitError)}


@pytest.mark.parametrize("error", sorted(public_errors() - NEVER, key=str))
def test_no_error_is_forgotten(error: type[SnakepitError]) -> None:
    row = next(kind for kind in KINDS if issubclass(error, kind.error))
    assert row.error is error or SHARED.get(error) == row.name


def test_a_call_that_no_worker_can_run_is_not_to_be_made_again() -> None:
    problem = problem_of(errors.ResourcesNotOffered("'f' cannot run: it needs gpu=1"))
    assert (problem.status, problem.members["type"]) == (503, f"{PREFIX}resources-not-offered")
    assert not problem.headers


def test_errors_tell_what_a_client_may_know(caplog: pytest.LogCaptureFixture) -> None:
    raised = problem_of(ToolError("no", "ValueError", "Traceback: secret"))
    assert (raised.status, raised.members["detail"]) == (500, "ValueError: no")
    assert raised.members["exception"] == "ValueError"
    assert b"secret" not in raised.body()
    died = problem_of(WorkerCrashed("pool-1", "died", -9, ["secret"]).of_call("f", "while it ran 'f'"))
    assert (died.status, b"secret" in died.body()) == (502, False)
    ours = problem_of(KeyError("secret"))
    assert (ours.status, b"secret" in ours.body()) == (500, False)
    assert "secret" in caplog.text
    assert problem_of(PoolSaturated("full")).headers == (("retry-after", "1"),)
    assert problem_of(Tainted("command", "f", 3, 7.2)).headers == (("retry-after", "8"),)
    assert problem_of(InvalidArguments("no", "a/b")).members["errors"][0]["pointer"] == "#/a~1b"
    assert len(problem_of(SnakepitError("x" * 10**6)).body()) < 10_000
    assert problem_of(ToolError("half \ud800", "E")).body()


@pytest.mark.parametrize(
    ("accept", "events", "plain"),
    [
        (None, 1, 1),
        ("*/*", 1, 1),
        ("text/event-stream", 1, 0),
        ("text/*;q=0.5, application/json", 0.5, 1),
        ("text/event-stream;q=0, */*;q=0.2", 0, 0.2),
        ("TEXT/Event-Stream ; q=0.8 ;x=1, */*;q=0.9", 0.8, 0.9),
        ("", 0, 0),
        ("nonsense;;;,,q=", 0, 0),
    ],
)
def test_what_clients_take(accept: str | None, events: float, plain: float) -> None:
    assert quality(accept, "text/event-stream") == events
    assert quality(accept, "application/json") == plain


def test_events_are_for_streams_and_for_who_prefers_them() -> None:
    assert wants_events(headers(), streaming=True)
    assert not wants_events(headers(), streaming=False)
    assert not wants_events(headers(accept="application/json, text/event-stream"), streaming=False)
    assert wants_events(headers(accept="application/json;q=0.5, text/event-stream"), streaming=False)
    with pytest.raises(Problem, match="406"):
        wants_events(headers(accept="application/json"), streaming=True)


def test_what_the_server_does_not_allow_is_lowered() -> None:
    options = options_of(headers(request_timeout="99.5", call_priority="50"), 10, 5, sessions=True)
    assert (options.timeout, options.priority, options.session) == (10, 5, None)
    low = options_of(headers(request_timeout="0.5", call_priority="-7", session_id="abc"), 10, 5, sessions=True)
    assert (low.timeout, low.priority, low.session) == (0.5, -7, "abc")


@pytest.mark.parametrize(
    "wrong",
    [
        {"request_timeout": "1e3"},
        {"request_timeout": "-1"},
        {"request_timeout": "nan"},
        {"request_timeout": "0.0"},
        {"call_priority": "1.5"},
        {"call_priority": "999"},
        {"session_id": ""},
        {"session_id": "two words"},
        {"session_id": "x" * 129},
    ],
    ids=str,
)
def test_headers_that_cannot_be_read_are_refused(wrong: dict[str, str]) -> None:
    with pytest.raises(Problem, match="400"):
        options_of(headers(**wrong), 10, 0, sessions=True)


def test_a_header_that_is_there_twice_is_refused() -> None:
    twice = Headers([(b"Session-Id", b"a"), (b"session-id", b"b")])
    with pytest.raises(Problem, match="2 times"):
        twice.one("session-id")


@pytest.mark.parametrize(
    ("path", "root", "found"),
    [
        ("/tools", "", "/tools"),
        ("/api/tools", "/api", "/tools"),
        ("/tools", "/api", "/tools"),
        ("/api", "/api/", "/"),
        ("/apis/x", "/api", "/apis/x"),
        ("", "", "/"),
    ],
)
def test_the_path_below_a_mount(path: str, root: str, found: str) -> None:
    assert path_of({"path": path, "root_path": root}) == found


@pytest.mark.parametrize(
    ("server", "host", "status"),
    [
        (("127.0.0.1", 80), "localhost", None),
        (("127.0.0.1", 80), "LOCALHOST.:80", None),
        (("::1", 80), "[::1]:80", None),
        (("127.0.0.1", 80), "evil.example", 421),
        (("127.0.0.1", 80), "localhost.evil.example", 421),
        (("127.0.0.1", 80), "[::1", None),
        (("10.0.0.1", 80), "anything", None),
        (("/run/a.sock", None), "anything", None),
        (None, "anything", None),
    ],
)
def test_names_of_the_server(server: Any, host: str, status: int | None) -> None:
    guard = Guard(None, (), ())
    if status is None:
        guard.check({"server": server}, headers(host=host))
    else:
        with pytest.raises(Problem, match=str(status)):
            guard.check({"server": server}, headers(host=host))


def test_a_text_of_several_lines_is_one_event() -> None:
    assert Event("x", "a\r\nb\nc\rd").encode(7) == b"event: x\nid: 7\ndata: a\ndata: b\ndata: c\ndata: d\n\n"


async def test_a_body_is_bounded_and_who_leaves_is_noticed() -> None:
    def receiving(*messages: dict[str, Any]) -> Any:
        left = iter(messages)

        async def receive() -> Any:
            await trio.lowlevel.checkpoint()
            return next(left)

        return receive

    part = {"type": "http.request", "body": b"12345", "more_body": True}
    last = {"type": "http.request", "body": b"6"}
    assert await read_body(receiving(part, last), headers(), 6) == b"123456"
    with pytest.raises(Problem, match="413"):
        await read_body(receiving(part, last), headers(), 5)
    with pytest.raises(Problem, match="413"):
        await read_body(receiving(last), headers(content_length="99"), 5)
    for length in ("9" * 19, "1" + "0" * 25, "9" * 5000):
        with pytest.raises(Problem, match="413"):
            await read_body(receiving(last), headers(content_length=length), 5)
    assert await read_body(receiving(last), headers(content_length="0" * 5000 + "1"), 5) == b"6"
    with pytest.raises(ClientLeft):
        await read_body(receiving(part, {"type": "http.disconnect"}), headers(), 100)


async def test_a_body_that_does_not_come_is_refused(autojump_clock: trio.testing.MockClock) -> None:
    async def receive() -> Any:
        await trio.sleep(20)
        return {"type": "http.request", "body": b"1", "more_body": True}

    with pytest.raises(Problem, match="408"):
        await read_body(receive, headers(), 100)
    with pytest.raises(Problem, match="413"):
        await read_body(receive, headers(content_length="101"), 100)


async def test_progress_that_nobody_has_taken_yet_is_replaced(autojump_clock: trio.testing.MockClock) -> None:
    outbox, sent = Outbox(), b""

    async def send(message: Any) -> None:
        nonlocal sent
        await trio.sleep(1)
        sent += message.get("body", b"")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send_events, outbox, send, 5.0)
        for number in range(10):
            outbox.report(Progress(number, 10))
            await trio.sleep(0.1)
        await outbox.put(Event("chunk", "1"))
        await trio.sleep(20)
        outbox.finish(Problem(500, "x", "x", "x"))
    assert sent.count(b"event: progress") == 2
    assert sent.count(b": keep-alive") == 3
    assert sent.index(b"event: chunk") < sent.index(b"event: error")
    assert PREFIX.encode() in sent
