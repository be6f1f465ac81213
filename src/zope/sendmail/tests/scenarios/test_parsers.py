"""Whatever stands in a file or comes over a wire, each parser ends with a value or with an error that it declares.

The texts are samples of what is written and said in fact, with bytes changed, cut, doubled and put in; and any bytes.
"""

from __future__ import annotations

import contextlib
import io
import unittest
from collections.abc import Callable
from typing import Any

from hypothesis import given, strategies as st

from zope.sendmail.bounces.bounce import read_bounce
from zope.sendmail.config.options import QUEUE, RELAY, ROUTING
from zope.sendmail.config.tokens import parse_token
from zope.sendmail.errors import InvalidAddress, InvalidMail, InvalidRelay, MalformedEnvelope, RelayError
from zope.sendmail.lifecycle.rates import Minute
from zope.sendmail.lifecycle.record import last_record, read_records
from zope.sendmail.lifecycle.relaystate import read_processor_state
from zope.sendmail.maildrop.config import ConfigError, parse_config
from zope.sendmail.message.address import parse_recipient, parse_sender
from zope.sendmail.message.envelope import read_envelope
from zope.sendmail.message.headers import completed, message_id, wire
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import Marks, read_moment
from zope.sendmail.message.unsubscribe import InvalidLink, UnsubscribeLinks
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue.maildir.keys import KeyFile
from zope.sendmail.queue.maildir.ownertext import Identity, read_slot, slots
from zope.sendmail.smtp.protocol.replies import MalformedReply, Replies
from zope.sendmail.smtp.protocol.sevenbit import CannotConvert, in_seven_bit
from zope.sendmail.tests.bounces.test_bounce import group, report
from zope.sendmail.tests.support.layers import Properties, in_layer
from zope.sendmail.tests.support.properties import SAME

KEY = VerpKey(b"sixteen octets and more")
LINKS = UnsubscribeLinks("https://example.org/u", b"sixteen octets and more")
MESSAGE = (
    "From: Grüße <a@example.org>\r\nBcc: b@example.org\r\nMessage-Id: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nSchön\r\n--b--\r\n"
).encode()


def _replies(text: bytes) -> None:
    """Read replies as they come, in two pieces."""
    replies = Replies()
    for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
        replies.feed(piece)
        while replies.next() is not None:
            pass


def _text(parse: Callable[[str], object]) -> Callable[[bytes], object]:
    return lambda octets: parse(octets.decode("utf-8", "surrogateescape"))


