"""`snakepit serve` as users run it: how it starts, serves and ends."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
import pytest

from tests.helpers.certificates import Authority

ROOT = Path(__file__).parents[2]
TOOLS = """
import time
from bridge_py import BaseAdapter, tool


class Tools(BaseAdapter):
    @tool
    def value(self) -> int:
        return {value}

    @tool
    def sleep(self, seconds: float, path: str) -> str:
        open(path, "w").close()
        time.sleep(seconds)
        return "slept"

    @tool
    def blobs(self):
        while True:
            yield "x" * 100_000
"""
TOKEN = "a-token-of-enough-characters"
COMMAND = (sys.executable, "-m", "snakepit_trio", "serve", "served:Tools", "--port", "0")


class Server:
    """A server in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        assert process.stderr is not None
        self.output: IO[str] = process.stdout
        self.errors: IO[str] = process.stderr
        self.first = self.output.readline()
        found = re.search(r"https?://\S+:[0-9]+", self.first)
        assert found is not None, (self.first, process.communicate())
        self.url = found[0]

    def pids(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def post(self, tool: str, arguments: Any, **options: Any) -> httpx.Response:
        return httpx.post(f"{self.url}/tools/{tool}", json=arguments, timeout=60, **options)

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal; returns the exit code when nothing of the server is left."""
        pids = self.pids()
        self.process.send_signal(number)
        code = self.process.wait(60)
        assert not psutil.wait_procs(pids, 10)[1]
        return code


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "served.py").write_text(TOOLS.format(value=1))
    return tmp_path


@contextmanager
def serving(folder: Path, *options: str, **variables: str) -> Iterator[Server]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **variables}
    command = (*COMMAND, "--workers", "1", *options)
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Server(process)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
                process.send_signal(signal.SIGTERM)
            process.wait(60)


def refused(folder: Path, *options: str) -> tuple[int, str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = (*COMMAND, *options)
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240, check=False
    )
    return done.returncode, done.stderr


def until(condition: Any) -> None:
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("it did not come true")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda each: each.name)
def test_it_serves_and_ends_in_order(folder: Path, number: signal.Signals) -> None:
    with serving(folder) as server:
        assert server.first == f"snakepit serves served:Tools at {server.url}, workers: 1\n"
        assert server.post("value", {}).json() == 1
        assert httpx.get(f"{server.url}/readyz", timeout=60).json()["status"] == "ready"
        assert server.end(number) == 0


def test_it_serves_metrics_behind_its_token(folder: Path) -> None:
    with serving(folder, SNAKEPIT_TOKEN=TOKEN) as server:
        headers = {"Authorization": f"Bearer {TOKEN}"}
        assert httpx.get(f"{server.url}/metrics", timeout=60).status_code == 401
        found = httpx.get(f"{server.url}/metrics", timeout=60, headers=headers)
        assert 'snakepit_workers{pool="pool",state="ready"} 1.0' in found.text


def in_background(server: Server, tool: str, arguments: Any) -> subprocess.Popen[str]:
    """Make a call in a process of its own, which prints the status and the body of the answer."""
    code = (
        "import httpx, sys; answer = httpx.post(sys.argv[1], json=eval(sys.argv[2]), timeout=90);"
        "print(answer.status_code, answer.text)"
    )
    command = (sys.executable, "-c", code, f"{server.url}/tools/{tool}", repr(arguments))
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_running_calls_finish(folder: Path) -> None:
    path = folder / "begun"
    with (
        serving(folder) as server,
        in_background(server, "sleep", {"seconds": 2, "path": str(path)}) as client,
    ):
        until(path.exists)
        assert server.end() == 0
        assert client.communicate(timeout=240)[0] == '200 "slept"\n'


def test_calls_that_take_too_long_are_ended_and_their_clients_told(folder: Path) -> None:
    path = folder / "begun"
    with (
        serving(folder, "--grace", "0.5") as server,
        in_background(server, "sleep", {"seconds": 600, "path": str(path)}) as client,
    ):
        until(path.exists)
        assert server.end() == 0
        assert client.communicate(timeout=240)[0].startswith('503 {"type":"urn:snakepit-trio:problem:closing"')


def test_a_second_signal_does_not_wait_for_calls(folder: Path) -> None:
    path = folder / "begun"
    with (
        serving(folder, "--grace", "600") as server,
        in_background(server, "sleep", {"seconds": 600, "path": str(path)}) as client,
    ):
        until(path.exists)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: httpx_refuses(server.url))
        assert server.end() == 0
        assert client.communicate(timeout=240)[0].startswith("503")


def httpx_refuses(url: str) -> bool:
    try:
        httpx.get(f"{url}/livez", timeout=60)
    except httpx.TransportError:
        return True
    return False


def test_a_client_that_reads_nothing_does_not_hold_up_the_end(folder: Path) -> None:
    with (
        serving(folder, "--grace", "0.5") as server,
        httpx.stream("POST", f"{server.url}/tools/blobs", json={}, timeout=60) as answer,
    ):
        assert answer.status_code == 200
        time.sleep(0.5)  # its connection fills up
        assert server.end() == 0


def test_a_signal_while_the_workers_start_ends_it(folder: Path) -> None:
    (folder / "served.py").write_text("import time; open('started', 'w').close(); time.sleep(600)")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(COMMAND, cwd=folder, env=environment) as process:
        until((folder / "started").exists)
        pids = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert not psutil.wait_procs(pids, 10)[1]


def test_the_token_comes_from_a_file_or_a_variable(folder: Path) -> None:
    (folder / "token").write_text(f"{TOKEN}\n")
    for options, variables in [(("--token-file", "token"), {}), ((), {"SNAKEPIT_TOKEN": TOKEN})]:
        with serving(folder, *options, **variables) as server:
            assert server.post("value", {}).status_code == 401
            assert server.post("value", {}, headers={"authorization": f"Bearer {TOKEN}"}).json() == 1
            assert TOKEN not in " ".join(server.process.args)  # type: ignore[arg-type]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize(("options", "found"), [((), "nothing"), (("--open-to", "machine"), "200")])
def test_other_users_of_the_machine_are_kept_out(folder: Path, options: tuple[str, ...], found: str) -> None:
    code = """
import encodings.idna, os, socket, sys
os.setuid(65534)
with socket.socket() as client:
    client.connect(("127.0.0.1", int(sys.argv[1])))
    try:
        client.sendall(b"GET /livez HTTP/1.1\\r\\nHost: localhost\\r\\n\\r\\n")
        print(client.recv(4096) or "nothing")
    except ConnectionError:
        print("nothing")
"""
    with serving(folder, *options) as server:
        command = (sys.executable, "-c", code, server.url.rpartition(":")[2])
        done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=True)
        assert found in done.stdout
        assert server.post("value", {}).json() == 1


@pytest.mark.parametrize("is_http2", [False, True], ids=["HTTP/1.1", "HTTP/2"])
def test_it_serves_by_tls(folder: Path, is_http2: bool) -> None:
    authority = Authority(folder, "authority")
    authority.server("served", ["127.0.0.1"])
    with (
        serving(folder, "--certfile", "served.pem", "--keyfile", "served.key") as server,
        httpx.Client(verify=authority.client(), http1=not is_http2, http2=is_http2, timeout=60) as client,
    ):
        assert server.url.startswith("https://")
        answer = client.post(f"{server.url}/tools/value", json={})
        assert (answer.json(), answer.http_version) == (1, "HTTP/2" if is_http2 else "HTTP/1.1")
        assert server.end() == 0


def test_it_refuses_what_cannot_be_served(folder: Path) -> None:
    code, text = refused(folder, "--host", "0.0.0.0")
    assert code == 2
    assert "--token-file" in text
    code, text = refused(folder, "--certfile", "served.py")
    assert (code, "needs both" in text) == (2, True)
    code, text = refused(folder, "--grace", "nan")
    assert (code, "--grace is nan: give seconds" in text) == (2, True)
    (folder / "token").write_text("short")
    code, text = refused(folder, "--token-file", "token")
    assert (code, "16 visible characters" in text) == (2, True)
    (folder / "served.py").write_text("raise ValueError('no database')")
    code, text = refused(folder)
    assert code == 3
    assert text.rstrip().splitlines()[-1].endswith("could not start: ValueError: no database")
    assert "last lines of its stderr" not in text  # they stand above already


def is_ready(url: str) -> bool:
    try:
        return httpx.get(url).status_code == 200
    except httpx.TransportError:
        return False


def test_nobody_need_read_what_it_prints(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    reading, writing = os.pipe()
    os.close(reading)
    command = (*COMMAND, "--port", str(port), "--workers", "1")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=writing, stderr=subprocess.PIPE) as process:
        os.close(writing)
        try:
            until(lambda: process.poll() is not None or is_ready(f"http://127.0.0.1:{port}/readyz"))
        finally:
            process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=240)
        assert (process.returncode, errors) == (0, b"")


def test_an_address_in_use_is_told_before_workers_start(folder: Path) -> None:
    with serving(folder) as server:
        port = server.url.rpartition(":")[2]
        code, text = refused(folder, "--port", port)
        assert (code, text) == (1, f"Error: cannot listen at 127.0.0.1, port {port}: Address already in use\n")


@pytest.mark.parametrize("package", ["hypercorn", "watchfiles"])
def test_what_is_not_installed_is_named(folder: Path, package: str) -> None:
    (folder / package).mkdir()
    (folder / package / "__init__.py").write_text(f"raise ModuleNotFoundError('gone', name='{package}')")
    environment = {**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        (*COMMAND, "--reload"), cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (
        1,
        f"Error: `snakepit serve` needs {package}: pip install 'snakepit-trio[serve]'\n",
    )


def test_it_serves_new_code_after_each_change(folder: Path) -> None:
    def change(text: str, condition: Any) -> None:
        # The first change may come before anybody watches.
        for _ in range(20):
            (folder / "served.py").write_text(text)
            for _ in range(300):
                if condition():
                    return
                time.sleep(0.01)
        raise AssertionError("it did not come true")

    with serving(folder, "--reload") as server:
        told: list[str] = []
        reader = threading.Thread(target=lambda: told.extend(iter(server.errors.readline, "")))
        reader.start()
        assert server.post("value", {}).json() == 1
        change(TOOLS.format(value=2), lambda: server.post("value", {}).json() == 2)
        change("raise ValueError('no database')", lambda: "the old workers stay" in "".join(told))
        assert server.post("value", {}).json() == 2
        change(TOOLS.format(value=3), lambda: server.post("value", {}).json() == 3)
        assert server.end() == 0
        reader.join(60)
    assert "no database" in "".join(told)
