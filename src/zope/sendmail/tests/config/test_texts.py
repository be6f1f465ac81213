"""What each setting is as a text, and the words in which a text is refused."""

from __future__ import annotations

import os
import tempfile
import unittest
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from zope.sendmail.config.nearest import meant
from zope.sendmail.config.options import (
    LOGIN,
    PATHS,
    QUEUE,
    RELAY,
    ROUTING,
    SENDING,
    Parser,
    addresses,
    boolean,
    duration,
    extensions,
    mailer_keywords,
    mechanisms,
    merge,
    notify_return,
    notify_when,
    number,
    one_of,
    pause,
    positive,
    processor_keywords,
    read_password,
    read_settings,
    read_verp_key,
    routes,
    routes_of,
    term_defaults,
    whole,
    words,
)
from zope.sendmail.config.settings import EXTENSIONS, Keep, Mechanism, Notify, Tls, TlsVersion
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.message.routes import Routes
from zope.sendmail.message.terms import Priority
from zope.sendmail.message.verp import verp
from zope.sendmail.message.verpkey import VerpKey

#: Each setting about a relay: how it is written, and what it means.
RELAYS: dict[str, tuple[str, Any]] = {
    "hostname": ("mail.example.org", "mail.example.org"),
    "port": ("587", 587),
    "username": ("jane", "jane"),
    "password": (" p ", " p "),
    "password_file": ("/p", "/p"),
    "tls": ("Implicit", Tls.IMPLICIT),
    "no_tls": ("yes", True),
    "force_tls": ("on", True),
    "implicit_tls": ("1", True),
    "verify": ("no", False),
    "cafile": ("/ca", "/ca"),
    "local_hostname": ("www.example.org", "www.example.org"),
    "timeout": ("1m", 60.0),
    "greeting_timeout": ("2m", 120.0),
    "command_timeout": ("3", 3.0),
    "data_timeout": ("4s", 4.0),
    "allow_clear_password": ("true", True),
    "token_command": ("oama access", ("oama", "access")),
    "token_file": ("/t", "/t"),
    "auth": ("plain", (Mechanism.PLAIN,)),
    "certfile": ("/c", "/c"),
    "keyfile": ("/k", "/k"),
    "tls_minimum": ("1.3", TlsVersion.TLS_1_3),
    "notify": ("never", ("NEVER",)),
    "notify_return": ("full", "FULL"),
    "rate": ("0.5", 0.5),
    "shared_rate": ("2", 2.0),
    "connections": ("1", 1),
    "mails_per_connection": ("4", 4),
    "recipient_limit": ("5", 5),
    "discard_extensions": ("PIPELINING, dsn", frozenset({"pipelining", "dsn"})),
}

#: Likewise about a queue.
QUEUES: dict[str, tuple[str, Any]] = {
    "queue_path": ("/q", "/q"),
    "interval": ("3", 3.0),
    "concurrency": ("1", 1),
    "first_retry": ("5m", 300.0),
    "retry_factor": ("1.5", 1.5),
    "max_retry": ("1h", 3600.0),
    "lifetime": ("0", 0.0),
    "on_unknown": ("hold", OnUnknown.HOLD),
    "notify_sender": ("off", False),
    "keep_rejected": ("30d", 2592000.0),
    "suppress_refused": ("y", True),
}

SENT: dict[str, tuple[str, Any]] = {
    "not_before": ("1h", 3600.0),
    "expires": ("2d", 172800.0),
    "priority": ("HIGH", Priority.HIGH),
    "key_lifetime": ("0.5d", 43200.0),
}

ROUTED: dict[str, tuple[str, Any]] = {
    "mailers": ("bulk,\n  intern", ("bulk", "intern")),
    "relays": ("a.example:26 [::1]:27", (("a.example", 26), ("::1", 27))),
    "recipient_routes": ("Jane@Example.org=Bulk", {"jane@example.org": "Bulk"}),
    "sender_routes": ("@.example.org=a=b", {"@.example.org": "a=b"}),
    "legacy_passwords": ("t", True),
}


