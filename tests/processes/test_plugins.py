"""Adapters, codecs, stores and launchers of another package, found by its entry points."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio

import snakepit_trio as snakepit
from snakepit_trio._config import plugins
from snakepit_trio.testing import InMemory
from tests.helpers.command import ROOT
from tests.helpers.command import snakepit as snakepit_command
from tests.helpers.their_package import ENTRIES, install


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path in which the package is installed."""
    install(tmp_path / "site")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    yield tmp_path
    for name in [name for name in sys.modules if name.partition(".")[0] == "their_money"]:
        del sys.modules[name]


def test_what_is_installed_is_listed_and_not_imported(folder: Path) -> None:
    found = [each for each in plugins.installed() if each.package == "their-money"]
    assert len(found) == sum(map(len, ENTRIES.values()))
    assert plugins.Plugin("launcher", "counting", "their_money.hosts:Counting", "their-money", "1.2") in found
    assert [each.kind for each in found] == sorted((each.kind for each in found), key=plugins.KINDS.index)
    assert not any(name.startswith("their_money") for name in sys.modules)


async def test_a_pool_takes_their_names(folder: Path) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool("till", workers=1, codecs=["money"], launcher="counting", store="theirs") as pool:
            hosts, values = sys.modules["their_money.hosts"], sys.modules["their_money.values"]
            twice = await pool.execute("twice", {"money": values.Money("1.20")})
            assert (type(twice), str(twice.amount)) == (values.Money, "2.40")
            assert isinstance(pool.config.store, hosts.Store)
            assert hosts.opened == [pool.config.name]
    assert pool.config.codecs == ("money",)


async def test_an_adapter_may_be_an_object(folder: Path) -> None:
    with trio.fail_after(60):
        async with snakepit.open_pool("program", workers=1) as pool:
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3


def test_an_object_is_taken_as_it_is_and_a_class_is_made(folder: Path) -> None:
    one, other = (snakepit.PoolConfig(adapter="till", store="shared").store for _ in range(2))
    assert one is other
    one, other = (snakepit.PoolConfig(adapter="till", store="theirs").store for _ in range(2))
    assert one is not other


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        (
            {"launcher": "countin"},
            "no installed package offers the launcher 'countin': did you mean 'counting' or 'nothing'?",
        ),
        ({"store": "s3"}, "no installed package offers the store 's3': "),
        ({"adapter": "tilt"}, "no installed package offers the adapter 'tilt': did you mean 'till'?"),
        ({"codecs": ["cash"]}, "no installed package offers the codec 'cash'"),
        ({"codecs": "money"}, "give a list of names"),
        ({"codecs": ["function"]}, "it must be a module, which calls register_codec"),
        ({"launcher": "broken"}, "launcher 'broken' of the package their-money 1.2 cannot be loaded"),
        ({"launcher": "broken"}, "ModuleNotFoundError: No module named 'no_such_module'"),
        ({"launcher": "program"}, "cannot be loaded: their_money.program:Launcher: SystemExit: 3"),
        ({"launcher": "nothing"}, "cannot be loaded: ':Launcher' is neither 'module' nor 'module:attribute'"),
        ({"codecs": ["odd"]}, "codec 'odd' of the package their-money 1.2 cannot be loaded: 'their money!' is neither"),
        ({"store": "wrong"}, "store 'wrong' of the package their-money names <class 'their_money.values.Money'>"),
        ({"store": "needy"}, "store 'needy' of the package their-money cannot be made without arguments: TypeError"),
        ({"store": ""}, "no installed package offers the store ''"),
    ],
    ids=str,
)
def test_wrong_names(folder: Path, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(snakepit.UsageError) as caught:
        snakepit.PoolConfig(**{"adapter": "till", **settings})
    assert text in str(caught.value)


def test_a_name_of_two_packages_is_nobody_s(folder: Path) -> None:
    install(folder / "site", "other-money", {"snakepit.stores": {"theirs": "their_money.hosts:Store"}})
    with pytest.raises(snakepit.UsageError, match="'theirs' is offered by other-money and their-money: uninstall"):
        snakepit.PoolConfig(adapter="till", store="theirs")
    assert snakepit.PoolConfig(adapter="till", store="shared").store is not None


def test_a_package_without_metadata_is_listed_as_unknown(folder: Path) -> None:
    install(folder / "site", "nameless", {"snakepit.stores": {"odd": "their_money.hosts:Store"}})
    (folder / "site" / "nameless-1.2.dist-info" / "METADATA").unlink()
    (found,) = [each for each in plugins.installed("store") if each.name == "odd"]
    assert (found.package, found.version) == ("an unknown package", "")
    assert snakepit.PoolConfig(adapter="till", store="odd").store is not None


@pytest.mark.parametrize(
    "content", [b"[console_scripts]\n\xff = a:b\n", b"[snakepit.stores]\nno target\n"], ids=["bytes", "line"]
)
def test_a_package_whose_metadata_cannot_be_read_harms_no_other(
    folder: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    install(folder / "site", "spoiled", {})
    (folder / "site" / "spoiled-1.2.dist-info" / "entry_points.txt").write_bytes(content)
    assert snakepit.PoolConfig(adapter="till", launcher="counting").launcher is not None
    assert any(each.package == "their-money" for each in plugins.installed())
    (warned,) = {record.getMessage() for record in caplog.records}
    assert warned.startswith(f"the metadata of spoiled in {folder / 'site'} cannot be read: install it again")


def test_a_package_that_is_on_the_path_twice_is_one(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(folder / "again")
    monkeypatch.syspath_prepend(str(folder / "again"))
    assert snakepit.PoolConfig(adapter="till", launcher="counting").launcher is not None


async def test_a_codec_that_workers_lack_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = snakepit.PoolConfig(adapter="till", codecs=["money"])
    assert config.preloads == ("their_money.codec",)
    assert snakepit.PoolConfig(adapter="till", codecs=["money"], template=["json"]).preloads[-1] == "json"
    with trio.fail_after(60):
        async with snakepit.open_pool("till", codecs=["money"], launcher=InMemory(), workers=1) as pool:
            assert await pool.execute("add", {"a": 1, "b": 2}) == 3


def test_the_command_lists_them(folder: Path) -> None:
    command = partial(snakepit_command, folder=folder, PYTHONPATH=f"{ROOT}{os.pathsep}{folder / 'site'}")
    done = command("tools", "--installed")
    assert done.returncode == 0, done.stderr
    assert "adapter   till      their-money 1.2  their_money.tools:Till" in done.stdout.splitlines()
    listed = json.loads(command("tools", "--installed", "--json").stdout)
    found = {"kind": "store", "name": "shared", "target": "their_money.hosts:shared", "package": "their-money"}
    assert {**found, "version": "1.2"} in listed
    refused = command("tools", "till", "--installed")
    assert refused.returncode == 2
    assert "leave ADAPTER out" in refused.stderr
    named = command("tools", "till")
    assert "  a: int" in named.stdout, named.stderr
