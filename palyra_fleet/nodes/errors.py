"""Why nodes are not served: failures of a start, for an operator to act on."""


class ListenError(Exception):
    """A listener cannot be opened; the operator must act."""


class TlsUnsound(Exception):
    """TLS of this installation does not refuse what it must; nothing is served."""
