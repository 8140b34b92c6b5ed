"""A user of the machine, made with useradd, tries everything against pools of ours: nothing is reached.

The same attacks by our own user reach all of it, which shows that they are attacks.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import pwd
import secrets
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import trio

import snakepit_trio as snakepit
from bridge_py.execution.ledger import give_secret
from snakepit_trio._config import settings_file
from snakepit_trio.launchers import local
from tests.helpers.other_user import ATTACKS, PLANTS, Target
from tests.helpers.stdio_tools import JSON
from tests.security.test_other_users import ROOT, TOOLS, argument, disguised, own_worker, ports

SECRET = "only-its-owner-reads-this"

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a user"),
    pytest.mark.skipif(shutil.which("useradd") is None, reason="there is no useradd on this machine"),
]


@pytest.fixture(scope="module")
def stranger() -> Iterator[str]:
    """The name of a user who has nothing to do with us, and who is gone in the end."""
    name = f"snakepit-test-{secrets.token_hex(4)}"
    try:
        subprocess.run(["useradd", "--system", "--no-create-home", "--shell", "/bin/false", name], check=True)
        yield name
    finally:
        with contextlib.suppress(KeyError):
            uid = pwd.getpwnam(name).pw_uid
            for process in psutil.process_iter(["uids"]):
                if process.info["uids"] is not None and process.info["uids"].real == uid:
                    process.kill()
        subprocess.run(["userdel", name], check=False)


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that all users share, like /tmp; all files of pools are in it."""
    with tempfile.TemporaryDirectory(prefix="sp-", dir="/tmp") as name:
        Path(name).chmod(0o1777)
        monkeypatch.setenv("TMPDIR", name)
        monkeypatch.setattr(tempfile, "tempdir", name)
        for variable in ("SNAKEPIT_RUN_DIR", "XDG_RUNTIME_DIR", "SNAKEPIT_ADAPTER"):
            monkeypatch.delenv(variable, raising=False)
        yield Path(name)
        monkeypatch.undo()


async def run_attack(user: str, attack: str, target: Target) -> list[str]:
    """What a user has reached."""
    told = {"owner": target.owner, "pids": target.pids, "folder": target.folder}
    told |= {"addresses": target.addresses, "secrets": target.secrets}
    with trio.fail_after(120):
        command = [sys.executable, "-m", "tests.helpers.other_user", user, attack]
        done = await trio.run_process(command, stdin=json.dumps(told).encode(), capture_stdout=True, cwd=ROOT)
    reached: list[str] = json.loads(done.stdout)
    return reached


@pytest.fixture
async def pools(temporary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Target]:
    """Pools of each kind, with secrets, clients, sessions and shared memory in use."""
    known = [SECRET]

    def give(ledger: mmap.mmap, secret: str) -> None:
        known.append(secret)
        give_secret(ledger, secret)

    monkeypatch.setattr(local, "give_secret", give)
    async with AsyncExitStack() as stack:

        async def enter(adapter: Any, **options: Any) -> snakepit.Pool:
            return await stack.enter_async_context(snakepit.open_pool(adapter, workers=1, **options))

        ours = await enter(f"{TOOLS.partition(':')[0]}:SecretTools", bridge_server=True, options={"password": SECRET})
        session = await stack.enter_async_context(ours.session("theirs"))
        await session.register_variable("x", "string", SECRET)
        array = np.zeros(1 << 20)
        held = await ours.execute("echo", {"value": array})
        foreign = await enter(disguised(tmp_path), env={"PYTHONPATH": str(ROOT)})
        sockets = await enter(own_worker())
        await enter(JSON)
        addresses = [ours.bridge_address]
        for pool in (foreign, sockets):
            pid = await pool.execute("pid")
            addresses += [*ports(pid), argument(pid, "--elixir-address")]
            if pool is sockets:
                addresses.append(f"unix:{argument(pid, '--listen')}")
        pids = [os.getpid(), *(each.pid for each in psutil.Process().children(recursive=True))]
        yield Target(os.getuid(), pids, str(temporary), addresses, known)
        # Everything works as before.
        assert await session.get_variable_value("x") == SECRET
        for pool in (ours, foreign, sockets):
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3
        assert np.array_equal(held, array)


async def test_a_user_made_with_useradd_reaches_nothing(stranger: str, pools: Target) -> None:
    reached = {attack: await run_attack(stranger, attack, pools) for attack in ATTACKS}
    ours = {attack: await run_attack("", attack, pools) for attack in ATTACKS}
    for attack, found in reached.items():
        print(f"{attack}: a stranger reached {found or 'nothing'}, and we ourselves {len(ours[attack])}")
    assert not any(reached.values()), reached
    # Nobody listens twice at a port, and no secret is where all users look: not even we reach these.
    assert {attack for attack, found in ours.items() if not found} <= {"ports", "secrets"}


@pytest.mark.parametrize("how", PLANTS)
async def test_a_user_who_takes_the_name_of_our_folder_gets_nothing(how: str, stranger: str, temporary: Path) -> None:
    (temporary / "theirs").mkdir(mode=0o755)
    await run_attack(stranger, how, Target(os.getuid(), [], str(temporary), [], []))
    before = {path: path.lstat().st_mode for path in temporary.rglob("*")}
    with pytest.raises(snakepit.UsageError, match="must be a folder of your own that is closed to others"):
        async with snakepit.open_pool(TOOLS, workers=1):
            pass
    assert {path: path.lstat().st_mode for path in temporary.rglob("*")} == before


async def test_a_user_who_plants_settings_and_modules_runs_nothing(
    stranger: str, temporary: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settings_file._warn.cache_clear()
    await run_attack(stranger, "settings", Target(os.getuid(), [], str(temporary), [], []))
    assert stat.S_ISREG((temporary / "pyproject.toml").stat().st_mode)
    (inner := temporary / "ours").mkdir(mode=0o755)
    for folder in (temporary, inner):
        monkeypatch.chdir(folder)
        async with snakepit.open_pool(workers=1, env={"PYTHONPATH": str(ROOT)}) as pool:
            assert await pool.execute("ping", {"message": "x"})
    assert "pyproject.toml is ignored" in caplog.text
