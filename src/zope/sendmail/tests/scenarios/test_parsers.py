"""Whatever stands in a file or comes over a wire, each parser ends with a value or with an error that it declares.

The texts are samples of what is written and said in fact, with bytes changed, cut, doubled and put in; and any bytes.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import tempfile
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import given

from zope.sendmail.bounces.parser import read_bounce
from zope.sendmail.cli.arguments import read_ini
from zope.sendmail.cli.bouncecommand import _read_config
from zope.sendmail.cli.metricscommand import parse_address
from zope.sendmail.config.location import check_location
from zope.sendmail.config.options import QUEUE, RELAY, ROUTING
from zope.sendmail.config.tokens import parse_token
from zope.sendmail.errors import (
    InvalidAddress,
    InvalidLocation,
    InvalidMail,
    InvalidRelay,
    MalformedEnvelope,
    RelayError,
)
from zope.sendmail.lifecycle.cures import cure_of
from zope.sendmail.lifecycle.outcome import Reply
from zope.sendmail.lifecycle.rates import Minute
from zope.sendmail.lifecycle.record import last_record, read_records
from zope.sendmail.lifecycle.relaystate import read_processor_state
from zope.sendmail.lifecycle.replypattern import pattern_of
from zope.sendmail.lifecycle.suppression import SuppressionTable
from zope.sendmail.lifecycle.throttling import is_quota, too_much
from zope.sendmail.maildir import age_key, written_at
from zope.sendmail.maildrop.config import ConfigError, parse_config
from zope.sendmail.message.address import parse_recipient, parse_sender
from zope.sendmail.message.envelope import read_envelope
from zope.sendmail.message.headers import completed, message_id, wire
from zope.sendmail.message.mime import message_bytes
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.terms import Marks, read_moment
from zope.sendmail.message.tracecontext import parent_and_state
from zope.sendmail.message.unsubscribe import InvalidLink, UnsubscribeLinks
from zope.sendmail.message.verp import whom
from zope.sendmail.message.verpkey import VerpKey
from zope.sendmail.queue.maildir.bundle import entries
from zope.sendmail.queue.maildir.keys import KeyFile
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.liveness import Origin
from zope.sendmail.queue.maildir.ownertext import Identity, read_slot, used_slots
from zope.sendmail.queue.maildir.sentlog import SentLog
from zope.sendmail.queue.maildir.suppressionlist import _heed
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope as read_row
from zope.sendmail.queue.postgresql.names import parse_name
from zope.sendmail.smtp.auth.mechanisms import _complaint
from zope.sendmail.smtp.auth.scram import _attributes
from zope.sendmail.smtp.protocol.relaylimits import recipient_limit_told, refuses_client, tells_mails_per_connection
from zope.sendmail.smtp.protocol.replies import MalformedReply, ReplyReader
from zope.sendmail.smtp.protocol.sevenbit import CannotConvert, in_seven_bit
from zope.sendmail.system.clock import Clock
from zope.sendmail.system.disk import Disk
from zope.sendmail.tests.bounces.test_parser import group, report
from zope.sendmail.tests.support.changedbytes import changed
from zope.sendmail.tests.support.layers import Properties, in_layer
from zope.sendmail.tests.support.properties import SAME
from zope.sendmail.transports.sysexits import reply_of

KEY = VerpKey(b"sixteen octets and more")
LINKS = UnsubscribeLinks("https://example.org/u", b"sixteen octets and more")
MESSAGE = (
    "From: Grüße <a@example.org>\r\nBcc: b@example.org\r\nMessage-Id: <1@example.org>\r\nMIME-Version: 1.0\r\n"
    "Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain\r\n\r\nSchön\r\n--b--\r\n"
).encode()


def _replies(text: bytes) -> None:
    """Read replies as they come, in two pieces."""
    replies = ReplyReader()
    for piece in (text[: len(text) // 2], text[len(text) // 2 :]):
        replies.feed(piece)
        while replies.next() is not None:
            pass


def _postgresql_location(text: str) -> object:
    if importlib.util.find_spec("psycopg") is None:
        raise unittest.SkipTest("psycopg is not installed (zope.sendmail[postgresql])")
    from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation

    return DatabaseLocation.parse(text)


def _sent_mail(octets: bytes) -> object:
    """Look into a file of the sent log for a mail."""
    with tempfile.TemporaryDirectory() as directory:
        layout = Layout(directory)
        os.mkdir(os.path.join(directory, "sent"))
        Path(directory, "sent", "2026-11-30").write_bytes(octets)
        return SentLog(layout, Disk(), Clock()).find("1@example.org")


def _in_file(read: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return what reads a file with these octets."""

    def parse(octets: bytes) -> object:
        with tempfile.NamedTemporaryFile() as file:
            file.write(octets)
            file.flush()
            return read(file.name)

    return parse


