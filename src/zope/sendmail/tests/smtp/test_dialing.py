"""`zope.sendmail.smtp.dialing` and ``addresses``: which address of a relay, for how long, and under which name."""

from __future__ import annotations

import smtplib
import socket
import threading
import unittest
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest import mock

from zope.sendmail.config.settings import INTERACTIVE, Timeouts, Tls
from zope.sendmail.lifecycle.outcome import Answer
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.smtp import hostaddresses, tlsprobe
from zope.sendmail.smtp.dialing import own_name
from zope.sendmail.smtp.heloname import helo_name
from zope.sendmail.smtp.hostaddresses import FAILURES, HostAddress, host_addresses, open_first
from zope.sendmail.smtp.recentfailures import RecentFailures
from zope.sendmail.smtp.tlsprobe import waits_for_tls
from zope.sendmail.testing.contracts import ManualClock
from zope.sendmail.testing.relay import Drop, Hang, Relay
from zope.sendmail.tests.support.conversation import AT_ONCE, TIMEOUTS, Conversation, right_tls, tls_for

HOSTNAME = "relay.test"
REAL = socket.getaddrinfo


class SeveralAddresses(Conversation):
    """A relay with two addresses, as a pair of servers under one name has."""

    def setUp(self) -> None:
        super().setUp()
        # Each takes connections: however long the machine stands still, the second is not tried beside the first.
        self.enterContext(mock.patch.object(hostaddresses, "_DELAY", 300.0))

    def pair(self, **options: Any) -> tuple[Relay, Relay]:
        """Start a relay on each of two addresses, with one port, and let `HOSTNAME` stand for both."""
        first = self.start(**options)
        second = Relay(**options)
        second.host, second.port = "127.0.0.2", first.port
        second.start()
        self.addCleanup(second.stop)
        self.resolve(first.host, second.host)
        return first, second

    def resolve(self, *hosts: str) -> None:
        """Let these be the addresses of `HOSTNAME`."""

        def resolve(host: str, port: int, *arguments: Any) -> list[Any]:
            named = hosts if host == HOSTNAME else (host,)
            return [each for one in named for each in REAL(one, port, *arguments)]

        self.enterContext(mock.patch.object(socket, "getaddrinfo", resolve))

    def send(self, relay: Relay, **changes: Any) -> Any:
        return self.transfer(self.session(relay, hostname=HOSTNAME, **changes))

    def test_the_first_one_serves(self) -> None:
        """The order of the resolver counts."""
        first, second = self.pair()
        for _ in range(3):
            self.assertAnswers(self.send(first), one=Answer.ACCEPTED)
        self.assertEqual((len(first.mails), len(second.dialogues)), (3, 0))

    def test_the_next_one_is_used(self) -> None:
        """If the first greets with a refusal, hangs up, or does not go on behind its greeting (RFC 5321, 5.1)."""
        troubles: list[tuple[str, str | Drop]] = [
            ("GREETING", "421 4.3.2 busy"),
            ("GREETING", "554 5.7.1 no"),
            ("GREETING", Drop()),
            ("EHLO", "421 4.3.2 busy"),
            ("EHLO", Drop()),
        ]
        for point, action in troubles:
            with self.subTest(point, action=action):
                first, second = self.pair()
                first.on(point, action)
                self.assertAnswers(self.send(first), one=Answer.ACCEPTED)
                self.assertEqual(len(second.mails), 1)

    def test_the_next_one_is_used_at_a_later_command(self) -> None:
        """If the first says 421 or hangs up at the login or before it asks for the text, nothing is charged."""
        login = {"users": {"u": "p"}, "mechanisms": ["PLAIN"]}
        how = {"username": "u", "password": "p", "allow_clear_password": True}
        for point in "AUTH", "MAIL", "RCPT", "DATA":
            for action in ("421 4.3.2 busy", Drop(), "454 4.3.0 not now")[: 2 if point == "RCPT" else 3]:
                for keywords in (["PIPELINING"], ["SIZE"]):
                    with self.subTest(point, action=action, keywords=keywords):
                        first, second = self.pair(keywords=keywords, **login)
                        first.on(point, action)
                        for _ in range(2):
                            self.assertAnswers(self.send(first, **how), one=Answer.ACCEPTED)
                        self.assertEqual((len(first.dialogues), len(first.mails), len(second.mails)), (1, 0, 2))

    def test_one_that_does_not_answer_to_the_text_is_tried_last(self) -> None:
        """The mail may be there, so it is not tried elsewhere; the next connection begins with the other address."""
        for action in ("421 4.3.2 busy", Drop()):
            first, second = self.pair()
            first.on("DOT", action)
            self.assertIsNotNone(self.send(first).fault)
            self.assertAnswers(self.send(first), one=Answer.ACCEPTED)
            self.assertEqual((len(first.dialogues), len(second.mails)), (1, 1))

    def test_less_mail_is_wanted_everywhere(self) -> None:
        """Words about too much are not a matter of the address, and neither is a login."""
        for words in ("454 4.7.0 Throttling failure: Maximum sending rate exceeded.", "530 5.7.0 log in first"):
            first, second = self.pair()
            first.on("MAIL", words)
            self.assertBoth(self.send(first), int(words[:3]), one=Answer.DEFERRED)
            self.assertEqual(second.dialogues, [])

    def test_none_serves_at_a_later_command(self) -> None:
        """Each is asked once, and the mail is deferred with the last words."""
        first, second = self.pair()
        first.on("MAIL", "421 4.3.2 busy")
        second.on("MAIL", "421 4.3.2 busy")
        self.assertBoth(self.send(first), 421, one=Answer.DEFERRED)
        self.assertEqual((len(first.dialogues), len(second.dialogues)), (1, 1))

    def test_and_the_next_connection_begins_with_it(self) -> None:
        """What is in trouble is not met at every connection."""
        first, second = self.pair()
        first.on("GREETING", "421 4.3.2 busy")
        for _ in range(3):
            self.assertAnswers(self.send(first), one=Answer.ACCEPTED)
        self.assertEqual((len(first.dialogues), len(second.mails)), (1, 3))

    def test_its_certificate_is_wrong(self) -> None:
        """Or its TLS is broken: another one may be all right, and without TLS nothing goes."""
        first, second = self.pair(tls=tls_for(HOSTNAME))
        first.tls = tls_for("somebody.else")
        outcome = self.send(first, tls=Tls.REQUIRED, cafile=self.cafile())
        self.assertAnswers(outcome, one=Answer.ACCEPTED)
        self.assertEqual((first.mails, second.mails[0].encrypted), ([], True))

    def test_none_serves(self) -> None:
        """The fault is that of the first."""
        first, second = self.pair()
        first.on("GREETING", "554 5.7.1 first")
        second.on("GREETING", "421 4.3.2 second")
        outcome = self.send(first)
        self.assertFaultOnly(outcome, 554)
        self.assertIn("first", str(outcome.fault))

    def test_a_refused_login_is_not_tried_elsewhere(self) -> None:
        """It is about us, and would be counted twice."""
        first, second = self.pair(tls=tls_for(HOSTNAME), users={"u": "p"}, mechanisms=["PLAIN"])
        self.assertFaultOnly(self.send(first, username="u", password="wrong", cafile=self.cafile()), 535)
        self.assertEqual(second.dialogues, [])

    def test_one_refuses_connections(self) -> None:
        """Nobody listens there."""
        relay = self.start()
        self.resolve("127.0.0.3", relay.host)
        self.assertAnswers(self.send(relay), one=Answer.ACCEPTED)

    def test_one_says_nothing(self) -> None:
        """The time for greetings is shared among the addresses, and is not all spent with the first."""
        first, second = self.pair()
        first.on("GREETING", Hang())
        for seconds in (4 * AT_ONCE, 5.0, 60.0):  # a busy machine needs a while to greet
            outcome = self.send(first, timeouts=replace(TIMEOUTS, greeting=seconds))
            if not outcome.fault:
                break
        self.assertAnswers(outcome, one=Answer.ACCEPTED)
        self.assertEqual(len(second.mails), 1)