#: What reads -> how, samples, and the errors that it declares.
PARSERS: dict[str, tuple[Callable[[bytes], object], list[bytes], tuple[type[Exception], ...]]] = {
    "queue file": (
        lambda octets: read_envelope(io.BytesIO(octets)),
        [b"X-Zope-From: a@example.org\nX-Zope-To: b@example.org, c@example.org\nX-Zope-Relay: bulk\nSubject: x\n\n"],
        (MalformedEnvelope,),
    ),
    "spool file": (
        lambda octets: read_envelope(io.BytesIO(octets)),
        [b"##To:b@example.org\n##From:a@example.org\n##Relay:x:25\nSubject: x\n\n"],
        (MalformedEnvelope,),
    ),
    "history": (
        lambda octets: (list(read_records(octets)), last_record(octets)),
        [b'{"state":"deferred","replies":{"b@example.org":["deferred","later",450,""]},"due":1.5,"attempts":1}\n'],
        (),
    ),
    "processor state": (read_processor_state, [b'{"relays":[{"name":"a:25"}],"minutes":["1 2 3 4 5 0.1"]}'], ()),
    "minute": (_text(Minute.of), [b"1 2 3 4 5 0.100"], (ValueError,)),
    "key file": (KeyFile.read, [b'["k","1@example.org","mail",1800000000.0]\nprepared\n'], ()),
    "owner file": (
        lambda octets: (Identity.of(octets), list(slots(octets)), read_slot(octets, "lock")),
        [b"zope.sendmail owner host h pid 1 boot b\n" + b"lock intended 1".ljust(200) + b"\n"],
        (),
    ),
    "marks of a name": (_text(Marks.read), [b"1796055690.16329.vm,P=h,T=1800000000,E=1900000000"], ()),
    "moment": (_text(read_moment), [b"2026-11-30T16:00:00+00:00"], (InvalidMail, ValueError)),
    "replies": (_replies, [b"250-mx.example.org\r\n250-PIPELINING\r\n250 SIZE 1000\r\n354 go\r\n"], (MalformedReply,)),
    "message": (
        lambda octets: (message_id(octets), b"".join(wire(io.BytesIO(octets))), completed([octets], "1@a", "now")),
        [MESSAGE],
        (InvalidMail,),
    ),
    "text of a message": (_text(message_bytes), [MESSAGE], (InvalidMail,)),
    "seven bit": (lambda octets: in_seven_bit(b"".join(wire(io.BytesIO(octets)))), [MESSAGE], (CannotConvert,)),
    "recipient": (_text(parse_recipient), ["Jürgen <j@bücher.example>".encode()], (InvalidAddress,)),
    "sender": (_text(parse_sender), [b"<a@example.org>"], (InvalidAddress,)),
    "relay": (_text(RelayName.of), [b"mail.example.org:25", b"[::1]:25"], (InvalidRelay,)),
    "token": (_text(lambda text: parse_token(text, "it")), [b'{"access_token":"a","expires_in":3600}'], (RelayError,)),
    "maildrop.conf": (
        _text(lambda text: parse_config(text, "maildrop.conf")),
        [b"SMTP_HOST = 'mail.example.org'\nSMTP_PORT = 25\nMAILDROP_SPOOL = '/spool'\nDEBUG = 0\n"],
        (ConfigError,),
    ),
    "bounce": (lambda octets: read_bounce(octets, "a@example.org", key=KEY), [report(group())], ()),
    "signed path": (
        _text(lambda text: KEY.checked(text, 1)),
        [KEY.signed("news+jane=example.com@example.org", 1).encode()],
        (InvalidAddress,),
    ),
    "unsubscribe link": (_text(LINKS.read), [LINKS.token("jane@example.com", "news").encode()], (InvalidLink,)),
    **{
        f"setting {name}": (_text(parse), [sample], (ValueError,))
        for known in (RELAY, QUEUE, ROUTING)
        for name, parse in known.items()
        for sample in (b"10m",)
    },
}


@st.composite
def changed(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """Draw a sample in which something is wrong, or any bytes."""
    octets = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(octets)))
        kind = draw(st.sampled_from(["put", "cut", "double", "change"]))
        if kind == "put":
            octets[at:at] = draw(
                st.binary(min_size=1, max_size=6) | st.sampled_from([b"\r", b"\n", b"\0", b"\xff", b'"'])
            )
        elif kind == "cut":
            del octets[at : at + draw(st.integers(1, 20))]
        elif kind == "double":
            octets[at:at] = octets[at : at + draw(st.integers(1, 40))]
        elif at < len(octets):
            octets[at] = draw(st.integers(0, 255))
    return draw(st.just(bytes(octets)) | st.binary(max_size=200)) if draw(st.booleans()) else bytes(octets)


class AParser(unittest.TestCase):
    """One test for each parser is made below."""


def _test(name: str) -> Any:
    parse, samples, declared = PARSERS[name]

    @SAME
    @given(changed(samples))
    def test(self: unittest.TestCase, octets: bytes) -> None:
        with contextlib.suppress(*declared):
            parse(octets)

    test.__doc__ = f"""The parser of the {name}."""
    return test


for _name in PARSERS:
    setattr(AParser, f"test_{_name.replace(' ', '_').replace('.', '_')}", _test(_name))


load_tests = in_layer(Properties)
