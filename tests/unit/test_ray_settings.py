"""What `launchers.Ray` takes and refuses, without a cluster."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

import snakepit_trio as snakepit
from snakepit_trio.launchers import GivenCertificates, Ray
from snakepit_trio.launchers.ray_driver import amounts_of
from snakepit_trio.launchers.ray_process import in_short
from snakepit_trio.launchers.ray_site import RaySite

pytestmark = pytest.mark.skipif(sys.version_info >= (3, 15), reason="Ray has no wheels for Python 3.15")


def test_certificates_that_are_of_no_use_are_refused_when_the_pool_opens() -> None:
    files = ("ca", "host_certificate", "host_key", "worker_certificate", "worker_key")
    given = GivenCertificates(**dict.fromkeys(files, "/nowhere/mine.pem"), worker_name="workers.example")
    config = snakepit.PoolConfig(adapter="tests.helpers.remote_tools:RemoteTools")
    with pytest.raises(snakepit.UsageError, match=r"ca='/nowhere/mine.pem' cannot be read"):
        Ray(certificates=given).open(config)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"address": ""}, "give 'auto', or the address of a cluster's head"),
        ({"address": "local"}, "is started by `ray start --head`"),
        ({"address": "ray://10.0.0.1:10001"}, "the host must run on a machine of the cluster"),
        ({"address": 6379}, "give 'auto'"),
        ({"resources": ["CPU"]}, "give amounts by the names that Ray shows"),
        ({"resources": {"CPU": -1}}, "give amounts"),
        ({"resources": {"CPU": float("nan")}}, "give amounts"),
        ({"resources": {"CPU": True}}, "give amounts"),
        ({"resources": {"": 1}}, "give amounts"),
        ({"runtime_env": {"working_dir": b"."}}, "give a dict of plain values"),
        ({"runtime_env": 3}, "give a dict of plain values"),
        ({"certificates": "mine.pem"}, "give launchers.GivenCertificates, or None"),
    ],
    ids=str,
)
def test_invalid_settings(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(snakepit.UsageError, match=why):
        Ray(**settings)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(snakepit.UsageError, match="needs the package ray: pip install 'snakepit-trio.ray.'"):
        Ray()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"template": True}, "template= is for processes of this machine"),
        ({"debug": True}, "debug"),
        ({"adapter": snakepit.StdioJson(__file__)}, "need an adapter of a Python class"),
    ],
    ids=str,
)
def test_what_no_pool_on_a_cluster_can_have(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(snakepit.UsageError, match=why):
        Ray().open(snakepit.PoolConfig(launcher=Ray(), **settings))


def test_cpus_are_chosen_by_ray() -> None:
    config = snakepit.PoolConfig(per_worker=lambda number: snakepit.WorkerOptions(cpus={0} if number else None))
    site = Ray().open(config)
    try:
        site.check_room(1)
        with pytest.raises(snakepit.UsageError, match=r"per_worker\(1\): Ray chooses the node"):
            site.check_room(2)
    finally:
        site.close()


@pytest.mark.parametrize(
    ("resources", "options"),
    [
        (None, {"num_cpus": 1, "resources": {}}),
        ({}, {"num_cpus": 0, "resources": {}}),
        ({"GPU": 0.5, "disk": 2}, {"num_cpus": 0, "num_gpus": 0.5, "resources": {"disk": 2}}),
        ({"CPU": 2, "memory": 1e9}, {"num_cpus": 2, "memory": 1e9, "resources": {}}),
    ],
    ids=str,
)
def test_amounts(resources: Any, options: dict[str, Any]) -> None:
    site = Ray(resources=resources).open(snakepit.PoolConfig())
    assert isinstance(site, RaySite)
    site.close()
    assert site._options == options
    assert amounts_of(options) == ({"CPU": 1} if resources is None else resources)


def test_auto_is_the_cluster_that_this_program_has_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    from snakepit_trio.launchers.ray_site import _address_of

    def joined(is_initialized: bool) -> Any:
        context = SimpleNamespace(gcs_address="10.1.1.1:6379")
        return SimpleNamespace(is_initialized=lambda: is_initialized, get_runtime_context=lambda: context)

    monkeypatch.setitem(sys.modules, "ray", joined(True))
    assert _address_of("auto") == "10.1.1.1:6379"
    assert _address_of("10.0.0.1:1") == "10.0.0.1:1"
    monkeypatch.setitem(sys.modules, "ray", joined(False))
    assert _address_of("auto") == "auto"


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("plain", "plain"),
        ("", "Exception"),
        ("It died.\n\tclass_name: SnakepitWorker\n\tactor_id: 12\n\tThe node died.", "It died. The node died."),
        ('It raised:\nTraceback (most recent call last):\n  File "a.py"\nValueError: no', "It raised: ValueError: no"),
    ],
    ids=["plain", "nothing", "actor", "traceback"],
)
def test_errors_of_ray_in_short(text: str, short: str) -> None:
    assert in_short(Exception(text)) == short
