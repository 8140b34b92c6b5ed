"""Certificates for tests, made by the openssl command."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
_AUTHORITY = "basicConstraints=critical,CA:TRUE"


class Authority:
    """Who signs certificates; `file` has its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self.file = folder / f"{name}.pem"
        self._key = folder / f"{name}.key"
        extras = ["-addext", _AUTHORITY, "-addext", "keyUsage=critical,keyCertSign", "-subj", f"/CN={name}"]
        _openssl("req", "-x509", *_KEY, "-keyout", self._key, "-out", self.file, "-days", "2", *extras)

    def server(self, name: str, hosts: list[str], *, days: int = 2) -> ssl.SSLContext:
        """The context of a server with a certificate for addresses, which ends after `days`; 0 for at once."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.certify(context, name, hosts, days=days)
        return context

    def certify(self, context: ssl.SSLContext, name: str, hosts: list[str], *, days: int = 2) -> None:
        """Give a context such a certificate."""
        key, request, extras, file = (self._folder / f"{name}.{end}" for end in ("key", "csr", "ext", "pem"))
        _openssl("req", *_KEY, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        extras.write_text(f"subjectAltName={','.join(f'IP:{host}' for host in hosts)}\n")
        signing: list[str | Path] = ["-CA", self.file, "-CAkey", self._key, "-CAcreateserial", "-extfile", extras]
        _openssl("x509", "-req", "-in", request, "-out", file, "-days", str(days), *signing)
        context.load_cert_chain(file, key)

    def client(self) -> ssl.SSLContext:
        """The context of a client that trusts this authority."""
        return ssl.create_default_context(cafile=self.file)


def _openssl(*words: str | Path) -> None:
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    except FileNotFoundError:
        raise RuntimeError("these tests make certificates by the openssl command, which is not installed") from None
    except subprocess.CalledProcessError as error:
        raise RuntimeError(f"openssl: {error.stderr.decode()}") from None
