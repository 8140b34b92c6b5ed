"""Certificates for links: of a pool's own authority, and of the user's."""

from __future__ import annotations

import ssl
import sys
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID

import snakepit_trio as snakepit
from bridge_py.tls import Material
from snakepit_trio.launchers.authority import Authority, GivenCertificates


def certificate_of(pem: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(pem.encode())


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, name: str) -> None:
    """A handshake in memory. Raises what either side says."""
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (
        client.wrap_bio(to_client, to_server, server_hostname=name),
        server.wrap_bio(to_server, to_client, server_side=True),
    )
    for _ in range(4):
        for side in sides:
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()


def test_a_link_has_two_certificates_for_one_purpose_each() -> None:
    made = Authority().issue("default-1")
    certificate = certificate_of(made.worker.certificate)
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage)
    assert usage.critical
    assert list(usage.value) == [ExtendedKeyUsageOID.SERVER_AUTH]
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == [made.worker_name]
    assert certificate.subject.rfc4514_string() == "CN=default-1"
    shake_hands(made.host, made.worker.server(), made.worker_name)
    assert made.host.minimum_version == ssl.TLSVersion.TLSv1_3


def test_neither_side_passes_for_the_other_nor_for_another_link() -> None:
    authority = Authority()
    one, other = authority.issue("one"), authority.issue("other")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        shake_hands(one.host, other.worker.server(), one.worker_name)
    with pytest.raises(ssl.SSLCertVerificationError, match="certificate purpose"):
        shake_hands(other.worker.client(), one.worker.server(), one.worker_name)
    with pytest.raises(ssl.SSLCertVerificationError, match="self.signed|unable to get|signature"):
        shake_hands(Authority().issue("one").host, one.worker.server(), one.worker_name)


def test_an_authority_is_renewed_when_half_of_its_life_is_over() -> None:
    times = [datetime.now(UTC)]
    authority = Authority(lifetime=timedelta(hours=24), now=lambda: times[0])
    first = authority.issue("first")
    times[0] += timedelta(hours=11)
    assert authority.issue("second").worker.ca == first.worker.ca
    times[0] += timedelta(hours=2)
    later = authority.issue("third")
    assert later.worker.ca != first.worker.ca
    ends = certificate_of(later.worker.ca).not_valid_after_utc
    assert ends == (times[0] + timedelta(hours=24)).replace(microsecond=0)
    assert certificate_of(later.worker.certificate).not_valid_after_utc < ends
    shake_hands(first.host, first.worker.server(), first.worker_name)  # what was issued can be used still


@pytest.mark.parametrize("back", [timedelta(minutes=5), timedelta(hours=1), timedelta(days=400)], ids=str)
def test_certificates_are_valid_at_once_when_the_clock_was_set_back(back: timedelta) -> None:
    times = [datetime.now(UTC)]
    authority = Authority(now=lambda: times[0])
    times[0] -= back
    certificate = certificate_of(authority.issue("one").worker.certificate)
    assert certificate.not_valid_before_utc <= times[0] - timedelta(minutes=9)
    assert certificate.not_valid_after_utc > times[0]


def test_certificates_outlast_the_start_of_a_worker() -> None:
    config = snakepit.PoolConfig(adapter="tests.helpers.remote_tools:RemoteTools", start_timeout=10_000.0)
    made = Authority.of(config).issue("slow")
    left = certificate_of(made.worker.certificate).not_valid_after_utc - datetime.now(UTC)
    assert left > timedelta(seconds=19_000)


def test_clocks_may_differ() -> None:
    made = Authority().issue("ahead")
    assert certificate_of(made.worker.certificate).not_valid_before_utc < datetime.now(UTC) - timedelta(minutes=9)


def test_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(snakepit.UsageError, match=r"pip install 'snakepit-trio\[ray\]'"):
        Authority()


def test_nobody_shows_a_key() -> None:
    made = Authority().issue("one")
    assert "PRIVATE" in made.worker.key
    assert "PRIVATE" not in repr(made) + repr(made.worker)


# Given certificates.


