"""`zope.sendmail.smtp.auth.login`, ``exchange``, ``scram`` and ``saslprep``: each way to log in."""

from __future__ import annotations

import base64
import hmac
import json
import logging
import smtplib
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

from zope.sendmail.config.settings import Mechanism, RelaySettings
from zope.sendmail.interfaces import RelayError
from zope.sendmail.lifecycle.outcome import Answer, Outcome
from zope.sendmail.smtp.auth.login import EXCHANGES, token_of
from zope.sendmail.smtp.auth.mechanisms import (
    CramMd5,
    Credentials,
    External,
    Login,
    OAuthBearer,
    Plain,
    SaslExchange,
    XOAuth2,
)
from zope.sendmail.smtp.auth.redaction import Redaction
from zope.sendmail.smtp.auth.saslprep import saslprep
from zope.sendmail.smtp.auth.scram import MAX_ITERATIONS, Scram, ScramSha1
from zope.sendmail.testing.relay import Drop, InTurn, Relay
from zope.sendmail.testing.saslserver import COMPLAINT
from zope.sendmail.tests.support.conversation import Conversation, right_tls

NAME, PASSWORD = "name", "pass word"
USERS = {NAME: PASSWORD}
TOKEN = "secret-token-1"
FRESH = "secret-token-2"


def base64_of(octets: bytes) -> str:
    return base64.b64encode(octets).decode("ascii")


class Renewable:
    """A provider that gives these tokens, a new one after each refusal, and counts."""

    def __init__(self, *tokens: str) -> None:
        self.tokens = list(tokens)
        self.asked: list[str] = []

    def __call__(self) -> str:
        self.asked.append("")
        return self.tokens[0]

    def renew(self, refused: str) -> str:
        self.asked.append(refused)
        if len(self.tokens) > 1:
            del self.tokens[0]
        return self.tokens[0]


class WithLogin(Conversation):
    """A relay with TLS, and mails that need a login there."""

    def relay(self, **options: Any) -> Relay:
        return self.start(**{"tls": right_tls(), **options})

    def log_in(self, relay: Relay, **changes: Any) -> Outcome:
        return self.transfer(self.session(relay, cafile=self.cafile(), username=NAME, **changes))

    def assertLoggedIn(self, outcome: Outcome, relay: Relay, user: str = NAME) -> None:
        self.assertAnswers(outcome, one=Answer.ACCEPTED)
        self.assertEqual((relay.mails[-1].user, relay.mails[-1].encrypted), (user, True))

    def said(self, relay: Relay) -> list[str]:
        """The AUTH commands, without initial responses."""
        return [command.split(" ")[1] for command in relay.commands if command.startswith("AUTH ")]


class EachMechanism(WithLogin):
    def test_with_a_password(self) -> None:
        """A relay that offers only this one lets us in, whatever the script of name and password."""
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-1"):
            with self.subTest(mechanism):
                relay = self.relay(users={"jörg, =": "пароль"}, mechanisms=[mechanism])
                session = self.session(relay, cafile=self.cafile(), username="jörg, =", password="пароль")
                self.assertLoggedIn(self.transfer(session), relay, "jörg, =")
                self.assertEqual(self.said(relay), [mechanism])

    def test_with_a_token(self) -> None:
        """Likewise."""
        for mechanism in ("XOAUTH2", "OAUTHBEARER"):
            with self.subTest(mechanism):
                relay = self.relay(tokens={NAME: TOKEN}, mechanisms=[mechanism])
                self.assertLoggedIn(self.log_in(relay, token=lambda: TOKEN), relay)

    def test_wrong_password(self) -> None:
        """535 is the relay's fault, tried once, and rejects nothing."""
        for mechanism in ("PLAIN", "LOGIN", "CRAM-MD5", "SCRAM-SHA-256", "SCRAM-SHA-1"):
            with self.subTest(mechanism):
                relay = self.relay(users=USERS, mechanisms=[mechanism])
                self.assertFaultOnly(self.log_in(relay, password="wrong"), 535)
                self.assertEqual(self.said(relay), [mechanism])

    def test_relay_hangs_up_or_has_no_time(self) -> None:
        """A fault, and the next mail goes."""
        for mechanism, secret in (("SCRAM-SHA-256", {"password": PASSWORD}), ("XOAUTH2", {"token": lambda: TOKEN})):
            for action, code in ((Drop(), None), ("421 4.3.2 bye", 421), ("454 4.7.0 later", 454)):
                with self.subTest(mechanism, action=action):
                    relay = self.relay(users=USERS, tokens={NAME: TOKEN}, mechanisms=[mechanism])
                    relay.on("AUTH", action, nth=1)
                    session = self.session(relay, cafile=self.cafile(), username=NAME, **secret)
                    outcome = self.transfer(session)
                    self.assertEqual(outcome.replies, {})
                    assert outcome.fault is not None
                    self.assertEqual(outcome.fault.code, code)
                    self.assertLoggedIn(self.transfer(session), relay)

    def test_every_mechanism_is_made(self) -> None:
        """What `auth` may name can be done."""
        self.assertEqual(set(EXCHANGES), set(Mechanism))


