"""Certificates for the links of one pool: of an authority in memory, or as the user gives them.

Each link has a host's certificate and a worker's. A host's is for clients only, and a worker's for servers only, so
neither can pass for the other. A link of the pool's own authority has two fresh certificates, so a certificate of
another link is of no use either.
"""

from __future__ import annotations

import contextlib
import secrets
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

import attrs

from bridge_py.tls import Material
from bridge_py.wire.errors import UsageError
from bridge_py.wire.extras import install

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

    from snakepit_trio._config.config import PoolConfig

#: How long a pool's authority lives. Half of it is left when a certificate is issued, at least.
LIFETIME: Final = timedelta(hours=24)
#: How long a certificate can be used. Only handshakes look at it, and a link has one, at its start.
CERTIFICATE_LIFETIME: Final = timedelta(hours=1)
_LONGEST_START: Final = 30 * 24 * 3600.0  # seconds
_SKEW: Final = timedelta(minutes=10)  # by which the clock of another machine may be behind


@attrs.frozen
class LinkCertificates:
    """What both sides of one link need. `host_sha256` is empty if the worker takes any host of its authority."""

    host: ssl.SSLContext = attrs.field(repr=False)
    worker: Material = attrs.field(repr=False)
    worker_name: str
    host_sha256: str = ""


class Issuer(Protocol):
    """Issues the certificates of links."""

    def issue(self, worker_id: str) -> LinkCertificates:
        """Certificates for the link to a new worker. Raises `UsageError` if there are none to be had."""
        ...


class Authority:
    """A short-lived authority in memory: its key is in no file, and issues certificates for one pool only.

    It is renewed when half of its life is over. Links that are open go on, because only handshakes look at
    certificates. `now` tells the time. Raises `UsageError` if the package `cryptography` is missing.
    """

    def __init__(
        self,
        *,
        lifetime: timedelta = LIFETIME,
        certificate_lifetime: timedelta = CERTIFICATE_LIFETIME,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._lifetime = lifetime
        self._certificate_lifetime = certificate_lifetime
        self._now = now
        self._root = self._make_root()

    @classmethod
    def of(cls, config: PoolConfig) -> Self:
        """The authority of a pool that opens. Its certificates outlast the starts of workers."""
        lifetime = max(CERTIFICATE_LIFETIME, timedelta(seconds=2 * min(config.start_timeout, _LONGEST_START)))
        return cls(lifetime=max(LIFETIME, 4 * lifetime), certificate_lifetime=lifetime)

    def issue(self, worker_id: str) -> LinkCertificates:
        """Fresh certificates for the link to a new worker, whose id they name."""
        if not self._root.made_at <= self._now() < self._root.renewed_at:  # a clock may have been set back
            self._root = self._make_root()
        name = f"{secrets.token_hex(16)}.worker.snakepit"
        ends = self._now() + self._certificate_lifetime
        host, host_sha256 = self._root.sign(f"host of {worker_id}", None, ends)
        worker, _ = self._root.sign(worker_id, name, ends)
        return LinkCertificates(host.client(), worker, name, host_sha256)

    def _make_root(self) -> _Root:
        try:
            return _Root(self._now(), self._lifetime)
        except ImportError:
            raise UsageError(
                "workers on other machines need certificates, which the package cryptography makes:"
                f" {install('ray')}, or give certificates of your own"
            ) from None


class _Root:
    """One key of an authority, and its certificate."""

    def __init__(self, now: datetime, lifetime: timedelta) -> None:
        from cryptography import x509  # takes long to import, and only pools beyond this machine need it

        self._key = _make_key()
        self._name = _name_of(f"snakepit-trio {secrets.token_hex(8)}")  # OpenSSL finds issuers by their names
        self.made_at, self.renewed_at = now, now + lifetime / 2
        builder = _builder(self._name, self._name, self._key.public_key(), now - _SKEW, now + lifetime)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        builder = builder.add_extension(x509.SubjectKeyIdentifier.from_public_key(self._key.public_key()), False)
        self._certificate = self._signed(builder)
        self._pem = _pem(self._certificate)

    def sign(self, owner: str, server_name: str | None, ends: datetime) -> tuple[Material, str]:
        """Make a key and its certificate: for a server of that name, or for a client. Returns the digest as well."""
        from cryptography import x509
        from cryptography.x509.oid import ExtendedKeyUsageOID

        key = _make_key()
        purpose = ExtendedKeyUsageOID.CLIENT_AUTH if server_name is None else ExtendedKeyUsageOID.SERVER_AUTH
        starts = self._certificate.not_valid_before_utc
        builder = _builder(_name_of(owner), self._name, key.public_key(), starts, ends)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=False), critical=True)
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
        of_issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        builder = builder.add_extension(of_issuer, critical=False)
        if server_name is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(server_name)]), critical=False)
        certificate = self._signed(builder)
        return Material(self._pem, _pem(certificate), _pem_of_key(key)), _digest(certificate)

    def _signed(self, builder: x509.CertificateBuilder) -> x509.Certificate:
        from cryptography.hazmat.primitives.hashes import SHA256

        return builder.sign(self._key, SHA256())


