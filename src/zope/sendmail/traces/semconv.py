"""Names and values of OpenTelemetry's semantic conventions for messaging, as they are used here.

https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/ (in development there, so kept in one place).
"""

from __future__ import annotations

from zope.sendmail.errors import InvalidRelay
from zope.sendmail.message.relayname import RelayName

SYSTEM = "messaging.system"
OPERATION_NAME = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
DESTINATION = "messaging.destination.name"
MESSAGE_ID = "messaging.message.id"
SIZE = "messaging.message.envelope.size"
COUNT = "messaging.batch.message_count"
SERVER, PORT = "server.address", "server.port"
ERROR = "error.type"

#: Ours, which the conventions have no word for.
ATTEMPT, STATE, RECIPIENTS = "zope.sendmail.attempt", "zope.sendmail.state", "zope.sendmail.recipients"

#: The conventions list well-known systems; any other one has its own name.
NAME = "zope.sendmail"

Attributes = dict[str, str | int]


def common(operation: str, destination: str) -> Attributes:
    """Return what each span has.

    :param operation: ``send`` or ``process``; the conventions have these as names and as types
    :param destination: the location of a queue; empty for direct delivery, which has none
    """
    found: Attributes = {SYSTEM: NAME, OPERATION_NAME: operation, OPERATION_TYPE: operation}
    return found | ({DESTINATION: destination} if destination else {})


def span_name(operation: str, destination: str) -> str:
    """Return the name of a span: the operation and where."""
    return f"{operation} {destination}" if destination else operation


def server(relay: str) -> Attributes:
    """Return a relay as the conventions have servers."""
    try:
        known = RelayName.of(relay)
    except InvalidRelay:
        return {}
    return {SERVER: known.hostname, PORT: known.port} if known.hostname else {SERVER: known.mailer}