class TheChoice(WithLogin):
    OFFERED = ("CRAM-MD5", "SCRAM-SHA-1", "LOGIN", "SCRAM-SHA-256", "PLAIN")

    def test_password_is_sent_where_it_is_encrypted(self) -> None:
        """PLAIN works with whatever the relay keeps of the password."""
        relay = self.relay(users=USERS, mechanisms=self.OFFERED)
        self.assertLoggedIn(self.log_in(relay, password=PASSWORD), relay)
        self.assertEqual(self.said(relay), ["PLAIN"])

    def test_password_is_proved_where_it_is_in_clear(self) -> None:
        """Who may listen gets the strongest that is offered."""
        relay = self.start(users=USERS, mechanisms=self.OFFERED)
        self.assertAnswers(
            self.transfer(self.session(relay, username=NAME, password=PASSWORD, allow_clear_password=True)),
            one=Answer.ACCEPTED,
        )
        self.assertEqual(self.said(relay), ["SCRAM-SHA-256"])

    def test_auth_decides(self) -> None:
        """The first of these that is offered, and no other."""
        relay = self.relay(users=USERS, mechanisms=self.OFFERED)
        auth = (Mechanism.SCRAM_SHA_1, Mechanism.PLAIN)
        self.assertLoggedIn(self.log_in(relay, password=PASSWORD, auth=auth), relay)
        self.assertEqual(self.said(relay), ["SCRAM-SHA-1"])

    def test_what_auth_wants_is_not_offered(self) -> None:
        """The fault names both sides, and no password is said."""
        relay = self.relay(users=USERS, mechanisms=["PLAIN", "LOGIN"])
        outcome = self.log_in(relay, password=PASSWORD, auth=(Mechanism.SCRAM_SHA_256,))
        self.assertFaultOnly(outcome)
        self.assertRegex(str(outcome.fault), "PLAIN LOGIN only, but the settings want it; what would do: SCRAM-SHA-256")
        self.assertEqual(self.said(relay), [])

    def test_the_next_one_is_tried(self) -> None:
        """If the relay does not mean what it offers."""
        relay = self.relay(tokens={NAME: TOKEN})
        relay.on("AUTH", "504 5.5.4 not this one", about="XOAUTH2")
        self.assertLoggedIn(self.log_in(relay, token=lambda: TOKEN), relay)
        self.assertEqual(self.said(relay), ["XOAUTH2", "OAUTHBEARER"])

    def test_token_is_no_password(self) -> None:
        """A relay that takes passwords only is not given the token as one."""
        relay = self.relay(users={NAME: TOKEN})
        self.assertIn("XOAUTH2", str(self.log_in(relay, token=lambda: TOKEN).fault))
        self.assertEqual(self.said(relay), [])


class TheFirstIsRefused(WithLogin):
    """Relays offer what they cannot do for this user: Cyrus SASL without its database, Exchange, an old appliance."""

    OFFERED = ("PLAIN", "LOGIN", "CRAM-MD5")

    def test_the_others_are_asked_once_each(self) -> None:
        """Whatever the code of the refusal, in the usual order, and the mail goes."""
        for code in ("535 5.7.8", "503 5.5.1", "550 5.7.1", "454 4.7.0", "432 4.7.12", "501 5.5.4", "504 5.5.4"):
            with self.subTest(code):
                relay = self.relay(users=USERS, mechanisms=self.OFFERED)
                relay.on("AUTH", f"{code} not like this", about="PLAIN")
                self.assertLoggedIn(self.log_in(relay, password=PASSWORD), relay)
                self.assertEqual(self.said(relay), ["PLAIN", "LOGIN"])

    def test_a_proof_is_refused_in_clear(self) -> None:
        """Where the settings let the password go in clear, it does: Cyrus SASL often has nothing to compare with."""
        relay = self.start(users=USERS, mechanisms=self.OFFERED)
        relay.on("AUTH", "535 5.7.8 Error: authentication failed: no secret in database", about="CRAM-MD5")
        session = self.session(relay, username=NAME, password=PASSWORD, allow_clear_password=True)
        self.assertAnswers(self.transfer(session), one=Answer.ACCEPTED)
        self.assertEqual(self.said(relay), ["CRAM-MD5", "PLAIN"])

    def test_all_are_refused(self) -> None:
        """Each was asked for once, and the fault is the first refusal."""
        relay = self.relay(users=USERS, mechanisms=self.OFFERED)
        for number, mechanism in enumerate(self.OFFERED):
            relay.on("AUTH", f"535 5.7.8 refusal {number}", about=mechanism)
        outcome = self.log_in(relay, password=PASSWORD)
        self.assertFaultOnly(outcome, 535)
        self.assertIn("refusal 0", str(outcome.fault))
        self.assertEqual(self.said(relay), list(self.OFFERED))

    def test_the_relay_hangs_up_then(self) -> None:
        """The fault is the refusal; the next connection begins with another mechanism."""
        relay = self.relay(users=USERS, mechanisms=self.OFFERED)
        relay.on("AUTH", "535 5.7.8 not like this", about="PLAIN")
        relay.on("AUTH", Drop(), about="LOGIN", nth=1)
        session = self.session(relay, cafile=self.cafile(), username=NAME, password=PASSWORD)
        self.assertFaultOnly(self.transfer(session), 535)
        self.assertLoggedIn(self.transfer(session), relay)
        self.assertEqual(self.said(relay), ["PLAIN", "LOGIN", "CRAM-MD5"])

    def test_the_next_connection_begins_with_what_was_taken(self) -> None:
        """Relays count refusals, and lock accounts."""
        relay = self.relay(users=USERS, mechanisms=self.OFFERED)
        relay.on("AUTH", "535 5.7.8 not like this", about="PLAIN")
        for _ in range(3):
            self.assertLoggedIn(self.log_in(relay, password=PASSWORD), relay)
        self.assertEqual(self.said(relay), ["PLAIN", "LOGIN", "LOGIN", "LOGIN"])

    def test_the_order_of_the_settings_stays(self) -> None:
        """What `auth` says is not rearranged."""
        relay = self.relay(users=USERS, mechanisms=self.OFFERED)
        relay.on("AUTH", "535 5.7.8 not like this", about="PLAIN")
        for _ in range(2):
            outcome = self.log_in(relay, password=PASSWORD, auth=(Mechanism.PLAIN, Mechanism.LOGIN))
            self.assertLoggedIn(outcome, relay)
        self.assertEqual(self.said(relay), ["PLAIN", "LOGIN"] * 2)