class ADeadAddress(unittest.TestCase):
    """One that does not answer at all, not even with a refusal."""

    def setUp(self) -> None:
        FAILURES.clear()
        self.alive = self.enterContext(socket.create_server(("127.0.0.1", 0)))
        self.dead = self.enterContext(socket.socket())
        self.dead.bind(("127.0.0.2", self.alive.getsockname()[1]))
        self.dead.listen(0)
        # Its queue is full with these: Linux drops what comes then, as a firewall does.
        for _ in range(3):
            filling = self.enterContext(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(self.dead.getsockname())

    def addresses(self, *sockets: socket.socket) -> list[HostAddress]:
        return [HostAddress(socket.AF_INET, socket.SOCK_STREAM, 0, each.getsockname()) for each in sockets]

    def test_the_next_one_is_tried_meanwhile(self) -> None:
        """It costs no timeout (RFC 8305, 5)."""
        sock, address = open_first("relay", self.addresses(self.dead, self.alive), 60.0)
        sock.close()
        self.assertEqual(address.place, self.alive.getsockname())

    def test_it_is_tried_last_then(self) -> None:
        """At the next connection it costs nothing at all."""
        addresses = self.addresses(self.dead, self.alive)
        open_first("relay", addresses, 60.0)[0].close()
        self.assertEqual(FAILURES.arranged("relay", addresses), self.addresses(self.alive, self.dead))
        self.assertEqual(FAILURES.arranged("another", addresses), addresses)

    def test_there_is_no_other(self) -> None:
        """The time that is given for the connection ends it."""
        with self.assertRaises(TimeoutError):
            open_first("relay", self.addresses(self.dead), AT_ONCE)

    def test_refusals_are_told(self) -> None:
        """With what the system says, of the last one."""
        nobody = HostAddress(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.3", self.alive.getsockname()[1]))
        with self.assertRaises(ConnectionRefusedError):
            open_first("relay", [nobody, nobody], 60.0)

    def test_what_this_host_cannot_reach_at_all(self) -> None:
        """A family that it does not have, or a place that is not there, costs no time; the next address is used."""
        strange = HostAddress(255, socket.SOCK_STREAM, 0, ("192.0.2.1", 25))
        nowhere = HostAddress(socket.AF_UNIX, socket.SOCK_STREAM, 0, "/nowhere/relay")
        (alive,) = self.addresses(self.alive)
        sock, address = open_first("relay", [strange, nowhere, alive], 60.0)
        sock.close()
        self.assertEqual(address, alive)
        with self.assertRaises(FileNotFoundError):
            open_first("relay", [strange, nowhere], 60.0)


class TheOrderOfAddresses(unittest.TestCase):
    def test_families_take_turns(self) -> None:
        """So that a network without IPv6 costs one address, and not all of these (RFC 8305, 4)."""
        six = [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (f"2001:db8::{n}", 25, 0, 0)) for n in range(2)]
        four = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (f"192.0.2.{n}", 25)) for n in range(2)]
        FAILURES.clear()
        with mock.patch.object(socket, "getaddrinfo", return_value=[*six, *four]):
            found = [str(each) for each in host_addresses(HOSTNAME, 25)]
        self.assertEqual(found, ["2001:db8::0", "192.0.2.0", "2001:db8::1", "192.0.2.1"])

    def test_a_name_in_another_script(self) -> None:
        """Is asked for as browsers ask for it, not as the standard library would."""
        with mock.patch.object(socket, "getaddrinfo", return_value=[]) as asked:
            host_addresses("mail.straße.example", 25)
        self.assertEqual(asked.call_args.args[0], "mail.xn--strae-oqa.example")

    def test_what_failed_has_its_place_again(self) -> None:
        """After ten minutes, or as soon as it serves."""
        clock = ManualClock()
        failures = RecentFailures(600.0, clock)
        failures.note("relay", 1)
        self.assertEqual(failures.arranged("relay", [1, 2, 3]), [2, 3, 1])
        clock.advance(601.0)
        self.assertEqual(failures.arranged("relay", [1, 2, 3]), [1, 2, 3])
        failures.note("relay", 1)
        failures.forget("relay", 1)
        self.assertEqual(failures.arranged("relay", [1, 2, 3]), [1, 2, 3])

    def test_what_is_remembered_has_an_end(self) -> None:
        """A process that sends to many relays does not grow with them: it begins anew."""
        failures = RecentFailures(600.0, ManualClock())
        for number in range(10_000):
            failures.note(number, 1)
        self.assertTrue(failures.has(0, 1))
        failures.note("relay", 1)
        self.assertEqual((failures.has(0, 1), failures.has("relay", 1)), (False, True))


