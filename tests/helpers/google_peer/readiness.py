"""How the worker of worker.py says that it is ready, with its bad habits. It uses nothing but the standard library."""

from __future__ import annotations

import os
import sys
import time


def say_ready(port: int, habits: frozenset[str], modern: bool) -> None:
    if "flood" in habits:
        flood()
    if "slow_ready" in habits:
        time.sleep(1)
    if "never_ready" in habits:
        return
    if modern:
        write_ready_file(port)
    else:
        print_ready_line(port, in_two="split_ready" in habits)


def write_ready_file(port: int) -> None:
    path = os.environ["SNAKEPIT_READY_FILE"]
    temporary = f"{path}.{os.getpid()}"
    with open(temporary, "w", encoding="ascii") as file:
        file.write(str(port))
    os.rename(temporary, path)


def print_ready_line(port: int, in_two: bool) -> None:
    line = f"GRPC_READY:{port}\n"
    half = len("GRPC_REA") if in_two else len(line)
    print(line[:half], end="", flush=True)
    if in_two:
        time.sleep(0.2)
        print(line[half:], end="", flush=True)


def flood() -> None:
    text = ("flood" * 13)[:63] + "\n"
    for stream in (sys.stdout, sys.stderr):
        stream.write(text * 1024)
        stream.flush()
