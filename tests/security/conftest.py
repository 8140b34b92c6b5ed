"""Certificates for the servers and clients of the tests."""

from __future__ import annotations

import socket
import ssl

import psutil
import pytest

from tests.helpers.certificates import Authority


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "ours")


@pytest.fixture(scope="module")
def stranger_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ca"), "theirs")


@pytest.fixture(scope="module")
def context(authority: Authority) -> ssl.SSLContext:
    """The server's."""
    mine = [each.address for row in psutil.net_if_addrs().values() for each in row if each.family == socket.AF_INET]
    return authority.server("server", sorted({"127.0.0.1", *mine}))
