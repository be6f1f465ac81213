"""The configuration file of maildrop: its language, its keys, its errors."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
import unittest
import warnings
from pathlib import Path
from unittest import mock

from zope.sendmail.interfaces import MailError
from zope.sendmail.lifecycle.retry import OnUnknown, Schedule
from zope.sendmail.maildrop.config import (
    PASSWORD_VARIABLE,
    QUEUE_OPTIONS,
    RELAY_OPTIONS,
    Config,
    ConfigError,
    parse_config,
    read_config,
)
from zope.sendmail.maildrop.configsyntax import Malformed, parse_assignments
from zope.sendmail.maildrop.daemon import make_mailer

#: All keys that 2.3 shipped, as it shipped them, but for the directory.
SHIPPED = """
# the configuration of maildrop
PYTHON="/usr/bin/python"
MAILDROP_HOME="/var/lib/maildrop"
#MAILDROP_SPOOL="/var/spool/maildrop"
SMTP_HOST="localhost"
SMTP_PORT=25
MAILDROP_INTERVAL=120
DEBUG=0
DEBUG_RECEIVER=""
MAILDROP_BATCH=0
MAILDROP_TLS=0
MAILDROP_LOGIN=""
MAILDROP_PASSWORD=""
WAIT_INTERVAL=0.0
ADD_MESSAGEID=0
SUPERVISED_DAEMON=0
"""

DEFAULTS = Config(
    path="/etc/maildrop.conf",
    smtp_host="localhost",
    smtp_port=25,
    home="/var/lib/maildrop",
    spools=("/var/lib/maildrop/spool",),
    var="/var/lib/maildrop/var",
    pid_file="/var/lib/maildrop/var/maildrop.pid",
    log_file="/var/lib/maildrop/var/maildrop.log",
    interval=120.0,
    debug=False,
    debug_receiver=(),
    batch=0,
    tls=0,
    login="",
    password="",
    wait_interval=0.0,
    add_messageid=False,
    supervised=False,
)


def config(text: str = "") -> Config:
    """What this says, with a home."""
    return parse_config(f'MAILDROP_HOME="/home"\n{text}', "/etc/maildrop.conf")


class TheLanguage(unittest.TestCase):
    def test_what_2_3_took_is_taken(self) -> None:
        """Its tokens were Python's: line ends and blanks mean nothing, escapes are decoded, the last value counts."""
        table = {
            "A=1 B=2": {"A": 1, "B": 2},
            "A=\n1": {"A": 1},
            "A = 1": {"A": 1},
            "  A=1": {"A": 1},
            "A=1\nA=2": {"A": 2},
            "A=1 # B=2": {"A": 1},
            "# A='": {},
            "": {},
            r"A='a\tb'": {"A": "a\tb"},
            r'A=r"a\tb"': {"A": r"a\tb"},
            "A=u'x'": {"A": "x"},
            'A="""a\nb"""': {"A": "a\nb"},
            "A='''it's'''": {"A": "it's"},
            r'A="say \"x\""': {"A": 'say "x"'},
            'A="# no comment"': {"A": "# no comment"},
            'A="$HOME/x"': {"A": "$HOME/x"},
            "A=0x10 B=0b11 C=0o17 D=017": {"A": 16, "B": 3, "C": 15, "D": 15},
            "A=1.5 B=1e3 C=.5 D=2.": {"A": 1.5, "B": 1000.0, "C": 0.5, "D": 2.0},
            "A=True B=False C=None": {"A": True, "B": False, "C": None},
            "A=$ 1": {"A": 1},
            "A=1\r\nB=2\r\n": {"A": 1, "B": 2},
        }
        for text, values in table.items():
            with self.subTest(text):
                self.assertEqual({name: each.value for name, each in parse_assignments(text).items()}, values)

    def test_what_is_no_literal_is_refused(self) -> None:
        """Nothing is executed; the line is told."""
        refused = ["A=-1", "A=1;", "A=[1]", "A=(1)", "A=x", "export A=1", "A='a' 'b'", "A=10L", 'A="x', "A=", "A"]
        refused += ["A=1+1", "A=open('x')", "$HOME", "A==1", "A=08", "A=1x", "1=2", "A=1 2", 'A="\\x"', "A=`id`"]
        for text in refused:
            with self.subTest(text), self.assertRaises(Malformed) as raised:
                parse_assignments(f"\n\n{text}\n")
            self.assertEqual(raised.exception.line, 3)

    def test_a_shell_reads_the_same(self) -> None:
        """The scripts of 2.3 sourced the file."""
        with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
            file.write(SHIPPED)
            file.flush()
            script = f'. "{file.name}"; echo "$SMTP_HOST $SMTP_PORT $MAILDROP_HOME"'
            said = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True).stdout
        self.assertEqual(said, "localhost 25 /var/lib/maildrop\n")


class TheKeys(unittest.TestCase):
    def test_what_2_3_shipped_gives_the_defaults(self) -> None:
        """And so does a file that says nothing but the directory."""
        self.assertEqual(parse_config(SHIPPED, "/etc/maildrop.conf"), DEFAULTS)
        self.assertEqual(parse_config('MAILDROP_HOME="/var/lib/maildrop"', "/etc/maildrop.conf"), DEFAULTS)

    def test_spools_are_a_list(self) -> None:
        """With ``;`` between them and blanks around; none twice."""
        self.assertEqual(config('MAILDROP_SPOOL=" /a; /b ;/a;"').spools, ("/a", "/b"))

    def test_paths_begin_at_the_file(self) -> None:
        """2.3 changed to ``/`` and did not find them any more."""
        got = parse_config('MAILDROP_HOME="../maildrop" MAILDROP_PID_FILE="pid"', "/srv/etc/maildrop.conf")
        self.assertEqual((got.home, got.pid_file), ("/srv/maildrop", "/srv/etc/pid"))

    def test_numbers_may_stand_in_quotes(self) -> None:
        """As people and recipes write them."""
        got = config('SMTP_PORT="2525" MAILDROP_TLS="2" WAIT_INTERVAL="0.5" DEBUG="1" MAILDROP_BATCH=""')
        self.assertEqual((got.smtp_port, got.tls, got.wait_interval, got.debug, got.batch), (2525, 2, 0.5, True, 0))

    def test_tls_above_two_is_two(self) -> None:
        """2.3 took everything above 1 for: always."""
        self.assertEqual([config(f"MAILDROP_TLS={number}").tls for number in (0, 1, 2, 3)], [0, 1, 2, 2])

    def test_what_is_unknown_is_sent_again_unless_the_site_holds_it(self) -> None:
        """By the daemon and by who looks at its mail, in the same way."""
        self.assertIs(config().queue_options["schedule"].on_unknown, OnUnknown.RESEND)
        self.assertIs(config('MAILDROP_ON_UNKNOWN="hold"').queue_options["schedule"].on_unknown, OnUnknown.HOLD)

    def test_tls_may_be_a_word(self) -> None:
        """As everywhere else; so a relay that speaks TLS from the first byte can be used."""
        for number, word in enumerate(("never", "opportunistic", "required", "implicit")):
            self.assertEqual(config(f'MAILDROP_TLS="{word}"').tls, number)
            self.assertEqual(make_mailer(config(f'MAILDROP_TLS="{word}"')).relay_settings().tls, word)

    def test_the_queue_has_its_settings(self) -> None:
        """By the names that they have everywhere; the queue and the processor get them."""
        settings = (
            "MAILDROP_FIRST_RETRY=30\nMAILDROP_RETRY_FACTOR=3\nMAILDROP_MAX_RETRY='2h'\nMAILDROP_LIFETIME='2d'\n"
            "MAILDROP_NOTIFY_SENDER=1\nMAILDROP_KEEP_REJECTED='30d'\nMAILDROP_ON_UNKNOWN='hold'"
        )
        expected = Schedule(30.0, 3.0, 7200.0, 2 * 86400.0, on_unknown=OnUnknown.HOLD)
        self.assertEqual(config(settings).queue_options, {"lock_age": 86400.0, "schedule": expected})
        self.assertEqual(
            config(settings).processor_options,
            {"schedule": expected, "notify_sender": True, "keep_rejected": 30 * 86400.0},
        )

    def test_settings_of_the_queue_that_do_not_fit_are_refused(self) -> None:
        """When the file is read, and with its name."""
        with self.assertRaisesRegex(ConfigError, "/etc/maildrop.conf: retry: first delay 99.0 s, maximum 9.0 s"):
            config("MAILDROP_FIRST_RETRY=99\nMAILDROP_MAX_RETRY=9")
        with self.assertRaisesRegex(ConfigError, "line 2: MAILDROP_KEEP_REJECTED cannot be used"):
            config("MAILDROP_KEEP_REJECTED='soon'")

    def test_debug_receivers_are_a_list(self) -> None:
        """With commas between them."""
        self.assertEqual(config('DEBUG_RECEIVER="a@x.org, B <b@x.org>"').debug_receiver, ("a@x.org", "B <b@x.org>"))

    def test_keys_that_nobody_knows_are_passed_over(self) -> None:
        """As ever."""
        self.assertEqual(config("WHATEVER=1"), config())

    def test_spool_and_var_need_no_home(self) -> None:
        """Everything has its place then."""
        self.assertEqual(parse_config('MAILDROP_SPOOL="/s" MAILDROP_VAR="/v"', "/c").log_file, "/v/maildrop.log")


class AKeyThatThereIsNot(unittest.TestCase):
    def test_is_told_if_it_looks_like_one_of_ours(self) -> None:
        """With file, line and what may have been meant; what other programs read from the file is theirs."""
        text = 'MAILDROP_INTERVL=5\nDEBUG_RECIEVER=""\nSMTP_NAME="x"\nPYTHON="/usr/bin/python"\nMAILDROP_LIFETIME="2d"'
        self.assertEqual(
            config(text).passed_over,
            (
                "/etc/maildrop.conf, line 3: there is no DEBUG_RECIEVER, so it is passed over; "
                "did you mean DEBUG_RECEIVER?",
                "/etc/maildrop.conf, line 2: there is no MAILDROP_INTERVL, so it is passed over; "
                "did you mean MAILDROP_INTERVAL?",
                "/etc/maildrop.conf, line 4: there is no SMTP_NAME, so it is passed over",
            ),
        )

    def test_is_not_asked_about_in_a_file_that_has_all(self) -> None:
        """Each key of the page is known."""
        page = (Path(__file__).resolve().parents[5] / "docs" / "howto" / "maildrop.rst").read_text(encoding="utf-8")
        keys = re.findall(r"(?m)^``([A-Z_]+)`` ", page)
        options = [f"MAILDROP_{name.upper()}" for name in (*RELAY_OPTIONS, *QUEUE_OPTIONS)]
        self.assertGreater(len(keys), 20)
        self.assertEqual(
            parse_config("".join(f'{key}=""\n' for key in (*keys, *options)) + 'MAILDROP_HOME="/x"', "/c").passed_over,
            (),
        )


class Passwords(unittest.TestCase):
    def setUp(self) -> None:
        self.enterContext(mock.patch.dict(os.environ))
        os.environ.pop(PASSWORD_VARIABLE, None)

    def test_the_file_may_have_it(self) -> None:
        """As ever; it is shown to nobody."""
        got = config('MAILDROP_PASSWORD="secret"')
        self.assertEqual(got.read_password(), "secret")
        self.assertNotIn("secret", repr(got))

    def test_a_file_of_its_own_may_have_it(self) -> None:
        """So that Zope need not be able to read it: it is opened only by who asks."""
        with tempfile.NamedTemporaryFile("w") as file:
            file.write("secret\n")
            file.flush()
            got = config(f'MAILDROP_PASSWORD_FILE="{file.name}"')
            self.assertEqual((got.has_password, got.password, got.read_password()), (True, "", "secret"))
        self.assertRaisesRegex(ConfigError, "MAILDROP_PASSWORD_FILE.*cannot be read", got.read_password)

    def test_it_is_taken_to_the_letter(self) -> None:
        """With the blanks around it and all digits; 2.3 stripped nothing, and a shell sees the same."""
        for written, password in (
            ('" a "', " a "),
            ("012345", "012345"),
            ("1e5", "1e5"),
            (r'"a\.b\d"', r"a\.b\d"),
            (r'"a\\.b"', r"a\.b"),
            (r'"C:\Users"', r"C:\Users"),
            ('"grün"', "grün"),
        ):
            with self.subTest(written), warnings.catch_warnings():
                warnings.simplefilter("error")
                self.assertEqual(config(f"MAILDROP_PASSWORD={written}").password, password)

    def test_the_environment_may_have_it(self) -> None:
        """If nobody else has."""
        os.environ[PASSWORD_VARIABLE] = "secret"
        self.assertEqual(config().read_password(), "secret")
        self.assertEqual(config('MAILDROP_PASSWORD="other"').read_password(), "other")

    def test_no_error_tells_it(self) -> None:
        """Whatever is wrong with the line in which it stands."""
        for text in ("MAILDROP_PASSWORD=secret", '"secret"', "MAILDROP_PASSWORD='a' 'secret'", r"A='secret\x'"):
            with self.subTest(text), self.assertRaises(ConfigError) as raised:
                config(text)
            self.assertNotIn("secret", str(raised.exception))


class Errors(unittest.TestCase):
    def test_they_name_file_line_and_cure(self) -> None:
        """So that nobody has to guess."""
        table = {
            "SMTP_PORT=smtp": "line 3: the value of SMTP_PORT is not a literal; put texts in quotes",
            'SMTP_PORT="smtp"': "line 3: SMTP_PORT is 'smtp', which is not a whole number; write one like 25",
            "SMTP_PORT=70000": "line 3: SMTP_PORT is 70000; write a number from 1 to 65535",
            'WAIT_INTERVAL="soon"': "line 3: WAIT_INTERVAL is 'soon', which is not a number",
            'MAILDROP_SPOOL="$HOME/x"': "line 3: MAILDROP_SPOOL is .* write the whole path",
            r'SMTP_HOST="a\nb"': "line 3: SMTP_HOST has a control character",
            "MAILDROP_BATCH=2.5": "line 3: MAILDROP_BATCH is 2.5, which is not a whole number",
            'DEBUG_RECEIVER="a@x.org, me"': "line 3: DEBUG_RECEIVER cannot be used: the recipient 'me' .* no domain",
            'MAILDROP_ON_UNKNOWN="?"': "line 3: MAILDROP_ON_UNKNOWN is '\\?'; write one of: resend, hold",
            'MAILDROP_LOGIN="m\udce4"': "line 3: MAILDROP_LOGIN has a character .* save the file as UTF-8",
            "DEBUG='yes'": "line 3: DEBUG is 'yes', which is not a switch; write one like 0",
        }
        for text, words in table.items():
            with self.subTest(text):
                self.assertRaisesRegex(ConfigError, f"/etc/maildrop.conf, {words}", config, f"\n{text}")

    def test_a_directory_is_never_guessed(self) -> None:
        """2.3 had ``/tmp/maildrop``, which anybody could make first."""
        self.assertRaisesRegex(ConfigError, "MAILDROP_HOME is missing; name a directory", parse_config, "", "/c")

    def test_what_editors_write_is_no_error(self) -> None:
        """A mark of the byte order, line ends of DOS, and a comment or a path in an encoding of old."""
        path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "config")
        with open(path, "wb") as file:
            file.write(b'\xef\xbb\xbf# gr\xfcn\r\nMAILDROP_HOME="/b\xfccher"\r\n')
        self.assertEqual(os.fsencode(read_config(path).home), b"/b\xfccher")

    def test_a_file_that_cannot_be_read_is_named(self) -> None:
        """It is missing, or a directory."""
        for path in ("/nowhere/maildrop.conf", "/"):
            self.assertRaisesRegex(ConfigError, f"^{path}: the configuration cannot be read", read_config, path)

    def test_they_are_permanent_and_values(self) -> None:
        """For who catches one or the other."""
        self.assertTrue(issubclass(ConfigError, MailError) and issubclass(ConfigError, ValueError))
        self.assertTrue(ConfigError.permanent)
