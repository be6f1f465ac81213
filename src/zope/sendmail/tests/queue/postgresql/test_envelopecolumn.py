"""An envelope in a row is read as JSON, whichever way that goes."""

from __future__ import annotations

import json
import unittest
from unittest import mock

from zope.sendmail.errors import MalformedEnvelope
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Priority, Terms
from zope.sendmail.queue.postgresql.envelopecolumn import read_envelope, write_envelope


class AnEnvelopeInARow(unittest.TestCase):
    def test_is_read_as_it_was_written(self) -> None:
        for envelope in (
            Envelope("s@example.org", ("r@example.org",)),
            Envelope("", ("a@example.org", "b@example.org", "c@example.org")),
            Envelope("s@example.org", ()),
            Envelope('"a\\"b"@example.org', ('"x, y"@example.org',)),
            Envelope("\u00e4@example.org", ("r@example.org", "\udcff@example.org")),
            Envelope("s@example.org", ("r@example.org",), terms=Terms(priority=Priority.LOW)),
            Envelope("s@example.org", ("r@example.org",), malformed=("no one",)),
        ):
            with self.subTest(envelope):
                self.assertEqual(read_envelope(write_envelope(envelope)), envelope)

    def test_of_most_mail_costs_no_parser(self) -> None:
        text = write_envelope(Envelope("s@example.org", ("a@example.org", "b@example.org")))
        with mock.patch("json.loads", side_effect=AssertionError):
            self.assertEqual(read_envelope(text).recipients, ("a@example.org", "b@example.org"))

    def test_is_what_json_says(self) -> None:
        """Also where it looks like that of most mail."""
        for text in (
            '{"from":"","to":[""]}',
            '{"from":"a","to":["b",","]}',
            '{"from":"a","to":[",","b"]}',
            '{"from":"a","to":["\\u0062"]}',
            '{"from":"a","to":["b"],"to":["c"]}',
            '{"from":"a", "to":["b"]}',
        ):
            with self.subTest(text):
                values = json.loads(text)
                self.assertEqual(read_envelope(text), Envelope(values["from"], tuple(values["to"])))

    def test_is_none_that_json_does_not_know(self) -> None:
        for text in ('{"from":"a\n","to":["b"]}', '{"from":"a","to":["b""c"]}', '{"from":"a","to":["b"]} '[:-2]):
            with self.subTest(text), self.assertRaises(MalformedEnvelope):
                read_envelope(text)
