"""Settings of the node, from the environment (`DICOM_NODE_*`, `DATABASE_URL`, `BROKER_URL`). Frozen; units in names."""

import os
from pathlib import Path

from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from dicom_node.errors import ConfigurationError


class Settings(BaseSettings):
    """Everything an administrator can set outside the rules file."""

    model_config = SettingsConfigDict(env_prefix="DICOM_NODE_", frozen=True, extra="ignore")

    data_dir: Path = Field(Path("node-data"), description="where images, results and the embedded servers' data lie")
    ae_title: str = Field("LIVERNODE", description="AE title of the node", max_length=16)
    dicom_host: str = Field("0.0.0.0", description="address the receiver listens on")  # noqa: S104 - a PACS sends from outside
    dicom_port: int = Field(11112, description="port the receiver listens on", ge=0, le=65535)
    dicom_port_enabled: bool = Field(
        True, description="false: no unencrypted DICOM, only the TLS port; then tls_port must be set"
    )
    tls_port: int | None = Field(
        None, description="port for DICOM over TLS (2762 is the registered one); empty: none", ge=0, le=65535
    )
    tls_certificate: Path | None = Field(None, description="the node's certificate, then its issuers' (PEM)")
    tls_key: Path | None = Field(None, description="its private key (PEM)")
    tls_key_password: SecretStr | None = Field(
        None, description="password of an encrypted key; better in a file (DICOM_NODE_TLS_KEY_PASSWORD_FILE)"
    )
    tls_key_password_file: Path | None = Field(None, description="file whose first line is that password")
    tls_ca: Path | None = Field(
        None, description="certificates (PEM); set: only a peer whose own certificate leads to one of them may connect"
    )
    audit_syslog: str | None = Field(
        None, description="syslog server for audit records: udp://HOST[:514], tcp://HOST[:601] or tls://HOST[:6514]"
    )
    audit_syslog_ca: Path | None = Field(None, description="whom to trust as that server over TLS; empty: system's CAs")
    audit_site: str = Field("", description="AuditEnterpriseSiteID of audit records: the hospital or part of it")
    audit_max_megabytes: int = Field(2000, description="audit files kept in data_dir/audit; the oldest go", ge=40)
    console_host: str = Field("127.0.0.1", description="address of the console")
    console_port: int = Field(8080, description="port of the console", ge=0, le=65535)
    database_url: str | None = Field(
        None, validation_alias="DATABASE_URL", description="PostgreSQL 15-18; empty: the embedded server"
    )
    broker_url: str | None = Field(
        None, validation_alias="BROKER_URL", description="RabbitMQ, Redis or Valkey; empty: the embedded Valkey"
    )
    workers: int = Field(1, description="inference workers", ge=1)
    receivers: int = Field(0, description="receivers on the port; 0: one per core, at most 4", ge=0, le=64)
    max_associations: int = Field(200, description="associations at one time", ge=1)
    network_timeout_s: float = Field(60.0, description="an association silent for so long is aborted")
    durable_ack: str = Field(
        "fsync",
        pattern="^(fsync|page-cache)$",
        description="when an image is answered: on disk (fsync), or in the system's memory (page-cache), which is "
        "faster and loses the last seconds if the machine loses power",
    )
    commitment_wait_s: float = Field(
        60.0,
        description="how long a request for storage commitment waits for its answer on its own association; "
        "later the answer goes on a new one",
    )
    archive_wait_s: float = Field(
        5.0,
        description="how long an association on which an archive was asked for storage commitment stays open for its "
        "report; later the archive opens one of its own",
    )
    archive_timeout_s: float = Field(
        3600.0, description="an archive that has not reported after so long is asked again", gt=0
    )
    disk_reserve_mb: int | None = Field(
        None,
        ge=0,
        description="MiB of the data directory's disk that images may not take; below it they are refused (A700), and "
        "the sender sends them again later; empty: 2048, but at most 5 % of the disk",
    )
    quiet_period_s: float = Field(60.0, description="last resort: run on what is there when nothing came for so long")
    overdue_s: float = Field(600.0, description="a study still waiting after so long is shown as overdue")
    association_idle_s: float = Field(
        10.0, description="an open association silent for so long no longer holds a study back"
    )
    late_images: str = Field(
        "rerun", pattern="^(rerun|alert|ignore)$", description="what new images after a result do: rerun, alert, ignore"
    )
    job_lease_s: float = Field(15.0, description="a worker silent for so long has lost its job")
    job_attempts: int = Field(5, description="attempts before a job is parked", ge=1)
    delivery_attempts: int = Field(200, description="attempts before a delivery is parked", ge=1)
    delivery_backoff_max_s: float = Field(60.0, description="longest pause between two attempts of a delivery")
    torch_threads: int = Field(0, description="threads of one inference worker; 0: all cores / workers", ge=0)
    device: str = Field("auto", description="auto, cpu, cuda or cuda:N")
    bundles_dir: Path | None = Field(None, description="a site's own bundles; one of the same name replaces ours")
    mre_qc_thresholds: Path | None = Field(
        None, description="a site's own copy of pipelines/mre_qc/thresholds.yaml; empty: the shipped one"
    )
    job_timeout_s: float = Field(
        900.0, description="a job running for so long is stuck: its worker ends and is replaced"
    )
    log_format: str = Field("text", pattern="^(text|json)$", description="text or json lines")
    postgres_bin: Path | None = Field(None, description="folder with postgres and initdb; empty: wheel, then Debian's")
    valkey_bin: Path | None = Field(None, description="valkey-server or redis-server; empty: wheel, then PATH")

    @property
    def receiver_count(self) -> int:
        """Receivers that `up` starts."""
        return self.receivers or min(4, os.cpu_count() or 1)

    @property
    def store_dir(self) -> Path:
        """Root of the file store."""
        return self.data_dir / "store"

    @property
    def answers_dir(self) -> Path:
        """Answers to storage commitment that open associations may take."""
        return self.data_dir / "answers"

    @property
    def asked_dir(self) -> Path:
        """Transactions of storage commitment on which archives may report."""
        return self.data_dir / "asked"

    @property
    def incoming_dir(self) -> Path:
        """Where the receiver leaves durable files until they are indexed."""
        return self.data_dir / "incoming"

    @property
    def audit_dir(self) -> Path:
        """Audit records; patients' IDs are in them."""
        return self.data_dir / "audit"

    @property
    def run_dir(self) -> Path:
        """Files of the processes that run: ready, counted, limited."""
        return self.data_dir / "run"

    def key_password(self) -> str | None:
        """The password of the TLS key, from the environment or from its file. Raises ConfigurationError."""
        if self.tls_key_password_file is None:
            return self.tls_key_password.get_secret_value() if self.tls_key_password is not None else None
        try:
            return self.tls_key_password_file.read_text("utf-8").split("\n", 1)[0].rstrip("\r")
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or "no text in UTF-8"
            raise ConfigurationError(f"TLS key password file {self.tls_key_password_file}: {reason}") from None