class AnExchangeIsNotLeftOpen(WithLogin):
    def test_the_initial_response_was_not_looked_at(self) -> None:
        """334 behind AUTH PLAIN and its response: it is said once more, whatever the relay asks."""
        response = base64_of(f"\0{NAME}\0{PASSWORD}".encode())
        for challenge in ("334 ", "334 UmVzcG9uc2U6", "334 go on"):
            with self.subTest(challenge):
                relay = self.relay(users=USERS, mechanisms=["PLAIN"])
                relay.on("AUTH", InTurn(challenge, "235 2.7.0 welcome"))
                self.assertAnswers(self.log_in(relay, password=PASSWORD), one=Answer.ACCEPTED)
                self.assertEqual(relay.commands[relay.commands.index(f"AUTH PLAIN {response}") + 1], response)

    def test_a_challenge_too_many_is_cancelled(self) -> None:
        """With ``*``; then the next mechanism has its turn."""
        relay = self.relay(users=USERS, mechanisms=["PLAIN", "LOGIN"])
        relay.on("AUTH", InTurn("334 ", "334 ", "501 5.7.0 cancelled"), about="PLAIN")
        self.assertLoggedIn(self.log_in(relay, password=PASSWORD), relay)
        self.assertIn("*", relay.commands)
        self.assertEqual(self.said(relay), ["PLAIN", "LOGIN"])

    def test_the_cancel_is_not_understood(self) -> None:
        """Then nothing more is said: it would be taken for an answer."""
        relay = self.relay(users=USERS, mechanisms=["PLAIN", "LOGIN"])
        relay.on("AUTH", InTurn("334 ", "334 ", "334 "), about="PLAIN")
        self.assertFaultOnly(self.log_in(relay, password=PASSWORD))
        self.assertEqual(self.said(relay), ["PLAIN"])

    def test_the_answer_to_the_cancel_has_no_end(self) -> None:
        """The connection is of no use any more, so nothing is said over it; the exchange is the reason."""
        relay = self.relay(users=USERS, mechanisms=["PLAIN", "LOGIN"])
        relay.on("AUTH", InTurn("334 ", "334 ", "501 " + "x" * 10_000), about="PLAIN")
        self.assertFaultOnly(self.log_in(relay, password=PASSWORD))
        self.assertEqual(self.said(relay), ["PLAIN"])

    def test_a_proof_that_is_wrong(self) -> None:
        """The exchange is cancelled, and an impostor gets no password by another mechanism."""
        relay = self.relay(users=USERS, mechanisms=["SCRAM-SHA-256", "PLAIN"])
        relay.on("AUTH", InTurn(f"334 {base64_of(b'r=other,s=QSXC,i=4096')}", "501 cancelled"), about="SCRAM")
        outcome = self.log_in(relay, password=PASSWORD, auth=(Mechanism.SCRAM_SHA_256, Mechanism.PLAIN))
        self.assertIn("nonce", str(outcome.fault))
        self.assertIn("*", relay.commands)
        self.assertEqual(self.said(relay), ["SCRAM-SHA-256"])

    def test_a_weak_challenge_does_not_bring_out_the_password_in_clear(self) -> None:
        """Who spoils SCRAM on a connection in clear must not get the password instead."""
        relay = self.start(users=USERS, mechanisms=["SCRAM-SHA-256", "PLAIN"])
        relay.on("AUTH", InTurn(f"334 {base64_of(b'r=other,s=QSXC,i=1')}", "501 cancelled"), about="SCRAM")
        session = self.session(relay, username=NAME, password=PASSWORD, allow_clear_password=True)
        self.assertFaultOnly(self.transfer(session))
        self.assertEqual(self.said(relay), ["SCRAM-SHA-256"])


