"""Generates bridge_py/wire/messages from the .proto; with --check, compares instead and fails on a difference."""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
MESSAGES = ROOT / "bridge_py" / "wire" / "messages"


def generate(folder: Path) -> None:
    """Write the generated package into `folder`."""
    # protoc finds its plugin on the PATH.
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"--proto_path={PROTO}",
        f"--python_betterproto2_out={folder}",
        "--python_betterproto2_opt=client_generation=async",
        "--python_betterproto2_opt=server_generation=async",
        "snakepit_bridge.proto",
    ]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)


def differences(made: Path, kept: Path) -> list[str]:
    """The files that are not the same in both folders, by relative path."""
    names = {path.relative_to(folder) for folder in (made, kept) for path in folder.rglob("*.py")}
    return [
        str(name)
        for name in sorted(names)
        if not (made / name).is_file()
        or not (kept / name).is_file()
        or not filecmp.cmp(made / name, kept / name, shallow=False)
    ]


def main() -> int:
    """Generate or check; returns the exit code."""
    with tempfile.TemporaryDirectory() as temporary:
        made = Path(temporary) / "messages"
        made.mkdir()
        generate(made)
        if "--check" not in sys.argv:
            shutil.rmtree(MESSAGES, ignore_errors=True)
            shutil.copytree(made, MESSAGES)
            return 0
        if different := differences(made, MESSAGES):
            print(f"generated messages differ ({', '.join(different)}): run `make messages`", file=sys.stderr)
            return 1
    print("generated messages are those of the .proto")
    return 0


if __name__ == "__main__":
    sys.exit(main())
