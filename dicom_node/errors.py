"""The node's own errors, by what must happen next."""


class NodeError(Exception):
    """Something went wrong that a person can act on; the text says what to do."""


class ConfigurationError(NodeError):
    """Rules, destinations, senders or settings are not valid; the text names the line or the setting."""


class UnreadableSeries(NodeError):
    """A Series cannot become a volume; the text names the Instance and the element. The job is refused."""


class DestinationUnreachable(NodeError):
    """A destination did not answer or cut the connection; the delivery is tried again later."""


class DestinationRefused(NodeError):
    """A destination answered and said no; tried again more slowly, and shown to the administrator."""