class MD5IsForbidden(WithLogin):
    """As on systems that follow FIPS 140."""

    def setUp(self) -> None:
        super().setUp()
        real = hmac.new

        def strict(key: bytes, message: bytes, digest: str) -> hmac.HMAC:
            if digest == "md5":
                raise ValueError("[digital envelope routines] unsupported")
            return real(key, message, digest)

        self.enterContext(mock.patch.object(hmac, "new", strict))

    def test_another_mechanism_is_asked_for(self) -> None:
        """CRAM-MD5 is not even begun."""
        relay = self.start(users=USERS, mechanisms=["CRAM-MD5", "PLAIN"])
        session = self.session(relay, username=NAME, password=PASSWORD, allow_clear_password=True)
        self.assertAnswers(self.transfer(session), one=Answer.ACCEPTED)
        self.assertEqual(self.said(relay), ["PLAIN"])

    def test_there_is_no_other(self) -> None:
        """The fault says why, and what to do."""
        relay = self.relay(users=USERS, mechanisms=["CRAM-MD5"])
        fault = str(self.log_in(relay, password=PASSWORD).fault)
        self.assertRegex(fault, "needs MD5, which this system forbids .*unsupported.*with auth")


class ATokenIsSent(WithLogin):
    def test_it_does_not_go_in_clear(self) -> None:
        """Without TLS it is not even asked for."""
        relay = self.start(tokens={NAME: TOKEN})
        provider = Renewable(TOKEN)
        outcome = self.transfer(self.session(relay, username=NAME, token=provider))
        self.assertFaultOnly(outcome)
        self.assertIn("STARTTLS", str(outcome.fault))
        self.assertEqual((self.said(relay), provider.asked), ([], []))

    def test_a_short_one_goes_with_the_command(self) -> None:
        """One round trip."""
        relay = self.relay(tokens={NAME: TOKEN})
        self.log_in(relay, token=lambda: TOKEN)
        initial = base64_of(f"user=name\x01auth=Bearer {TOKEN}\x01\x01".encode())
        self.assertIn(f"AUTH XOAUTH2 {initial}", relay.commands)
        self.assertEqual(relay.responses, [])

    def test_a_long_one_follows(self) -> None:
        """No command is longer than 512 octets (RFC 4954, 4); Microsoft's tokens have some 2000."""
        token = "x" * 2000
        relay = self.relay(tokens={NAME: token})
        self.assertLoggedIn(self.log_in(relay, token=lambda: token), relay)
        self.assertIn("AUTH XOAUTH2", relay.commands)
        self.assertLessEqual(max(map(len, relay.commands)), 510)

    def test_complaint_is_acknowledged_and_told(self) -> None:
        """The relay's JSON becomes part of the fault; the answer to it is empty, or ^A (RFC 7628, 3.2.3)."""
        for mechanism, acknowledgement in ((Mechanism.XOAUTH2, b""), (Mechanism.OAUTHBEARER, b"\x01")):
            with self.subTest(mechanism):
                relay = self.relay(tokens={NAME: TOKEN})
                outcome = self.log_in(relay, token=lambda: "old", auth=(mechanism,))
                self.assertFaultOnly(outcome, 535)
                self.assertIn("(status 401, scope https://mail.test/)", str(outcome.fault))
                self.assertEqual(relay.responses, [acknowledgement])

    def test_it_is_nowhere_to_be_read(self) -> None:
        """Not in a fault, even if the relay repeats it, not in a repr, not in the log."""
        relay = self.relay(tokens={NAME: FRESH})
        relay.on("AUTH", f"535 5.7.8 what is {TOKEN}?")
        session = self.session(relay, cafile=self.cafile(), username=NAME, token=lambda: TOKEN)
        with self.assertLogs(level=logging.DEBUG) as logs:
            logging.getLogger("test").info("%s", self.transfer(session))
        told = f"{logs.output} {session!r} {session._settings()!r} {Credentials(NAME, token=TOKEN)!r}"
        self.assertIn("what is [token]?", told)
        self.assertNotIn(TOKEN, told)


