"""What is not installed is told with the command that installs it, for each extra."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from typing import Final

import pytest

from bridge_py.wire.extras import EXTRAS, install
from tests.helpers.command import ROOT, environment

NOT_FOR_USERS: Final = {"bench", "dev"}
_POOL: Final = """
import trio, snakepit_trio as snakepit

async def main():
    async with snakepit.open_pool({settings}) as pool:
        {body}

trio.run(main)
"""


def _pool(body: str = "pass", settings: str = "workers=1") -> str:
    return _POOL.format(settings=settings, body=body)


#: For each extra: a package of it, code that needs the package, and what it is said to need it for.
MISSING: Final = {
    "grpc": ("betterproto2", _pool(settings="bridge_server=True"), "bridge_server= needs the package betterproto2"),
    "grpc, client": ("betterproto2", "from snakepit_trio import *\nopen_client()", "snakepit_trio.open_client needs"),
    "grpc, adapter": (
        "betterproto2",
        _pool(settings="snakepit.GrpcBridge(script='worker.py')"),
        "cannot be used here: the contract needs the package betterproto2",
    ),
    "mcp": ("mcp", _pool("pool.mcp_app()"), "the MCP server needs the package mcp"),
    "opentelemetry": ("opentelemetry", "import snakepit_trio.telemetry.opentelemetry", "opentelemetry-api"),
    "pickle": ("cloudpickle", _pool(settings="pickle=True"), "pickle=True takes the cloudpickle package"),
    "prometheus": ("prometheus_client", _pool("pool.metrics"), "metrics need the package prometheus-client"),
    "ray": ("ray", "import snakepit_trio as s; s.launchers.Ray()", "launchers.Ray needs the package ray"),
    "ray, certificates": (
        "cryptography",
        _pool(settings="workers=1, launcher=snakepit.launchers.Ray()"),
        "which the package cryptography makes",
    ),
    "redis": ("coredis", "import snakepit_trio.state.redis", "RedisStore needs the package coredis"),
    "serve": ("hypercorn", _pool("async with pool.serve_dashboard(): pass"), "a dashboard needs hypercorn"),
    "testing": ("hypothesis", "import snakepit_trio.testing.strategies", "hypothesis is missing"),
    "testing, in memory": ("greenback", "import snakepit_trio.testing", "greenback is missing"),
    "testing, leaks": ("psutil", "import snakepit_trio.testing.pytest_plugin", "psutil is missing"),
    "zstd": ("zstandard", _pool(settings="compress_from=1000"), "compress_from takes the zstandard package"),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_package_is_told_with_its_extra(case: str) -> None:
    package, code, text = MISSING[case]
    hide = f"import sys; sys.modules[{package!r}] = None\n"
    command = [sys.executable, "-c", hide + code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 1
    *_, said = (line for line in done.stderr.splitlines() if "pip install" in line)
    assert install(case.partition(",")[0]) in said
    assert text in said


@pytest.mark.parametrize("module", ["uvloop", "betterproto2", "psutil"])
def test_a_pool_of_python_workers_needs_no_extra(module: str) -> None:
    code = _pool("print(await pool.run(abs, -3))")
    hide = f"import sys; sys.modules[{module!r}] = None\n"
    command = [sys.executable, "-c", hide + code]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240, check=False)
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_the_extras_are_those_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(project["optional-dependencies"]) - NOT_FOR_USERS == EXTRAS


def test_one_place_says_how_to_install_an_extra() -> None:
    """Docstrings and the project that `snakepit new` makes may name an extra too."""
    found = {
        str(path.relative_to(ROOT))
        for package in ("snakepit_trio", "bridge_py")
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"""["'(]?pip install '?snakepit-trio\[""", path.read_text())
    }
    assert found == {"bridge_py/wire/extras.py", "snakepit_trio/_pool/apps.py"}
