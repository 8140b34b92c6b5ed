"""`snakepit tools` as users run it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers.command import TOOLS, environment, snakepit


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "given.py").write_text(TOOLS)
    return tmp_path


def test_a_table(folder: Path) -> None:
    done = snakepit("tools", "given:Tools", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:2] == ["tool description", "anything [timeout 5 s] [limit 2]"]
    for line in (
        *("double Double a number.", "n: int The number.", "second: list[float] | None = None", "count [stream]"),
        "learn [needs 1 gpu]",
    ):
        assert line in lines
    assert max(map(len, done.stdout.splitlines())) <= 120


def test_json(folder: Path) -> None:
    done = snakepit("tools", "given.py:Tools", "--json", folder=folder)
    assert (done.returncode, done.stderr) == (0, "")
    found = {each["name"]: each for each in json.loads(done.stdout)}
    assert found["double"] == {
        "name": "double",
        "description": "Double a number.",
        "signature": "double(n: int)",
        "streaming": False,
        "input": {
            "type": "object",
            "properties": {"n": {"type": "integer", "description": "The number."}},
            "additionalProperties": False,
            "required": ["n"],
        },
        "output": {"type": "integer"},
        "cancel": "interrupt",
        "idempotent": False,
        "timeout": None,
        "limit": None,
        "batch": None,
        "wait": 0.0,
        "resources": {},
    }
    assert found["pair"]["signature"] == "pair(first: str, second: list[float] | None = None)"
    assert found["anything"]["signature"] == "anything(value)"
    assert (found["anything"]["timeout"], found["anything"]["limit"]) == (5, 2)
    assert found["count"]["streaming"]
    assert found["learn"]["resources"] == {"gpu": 1}


@pytest.mark.parametrize("how", ["variable", "pyproject", "showcase"])
def test_the_default_adapter(folder: Path, how: str) -> None:
    if how == "pyproject":
        (folder / "pyproject.toml").write_text('[tool.snakepit]\nadapter = "given:Tools"\n')
    variables = {"SNAKEPIT_ADAPTER": "given:Tools"} if how == "variable" else {}
    done = snakepit("tools", "--json", folder=folder, **variables)
    names = [each["name"] for each in json.loads(done.stdout)]
    assert ("process_text" in names, "noisy" in names) == (how == "showcase", how != "showcase")
    if how == "showcase":
        found = {each["name"]: each["signature"] for each in json.loads(done.stdout)}
        assert found["echo"] == "echo(**others)"
        assert found["distributed_training"].startswith("distributed_training(model_config: ModelConfig = ModelConfig(")


@pytest.mark.parametrize("name", ["tools", "mcp"])
def test_the_script_of_the_command_imports_from_the_working_directory(
    folder: Path, tmp_path_factory: Any, name: str
) -> None:
    script = tmp_path_factory.mktemp("bin") / "snakepit"
    script.write_text("from snakepit_trio._cli.main import main\nmain()\n")
    done = subprocess.run(
        [sys.executable, str(script), name, "given:Tools"],
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_an_adapter_without_tools(folder: Path) -> None:
    (folder / "given.py").write_text("from bridge_py import BaseAdapter\n\n\nclass Tools(BaseAdapter): ...\n")
    done = snakepit("tools", "given:Tools", folder=folder)
    assert (done.returncode, done.stdout) == (0, "the adapter has no tools: mark its methods with @tool\n")


@pytest.mark.parametrize(
    ("adapter", "code", "text"),
    [
        ("given", 2, "Error: adapter 'given': write it as 'package.module:Class'\n"),
        ("lost:Tools", 3, "ModuleNotFoundError: No module named 'lost': install it for "),
    ],
    ids=["no_name", "no_module"],
)
def test_wrong_adapters(folder: Path, adapter: str, code: int, text: str) -> None:
    done = snakepit("tools", adapter, folder=folder)
    assert (done.returncode, done.stdout) == (code, "")
    assert text in done.stderr


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom snakepit_trio._cli.main import main\nmain(['--help'], standalone_mode=False)\n"
        "print(sorted({'rich', 'grpclib', 'hypercorn', 'snakepit_trio._serving.schemas'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