class APasswordIsRefused(WithLogin):
    def test_it_is_nowhere_to_be_read(self) -> None:
        """Not in a fault, even if the relay repeats the command or what it decoded."""
        relay = self.relay(users=USERS)
        said = base64_of(f"\0{NAME}\0{PASSWORD}".encode())
        relay.on("AUTH", f"501 5.5.2 what is {said} ({PASSWORD})?")
        fault = str(self.log_in(relay, password=PASSWORD, auth=(Mechanism.PLAIN,)).fault)
        self.assertIn("what is [login] ([password])?", fault)

    def test_no_piece_of_it_is_to_be_read(self) -> None:
        """However the relay cuts, breaks, decodes or capitalises what it repeats."""
        secret = "correct-horse-battery-staple"
        said = base64_of(f"\0{NAME}\0{secret}".encode())
        alone = base64_of(secret.encode())
        replies = {
            "cut": f"501 5.5.2 AUTH PLAIN {said[:30]}",
            "two lines": f"501-5.5.2 AUTH PLAIN {said[:17]}\r\n501 5.5.2 {said[17:]}",
            "two lines, a short rest": f"501-AUTH PLAIN {said[:-3]}\r\n501 {said[-3:]}",
            "in clear": f"535 5.7.8 {NAME}/{secret[:12]}... is wrong",
            "from the middle": f"535 5.7.8 ...{secret[4:-3]}...",
            "in capitals": f"500 UNKNOWN COMMAND {said.upper()}",
            "another base64": f"535 5.7.8 {alone}",
            "within base64": "535 5.7.8 " + base64_of(f"password={secret}&x".encode()),
            "web base64": "535 5.7.8 " + base64_of(f"\0{secret}".encode()).translate(str.maketrans("+/", "-_")),
        }
        for name, reply in replies.items():
            with self.subTest(name):
                relay = self.relay(users=USERS)
                relay.on("AUTH", reply)
                fault = str(self.log_in(relay, password=secret, auth=(Mechanism.PLAIN,)).fault)
                self.assertRegex(fault, r"\[(login|password)\]")
                for hidden in (secret, said, alone):
                    pieces = [hidden[at : at + 6].lower() for at in range(8, len(hidden) - 6)]
                    self.assertEqual([piece for piece in pieces if piece in fault.lower()], [])
                self.assertNotIn(f" {said[-3:]}", fault)

    def test_nor_in_a_challenge(self) -> None:
        """The relay's complaint about a token is hidden before it is cut."""
        token = "ya29." + "Ab1" * 80
        complaint = base64_of(json.dumps({"status": "4" * 180 + token}).encode())
        relay = self.relay(tokens={NAME: FRESH})
        relay.on("AUTH", InTurn(f"334 {complaint}", "535 5.7.8 no"))
        fault = str(self.log_in(relay, token=lambda: token, auth=(Mechanism.XOAUTH2,)).fault)
        self.assertIn("44[token]", fault)
        self.assertNotIn("ya29", fault)

    def test_what_is_no_secret_stays(self) -> None:
        """Else nobody could read why."""
        relay = self.relay(users=USERS)
        relay.on("AUTH", "535 5.7.8 Error: authentication failed: UGFzc3dvcmQ6")
        fault = str(self.log_in(relay, password="correct-horse-battery-staple").fault)
        self.assertIn("authentication failed: UGFzc3dvcmQ6", fault)

    def test_two_of_them_in_the_same_words(self) -> None:
        """Each is replaced, wherever it stands; pieces that touch are one."""
        redaction = Redaction()
        redaction.hide(b"correct-horse", "password")
        redaction.hide(b"ya29.token", "token")
        for said, told in (
            (b"correct-horse and ya29.token", b"[password] and [token]"),
            (b"ya29.tokencorrect-horse!", b"[token]!"),
            (b"correct-horse", b"[password]"),
        ):
            self.assertEqual(redaction.redact(said), told)

    def test_a_short_one_is_left_in_the_words(self) -> None:
        """Else its places in the relay's words would show what it is."""
        relay = self.relay(users=USERS)
        relay.on("AUTH", "535 5.7.8 bad password")
        self.assertIn("bad password", str(self.log_in(relay, password="a").fault))


class ATokenIsRefused(WithLogin):
    def test_a_fresh_one_is_tried_once(self) -> None:
        """On the same connection, and the mail goes."""
        relay = self.relay(tokens={NAME: FRESH})
        provider = Renewable(TOKEN, FRESH)
        outcome = self.log_in(relay, token=provider)
        self.assertLoggedIn(outcome, relay)
        self.assertEqual((provider.asked, len(relay.dialogues)), (["", TOKEN], 1))
        self.assertEqual(self.said(relay), ["XOAUTH2", "XOAUTH2"])

    def test_the_mechanism_keeps_its_place(self) -> None:
        """It was the token that was refused."""
        relay = self.relay(tokens={NAME: FRESH})
        for provider in (Renewable(TOKEN, FRESH), Renewable(FRESH)):
            self.assertLoggedIn(self.log_in(relay, token=provider), relay)
        self.assertEqual(self.said(relay), ["XOAUTH2", "XOAUTH2", "XOAUTH2"])

    def test_a_plain_callable_is_called_again(self) -> None:
        """It needs to be nothing but a callable."""
        relay = self.relay(tokens={NAME: FRESH})
        tokens = iter([TOKEN, FRESH])
        self.assertLoggedIn(self.log_in(relay, token=lambda: next(tokens)), relay)

    def test_and_so_is_the_fresh_one(self) -> None:
        """Then it is the relay's fault, as with a password."""
        relay = self.relay(tokens={NAME: "another"})
        provider = Renewable(TOKEN, FRESH, "third")
        self.assertFaultOnly(self.log_in(relay, token=provider), 535)
        self.assertEqual(provider.asked, ["", TOKEN])
        self.assertEqual(self.said(relay), ["XOAUTH2", "XOAUTH2", "OAUTHBEARER"])

    def test_and_there_is_no_other(self) -> None:
        """The same token is not shown twice in the same way: relays count refusals."""
        relay = self.relay(tokens={NAME: FRESH})
        self.assertFaultOnly(self.log_in(relay, token=lambda: TOKEN), 535)
        self.assertEqual(self.said(relay), ["XOAUTH2", "OAUTHBEARER"])

    def test_for_the_moment(self) -> None:
        """454 is the relay's trouble; the token is kept."""
        relay = self.relay(tokens={NAME: TOKEN})
        relay.on("AUTH", "454 4.7.0 later")
        provider = Renewable(TOKEN, FRESH)
        self.assertFaultOnly(self.log_in(relay, token=provider), 454)
        self.assertEqual(provider.asked, [""])

    def test_relay_hangs_up_after_the_refusal(self) -> None:
        """The next connection has the fresh token at once."""
        relay = self.relay(tokens={NAME: FRESH})
        relay.on("AUTH", Drop(), nth=2)
        session = self.session(relay, cafile=self.cafile(), username=NAME, token=Renewable(TOKEN, FRESH))
        self.assertFaultOnly(self.transfer(session))
        self.assertLoggedIn(self.transfer(session), relay)
        self.assertEqual(len(self.said(relay)), 3)


