"""Google's own classes of the wire contract, generated into a folder: for peers that share no code with ours."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import grpc_tools  # type: ignore[import-untyped]
from grpc_tools import protoc

PROTO = Path(__file__).resolve().parents[3] / "proto" / "snakepit_bridge.proto"
GOOGLES_PROTOS = Path(grpc_tools.__file__).parent / "_proto"


def generate(folder: Path) -> None:
    """Write snakepit_bridge_pb2 and snakepit_bridge_pb2_grpc into `folder`."""
    arguments = [
        "protoc",
        f"--proto_path={PROTO.parent}",
        f"--proto_path={GOOGLES_PROTOS}",
        f"--python_out={folder}",
        f"--grpc_python_out={folder}",
        PROTO.name,
    ]
    if code := protoc.main(arguments):
        raise RuntimeError(f"protoc failed with {code}: its reasons are on stderr")


def load(folder: Path) -> tuple[Any, Any]:
    """The messages and the services that `generate` wrote into `folder`.

    Once loaded they stay, whatever the folder: a process has one pool of Google's descriptors.
    """
    # The import system may not have noticed files that are just written.
    importlib.invalidate_caches()
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("snakepit_bridge_pb2"), importlib.import_module("snakepit_bridge_pb2_grpc")
    finally:
        sys.path.remove(str(folder))
