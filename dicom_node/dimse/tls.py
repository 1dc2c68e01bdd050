"""TLS for DICOM: PS3.15 B.12, the "BCP 195 RFC 8996, 9325 TLS Secure Transport Connection Profile".

TLS 1.2 with forward secrecy and authenticated encryption, and TLS 1.3, which is preferred; no renegotiation, no
compression. No session tickets either: a full handshake per association costs a millisecond or two, and the several
receivers on one port share no ticket key.
"""

import os
import ssl
import stat
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import structlog

from dicom_node.errors import ConfigurationError
from dicom_node.settings import Settings

log = structlog.get_logger()

#: RFC 9325 section 4.2, and ChaCha20-Poly1305 (RFC 7905) for processors without AES instructions. The suites of TLS
#: 1.3 are OpenSSL's.
_TLS_1_2_SUITES = ":".join(
    f"ECDHE-{authentication}-{cipher}"
    for cipher in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
    for authentication in ("ECDSA", "RSA")
)
_WARN_BEFORE_END_S = 30 * 86400
_LOOK_EVERY_S = 5.0
#: X509_V_ERR_* of OpenSSL
_NOT_YET_VALID, _EXPIRED = 9, 10


@dataclass(frozen=True)
class TlsFiles:
    """What one side of a connection needs. PEM files."""

    certificate: Path | None = None  # and the intermediate ones after it
    key: Path | None = None
    ca: Path | None = None  # whom to trust: as acceptor, None asks for no certificate; as requestor, the system's CAs
    key_password: str | None = None

    def stamps(self) -> tuple[object, ...]:
        """Changes when a file does."""
        return tuple(_stamp(path) for path in (self.certificate, self.key, self.ca))


@dataclass(frozen=True)
class TlsPeer:
    """TLS towards one destination."""

    files: TlsFiles = TlsFiles()
    server_name: str | None = None  # in its certificate, where that is not the host