class AProviderFails(WithLogin):
    def test_whatever_it_raises_is_a_fault(self) -> None:
        """With its words; no mail is charged, and the relay hears no AUTH."""

        def broken() -> str:
            raise KeyError("no refresh token")

        relay = self.relay(tokens={NAME: TOKEN})
        outcome = self.log_in(relay, token=broken)
        self.assertFaultOnly(outcome)
        self.assertIn("KeyError: 'no refresh token'", str(outcome.fault))
        self.assertEqual(self.said(relay), [])

    def test_what_is_no_token(self) -> None:
        """Nothing, blanks and control characters, which could end the field they stand in, are not sent."""
        wrong: list[Any] = ["", "a b", "a\x01user=other", "a\n", None, b"bytes", "ü"]
        for token in wrong:
            with self.subTest(token=token), self.assertRaisesRegex(RelayError, "gave no token") as caught:
                token_of(RelaySettings(username=NAME, token=Renewable(token)))
            self.assertNotIn("user=other", str(caught.exception))

    def test_after_a_refusal(self) -> None:
        """What it says then does not tell the refused token either."""

        def renew() -> str:
            raise OSError(f"{TOKEN} is revoked")

        with self.assertRaisesRegex(RelayError, r"OSError: \[token\] is revoked"):
            token_of(RelaySettings(username=NAME, token=renew), refused=TOKEN)


class AClassWithItsOwnLogin(WithLogin):
    def test_gets_the_token(self) -> None:
        """A subclass of smtplib's class that does XOAUTH2 itself needs no password that is none."""
        relay = self.relay(tokens={NAME: TOKEN})

        class Own(smtplib.SMTP):
            def login(self, user: str, password: str, **_: Any) -> tuple[int, bytes]:
                initial = f"user={user}\x01auth=Bearer {password}\x01\x01".encode()
                return self.docmd("AUTH", f"XOAUTH2 {base64_of(initial)}")

        session = self.session(relay, Own, cafile=self.cafile(), username=NAME, token=lambda: TOKEN)
        self.assertLoggedIn(self.transfer(session), relay)

    def test_its_refusal_tells_no_secret(self) -> None:
        """It may repeat what this class said as well."""
        relay = self.relay(users=USERS)

        class Own(smtplib.SMTP):
            def login(self, user: str, password: str, **_: Any) -> tuple[int, bytes]:
                raise smtplib.SMTPAuthenticationError(535, f"5.7.8 no such login: {user}:{password}".encode())

        session = self.session(relay, Own, cafile=self.cafile(), username=NAME, password="tiger-42")
        self.assertIn(f"no such login: {NAME}:[password]", str(self.transfer(session).fault))


class TheRelayIsAnImpostor(WithLogin):
    def test_scram_without_a_proof(self) -> None:
        """Who says 235 without having shown that it knows the password gets no mail, and no password."""
        relay = self.relay(users=USERS, mechanisms=["SCRAM-SHA-256", "PLAIN"])
        relay.on("AUTH", "235 2.7.0 welcome")
        auth = (Mechanism.SCRAM_SHA_256, Mechanism.PLAIN)
        outcome = self.log_in(relay, password=PASSWORD, auth=auth)
        self.assertFaultOnly(outcome)
        self.assertIn("did not prove that it knows the password", str(outcome.fault))
        self.assertNotIn("MAIL", relay.verbs())
        self.assertEqual(self.said(relay), ["SCRAM-SHA-256"])

    def test_it_asks_without_end(self) -> None:
        """More challenges than a mechanism has end the login."""
        for mechanism in ("PLAIN", "CRAM-MD5", "LOGIN"):
            with self.subTest(mechanism):
                relay = self.relay(users=USERS, mechanisms=[mechanism])
                relay.on("AUTH", "\r\n".join(["334 eA=="] * 5))
                self.assertFaultOnly(self.log_in(relay, password=PASSWORD))