def _words_of_a_relay(text: str) -> None:
    """Find in a reply all that is looked for in one."""
    reply = Reply.of(450, text)
    for find in (too_much, is_quota, cure_of, pattern_of, refuses_client):
        find(reply)
    tells_mails_per_connection(text)
    recipient_limit_told(text)


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
        lambda octets: (Identity.of(octets), list(used_slots(octets)), read_slot(octets, "lock")),
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
    "line of the suppression list": (
        lambda octets: _heed(octets, SuppressionTable()),
        [b'["jane@example.com","no such user",1800000000.5,null]\n', b'["jane@example.com"]\n'],
        (),
    ),
    "sent log": (
        _sent_mail,
        [
            b'1796055690 ["1@example.org","name","relay:25",[[["accepted","ok",250,""],["b@example.org"]]]]\n',
            b"1796055690 name 1@example.org\n",
        ],
        (),
    ),
    "bundle": (
        lambda octets: list(entries(io.BytesIO(octets), "bundle")),
        [b"1796055690.1.vm.1 5\nabcde1796055690.1.vm.2 3\nabc"],
        (OSError,),
    ),
    "envelope in a row": (
        _text(read_row),
        [
            b'{"from":"a@example.org","to":["b@example.org"],"relay":["x",25],"terms":{"X-Zope-Priority":"high"}}',
            b'{"from":"a@example.org","to":["b@example.org"],"relay":"bulk","malformed":["c"],"trace":"00-1-2-01"}',
        ],
        (MalformedEnvelope,),
    ),
    "name of a mail": (
        _text(lambda name: (Origin.of(name), age_key(name), written_at(name), parse_name(name))),
        [b"1796055690.16329.vm.1", b"0123456789abcdef.0123456789abcdef"],
        (),
    ),
    "location": (
        _text(check_location),
        [b"postgresql://me@db.example.org/mail?queue=news", b"spool:/a;/b", b"memory:", b"/srv/mail"],
        (InvalidLocation,),
    ),
    "location in PostgreSQL": (
        _text(_postgresql_location),
        [b"postgresql://me@[::1]:5432,db:5433/mail?queue=news&passfile=/etc/p;postgresql:///b"],
        (InvalidLocation,),
    ),
    "ini file": (
        _in_file(read_ini),
        [b"[DEFAULT]\nhere = /srv\n[app:zope-sendmail]\nqueue_path = /srv/mail\nhostname: relay\nport = 25\n"],
        (ValueError,),
    ),
    "ini file for bounces": (
        _in_file(_read_config),
        [b"[bounces]\nsenders = a@example.org\nkey_file = key\nmaildir = m\nsuppress_for = 90d\n"],
        (ValueError,),
    ),
    "words of a relay": (
        _text(_words_of_a_relay),
        [
            b"4.7.0 Too many messages in this session, try again in 300 seconds; see https://example.com/x",
            b"4.5.3 Recipient count exceeds 50; quota exceeded for a@example.org [192.0.2.1] id 4f3Kx72Hz",
        ],
        (),
    ),
    "words of a program": (
        lambda octets: [reply_of(status, octets) for status in (0, 1, 69, 75, 255, -9)],
        [b"sendmail: 550 5.1.1 no such user\nnot sent\n"],
        (),
    ),
    "SCRAM": (_attributes, [b"r=abcDEF,s=c2FsdA==,i=4096", b"v=c2ln"], (ValueError,)),
    "OAuth challenge": (_complaint, [b'{"status":"401","schemes":"bearer","scope":"https://mail.example.org/"}'], ()),
    "trace": (
        _text(parent_and_state),
        [b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01 vendor=value"],
        (),
    ),
    "return path": (
        _text(lambda text: whom(text, "news@example.org")),
        [b"news+jane=example.com@example.org"],
        (InvalidAddress,),
    ),
    "address to listen at": (_text(parse_address), [b"127.0.0.1:9464", b"[::1]:9464"], (ValueError,)),
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
