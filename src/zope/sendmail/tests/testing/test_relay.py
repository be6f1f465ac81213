"""`zope.sendmail.testing.relay`: the relay that does what a test says."""

from __future__ import annotations

import smtplib
import socket
import sys
import unittest

from zope.sendmail.testing.relay import Drop, Hang, ReceivedMail, Relay
from zope.sendmail.tests.support.conversation import right_tls

SENDER, ONE, TWO = "sender@example.org", "one@example.org", "two@example.org"


class Client(unittest.TestCase):
    """Speaks with a relay as smtplib does."""

    def setUp(self) -> None:
        self.relay = Relay()
        self.relay.start()
        self.addCleanup(self.relay.stop)

    def connect(self) -> smtplib.SMTP:
        """A client that is closed when the test ends."""
        client = smtplib.SMTP(self.relay.host, self.relay.port, "client.test", timeout=300)
        self.addCleanup(client.close)
        return client

    def send(self, *recipients: str) -> object:
        """One mail on a connection of its own."""
        with self.connect() as client:
            return client.sendmail(SENDER, recipients or [ONE], b"Subject: x\r\n\r\n.text\r\n")


class ARelayWithoutAScript(Client):
    def test_it_takes_every_mail(self) -> None:
        """A mail is there, with envelope, options and text, when the client has its reply."""
        self.send(ONE, TWO)
        expected = ReceivedMail(SENDER, (ONE, TWO), b"Subject: x\r\n\r\n.text\r\n", options="size=21")
        self.assertEqual(self.relay.mails, [expected])

    def test_it_writes_down_what_it_hears(self) -> None:
        """All command lines, by connection."""
        self.send()
        self.send()
        self.assertEqual(len(self.relay.dialogues), 2)
        self.assertEqual(self.relay.verbs(1), ["EHLO", "MAIL", "RCPT", "DATA", "QUIT"])
        self.assertIn(f"rcpt to:<{ONE}>", [line.lower() for line in self.relay.commands])

    def test_it_insists_on_order(self) -> None:
        """What comes in the wrong order gets 503, what it does not know 500."""
        client = self.connect()
        client.ehlo()
        self.assertEqual(client.rcpt(ONE)[0], 503)
        self.assertEqual(client.docmd("DATA")[0], 503)
        client.mail(SENDER)
        self.assertEqual(client.mail(SENDER)[0], 503)
        self.assertEqual(client.docmd("FROB")[0], 500)
        self.assertEqual(client.docmd("GREETING")[0], 500)

    def test_it_takes_pipelined_commands(self) -> None:
        """Several commands at once are answered one after the other (RFC 2920)."""
        client = self.connect()
        client.ehlo()
        client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ONE}>\r\nDATA\r\n")
        self.assertEqual([client.getreply()[0] for _ in range(3)], [250, 250, 354])

    def test_it_takes_chunks(self) -> None:
        """BDAT, in one chunk or several; octets are octets, and who comes without recipients is told so."""
        client = self.connect()
        client.ehlo()
        client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ONE}>\r\nBDAT 5\r\n.a\r\n.BDAT 2 LAST\r\n\r\nBDAT 1 LAST\r\nx")
        self.assertEqual([client.getreply()[0] for _ in range(5)], [250, 250, 250, 250, 503])
        self.assertEqual(self.relay.mails[0].data, b".a\r\n.\r\n")

    def test_a_strict_one_hangs_up_on_a_flight(self) -> None:
        """As OpenSMTPD does."""
        self.relay.strict = True
        self.send()
        client = self.connect()
        client.ehlo()
        client.send(f"MAIL FROM:<{SENDER}>\r\nRCPT TO:<{ONE}>\r\n")
        self.assertEqual(client.getreply()[0], 500)
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            client.getreply()


class ARelayWithAScript(Client):
    def test_replies_are_replaced(self) -> None:
        """By command, and by what is in it."""
        self.relay.on("RCPT", "550 5.1.1 no such user", about=ONE)
        self.assertEqual(self.send(ONE, TWO), {ONE: (550, b"5.1.1 no such user")})
        self.assertEqual(self.relay.mails[0].recipients, (TWO,))

    def test_the_nth_time_only(self) -> None:
        """Counted over all connections."""
        self.relay.on("MAIL", "451 4.3.0 later", nth=2)
        self.send()
        with self.assertRaises(smtplib.SMTPSenderRefused):
            self.send()
        self.send()
        self.assertEqual(len(self.relay.mails), 2)

    def test_the_latest_rule_wins(self) -> None:
        """So a test can change its mind."""
        self.relay.on("MAIL", "451 4.3.0 later")
        self.relay.on("MAIL", "250 2.1.0 now")
        self.assertEqual(self.send(), {})

    def test_refused_mail_is_none(self) -> None:
        """A message that was refused after the dot is not among the mails."""
        self.relay.on("DOT", "554 5.7.1 spam")
        with self.assertRaises(smtplib.SMTPDataError):
            self.send()
        self.assertEqual(self.relay.mails, [])

    def test_connection_is_dropped(self) -> None:
        """Anywhere, with a last word or without; after the dot the mail has been taken."""
        for point in ("GREETING", "EHLO", "MAIL", "RCPT", "DATA", "BODY", "DOT"):
            with self.subTest(point):
                self.relay.forgive()
                before = len(self.relay.mails)
                self.relay.on(point, Drop())
                with self.assertRaises(smtplib.SMTPServerDisconnected):
                    self.send()
                self.assertEqual(len(self.relay.mails) - before, int(point == "DOT"))

    def test_421_ends_the_connection(self) -> None:
        """A relay that says 421 goes (RFC 5321, 3.8)."""
        self.relay.on("NOOP", "421 4.3.2 bye")
        client = self.connect()
        self.assertEqual(client.noop()[0], 421)
        with self.assertRaises(smtplib.SMTPServerDisconnected):
            client.noop()

    def test_it_hangs_until_released(self) -> None:
        """`Hang.reached` says that a client waits; `release` lets it go on."""
        hang = self.relay.on("NOOP", Hang("250 at last"))
        client = self.connect()
        client.putcmd("NOOP")
        self.assertTrue(hang.reached.wait(300))
        hang.release()
        self.assertEqual(client.getreply(), (250, b"at last"))

    def test_unknown_point(self) -> None:
        """A misspelt point is an error, not a rule that never fits."""
        with self.assertRaisesRegex(ValueError, "GREETING"):
            self.relay.on("DOTS", Drop())

    def test_all_is_forgiven(self) -> None:
        """`forgive` ends the script and lets go who hangs."""
        self.relay.on("MAIL", "550 no")
        hang = self.relay.on("NOOP", Hang())
        client = self.connect()
        client.putcmd("NOOP")
        hang.reached.wait(300)
        self.relay.forgive()
        self.assertEqual(client.getreply()[0], 250)
        self.assertEqual(client.mail(SENDER)[0], 250)


