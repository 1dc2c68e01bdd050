"""One line per event, with UTC time and the component's name. UIDs may be in it, patients never."""

import logging
import sys
import warnings

import structlog
from structlog.typing import EventDict, Processor

#: Libraries that say at info level what is no news here, or that print header values.
_QUIET = {
    "pynetdicom": logging.ERROR,
    "pydicom": logging.ERROR,
    "celery": logging.WARNING,
    "kombu": logging.WARNING,
    "amqp": logging.WARNING,
    "psycopg.pool": logging.ERROR,
    "uvicorn.access": logging.WARNING,
    "uvicorn": logging.WARNING,
    "asyncio": logging.WARNING,
    "matplotlib": logging.WARNING,
    "PIL": logging.WARNING,
    "highdicom": logging.WARNING,
    "monai": logging.WARNING,
}


def configure(component: str, format: str = "text") -> None:
    """Send structlog's events and the standard library's warnings to stdout, one line each.

    component : "receiver", "worker" and so on; in every line. format : "text" for people, "json" for machines.
    Call once, at the start of a process. Libraries are quiet below warning (some below error: pydicom and pynetdicom
    quote header values in their messages).
    """

    def name_component(_logger: object, _method: str, event: EventDict) -> EventDict:
        event.setdefault("component", component)
        return event

    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_component,
    ]
    last: Processor = structlog.processors.JSONRenderer(ensure_ascii=False) if format == "json" else _as_text
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.processors.format_exc_info],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for library, level in _QUIET.items():
        logger = logging.getLogger(library)
        logger.setLevel(level)
        logger.handlers.clear()
        logger.propagate = True
    # pydicom warns with the value that it found: a name or an id may be in it
    warnings.filterwarnings("ignore", module=r"pydicom(\.|$)")
    warnings.filterwarnings("ignore", module=r"pynetdicom(\.|$)")
    logging.captureWarnings(True)


def _as_text(_logger: object, _method: str, event: EventDict) -> str:
    """`2026-01-31T12:00:00.123Z receiver info: association opened, calling=CT1` and a traceback below, if any."""
    time_text = str(event.pop("timestamp", ""))
    time_text = time_text[:23] + "Z" if len(time_text) > 23 else time_text
    component = event.pop("component", "")
    level = event.pop("level", "info")
    text = event.pop("event", "")
    trace = event.pop("exception", None)
    mark = "" if level == "info" else f" {level.upper()}"
    values = ", ".join(f"{key}={_value(value)}" for key, value in event.items())
    line = f"{time_text} {component}{mark}: {_one_line(str(text))}" + (f" ({values})" if values else "")
    return line if trace is None else f"{line}\n{trace}"


def _value(value: object) -> str:
    text = str(value)
    return repr(text) if not text or any(sign in text for sign in ' ,"\n\r') else text


def _one_line(text: str) -> str:
    """A peer must not be able to write lines of its own into the log."""
    return text.replace("\r", " ").replace("\n", " | ")