class Patient(smtplib.SMTP):
    """Writes down how long it would have waited for each reply."""

    waits: Sequence[float | None] = ()

    def getreply(self) -> tuple[int, bytes]:
        assert self.sock is not None
        self.waits = [*self.waits, self.sock.gettimeout()]
        return super().getreply()


class TheGreeting(Conversation):
    def test_has_a_time_of_its_own(self) -> None:
        """A short one is right for the connection only; a busy relay may take minutes (RFC 5321, 4.5.3.2.1)."""
        self.assertEqual((Timeouts().connect, Timeouts().greeting), (10.0, 300.0))
        relay = self.start()
        timeouts = Timeouts(connect=11.0, greeting=290.0, command=12.0)
        session = self.session(relay, Patient, timeouts=timeouts)
        self.assertAnswers(self.transfer(session), one=Answer.ACCEPTED)
        self.assertEqual(session.connection.waits[:2], [290.0, 12.0])

    def test_a_caller_that_waits_gives_less(self) -> None:
        """Half a minute before the dot, unless the settings say something else; as long as anybody behind it."""
        times = SMTPMailer().relay_settings().interactive().timeouts
        self.assertEqual(times, INTERACTIVE)
        self.assertEqual((times.connect, times.greeting, times.command, times.final), (10.0, 30.0, 30.0, 600.0))
        patient = SMTPMailer(command_timeout=120.0, greeting_timeout=90.0).relay_settings().interactive().timeouts
        self.assertEqual((patient.command, patient.greeting, patient.data), (120.0, 90.0, 30.0))

    def test_send_is_called_by_one_that_waits(self) -> None:
        """`SMTPMailer.send` as well as `vote`; a queue has the longer times."""
        relay = self.start()
        mailer = SMTPMailer(relay.host, relay.port)
        mailer.smtp = Patient
        mailer.vote("a@example.org", ["b@example.org"], b"Subject: x\r\n\r\n")
        self.assertEqual(mailer.connection.waits[:2], [30.0, 30.0])
        mailer.abort()
        session: Any = mailer.open_session()
        self.assertAnswers(self.transfer(session), one=Answer.ACCEPTED)
        self.assertEqual(session.connection.waits[:2], [300.0, 300.0])
        session.close()

    def test_does_not_come(self) -> None:
        """The fault says what a relay that says nothing may wait for."""
        relay = self.start()
        relay.on("GREETING", Hang())
        outcome = self.transfer(self.session(relay, timeouts=replace(TIMEOUTS, greeting=AT_ONCE)))
        self.assertFaultOnly(outcome)
        self.assertIn("the relay said nothing for 0.05 s; if TLS is from the first byte", str(outcome.fault))
        self.assertIn("say tls=implicit", str(outcome.fault))

    def test_does_not_come_at_port_465(self) -> None:
        """There TLS is from the first byte: it is not waited for longer than for a connection."""
        relay = self.start()
        relay.on("GREETING", Hang())
        real = socket.getaddrinfo

        def resolve(host: str, port: int, *arguments: Any) -> list[Any]:
            return real(host, relay.port, *arguments)

        timeouts = replace(TIMEOUTS, connect=AT_ONCE * 20)
        with mock.patch.object(socket, "getaddrinfo", resolve):
            outcome = self.transfer(self.session(relay, port=465, timeouts=timeouts))
        self.assertFaultOnly(outcome)
        self.assertIn("at port 465 TLS is from the first byte: say tls=implicit", str(outcome.fault))

    def test_does_not_come_since_the_relay_waits_for_tls(self) -> None:
        """At any port: it is asked in TLS, once, and the fault says so long before the time for a greeting is over."""
        relay = self.start(tls=right_tls(), implicit=True)
        with mock.patch.multiple(tlsprobe, _PATIENCE=AT_ONCE, _ASKING=300.0):
            outcome = self.transfer(self.session(relay, timeouts=replace(TIMEOUTS, greeting=3600.0)))
        self.assertFaultOnly(outcome)
        self.assertIn(f"speaks TLS from the first byte at port {relay.port}: say tls=implicit", str(outcome.fault))

    def test_comes_late(self) -> None:
        """A relay that takes its time, and speaks no TLS, is waited for."""
        relay, hang = self.start(), Hang("220 here I am")
        relay.on("GREETING", hang, nth=1)

        def release() -> None:
            relay.wait_until(lambda: len(relay.dialogues) > 1)  # that of the question
            hang.release()

        thread = threading.Thread(target=release)
        thread.start()
        self.addCleanup(thread.join)
        with mock.patch.object(tlsprobe, "_PATIENCE", AT_ONCE):
            outcome = self.transfer(self.session(relay))
        self.assertAnswers(outcome, one=Answer.ACCEPTED)

    def test_comes_after_the_handshake(self) -> None:
        """With TLS from the first byte."""
        relay = self.start(tls=right_tls(), implicit=True)
        outcome = self.transfer(self.session(relay, tls=Tls.IMPLICIT, cafile=self.cafile()))
        self.assertAnswers(outcome, one=Answer.ACCEPTED)

    def test_is_not_waited_for_where_the_connection_is_broken(self) -> None:
        """That it is broken is told by the reading of the greeting, at once."""
        address = HostAddress(socket.AF_INET, socket.SOCK_STREAM, 0, ("127.0.0.1", 2525))
        with socket.socket() as never_connected:
            self.assertFalse(waits_for_tls(never_connected, address, 2525, 60.0))


