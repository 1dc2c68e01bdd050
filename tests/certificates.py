"""Certificates for tests of TLS, made with openssl: a hospital's CA and a stranger's, servers, clients, bad ones."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

from programs import need

PASSWORD = "correct horse"


@dataclass(frozen=True)
class Pair:
    """Certificate and key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder / name
        self._folder.mkdir()
        self.pair = Pair(self._folder / "ca.pem", self._folder / "ca.key")
        _openssl("req", "-x509", *_NEW_KEY, "-nodes", "-keyout", self.pair.key, "-out", self.pair.certificate,
                 "-days", "3650", "-subj", f"/CN={name} CA")  # fmt: skip

    def issue(self, name: str, host: str = "DNS:localhost,IP:127.0.0.1", days: int = 365, password: str = "") -> Pair:
        """A certificate for server and client use; negative days: it has expired."""
        key, request = self._folder / f"{name}.key", self._folder / f"{name}.csr"
        certificate, extensions = self._folder / f"{name}.pem", self._folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName={host}\nextendedKeyUsage=serverAuth,clientAuth\n")
        protection = ["-passout", f"pass:{password}"] if password else ["-nodes"]
        _openssl("req", *_NEW_KEY, *protection, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
        _openssl("x509", "-req", "-in", request, "-CA", self.pair.certificate, "-CAkey", self.pair.key,
                 "-CAcreateserial", "-days", str(days), "-extfile", extensions, "-out", certificate)  # fmt: skip
        key.chmod(0o600)
        return Pair(certificate, key)


_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")


def _openssl(*arguments: object) -> None:
    done = subprocess.run([need("openssl"), *map(str, arguments)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr
