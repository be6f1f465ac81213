"""Settings as people write them."""

from __future__ import annotations

import os
import tempfile
import unittest

from zope.sendmail.config.options import (
    QUEUE,
    RELAY,
    boolean,
    duration,
    mailer_keywords,
    merge,
    positive,
    processor_keywords,
    read_password,
    read_settings,
    whole,
)
from zope.sendmail.config.settings import Mechanism, Notify, Tls, TlsVersion
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile
from zope.sendmail.errors import InvalidSettings
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.processor.thread import QueueProcessorThread


class ASwitch(unittest.TestCase):
    def test_takes_every_usual_word(self) -> None:
        """Yes and no may be written as people do, in any case."""
        for text in ("on", "Yes", "TRUE", "1", "t", " y "):
            self.assertIs(boolean(text), True, text)
        for text in ("off", "No", "FALSE", "0", "f", "n"):
            self.assertIs(boolean(text), False, text)

    def test_takes_booleans(self) -> None:
        """A boolean is what it is."""
        self.assertIs(boolean(True), True)
        self.assertIs(boolean(False), False)

    def test_refuses_other_words(self) -> None:
        """A word that is neither is refused, never read as no."""
        with self.assertRaisesRegex(ValueError, "'maybe' is neither yes nor no"):
            boolean("maybe")


class ADuration(unittest.TestCase):
    def test_takes_seconds_and_units(self) -> None:
        """Seconds, or a number with s, m, h or d."""
        written = ("90", "90s", "10m", "2h", "5d", "1.5h", " 0.5 M ", ".5")
        self.assertEqual([duration(text) for text in written], [90.0, 90.0, 600.0, 7200.0, 432000.0, 5400.0, 30.0, 0.5])

    def test_refuses_everything_else(self) -> None:
        """What is no duration is refused, with examples of what is."""
        for text in ("", "h", "-1", "1w", "1e3", "nan", "inf", "1h30m", "٣"):
            with self.assertRaisesRegex(ValueError, "is not a duration; write seconds"):
                duration(text)

    def test_may_have_to_be_positive(self) -> None:
        """Where nought makes no sense it is refused."""
        with self.assertRaisesRegex(ValueError, "'0' is not more than zero"):
            positive(duration)("0")
        with self.assertRaisesRegex(ValueError, "'-3' is not more than zero"):
            positive(whole)("-3")

    def test_nothing_is_waited_for_longer_than_a_socket_can(self) -> None:
        """What is written so is refused at the start, not when it is needed."""
        for name in ("timeout", "greeting_timeout", "command_timeout", "data_timeout"):
            self.assertRaisesRegex(ValueError, "more than 1000000 seconds", RELAY[name], "12d")
            self.assertEqual(RELAY[name]("11d"), 11 * 86400.0)
        self.assertRaisesRegex(ValueError, "more than 1000000 seconds", QUEUE["interval"], "999d")
        self.assertRaises(InvalidSettings, QueueProcessorThread, interval=float("inf"))


class SettingsInAText(unittest.TestCase):
    def test_become_values(self) -> None:
        """Each setting is read as what it is."""
        texts = {"port": "587", "tls": "Required", "verify": "off", "timeout": "1m", "password": "a%b #c"}
        self.assertEqual(
            read_settings(texts, RELAY),
            {"port": 587, "tls": Tls.REQUIRED, "verify": False, "timeout": 60.0, "password": "a%b #c"},
        )

    def test_about_the_login_become_values(self) -> None:
        """Mechanisms and the relay's reports in any case, with blanks or commas; a command as its words."""
        texts = {
            "auth": "scram-sha-256, PLAIN",
            "tls_minimum": "1.3",
            "token_command": "oama access 'me@example.org'",
            "notify": "failure,Delay",
            "notify_return": "hdrs",
        }
        self.assertEqual(
            read_settings(texts, RELAY),
            {
                "auth": (Mechanism.SCRAM_SHA_256, Mechanism.PLAIN),
                "tls_minimum": TlsVersion.TLS_1_3,
                "token_command": ("oama", "access", "me@example.org"),
                "notify": ("FAILURE", "DELAY"),
                "notify_return": "HDRS",
            },
        )

    def test_about_the_login_are_named_if_wrong(self) -> None:
        """With the words that would be right."""
        wrong = {
            "auth": ("GSSAPI", "^auth: 'GSSAPI': only these mechanisms are known: PLAIN, LOGIN, SCRAM-SHA-256"),
            "tls_minimum": ("1.1", "^tls_minimum: '1.1' is not one of 1.2, 1.3"),
            "token_command": ("oama 'x", "^token_command: .*No closing quotation"),
            "notify": ("NEVER DELAY", "^notify: 'NEVER DELAY': write NEVER alone, or some of"),
            "notify_return": ("ALL", "^notify_return: 'ALL' is not one of FULL"),
        }
        for name, (text, why) in wrong.items():
            with self.subTest(name), self.assertRaisesRegex(ValueError, why):
                read_settings({name: text}, RELAY)

    def test_may_be_left_open(self) -> None:
        """Nothing, and the word None, mean: not set."""
        self.assertEqual(read_settings({"username": "None", "password": ""}, RELAY), {})

    def test_are_refused_if_unknown(self) -> None:
        """An unknown name is refused together with the list of the known ones."""
        with self.assertRaisesRegex(ValueError, r"^unknown: interwal; .*; known are: queue_path, interval,"):
            read_settings({"interwal": "None"}, QUEUE)

    def test_are_asked_for_by_the_nearest_name(self) -> None:
        """Before the long list of all names; what is near to nothing is not asked for."""
        with self.assertRaisesRegex(ValueError, r"^unknown: interwal; did you mean interval\?; known are"):
            read_settings({"interwal": "None"}, QUEUE)
        with self.assertRaisesRegex(ValueError, r"^unknown: xyz; known are"):
            read_settings({"xyz": "None"}, QUEUE)

    def test_are_named_if_wrong(self) -> None:
        """A wrong value is refused with its name, itself and the cure."""
        with self.assertRaisesRegex(ValueError, "^port: 'smtp' is not a whole number"):
            read_settings({"port": "smtp"}, RELAY)
        with self.assertRaisesRegex(ValueError, "^on_unknown: 'drop' is not one of resend, hold"):
            read_settings({"on_unknown": "drop"}, QUEUE)
        with self.assertRaisesRegex(ValueError, "^retry_factor: 'nan' is not a number"):
            read_settings({"retry_factor": "nan"}, QUEUE)


class SeveralSources(unittest.TestCase):
    def test_the_first_wins(self) -> None:
        """What a stronger source sets is not changed by a weaker one."""
        self.assertEqual(merge(({"port": 1}, {"port": 2, "hostname": "h"})), {"port": 1, "hostname": "h"})

    def test_what_is_left_open_is_asked_of_the_next(self) -> None:
        """None, the empty text, and a TLS switch that is off say nothing; other falsehoods do."""
        strong = {"username": None, "hostname": "", "no_tls": False, "verify": False}
        weak = {"username": "u", "hostname": "h", "no_tls": True, "verify": True}
        self.assertEqual(merge((strong, weak)), {"username": "u", "hostname": "h", "no_tls": True, "verify": False})

    def test_tls_is_one_setting(self) -> None:
        """A source that says anything about TLS is the only one that is asked about it."""
        self.assertEqual(merge(({"no_tls": True}, {"force_tls": True})), {"no_tls": True})
        self.assertEqual(merge(({"tls": Tls.NEVER}, {"implicit_tls": True})), {"tls": Tls.NEVER})

    def test_the_password_is_one_setting(self) -> None:
        """A password file of a stronger source hides a weaker source's password."""
        self.assertEqual(merge(({"password_file": "f"}, {"password": "p"})), {"password_file": "f"})

    def test_so_is_what_takes_its_place(self) -> None:
        """A token of a stronger source hides a weaker source's password, and the other way round."""
        self.assertEqual(merge(({"token_file": "f"}, {"password": "p"})), {"token_file": "f"})
        self.assertEqual(merge(({"password": "p"}, {"token_command": ("c",)})), {"password": "p"})

    def test_a_source_must_not_contradict_itself(self) -> None:
        """No TLS and some TLS in one source are refused, whichever source it is."""
        for wrong in ({"no_tls": True, "force_tls": True}, {"no_tls": True, "implicit_tls": True}):
            with self.assertRaisesRegex(ValueError, "contradict each other"):
                merge(({}, wrong))
        with self.assertRaisesRegex(ValueError, "keep tls"):
            merge(({"tls": Tls.NEVER, "force_tls": True},))

    def test_forced_and_implicit_tls_agree(self) -> None:
        """Force and implicit TLS together are no contradiction: MailHost sets both."""
        both = {"force_tls": True, "implicit_tls": True}
        self.assertEqual(merge((both,)), both)


class KeywordsForAMailer(unittest.TestCase):
    def test_are_only_those_that_were_set(self) -> None:
        """Nothing is passed that was not set, because subclasses may not know it."""
        self.assertEqual(mailer_keywords({}), {})
        self.assertEqual(mailer_keywords({"port": 26, "interval": 3.0}), {"port": 26})

    def test_have_the_password_from_its_file(self) -> None:
        """The password file is read."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "password")
        with open(path, "w", encoding="utf-8") as file:
            file.write("geheim ü\n")
        self.assertEqual(
            mailer_keywords({"username": "u", "password_file": path}),
            {"username": "u", "password": "geheim ü"},
        )

    def test_have_a_token_provider(self) -> None:
        """Made from a command or a file; neither is run or read yet."""
        command = mailer_keywords({"username": "u", "token_command": ("/nowhere/oama", "access")})["token"]
        assert isinstance(command, TokenFromCommand)
        self.assertEqual(command.argv, ("/nowhere/oama", "access"))
        file = mailer_keywords({"username": "u", "token_file": "/nowhere/token"})["token"]
        assert isinstance(file, TokenFromFile)
        self.assertEqual(file.path, "/nowhere/token")

    def test_have_what_the_relay_is_to_report(self) -> None:
        """Both settings become one value."""
        keywords = mailer_keywords({"notify": ("FAILURE",), "notify_return": "HDRS"})
        self.assertEqual(keywords, {"notify": Notify(("FAILURE",), "HDRS")})
        self.assertEqual(mailer_keywords({"notify_return": "FULL"}), {"notify": Notify(ret="FULL")})

    def test_are_refused_if_secrets_contradict_each_other(self) -> None:
        """Password and token, or two tokens."""
        for both, why in (
            ({"password": "p", "token_file": "f"}, "password and token contradict"),
            ({"token_command": ("c",), "token_file": "f"}, "token_command and token_file contradict"),
        ):
            with self.assertRaisesRegex(ValueError, why):
                mailer_keywords({"username": "u", **both})

    def test_are_refused_if_a_half_is_missing(self) -> None:
        """A username without a password is refused before anything is sent."""
        with self.assertRaisesRegex(ValueError, "the password is missing; give both or neither"):
            mailer_keywords({"username": "u"})


class APasswordFile(unittest.TestCase):
    def path(self, text: str) -> str:
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "password")
        with open(path, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        return path

    def test_loses_its_line_end_only(self) -> None:
        """Blanks may belong to a password, the line end does not."""
        self.assertEqual(read_password(self.path(" a b \r\n")), " a b ")

    def test_holds_one_line(self) -> None:
        """An empty file, or one with several lines, is not taken for a password."""
        for text in ("", "\n", "one\ntwo\n"):
            with self.assertRaisesRegex(ValueError, "must hold the password and nothing else"):
                read_password(self.path(text))

    def test_is_named_if_it_is_missing(self) -> None:
        """A file that is not there is named."""
        with self.assertRaisesRegex(ValueError, "'/nonexistent/password' cannot be read"):
            read_password("/nonexistent/password")


class KeywordsForAProcessor(unittest.TestCase):
    def test_are_only_those_that_were_set(self) -> None:
        """Without a retry setting there is no schedule to pass."""
        self.assertEqual(processor_keywords({"interval": 5.0, "port": 25}), {"interval": 5.0})

    def test_have_a_schedule(self) -> None:
        """Retry settings become the schedule, the others keep their defaults."""
        settings = {"first_retry": 10.0, "max_retry": 20.0, "lifetime": 30.0, "on_unknown": OnUnknown.HOLD}
        schedule = Schedule(first=10.0, maximum=20.0, lifetime=30.0, on_unknown=OnUnknown.HOLD)
        self.assertEqual(processor_keywords(settings), {"schedule": schedule})

    def test_are_refused_if_they_do_not_fit(self) -> None:
        """A first delay longer than the longest is refused."""
        with self.assertRaisesRegex(ValueError, "do not fit"):
            processor_keywords({"first_retry": 7200.0})


if __name__ == "__main__":
    unittest.main()