class Scramming(unittest.TestCase):
    """SCRAM, without a relay."""

    NONCE = "rOprNGfwEbeRWgbNEkqO"
    CHALLENGE = b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"

    def scram(self, user: str = "user", password: str = "pencil") -> Scram:
        return Scram(Credentials(user, password), self.NONCE)

    def test_example_of_rfc_7677(self) -> None:
        """RFC 7677, 3."""
        scram = self.scram()
        self.assertEqual(scram.first(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO")
        self.assertEqual(
            scram.answer(self.CHALLENGE),
            b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
            b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=",
        )
        self.assertEqual(scram.answer(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="), b"")
        scram.check_success()

    def test_example_of_rfc_5802(self) -> None:
        """RFC 5802, 5."""
        scram = ScramSha1(Credentials("user", "pencil"), "fyko+d2lbbFgONRv9qkxdawL")
        self.assertEqual(scram.first(), b"n,,n=user,r=fyko+d2lbbFgONRv9qkxdawL")
        self.assertEqual(
            scram.answer(b"r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,s=QSXCR+Q6sek8bf92,i=4096"),
            b"c=biws,r=fyko+d2lbbFgONRv9qkxdawL3rfcNHYJY1ZVvWVs7j,p=v0X8v3Bz2T0CJGbJQyF0X+HI4Ts=",
        )
        self.assertEqual(scram.answer(b"v=rmF9pqV8S7suAoZWja4dJRkFsKQ="), b"")
        scram.check_success()

    def test_wrong_proof(self) -> None:
        """A relay that signs with something else than the password is refused at once."""
        for final in (b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", b"v=", b"", b"v=%%%", b"x", b"\xff"):
            with self.subTest(final):
                scram = self.scram()
                scram.answer(self.CHALLENGE)
                with self.assertRaisesRegex(RelayError, "did not prove"):
                    scram.answer(final)
                with self.assertRaises(RelayError):
                    scram.check_success()

    def test_success_too_early(self) -> None:
        """Before the proof, success is not believed."""
        scram = self.scram()
        scram.answer(self.CHALLENGE)
        with self.assertRaisesRegex(RelayError, "did not prove"):
            scram.check_success()

    def test_relay_tells_an_error(self) -> None:
        """It is kept for people; the reply follows."""
        scram = self.scram()
        scram.answer(self.CHALLENGE)
        self.assertEqual((scram.answer(b"e=invalid-proof"), scram.complaint), (b"", "invalid-proof"))
        with self.assertRaises(RelayError):
            scram.answer(b"v=")

    def test_hostile_challenges(self) -> None:
        """Too few iterations, too many, another's nonce, nonsense: none is answered with a proof."""
        nonce = self.NONCE
        cases = {
            b"r=%bX,s=QSXC,i=1": "wants 1 SCRAM iterations",
            f"r=%bX,s=QSXC,i={MAX_ITERATIONS + 1}".encode(): f"wants {MAX_ITERATIONS + 1} SCRAM iterations",
            b"r=%bX,s=QSXC,i=-4096": "wants -4096",
            b"r=other,s=QSXC,i=4096": "nonce",
            b"r=%b,s=QSXC,i=4096": "nonce",
            b"m=x,r=%bX,s=QSXC,i=4096": "extension",
            b"r=%bX,s=?,i=4096": "cannot be understood",
            b"r=%bX,s=QSXC,i=many": "cannot be understood",
            b"r=%bX,i=4096": "cannot be understood",
            b"": "cannot be understood",
            b"\xff": "cannot be understood",
        }
        for challenge, why in cases.items():
            with self.subTest(challenge), self.assertRaisesRegex(RelayError, why):
                self.scram().answer(challenge.replace(b"%b", nonce.encode()))

    def test_name_is_escaped(self) -> None:
        """Comma and equals sign separate attributes (RFC 5802, 5.1)."""
        self.assertEqual(self.scram("a,b=c").first(), b"n,,n=a=2Cb=3Dc,r=rOprNGfwEbeRWgbNEkqO")

    def test_password_that_cannot_be_prepared(self) -> None:
        """The error says what to do, and not the password."""
        with self.assertRaisesRegex(RelayError, "password cannot be used with SCRAM.*with auth") as caught:
            self.scram(password="bell\x07")
        self.assertNotIn("bell", str(caught.exception))

    def test_nonces_differ(self) -> None:
        """Each login has its own."""
        make = EXCHANGES[Mechanism.SCRAM_SHA_256]
        self.assertNotEqual(make(Credentials("u", "p")).first(), make(Credentials("u", "p")).first())


class Preparing(unittest.TestCase):
    def test_examples(self) -> None:
        """RFC 4013, 3."""
        cases = {
            "I\u00adX": "IX",
            "user": "user",
            "USER": "USER",
            "\u00aa": "a",
            "\u2168": "IX",
            "a\u00a0b": "a b",
            "": "",
        }
        for given, prepared in cases.items():
            self.assertEqual(saslprep(given), prepared)

    def test_what_is_forbidden(self) -> None:
        """Control characters, lone surrogates, mixed directions; the text is not repeated in the error."""
        for given in ("secret\x07", "secret\udc00", "\u06271", "secret\u0627", "\u0627secret\u0627"):
            with self.subTest(given), self.assertRaises(ValueError) as caught:
                saslprep(given)
            self.assertNotIn("secret", str(caught.exception))

    def test_from_right_to_left(self) -> None:
        """Is allowed if it begins and ends so."""
        self.assertEqual(saslprep("\u0627\u0628\u0627"), "\u0627\u0628\u0627")

    def test_characters_that_are_newer(self) -> None:
        """What Unicode 3.2 did not know is let through."""
        self.assertEqual(saslprep("\U0001f511"), "\U0001f511")


class AMechanismAnswers(unittest.TestCase):
    def test_cram_md5(self) -> None:
        """The example of RFC 2195, 2."""
        exchange = CramMd5(Credentials("tim", "tanstaaftanstaaf"))
        self.assertIsNone(exchange.first())
        said = exchange.answer(b"<1896.697170952@postoffice.reston.mci.net>")
        self.assertEqual(said, b"tim b913a602c7eda7a495b4e6e7334d3890")

    def test_plain(self) -> None:
        """The example of RFC 4616, 4."""
        self.assertEqual(Plain(Credentials("tim", "tanstaaftanstaaf")).first(), b"\0tim\0tanstaaftanstaaf")

    def test_bytes_stay_bytes(self) -> None:
        """A password that was given as bytes, in whatever encoding, goes out as these bytes."""
        password = b"\xfc".decode("utf-8", "surrogateescape")
        self.assertEqual(Plain(Credentials("name", password)).first(), b"\0name\0\xfc")
        exchange = Login(Credentials("name", password))
        self.assertEqual([exchange.answer(b"") for _ in range(2)], [b"name", b"\xfc"])

    def test_oauthbearer(self) -> None:
        """The example of RFC 7628, 4.1."""
        token = "vF9dft4qmTc2Nvb3RlckBhbHRhdmlzdGEuY29tCg=="
        exchange = OAuthBearer(Credentials("user@example.com", token=token, hostname="server.example.com", port=143))
        expected = (
            "bixhPXVzZXJAZXhhbXBsZS5jb20sAWhvc3Q9c2VydmVyLmV4YW1wbGUuY29tAXBvcnQ9MTQzAWF1dGg9QmVhcmVyI"
            "HZGOWRmdDRxbVRjMk52YjNSbGNrQmhiSFJoZG1semRHRXVZMjl0Q2c9PQEB"
        )
        self.assertEqual(base64_of(exchange.first()), expected)

    def test_name_for_oauthbearer_is_escaped(self) -> None:
        """Comma and equals sign belong to the gs2 header (RFC 5801, 4)."""
        self.assertTrue(OAuthBearer(Credentials("a,b=c", token="t")).first().startswith(b"n,a=a=2Cb=3Dc,\x01"))

    def test_xoauth2(self) -> None:
        """Google's form."""
        self.assertEqual(XOAuth2(Credentials("u@x.y", token="t")).first(), b"user=u@x.y\x01auth=Bearer t\x01\x01")

    def test_external(self) -> None:
        """The name to act as, or nothing."""
        self.assertEqual(External(Credentials("name")).first(), b"name")
        self.assertEqual(External(Credentials("")).first(), b"")

    def test_complaints(self) -> None:
        """What is no JSON is told as it is, made printable; nothing is told as nothing."""
        cases: list[tuple[bytes, str]] = [
            (json.dumps(COMPLAINT).encode(), "status 401, scope https://mail.test/"),
            (b'{"status": "invalid_token"}', "status invalid_token"),
            (b'{"status": "a\\r\\nb"}', "status a b"),
            (b"{}", "no reason given"),
            (b"[1]", "[1]"),
            (b"no\r\njson", "no json"),
            (b"[" * 100_000, "[" * 100_000),
        ]
        for challenge, complaint in cases:
            exchange = XOAuth2(Credentials("u", token="t"))
            exchange.answer(challenge)
            self.assertEqual(exchange.complaint, complaint)

    def test_complaint_and_success(self) -> None:
        """A relay that complains and then says 235 is not believed."""
        exchange = XOAuth2(Credentials("u", token="t"))
        exchange.answer(b"{}")
        with self.assertRaises(RelayError):
            exchange.check_success()

    def test_one_challenge_too_many(self) -> None:
        """Ends each of them."""
        cases: list[tuple[Callable[[Credentials], SaslExchange], int]] = [
            (Plain, 0),
            (Login, 2),
            (CramMd5, 1),
            (External, 0),
            (XOAuth2, 1),
            (OAuthBearer, 1),
        ]
        for make, challenges in cases:
            exchange = make(Credentials("u", "p", "t"))
            for _ in range(challenges):
                exchange.answer(b"x")
            with self.assertRaisesRegex(RelayError, "more than the login has to say"):
                exchange.answer(b"x")


if __name__ == "__main__":
    unittest.main()
