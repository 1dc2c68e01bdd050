"""How the node says who it is to a web service: HTTP Basic or a bearer token, from the environment or from a file.

Never from the rules file, which is printed, kept in the database and mailed around. Read for every batch, so that a
token that is renewed needs no restart. No text of this module shows what it read.
"""

import os
import re
from base64 import b64encode
from pathlib import Path
from typing import Any

from dicom_node.errors import ConfigurationError

_TOKEN = re.compile(r"[0-9A-Za-z._~+/-]+=*")  # RFC 6750 section 2.1


def authorization(destination: Any) -> dict[str, str]:
    """The Authorization header, or nothing for a destination without credentials.

    destination : user with password_env or password_file (HTTP Basic, RFC 7617), or token_env or token_file (Bearer,
        RFC 6750). Of a file its first line counts.
    Raises ConfigurationError that names the variable or the file.
    """
    if destination.user:
        password = _secret(destination, "password")
        return {"Authorization": "Basic " + b64encode(f"{destination.user}:{password}".encode()).decode()}
    if destination.token_env or destination.token_file:
        token = _secret(destination, "token")
        if not _TOKEN.fullmatch(token):
            where = destination.token_file or f"${destination.token_env}"
            raise ConfigurationError(f"destination {destination.name}: {where} holds no bearer token (RFC 6750)")
        return {"Authorization": f"Bearer {token}"}
    return {}


def _secret(destination: Any, what: str) -> str:
    variable, file = getattr(destination, f"{what}_env"), getattr(destination, f"{what}_file")
    if variable:
        value = os.environ.get(variable, "")
        if not value:
            raise ConfigurationError(f"destination {destination.name}: ${variable} is not set where results are sent")
        return value
    try:
        value = Path(file or "").read_text("utf-8").split("\n", 1)[0].rstrip("\r")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "no text in UTF-8"
        raise ConfigurationError(f"destination {destination.name}: {what}_file {file}: {reason}") from None
    if not value:
        raise ConfigurationError(f"destination {destination.name}: {what}_file {file} is empty")
    return value