@attrs.frozen(kw_only=True)
class GivenCertificates:
    """Certificates of the user's own authority, for hosts and for workers; each a path, or PEM text.

    A host's certificate must be for clients, a worker's for servers, and `worker_name` is a DNS name in the worker's.
    Workers that share a certificate can pass for each other, except for the secret of each link. The files are
    read for each worker, so that renewed ones are used.
    """

    ca: str | Path
    host_certificate: str | Path
    host_key: str | Path = attrs.field(repr=False)
    worker_certificate: str | Path
    worker_key: str | Path = attrs.field(repr=False)
    worker_name: str

    def issue(self, worker_id: str) -> LinkCertificates:  # noqa: ARG002 - they are the same for all workers
        """The certificates as they are now. Raises `UsageError` if one cannot be read, or if they make no link."""
        ca = _text_of("ca", self.ca)
        certificate = _text_of("host_certificate", self.host_certificate)
        host = Material(ca, certificate, _text_of("host_key", self.host_key))
        theirs = _text_of("worker_certificate", self.worker_certificate)
        worker = Material(ca, theirs, _text_of("worker_key", self.worker_key))
        context = _checked("host", host.client)
        _check_handshake(context, _checked("worker", worker.server), str(self.worker_name))
        digest = sha256(ssl.PEM_cert_to_DER_cert(_first_of(certificate))).hexdigest()
        return LinkCertificates(context, worker, self.worker_name, digest)


def _checked(whose: str, make: Callable[[], ssl.SSLContext]) -> ssl.SSLContext:
    try:
        return make()
    except UsageError as error:
        raise UsageError(f"{whose}_certificate, {whose}_key and ca: {error}") from None


def _check_handshake(host: ssl.SSLContext, worker: ssl.SSLContext, worker_name: str) -> None:
    """Make a handshake in memory, so that a fault shows here: the other end of a link would only hang up."""
    to_host, to_worker = ssl.MemoryBIO(), ssl.MemoryBIO()
    whose = "worker_name"
    try:
        ours = host.wrap_bio(to_host, to_worker, server_hostname=worker_name)
        theirs = worker.wrap_bio(to_worker, to_host, server_side=True)
        for side in (ours, theirs) * 2:
            whose = "worker_certificate" if side is ours else "host_certificate"  # each side checks the other's
            with contextlib.suppress(ssl.SSLWantReadError):
                side.do_handshake()
    except (ssl.SSLError, ValueError) as error:
        text = getattr(error, "verify_message", "") or str(error)
        raise UsageError(
            f"{whose} makes no link: {text}: give certificates of the authority ca= that have not expired, the host's"
            " for clients, and the worker's for servers and for the DNS name worker_name="
        ) from None


def _text_of(name: str, given: str | Path) -> str:
    if isinstance(given, str) and "-----BEGIN" in given:
        return given
    try:
        return Path(given).read_text("ascii")
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"{name}={str(given)!r:.200} cannot be read: {error}: give a path, or PEM text") from None


def _first_of(chain: str) -> str:
    """The first certificate of a chain, which is the owner's."""
    end = "-----END CERTIFICATE-----"
    begin = chain.find("-----BEGIN CERTIFICATE-----")
    return chain[max(0, begin) : chain.find(end) + len(end)]


def _make_key() -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1())


def _name_of(owner: str) -> x509.Name:
    from cryptography import x509
    from cryptography.x509.oid import NameOID

    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, owner[:64])])  # the most that the standard allows


def _builder(
    subject: x509.Name, issuer: x509.Name, key: Any, starts: datetime, ends: datetime
) -> x509.CertificateBuilder:
    from cryptography import x509

    builder = x509.CertificateBuilder(subject_name=subject, issuer_name=issuer, public_key=key)
    return builder.serial_number(x509.random_serial_number()).not_valid_before(starts).not_valid_after(ends)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding

    return certificate.public_bytes(Encoding.PEM).decode("ascii")


def _pem_of_key(key: EllipticCurvePrivateKey) -> str:
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode("ascii")


def _digest(certificate: x509.Certificate) -> str:
    from cryptography.hazmat.primitives.hashes import SHA256

    return certificate.fingerprint(SHA256()).hex()