class TheNameInEhlo(Conversation):
    CASES = {
        "shop.example.org": "shop.example.org",
        "shop.example.org.": "shop.example.org",
        "shop": "[192.0.2.1]",
        "shop_web_1": "[192.0.2.1]",
        "shop_web_1.shop_default": "[192.0.2.1]",
        "-shop.example.org": "[192.0.2.1]",
        "shop..example.org": "[192.0.2.1]",
        "x" * 64 + ".example.org": "[192.0.2.1]",
        "shop.1": "[192.0.2.1]",
        "bücher.example": "xn--bcher-kva.example",
        "bücher": "[192.0.2.1]",
        "straße.example": "xn--strae-oqa.example",
        "": "[192.0.2.1]",
        "198.51.100.7": "[198.51.100.7]",
        "[198.51.100.7]": "[198.51.100.7]",
        "2001:DB8::1": "[IPv6:2001:db8::1]",
        "[IPv6:2001:db8::1]": "[IPv6:2001:db8::1]",
    }

    def test_is_one_that_relays_take(self) -> None:
        """A name with a dot, in ASCII; or the address of the connection (RFC 5321, 4.1.4)."""
        for name, said in self.CASES.items():
            with self.subTest(name):
                self.assertEqual(helo_name(name, "192.0.2.1"), said)

    def test_address_of_the_connection(self) -> None:
        """IPv6 has a tag; an IPv4 address within it, a zone, and no address at all are understood."""
        self.assertEqual(helo_name("shop", "2001:db8::1"), "[IPv6:2001:db8::1]")
        self.assertEqual(helo_name("shop", "::ffff:192.0.2.1"), "[192.0.2.1]")
        self.assertEqual(helo_name("shop", "fe80::1%eth0"), "[IPv6:fe80::1]")
        self.assertEqual(helo_name("shop", None), "[127.0.0.1]")

    def test_is_said(self) -> None:
        """What the settings say, before TLS and behind it."""
        relay = self.start(tls=right_tls())
        self.transfer(self.session(relay, local_hostname="bücher.example"))
        self.transfer(self.session(relay, local_hostname="shop_web_1"))
        said = [command for command in relay.commands if command.startswith("ehlo")]
        self.assertEqual(said, ["ehlo xn--bcher-kva.example"] * 2 + ["ehlo [127.0.0.1]"] * 2)

    def test_is_this_hosts_name_otherwise(self) -> None:
        """If that is one."""
        for name, said in (("web1.example.org", "web1.example.org"), ("web_1", "[127.0.0.1]")):
            own_name.cache_clear()
            self.addCleanup(own_name.cache_clear)
            with mock.patch.object(socket, "getfqdn", return_value=name):
                relay = self.start()
                self.transfer(self.session(relay, local_hostname=None))
                self.assertEqual(relay.commands[0], f"ehlo {said}")

    def test_can_be_changed_by_settings(self) -> None:
        """For each mail anew."""
        relay = self.start()
        names = iter(["one.example.org", "two.example.org"])
        mailer = SMTPMailer(
            settings=lambda: {"hostname": relay.host, "port": relay.port, "local_hostname": next(names)}
        )
        for _ in range(2):
            mailer.send("a@example.org", ["b@example.org"], b"Subject: x\r\n\r\n")
        self.assertEqual([each[0] for each in relay.dialogues], ["ehlo one.example.org", "ehlo two.example.org"])

    def test_of_something_without_a_signature(self) -> None:
        """Such a factory gets all that there is."""

        class Strange(smtplib.SMTP):
            __signature__ = "none"

            def connect(self, *arguments: Any, **options: Any) -> tuple[int, bytes]:
                return super().connect(*arguments, **options)

        relay = self.start()
        self.assertAnswers(self.transfer(self.session(relay, Strange)), one=Answer.ACCEPTED)
        self.assertEqual(relay.commands[0], "ehlo client.test")

    def test_of_a_class_that_is_patched(self) -> None:
        """It is given what it takes now, whatever it took before."""

        class Own(smtplib.SMTP):
            pass

        def takes_less(connection: smtplib.SMTP, host: str = "", port: int = 0, *, timeout: float = 60.0) -> None:
            smtplib.SMTP.__init__(connection, host, port, "patched.test", timeout)

        relay = self.start()
        self.transfer(self.session(relay, Own))
        with mock.patch.object(Own, "__init__", takes_less):
            self.assertAnswers(self.transfer(self.session(relay, Own)), one=Answer.ACCEPTED)
        self.assertEqual([each[0] for each in relay.dialogues], ["ehlo client.test", "ehlo patched.test"])

    def test_of_a_class_with_its_own_way(self) -> None:
        """A class that sets another name says that."""

        class Own(smtplib.SMTP):
            def __init__(self, *arguments: Any, **options: Any) -> None:
                super().__init__(*arguments, **{**options, "local_hostname": "own_name"})

        relay = self.start()
        self.transfer(self.session(relay, Own))
        self.assertEqual(relay.commands[0], "ehlo own_name")


class DiscardedExtensions(Conversation):
    def test_are_as_if_not_offered(self) -> None:
        """What the relay says in EHLO of itself is not believed, before TLS and behind it."""
        relay = self.start(tls=right_tls())
        self.transfer(self.session(relay, discard_extensions=frozenset({"size", "smtputf8"})), "jörg@example.org")
        self.transfer(self.session(relay, discard_extensions=frozenset({"STARTTLS", "Size"})))
        self.assertEqual(relay.commands[-3], "MAIL FROM:<sender@example.org>")
        self.assertEqual(relay.commands.count("STARTTLS"), 1)


if __name__ == "__main__":
    unittest.main()