class EachSetting(unittest.TestCase):
    def test_is_a_text_with_a_meaning(self) -> None:
        """Every one that is known."""
        known: tuple[tuple[Mapping[str, Parser], dict[str, tuple[str, Any]]], ...] = (
            (RELAY, RELAYS), (QUEUE, QUEUES), (SENDING, SENT), (ROUTING, ROUTED),
        )  # fmt: skip
        for parsers, examples in known:
            self.assertEqual(set(parsers), set(examples))
            for name, (text, value) in examples.items():
                found = read_settings({name: text}, parsers)
                self.assertEqual((found, type(found[name])), ({name: value}, type(value)))

    def test_that_names_a_file_is_a_path(self) -> None:
        """Where a relative path has no meaning, the whole one is asked for."""
        self.assertEqual(set(PATHS), {name for name in RELAY if name.endswith("file")})

    def test_of_a_login_belongs_to_one_user(self) -> None:
        """What proves who that is, and how that may go."""
        secrets = {"password", "password_file", "token_command", "token_file"}
        self.assertEqual(set(LOGIN), secrets | {"auth", "allow_clear_password"})

    def test_about_a_time_or_a_number_is_more_than_none(self) -> None:
        """But for the lifetime, of which none means that nothing is given up."""
        for parsers, examples in ((RELAY, RELAYS), (QUEUE, QUEUES), (SENDING, SENT)):
            for name, (_, value) in examples.items():
                if type(value) in (int, float) and name not in ("port", "lifetime"):
                    with self.assertRaises(ValueError, msg=name) as caught:
                        parsers[name]("0")
                    self.assertEqual(str(caught.exception), "'0' is not more than zero; write a larger one, such as 1")


class AText(unittest.TestCase):
    def test_is_refused_with_what_would_be_right(self) -> None:
        """Word by word."""
        known = ", ".join(sorted(EXTENSIONS))
        refused: tuple[tuple[Callable[[str], object], str, str], ...] = (
            (boolean, "si", "'si' is neither yes nor no; write one of true, yes, on, t, y, 1, false, no, off, f, n, 0"),
            (
                duration,
                "1w",
                "'1w' is not a duration; write seconds, or a number with s, m, h or d: 90, 90s, 10m, 2h, 5d",
            ),
            (number, "x", "'x' is not a number; write one like 2 or 1.5"),
            (number, "inf", "'inf' is not a number; write one like 2 or 1.5"),
            (whole, "1.5", "'1.5' is not a whole number; write one such as 5"),
            (pause, "1000001", "'1000001' is more than 1000000 seconds; nothing can be waited for so long"),
            (one_of(Tls), "x", "'x' is not one of never, opportunistic, required, implicit"),
            (
                mechanisms,
                "x",
                "'x': only these mechanisms are known: PLAIN, LOGIN, SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, XOAUTH2, "
                "OAUTHBEARER, EXTERNAL",
            ),
            (notify_when, "x", "'x': write NEVER alone, or some of SUCCESS, FAILURE and DELAY"),
            (notify_return, "x", "'x' is not one of FULL (the whole mail), HDRS (its headers)"),
            (extensions, "y dsn, x", f"x, y: no such extension is used; known are {known}"),
            (addresses, "a:1 bulk", "'bulk' is not the address of a relay; write host:port"),
            *(
                (routes, text, f"{text!r} is not a route; write one@example.org=mailer or @example.org=mailer")
                for text in ("@a", "@a=", "=b")
            ),
        )
        for parse, text, why in refused:
            with self.subTest(text), self.assertRaises(ValueError) as caught:
                parse(text)
            self.assertEqual(str(caught.exception), why)

    def test_is_taken_at_the_limit(self) -> None:
        """The longest pause, the least number; a word in any case."""
        self.assertEqual(one_of(Tls)(" NEVER "), Tls.NEVER)
        self.assertEqual((pause("1000000"), positive(whole)("1"), positive(number)("1")), (1000000.0, 1, 1.0))

    def test_may_be_blanks_alone(self) -> None:
        """That is no word, no route, no relay."""
        self.assertEqual((words(" ,\n"), routes(" "), addresses("")), ((), {}, ()))


class UnknownNames(unittest.TestCase):
    def test_are_all_told(self) -> None:
        """With those that are known, and what each may have meant."""
        known: dict[str, Parser] = {"interval": str, "intervals": str, "lifetime": str}
        for texts, why in (
            ({"xyz": ""}, "unknown: xyz; known are: interval, intervals, lifetime"),
            (
                {"livetime": "", "intervall": "", "xyz": ""},
                "unknown: intervall, livetime, xyz; did you mean interval, lifetime?; known are: interval, intervals, "
                "lifetime",
            ),
        ):
            with self.assertRaises(ValueError) as caught:
                read_settings(texts, known)
            self.assertEqual(str(caught.exception), why)
        self.assertEqual(meant((), known), "")


class Sources(unittest.TestCase):
    def test_that_contradict_themselves_are_told_how(self) -> None:
        """Word by word."""
        for source, why in (
            ({"tls": Tls.NEVER, "force_tls": True}, "tls = never and force_tls say the same thing twice; keep tls"),
            ({"no_tls": True, "force_tls": True}, "no_tls and force_tls contradict each other; keep one of them"),
        ):
            with self.assertRaises(ValueError) as caught:
                merge([source])
            self.assertEqual(str(caught.exception), why)
        with self.assertRaises(ValueError) as caught:
            mailer_keywords({"username": "u", "token_command": ("c",), "token_file": "f"})
        why = "token_command and token_file contradict each other; keep one of them"
        self.assertEqual(str(caught.exception), why)


