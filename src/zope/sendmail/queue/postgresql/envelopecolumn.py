"""How an envelope is kept in a row: as JSON in ASCII, whatever bytes a foreign address had.  Pure."""

from __future__ import annotations

import json
import re
from typing import Any

from zope.sendmail.errors import InvalidRelay, MalformedEnvelope, QueueError
from zope.sendmail.message.address import split_list
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import PLAIN, SUPPRESSED, Terms, read_terms, terms_pairs
from zope.sendmail.message.tracecontext import parent_and_state

#: What `write_envelope` writes for most mail: addresses in which JSON escapes nothing.
_USUAL = re.compile(r'{"from":"([^"\\\x00-\x1f]*)","to":\["([^"\\\x00-\x1f]*(?:","[^"\\\x00-\x1f]*)*)"\]}')


def write_envelope(envelope: Envelope) -> str:
    """Return the text that keeps an envelope.

    :raises QueueError: if its relay has a login, which a database does not keep.
    """
    values: dict[str, Any] = {"from": envelope.sender, "to": envelope.recipients}
    if envelope.malformed:
        values["malformed"] = envelope.malformed
    if (relay := envelope.relay) is not None:
        if relay.username or relay.password:
            raise QueueError(f"a mail for the relay {relay} has a login in it, which is not kept in a database")
        values["relay"] = relay.mailer or [relay.hostname, relay.port]
    if envelope.trace:
        values["trace"] = envelope.trace
    if envelope.terms is not PLAIN and (terms := terms_pairs(envelope.terms)):
        values["terms"] = terms
    return json.dumps(values, separators=(",", ":"))


def read_envelope(text: str) -> Envelope:
    """Return the envelope that a text keeps.

    :raises MalformedEnvelope: if it is none.
    """
    if usual := _USUAL.fullmatch(text):
        sender, recipients = usual.groups()
        return Envelope(sender, tuple(recipients.split('","')))
    try:
        values = json.loads(text)
        relay, terms = values.get("relay"), values.get("terms")
        return Envelope(
            str(values["from"]),
            tuple([str(each) for each in values["to"]]),
            tuple([str(each) for each in values.get("malformed", ())]),
            None if relay is None else _relay(relay),
            " ".join(filter(None, parent_and_state(str(values.get("trace", ""))))),
            PLAIN if terms is None else _terms(terms),
        )
    except MalformedEnvelope:
        raise
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError, InvalidRelay) as error:
        raise MalformedEnvelope(f"its envelope cannot be read ({type(error).__name__}: {error})") from error


def _relay(value: Any) -> RelayName:
    return RelayName(mailer=value) if isinstance(value, str) else RelayName(hostname=value[0], port=value[1])


def _terms(values: Any) -> Terms:
    return read_terms({str(name): str(value) for name, value in values.items()}, split_list(values.get(SUPPRESSED, "")))