def given(folder: Path, as_files: bool) -> dict[str, Any]:
    """The arguments for certificates of one authority, as files or as text."""
    authority = Authority()
    until = datetime.now(UTC) + timedelta(hours=1)
    host, _ = authority._root.sign("host", None, until)
    worker, _ = authority._root.sign("workers", "workers.example", until)
    texts = {
        "ca": worker.ca,
        "host_certificate": host.certificate,
        "host_key": host.key,
        "worker_certificate": worker.certificate,
        "worker_key": worker.key,
    }
    if as_files:
        for name, text in texts.items():
            (folder / name).write_text(text)
    return {**({name: folder / name for name in texts} if as_files else texts), "worker_name": "workers.example"}


@pytest.mark.parametrize("as_files", [True, False])
def test_given_certificates(tmp_path: Path, as_files: bool) -> None:
    issued = GivenCertificates(**given(tmp_path, as_files)).issue("any")
    shake_hands(issued.host, issued.worker.server(), "workers.example")
    assert len(issued.host_sha256) == 64


def expired() -> dict[str, Any]:
    """Certificates for a worker that have expired."""
    long_ago = datetime.now(UTC) - timedelta(hours=30)
    authority = Authority(lifetime=timedelta(hours=60), now=lambda: long_ago)
    until = long_ago + timedelta(hours=1)
    worker, _ = authority._root.sign("workers", "workers.example", until)
    host, _ = authority._root.sign("host", None, datetime.now(UTC) + timedelta(hours=1))
    return {
        "ca": worker.ca,
        "host_certificate": host.certificate,
        "host_key": host.key,
        "worker_certificate": worker.certificate,
        "worker_key": worker.key,
    }


WRONG: dict[str, tuple[Callable[[dict[str, Any]], dict[str, Any]], str]] = {
    "no file": (lambda found: {"ca": "/nowhere/ca.pem"}, "ca='/nowhere/ca.pem' cannot be read"),
    "no PEM": (lambda found: {"ca": "-----BEGIN CERTIFICATE-----\nno\n"}, "these certificates cannot be used"),
    "another key": (lambda found: {"host_key": found["worker_key"]}, "these certificates cannot be used"),
    "a key in place of the host's certificate": (
        lambda found: {"host_certificate": found["host_key"]},
        "host_certificate, host_key and ca: these certificates cannot be used",
    ),
    "half a certificate": (
        lambda found: {"host_certificate": found["host_certificate"][:80]},
        "host_certificate, host_key and ca: these certificates cannot be used",
    ),
    "bytes": (lambda found: {"ca": found["ca"].encode()}, "ca=.* cannot be read: .*: give a path, or PEM text"),
    "swapped": (
        lambda found: {
            "host_certificate": found["worker_certificate"],
            "host_key": found["worker_key"],
        },
        "host_certificate makes no link: .*purpose.*: give certificates",
    ),
    "another name": (lambda found: {"worker_name": "elsewhere"}, "worker_certificate makes no link: Hostname mismatch"),
    "no name": (lambda found: {"worker_name": ""}, "worker_name makes no link"),
    "a number for a name": (lambda found: {"worker_name": 5}, "worker_certificate makes no link"),
    "another authority": (lambda found: {"ca": Authority().issue("other").worker.ca}, "worker_certificate makes no"),
    "expired": (lambda found: expired(), "worker_certificate makes no link: certificate has expired"),
    "no worker's key": (lambda found: {"worker_key": found["ca"]}, "these certificates cannot be used"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_certificates(tmp_path: Path, name: str) -> None:
    change, message = WRONG[name]
    found = given(tmp_path, as_files=False)
    with pytest.raises(snakepit.UsageError, match=message):
        GivenCertificates(**{**found, **change(found)}).issue("any")


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        BestAvailableEncryption,
        Encoding,
        PrivateFormat,
        load_pem_private_key,
    )

    found = given(tmp_path, as_files=False)
    key = load_pem_private_key(found["host_key"].encode(), None)
    locked = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")).decode()
    with pytest.raises(snakepit.UsageError, match="without a password"):
        Material(found["ca"], found["host_certificate"], locked).client()
