"""Which relay serves which mail."""

from __future__ import annotations

import unittest
from types import SimpleNamespace

from zope.sendmail.interfaces import InvalidMail, InvalidRelay
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName, address_of
from zope.sendmail.message.routes import Routes

BULK = RelayName(mailer="bulk")


def mail(*recipients: str, sender: str = "a@example.org", relay: RelayName | None = None) -> Envelope:
    return Envelope(sender, recipients or ("b@example.com",), relay=relay)


class WhatACallerWrites(unittest.TestCase):
    def test_a_name_or_an_address(self) -> None:
        """As text or as a pair; IPv6 in brackets; hosts in small letters."""
        for written, relay in (
            ("bulk", BULK),
            (BULK, BULK),
            ("Relay.example.org:26", RelayName(hostname="relay.example.org", port=26)),
            (("Relay.example.org", 26), RelayName(hostname="relay.example.org", port=26)),
            (("relay", "26"), RelayName(hostname="relay", port=26)),
            ("[::1]:25", RelayName(hostname="::1", port=25)),
        ):
            with self.subTest(written=written):
                self.assertEqual(RelayName.of(written), relay)
                self.assertEqual(RelayName.of(str(relay)), relay)

    def test_nothing_gets_into_a_queue_file(self) -> None:
        """Line ends, NUL, blanks around, impossible ports: refused as any bad argument of send()."""
        for written in (
            "", "a\nb", "a\rb", "a\0b", " a", "a ", "h\nX-Zope-To: evil@example.org:25", "h:0", "h:65536", "-h:25",
            ("h", "smtp"), ("h", True), ("", 25), ("a b", 25), ("h\n", 25), None, 25, ("h",), "x:y:25", "\ud800",
            "\U0001f4ee" * 64, ("\u00fc" * 128, 25),
        ):  # fmt: skip
            with self.subTest(written=written):
                self.assertRaises(InvalidMail, RelayName.of, written)


class TheRelayOfAMailer(unittest.TestCase):
    def test_is_its_host_and_port(self) -> None:
        """A mailer that does not say it, or says what is none, has none."""
        mailer = SimpleNamespace(hostname="relay.example.org", port="26")
        self.assertEqual(address_of(mailer), "relay.example.org:26")
        self.assertEqual(address_of(SimpleNamespace(hostname="::1")), "[::1]:25")
        for other in (object(), SimpleNamespace(hostname="h", port="smtp"), SimpleNamespace(hostname="h", port=None)):
            self.assertEqual(address_of(other), "")


class ARelayThatIsNamed(unittest.TestCase):
    routes = Routes("main", frozenset({"bulk"}), frozenset({("relay.example.org", 26)}))

    def test_is_one_of_the_mailers_or_of_the_addresses(self) -> None:
        """Whatever else a caller names is refused when it calls."""
        self.assertEqual(self.routes.named("bulk"), BULK)
        self.assertEqual(self.routes.named("main"), RelayName(mailer="main"))
        self.assertEqual(self.routes.named(("relay.example.org", 26)), RelayName(hostname="relay.example.org", port=26))
        for relay in "other", ("relay.example.org", 25), "", None:
            with self.assertRaises(InvalidRelay):
                self.routes.named(relay)


class ASingleRelay(unittest.TestCase):
    routes = Routes()

    def test_gets_everything(self) -> None:
        """And the envelope is not copied."""
        envelope = mail()
        self.assertIs(self.routes.parts(envelope)[None], envelope)
        self.assertTrue(self.routes.is_single)

    def test_no_other_may_be_named(self) -> None:
        """Neither by name nor by address; the text says so."""
        for relay in BULK, RelayName(hostname="evil.example.org", port=25):
            with self.assertRaisesRegex(InvalidRelay, "none may be named"):
                self.routes.parts(mail(relay=relay))

    def test_a_file_without_good_recipients_has_a_relay_as_well(self) -> None:
        """It has to be judged by somebody."""
        envelope = Envelope("a@example.org", (), ("a@b@c",))
        self.assertEqual(self.routes.parts(envelope), {None: envelope})


class SeveralRelays(unittest.TestCase):
    routes = Routes(
        default="main",
        mailers=frozenset({"bulk", "partner"}),
        addresses=frozenset({("relay.example.org", 26)}),
        recipients={"@partner.example": "partner", "@.below.example": "partner", "vip@partner.example": "main"},
        senders={"@lists.example.org": "bulk"},
    )

    def names(self, envelope: Envelope) -> dict[str | None, tuple[str, ...]]:
        return {
            None if name is None else str(name): part.recipients for name, part in self.routes.parts(envelope).items()
        }

    def test_a_mail_may_name_any_of_them(self) -> None:
        """By name always, by address only from the list; the default by its name as well."""
        address = RelayName(hostname="relay.example.org", port=26)
        for relay in BULK, address:
            self.assertEqual(list(self.routes.parts(mail("b@partner.example", relay=relay))), [relay])
        self.assertEqual(list(self.routes.parts(mail("b@partner.example", relay=RelayName(mailer="main")))), [None])

    def test_others_may_not_be_named(self) -> None:
        """The text names those that may be."""
        with self.assertRaisesRegex(InvalidRelay, r"'nobody'.*'main', 'bulk', 'partner'"):
            self.routes.named("nobody")
        with self.assertRaisesRegex(InvalidRelay, r"evil\.example:25.*relay\.example\.org:26"):
            self.routes.named(("evil.example", 25))
        with self.assertRaises(InvalidRelay):
            self.routes.named("relay.example.org:25")

    def test_the_recipient_decides_then_the_sender_then_the_default(self) -> None:
        """One mail may have several relays; the longest match counts, and case does not."""
        default = ("1@x.example", "vip@partner.example")
        partner = ("2@Partner.example", "3@a.below.example", "4@below.example")
        self.assertEqual(self.names(mail(*default, *partner)), {None: default, "partner": partner})
        self.assertEqual(
            self.names(mail("1@x.example", "2@partner.example", sender="News@Lists.example.org")),
            {"bulk": ("1@x.example",), "partner": ("2@partner.example",)},
        )

    def test_malformed_recipients_are_judged_once(self) -> None:
        """With the first part."""
        envelope = Envelope("a@example.org", ("1@x.example", "2@partner.example"), ("a@b@c",))
        self.assertEqual([part.malformed for part in self.routes.parts(envelope).values()], [("a@b@c",), ()])

    def test_a_password_from_a_queue_file_is_not_used(self) -> None:
        """Unless the site says so."""
        theirs = RelayName(hostname="relay.example.org", port=26, username="u", password="p")
        self.assertEqual(self.routes.check(theirs).password, "")
        allowed = Routes(addresses=self.routes.addresses, legacy_passwords=True)
        self.assertIs(allowed.check(theirs), theirs)

    def test_routes_lead_somewhere(self) -> None:
        """To a mailer of the queue, from something that is an address or a domain."""
        with self.assertRaisesRegex(ValueError, "@x=nobody"):
            Routes(recipients={"@x": "nobody"})
        with self.assertRaisesRegex(ValueError, "@example.org"):
            Routes(default="main", senders={"example.org": "main"})