class WhatAMailerIsMadeOf(unittest.TestCase):
    def test_is_made_of_what_was_set(self) -> None:
        """Under the name of what is made, and only that; what `RelaySettings` does not know is passed on."""
        for settings, names in (
            ({"username": "u", "token_command": ("c",)}, {"username", "token"}),
            ({"username": "u", "token_file": "f"}, {"username", "token"}),
        ):
            self.assertEqual(set(mailer_keywords(settings)), names)
        made: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
            ({"notify": ("NEVER",)}, {"notify": Notify(("NEVER",))}),
            ({"notify_return": "FULL"}, {"notify": Notify(ret="FULL")}),
            ({"mails_per_connection": 3}, {"keep": Keep(mails=3)}),
            ({"timeout": 5.0, "rate": 2.0}, {"timeout": 5.0, "rate": 2.0}),
        )
        for settings, keywords in made:
            self.assertEqual(mailer_keywords(settings), keywords)


class WhatAProcessorIsMadeOf(unittest.TestCase):
    def test_is_all_that_is_set_about_a_queue(self) -> None:
        """But for its path; what is about the next attempt is one value."""
        settings = {name: value for name, (_, value) in QUEUES.items()}
        schedule = Schedule(first=300.0, factor=1.5, maximum=3600.0, lifetime=0.0, on_unknown=OnUnknown.HOLD)
        others = ("interval", "concurrency", "notify_sender", "keep_rejected", "suppress_refused")
        expected = {**{name: settings[name] for name in others}, "schedule": schedule}
        self.assertEqual(processor_keywords(settings), expected)


class WhatMailIsSentWith(unittest.TestCase):
    def test_is_what_was_set(self) -> None:
        """Times are times; what is one already, and what is none, stays."""
        defaults = term_defaults({"not_before": 60.0, "expires": 60, "priority": Priority.LOW, "port": 25})
        minute = timedelta(minutes=1)
        self.assertEqual(defaults, {"not_before": minute, "expires": minute, "priority": Priority.LOW})
        self.assertEqual(term_defaults({"key_lifetime": minute}), {"key_lifetime": minute})


class TheRoutesOfAQueue(unittest.TestCase):
    def test_lead_to_what_was_set(self) -> None:
        """Where nothing is, to the queue's own mailer."""
        self.assertEqual(routes_of("own", {}), Routes("own", frozenset({"own"}), frozenset(), {}, {}))
        settings = {
            "mailers": ("bulk",),
            "relays": (("a.example", 26),),
            "recipient_routes": {"@a.example": "bulk"},
            "sender_routes": {"@b.example": "own"},
            "legacy_passwords": True,
        }
        self.assertEqual(
            routes_of("own", settings),
            Routes(
                "own",
                frozenset({"own", "bulk"}),
                frozenset({("a.example", 26)}),
                {"@a.example": "bulk"},
                {"@b.example": "own"},
                legacy_passwords=True,
            ),
        )


class AFile(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "secret")

    def refused(self, read: Callable[[str], object]) -> str:
        with self.assertRaises(ValueError) as caught:
            read(self.path)
        return str(caught.exception)

    def write(self, octets: bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(octets)

    def test_with_a_password_is_named_if_it_has_none(self) -> None:
        """With the reason."""
        why = f"the password file {self.path!r} cannot be read: [Errno 2] No such file or directory: {self.path!r}"
        self.assertEqual(self.refused(read_password), why)
        self.write(b"one\ntwo")
        why = f"the password file {self.path!r} must hold the password and nothing else, in one line"
        self.assertEqual(self.refused(read_password), why)

    def test_with_a_password_has_all_of_it(self) -> None:
        """Whatever letters stand at its end."""
        for password in ("XX", "X\tX", "\u00fc "):
            self.write(password.encode() + b"\r\n")
            self.assertEqual(read_password(self.path), password)

    def test_with_a_key_may_have_blanks_around_it(self) -> None:
        """The key signs as one that was made of what is within."""
        secret = b"sixteen octets and \xff"
        path = verp("news@example.org", "jane@example.com")
        self.write(b"\n " + secret + b"\r\n")
        self.assertEqual(read_verp_key(self.path).signed(path, 1), VerpKey(secret).signed(path, 1))

    def test_with_a_key_is_named_if_it_has_none(self) -> None:
        """With the reason."""
        why = f"the key file {self.path!r} cannot be read: No such file or directory"
        self.assertEqual(self.refused(read_verp_key), why)
        self.write(b"short")
        self.refused(read_verp_key)


if __name__ == "__main__":
    unittest.main()