def server_context(files: TlsFiles) -> ssl.SSLContext:
    """For the acceptor; with `ca` set a peer must show a certificate that leads to it (mutual TLS).

    Warns in the log of a certificate that is expired, not valid yet, or ends within 30 days.
    Raises ConfigurationError that names the file and what is wrong with it.
    """
    if files.certificate is None or files.key is None:
        raise ConfigurationError("TLS needs a certificate and its key")
    context = _profile(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET | ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_chain(context, files.certificate, files.key, files.key_password)
    _try_own_certificate(context, files.certificate)
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        _load_ca(context, files.ca)
    return context


def client_context(files: TlsFiles) -> ssl.SSLContext:
    """For the requestor: the peer's certificate must lead to `ca` and name the host.

    A certificate that is in `ca` itself is trusted without its issuer: many DICOM devices sign their own.
    Raises ConfigurationError that names the file and what is wrong with it.
    """
    context = _profile(ssl.PROTOCOL_TLS_CLIENT, Handshake)  # checks certificate and host name
    if files.ca is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        _load_ca(context, files.ca)
    else:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    if files.certificate is not None or files.key is not None:
        if files.certificate is None or files.key is None:
            raise ConfigurationError("TLS: a certificate needs its key, and a key its certificate")
        _load_chain(context, files.certificate, files.key, files.key_password)
    return context


class Handshake(ssl.SSLSocket):
    """Keeps what went wrong in `context.failure`: pynetdicom only says that there is no connection."""

    def do_handshake(self, block: bool = False) -> None:
        """As ssl.SSLSocket."""
        try:
            super().do_handshake(block)
        except ssl.SSLError as error:
            self.context.failure = error  # type: ignore[attr-defined]
            raise


def handshake_failure(context: ssl.SSLContext) -> str:
    """Why the last handshake with a context of `client_context` failed; empty: it did not."""
    failure = getattr(context, "failure", None)
    return str(getattr(failure, "verify_message", "") or getattr(failure, "reason", "") or failure or "")


def profile_suites() -> dict[str, list[str]]:
    """Protocol version -> cipher suites of the profile, as OpenSSL names them, the preferred ones first."""
    suites: dict[str, list[str]] = {"TLSv1.3": [], "TLSv1.2": []}
    for suite in _profile(ssl.PROTOCOL_TLS_SERVER).get_ciphers():
        suites.setdefault(str(suite["protocol"]), []).append(str(suite["name"]))
    return suites


class ReloadedContext:
    """The acceptor's context, made again when a file changes: new certificates need no restart. Thread-safe."""

    def __init__(self, files: TlsFiles, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigurationError."""
        self._files = files
        self._clock = clock
        self._stamps = files.stamps()
        self._context = server_context(files)
        self._looked_at = clock()
        self._lock = threading.Lock()

    def __call__(self) -> ssl.SSLContext:
        """The context for the next connection. Does not raise: while new files are not in order the old ones stay."""
        with self._lock:
            now = self._clock()
            if now - self._looked_at >= _LOOK_EVERY_S:
                self._looked_at = now
                stamps = self._files.stamps()
                if stamps != self._stamps:
                    self._stamps = stamps
                    try:
                        self._context = server_context(self._files)
                    except ConfigurationError as error:
                        log.error("new TLS files are not used; the old ones stay in force", reason=str(error))
                    else:
                        log.info("TLS certificate read again", certificate=str(self._files.certificate))
            return self._context


def _profile(protocol: int, sockets: type[ssl.SSLSocket] = ssl.SSLSocket) -> ssl.SSLContext:
    context = ssl.SSLContext(protocol)
    context.sslsocket_class = sockets
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_TLS_1_2_SUITES)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    return context


def _load_chain(context: ssl.SSLContext, certificate: Path, key: Path, password: str | None) -> None:
    _readable(certificate, "certificate")
    _readable(key, "key")
    if stat.S_IMODE(key.stat().st_mode) & stat.S_IROTH:
        log.warning("TLS key can be read by every user of this machine", key=str(key))
    try:
        # a function: OpenSSL would ask at the terminal for a password that is not there
        context.load_cert_chain(certificate, key, lambda: password or "")
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            problem = f"TLS key {key} does not belong to the certificate {certificate}"
        elif not _holds(certificate, "CERTIFICATE"):
            problem = f"TLS certificate {certificate} holds no certificate in PEM form"
        elif _holds(key, "ENCRYPTED") and not password:
            problem = f"TLS key {key} is encrypted and no password for it is set"
        elif _holds(key, "ENCRYPTED"):
            problem = f"TLS key {key} cannot be opened: the password is not the right one"
        elif not _holds(key, "PRIVATE KEY"):
            problem = f"TLS key {key} holds no private key in PEM form"
        else:
            problem = f"TLS certificate {certificate} and key {key} cannot be used: {error.reason or error}"
        raise ConfigurationError(problem) from None
    except ValueError:  # a password longer than OpenSSL takes
        raise ConfigurationError(f"TLS key {key}: the password is too long") from None


def _load_ca(context: ssl.SSLContext, ca: Path) -> None:
    _readable(ca, "CA file")
    try:
        context.load_verify_locations(cafile=ca)
    except ssl.SSLError:
        raise ConfigurationError(f"TLS CA file {ca} holds no certificate in PEM form") from None


def _readable(path: Path, what: str) -> None:
    try:
        with path.open("rb"):
            pass
    except OSError as error:
        raise ConfigurationError(f"TLS {what} {path} cannot be read: {error.strerror}") from None


def _holds(path: Path, word: str) -> bool:
    return f"{word}" in "".join(line for line in path.read_text("latin-1").splitlines() if line.startswith("--"))


def _try_own_certificate(context: ssl.SSLContext, certificate: Path) -> None:
    """Shake hands with ourselves: does the certificate serve under this profile, and for how long?

    Raises ConfigurationError where no peer could connect; warns where peers that look at dates will not.
    """
    client = _profile(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    client.load_verify_locations(cafile=certificate)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = (
        client.wrap_bio(to_client, to_server, server_side=False),
        context.wrap_bio(to_server, to_client, server_side=True),
    )
    try:
        for turn in range(8):
            try:
                ends[turn % 2].do_handshake()
            except ssl.SSLWantReadError:
                continue
        found = ends[0].getpeercert() or {}
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            log.warning("TLS certificate has expired: peers will refuse it", certificate=str(certificate))
        elif error.verify_code == _NOT_YET_VALID:
            log.warning("TLS certificate is not valid yet: peers will refuse it", certificate=str(certificate))
        else:
            log.warning("TLS certificate may be refused", certificate=str(certificate), reason=error.verify_message)
        return
    except ssl.SSLError as error:
        raise ConfigurationError(f"TLS certificate {certificate} cannot be used here: {error.reason}") from None
    left_s = ssl.cert_time_to_seconds(str(found["notAfter"])) - time.time()
    if left_s < _WARN_BEFORE_END_S:
        log.warning("TLS certificate ends soon", certificate=str(certificate), days_left=int(left_s // 86400))


def _stamp(path: Path | None) -> object:
    if path is None:
        return None
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_mtime_ns, found.st_size, found.st_ino


def tls_context(settings: Settings) -> ReloadedContext | None:
    """The acceptor's TLS by the settings; None: no TLS port.

    Raises ConfigurationError, also where neither port is open.
    """
    if settings.tls_port is None:
        if not settings.dicom_port_enabled:
            raise ConfigurationError("DICOM_NODE_DICOM_PORT_ENABLED is false and DICOM_NODE_TLS_PORT is not set")
        return None
    for name in ("tls_certificate", "tls_key"):
        if getattr(settings, name) is None:
            raise ConfigurationError(f"DICOM_NODE_TLS_PORT is set, DICOM_NODE_{name.upper()} is not")
    files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_ca, settings.key_password())
    return ReloadedContext(files)