class ARelayLives(Client):
    def test_it_hangs_up(self) -> None:
        """All open connections end, after a farewell if there is one; new ones are possible."""
        client = self.connect()
        client.noop()
        self.relay.hang_up("421 4.4.2 idle")
        self.assertEqual(client.getreply()[0], 421)
        self.assertEqual(self.relay.open, 0)
        self.assertEqual(self.connect().noop()[0], 250)

    def test_it_restarts_at_the_same_place(self) -> None:
        """A stopped relay refuses connections; started again it has the same port."""
        port = self.relay.port
        self.relay.stop()
        with self.assertRaises(ConnectionRefusedError):
            self.connect()
        self.relay.start()
        self.assertEqual(self.relay.port, port)
        self.send()

    @unittest.skipUnless(sys.platform == "linux", "elsewhere nothing can hold it")
    def test_its_place_stays_its_own(self) -> None:
        """While it is stopped no other relay gets its port, and with that the mail that is meant for it."""
        self.relay.stop()
        with socket.socket() as other, self.assertRaisesRegex(OSError, "in use"):
            other.bind((self.relay.host, self.relay.port))

    def test_it_stops_with_clients_in_every_state(self) -> None:
        """Idle, hanging, in the middle of a message: none holds it up."""
        self.relay.on("NOOP", Hang())
        idle, hanging, busy = self.connect(), self.connect(), self.connect()
        idle.ehlo()
        hanging.putcmd("NOOP")
        busy.ehlo()
        busy.mail(SENDER)
        busy.rcpt(ONE)
        busy.docmd("DATA")
        self.relay.stop()
        self.relay.stop()
        self.assertEqual(self.relay.open, 0)

    def test_what_never_happens_is_told(self) -> None:
        """Waiting in vain ends, and says what the relay heard."""
        self.send()
        with self.assertRaisesRegex(TimeoutError, "MAIL|mail"):
            self.relay.wait_until(lambda: False, timeout=0.01)


class ARelayWithTlsAndUsers(Client):
    def setUp(self) -> None:
        self.relay = Relay(tls=right_tls(), users={"name": "secret"})
        self.relay.start()
        self.addCleanup(self.relay.stop)

    def test_mail_shows_how_it_came(self) -> None:
        """Encrypted, and from whom."""
        client = self.connect()
        client.starttls()
        client.login("name", "secret")
        client.sendmail(SENDER, [ONE], b"x")
        mail = self.relay.mails[0]
        self.assertEqual((mail.encrypted, mail.user), (True, "name"))

    def test_wrong_password(self) -> None:
        """535, with both mechanisms."""
        for mechanism in ("PLAIN", "LOGIN"):
            client = self.connect()
            client.ehlo()
            client.user, client.password = "name", "wrong"
            with self.assertRaises(smtplib.SMTPAuthenticationError):
                client.auth(mechanism, getattr(client, f"auth_{mechanism.lower()}"))

    def test_tls_is_offered_once(self) -> None:
        """Within TLS there is no STARTTLS."""
        client = self.connect()
        client.starttls()
        client.ehlo()
        self.assertFalse(client.has_extn("starttls"))
        self.assertEqual(client.docmd("STARTTLS")[0], 503)

    def test_plain_text_can_be_smuggled(self) -> None:
        """A reply goes out as it is, with whatever is behind it."""
        self.relay.on("STARTTLS", "220 go ahead\r\n250 evil")
        with socket.create_connection((self.relay.host, self.relay.port), 10) as client:
            stream = client.makefile("rb")
            stream.readline()
            client.sendall(b"STARTTLS\r\n")
            self.assertEqual([stream.readline(), stream.readline()], [b"220 go ahead\r\n", b"250 evil\r\n"])
            stream.close()


if __name__ == "__main__":
    unittest.main()
