"""``zope-sendmail queue VERB``: what operators see and do."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import unittest
from collections.abc import Sequence
from typing import Any
from unittest import mock

from zope.sendmail.cli import app, queuecommands, queueviews
from zope.sendmail.cli.formatting import clean, clean_line, finding_lines, short
from zope.sendmail.cli.queuearguments import KEYS, KEYS_OF_A_CHANGE, UPKEEP, VERBS, is_queue_command
from zope.sendmail.cli.terminal import say
from zope.sendmail.interfaces import QueueNotSafe
from zope.sendmail.lifecycle.finding import Finding, Kind, Severity
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.selection import matching
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import open_queue
from zope.sendmail.queue.maildir.admin import MaildirAdmin
from zope.sendmail.system.disk import Disk
from zope.sendmail.tests.support.operators import GREYLISTED, MESSAGE, UNKNOWN_USER, OperatorsTest

#: Verbs behind whose queue no name stands.
_WITHOUT_NAMES = ("list", "count", "doctor", "relays", "shape", "errors", "metrics", "top")


class AMailThatAnOlderReleaseHasLocked(OperatorsTest):
    def lock(self, name: str, age: float) -> str:
        """A second name of the message, whose time stamp is that of the lock."""
        path = os.path.join(self.path, "new", name)
        os.link(path, os.path.join(self.path, "new", f".sending-{name}"))
        os.utime(path, (self.clock.time() - age,) * 2)
        return name

    def test_is_shown_as_locked(self) -> None:
        """By list, with how long that can last; it counts as ready."""
        self.lock(self.put(), 3600.0)
        self.call("list", self.path)
        self.assertIn("locked by a release before 8.0, for 2h", self.said)
        self.assertIn("doctor --all says more", self.said)
        self.assertRegex(self.said, r"ready +[\w ]+ 2h +-")
        [values] = self.objects("list")
        self.assertAlmostEqual(values["locked_until"], self.clock.time() + 7200, delta=1)

    def test_is_released_by_the_filters_and_no_other_that_is_ready(self) -> None:
        """What is not locked needs no release, and is no mail for which that failed."""
        locked, other = self.lock(self.put(), 60.0), self.put()
        for options, words in ((["--dry-run"], "would be released"), ([], "released")):
            self.assertEqual(self.call("release", self.path, "--state", "ready", *options), 0)
            self.assertIn(f"{locked}: {words}\n", self.said)
            self.assertNotIn(other, self.said)

    def test_is_free_after_three_hours(self) -> None:
        """Nothing is said of the lock then, nor when it was taken away."""
        old, name = self.lock(self.put(), 10801.0), self.lock(self.put(), 60.0)
        self.call("release", self.path, name)
        self.call("list", self.path)
        self.assertIn(short(old), self.said)
        self.assertNotIn("locked by", self.said)
        self.call("show", self.path, name)
        self.assertNotIn("locked", self.said)


class TheCommandLine(OperatorsTest):
    def test_of_7_3_means_what_it_meant(self) -> None:
        """A Maildir may be called queue."""
        self.enterContext(contextlib.chdir(os.path.dirname(self.path)))
        for line in ("queue", "queue --daemon", "--daemon queue", "queue -q", "list", "list queue", "", "mail queue"):
            self.assertFalse(is_queue_command(line.split()), line)
        for verb in VERBS:
            self.assertTrue(is_queue_command(["queue", verb]), verb)

    def test_explains_itself_where_no_maildir_is_meant(self) -> None:
        """The word alone makes no Maildir; it is answered with all verbs."""
        self.enterContext(contextlib.chdir(os.path.join(self.path, "new")))
        self.assertTrue(is_queue_command(["queue"]))
        self.assertEqual(self.call_app(["queue"]), 2)
        for verb in VERBS:
            self.assertIn(verb, self.complained)
        self.assertEqual(os.listdir("."), [])

    def test_explains_itself(self) -> None:
        """All verbs, the exit statuses, and the old meaning; each verb its options."""
        self.assertEqual(self.call("--help"), 0)
        for words in (*VERBS, "exit status", "drains the Maildir ./queue"):
            self.assertIn(words, self.said)
        listed = re.findall(r"(?m)^  ([a-z]+) +\S", self.said)
        self.assertLessEqual({*VERBS}, {*listed})
        for verb in VERBS:
            self.assertEqual(self.call(verb, "--help"), 0)
            self.assertIn("URL" if verb in UPKEEP else "MAILDIR", self.said)
        self.assertIn("zope-sendmail queue --help", app.ConsoleApp.parser.format_help())

    def test_knows_what_a_slip_of_the_pen_means(self) -> None:
        """A verb that is none is told with the nearest, or with all of them."""
        self.assertRefused(2, "there is no verb 'lst'; do you mean 'list'?", "lst", self.path)
        self.assertRefused(2, f"there is no verb 'x'; there are: {', '.join(VERBS)}", "x")

    def test_takes_options_anywhere(self) -> None:
        """Before the queue, and between names."""
        one, two = self.put(), self.put()
        self.assertEqual(self.call("hold", self.path, one, "--json", two), 0)
        self.assertEqual(self.call("release", "--json", self.path, one, two), 0)

    def test_refuses_what_cannot_be_meant(self) -> None:
        """With the reason, as status 2."""
        name = self.put()
        for words, *arguments in (
            ["which mails?", "hold", self.path],
            ["which mails?", "retry", self.path, "--limit", "3"],
            ["not both", "hold", self.path, name, "--state", "ready"],
            ["not both", "hold", self.path, name, "--all"],
            ["which mail?", "show", self.path],
            ["is not a duration", "list", self.path, "--older-than", "soon"],
            ["is not a number", "list", self.path, "--limit", "-1"],
            ["invalid choice", "list", self.path, "--state", "sent"],
            ["required: MAILDIR", "list"],
            ["not allowed with", "show", self.path, name, "--raw", "--message"],
        ):
            self.assertRefused(2, words, *arguments)


class AQueueThatIsNone(OperatorsTest):
    def test_is_an_error_and_is_not_made(self) -> None:
        """Status 78, whatever the verb."""
        for verb in VERBS.keys() - UPKEEP.keys():
            missing = os.path.join(self.path, "missing")
            with self.subTest(verb):
                for path in (missing, os.path.dirname(self.path), __file__):
                    words = [] if verb in _WITHOUT_NAMES else ["x"]
                    words += ["--to", "default"] if verb == "reroute" else []
                    words = ["list", path] if verb == "suppress" else [path, *words]
                    self.assertEqual(self.call(verb, *words), 78)
                    self.assertIn("no queue" if path == missing else "not a Maildir", self.complained)
                self.assertFalse(os.path.exists(missing))
        self.assertEqual(os.listdir(os.path.dirname(self.path)), ["queue"])

    def test_is_told_from_one_that_cannot_be_used_now(self) -> None:
        """Permissions are 77, the disk is 74; a traceback is nothing for people."""
        for error, status in ((PermissionError(13, "denied"), 77), (OSError(5, "I/O error"), 74)):
            with mock.patch.object(MaildirAdmin, "count", side_effect=error):
                self.assertEqual(self.call("count", self.path), status)
            self.assertIn(str(error.strerror), self.complained)
        name = self.put()
        with mock.patch.object(MaildirAdmin, "hold", side_effect=QueueNotSafe("no locks here")):
            self.assertEqual(self.call("hold", self.path, name), 74)

    def test_is_left_when_the_reader_has_seen_enough(self) -> None:
        """`| head` is told by the status from a list that was read to its end, and no traceback is seen."""
        self.put()
        reader, writer = os.pipe()
        os.close(reader)
        done = subprocess.run(
            [sys.executable, "-m", "zope.sendmail.cli", "queue", "list", self.path],
            stdout=writer,
            stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=False,
        )
        os.close(writer)
        self.assertEqual((done.returncode, done.stderr), (141, b""))

    def test_can_be_interrupted(self) -> None:
        """Without a traceback."""
        with mock.patch.object(MaildirAdmin, "count", side_effect=KeyboardInterrupt):
            self.assertEqual(self.call("count", self.path), 130)


class Listing(OperatorsTest):
    def test_is_a_table(self) -> None:
        """Aligned, with the last words below."""
        names = self.put_four()
        self.clock.advance(30)
        last = [name.rpartition(".")[2] for name in names]
        self.assertEqual(
            self.ok("list").splitlines(),
            [
                "NAME           STATE        AGE  DUE IN TRY  SENDER -> RECIPIENTS",
                f"{last[0]}  deferred     30s     30s   1  shop@example.org -> a@example.org, b@example.net",
                "               450 4.7.1 greylisted",
                f"{last[1]}  rejected     30s       -   1  shop@example.org -> c@example.org",
                "               550 5.1.1 no such user",
                f"{last[2]}  held         30s       -   -  <> -> d@example.org",
                "               held by an operator",
                f"{last[3]}  ready        30s     now   -  shop@example.org -> e@example.org",
            ],
        )

    def test_fits_the_terminal(self) -> None:
        """However long addresses and replies are, and however many recipients there are."""
        self.put(*(f"{'x' * 50}{number}@{'y' * 50}.example.org" for number in range(30)), sender="z" * 60 + "@a.org")
        self.settle(*[Reply(Answer.DEFERRED, "w" * 300, 450)] * 30)
        self.put(*(f"r{number}@example.org" for number in range(9)))
        self.put("a@example.org", sender="s" * 60 + "@a.org")
        for columns in ("80", "100", "200"):
            with mock.patch.dict(os.environ, {"COLUMNS": columns}):
                lines = self.ok("list").splitlines()
            self.assertLessEqual(max(map(len, lines)), int(columns))
            self.assertTrue(lines[1].endswith("+29"), lines[1])
            self.assertIn("a@example.org", lines[4])

    def test_tells_what_it_left_out(self) -> None:
        """--limit 0 shows all."""
        for _ in range(3):
            self.put()
        with mock.patch.object(queueviews, "_MAILS", 2):
            self.assertTrue(self.ok("list").endswith("... and 1 more; --limit 0 shows all\n"))
            self.assertEqual(self.ok("list", "--limit", "0").count("shop@example.org"), 3)
            self.assertTrue(self.ok("list", "--state", "ready").endswith("... and more; --limit 0 shows all\n"))
            self.assertNotIn("more", self.ok("list", "--state", "ready", "--limit", "3"))
        self.assertEqual(len(self.names()), 3)
        self.assertEqual(len(self.names("--limit", "2")), 2)

    def test_may_be_empty(self) -> None:
        """Which is said."""
        self.assertEqual(self.ok("list"), "no mails\n")
        self.assertEqual(self.ok("list", "--state", "held"), "no mail fits\n")
        self.assertEqual(self.objects("list"), [])

    def test_can_be_filtered(self) -> None:
        """By each of the filters, and by all of them."""
        deferred, rejected, held, ready = self.put_four()
        self.assertEqual(self.names("--state", "held", "--state", "ready"), [held, ready])
        self.assertEqual(self.names("--recipient", "c@example.org"), [rejected])
        self.assertEqual(self.names("--recipient", "@example.net"), [deferred])
        self.assertEqual(self.names("--sender", "<>"), [held])
        self.assertEqual(self.names("--reply", "450"), [deferred])
        self.assertEqual(self.names("--reply", "no such"), [rejected])
        self.assertEqual(self.names("--state", "held", "--sender", "shop@example.org"), [])
        self.clock.advance(7200)
        self.assertEqual(len(self.names("--older-than", "1h")), 4)
        self.assertEqual(self.names("--younger-than", "1h"), [])

    def test_shows_files_that_are_no_mail(self) -> None:
        """They are in the queue, so they are seen."""
        Disk().create(os.path.join(self.path, "new", "bad\x1b[2J\udcff\u202ename"), b"")
        self.assertIn("bad [2J name", self.ok("list"))
        self.assertIn("(no readable envelope)", self.said)
        self.assertEqual(self.objects("list")[0]["name"], "bad\x1b[2J\udcff\u202ename")

    def test_streams(self) -> None:
        """A program gets the first object before the second mail is read."""
        for _ in range(2):
            self.put()
        seen: list[str] = []
        original = MaildirAdmin.mails

        def watched(*arguments: Any, **filters: Any) -> Any:
            for mail in original(*arguments, **filters):
                seen.append("mail")
                yield mail

        with (
            mock.patch.object(MaildirAdmin, "mails", watched),
            mock.patch.object(queueviews, "say_json", side_effect=lambda values: seen.append("line")),
        ):
            self.call("list", self.path, "--json")
        self.assertEqual(seen, ["mail", "line", "mail", "line"])


class Showing(OperatorsTest):
    def test_tells_everything_about_a_mail(self) -> None:
        """Envelope, what was said about each recipient, and what happened."""
        name = self.put_four()[0]
        self.queue.admin.hold(name)
        text = self.ok("show", name)
        for words in (
            f"name        {name}",
            "state       held",
            "message id  1@example.org",
            "sender      shop@example.org",
            "recipient   a@example.org: accepted: 250 ok",
            "recipient   b@example.net: deferred: 450 4.7.1 greylisted",
            "attempt 1 through relay:25: deferred, next attempt ",
            "held (held by an operator)",
        ):
            self.assertIn(words, text)
        self.assertNotIn("Subject", text)

    def test_of_several_mails(self) -> None:
        """One after the other; what is unknown is told."""
        one, two = self.put(), self.put()
        self.assertEqual(self.call("show", self.path, one, two, "nope"), 1)
        self.assertEqual(self.said.count("message id"), 2)
        self.assertIn("no mail 'nope'", self.complained)

    def test_gives_the_message_without_harm_to_the_terminal(self) -> None:
        """The headers, or all of it."""
        name = self.put()
        self.assertTrue(self.ok("show", name, "--headers").endswith("\nSubject: one\n"))
        self.assertIn("First \ufffd[31mline\nSecond line \ufffd\n", self.ok("show", name, "--message"))

    def test_gives_the_message_to_programs(self) -> None:
        """Byte for byte."""
        name = self.put()
        self.call("show", self.path, name, "--raw")
        self.assertEqual(self.raw, MESSAGE)
        [mail] = self.objects("show", name, "--message")
        self.assertEqual(mail["message"].encode("utf-8", "surrogateescape"), MESSAGE)
        [mail] = self.objects("show", name, "--headers")
        self.assertEqual(mail["headers"], "Message-Id: <1@example.org>\nSubject: one\n")

    def test_does_not_give_a_password(self) -> None:
        """CPSMailAccess wrote that of the relay into its files; long ones and folded ones are hidden as well."""
        lines = (
            b"X-Zope-Hostname: mail.example.org\nX-Zope-Username: shop\nX-Zope-Password: geheim\n",
            b"x-zope-password:geheim\n\tgeheim too\nX-Zope-Username: shop\n",
            b"X-Zope-Password: " + b"x" * 200_000 + b"geheim\n",
        )
        for each in lines:
            name = self.put(message=b"Subject: one\n" + each + b"\nX-Zope-Password: is a word here\n")
            for options in (("--headers",), ("--message",), ("--headers", "--json"), ("--message", "--json")):
                with self.subTest(each[:40], options=options):
                    told = self.ok("show", name, *options)
                    self.assertNotIn("geheim", told)
                    self.assertIn("(hidden)", told)
                    self.assertEqual("is a word here" in told, "--message" in options)

    def test_does_not_give_raw_bytes_to_a_terminal(self) -> None:
        """There are --message and redirection."""
        name = self.put()

        class Terminal(io.StringIO):
            def isatty(self) -> bool:
                return True

        with contextlib.redirect_stdout(Terminal()) as said, contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(queuecommands.main(["show", self.path, name, "--raw"]), 64)
        self.assertEqual(said.getvalue(), "")

    def test_gives_the_whole_history_to_programs(self) -> None:
        """A record for everything that happened."""
        name = self.put()
        for _ in range(2):
            self.settle(GREYLISTED)
            self.clock.advance(3600)
        [mail] = self.objects("show", name)
        self.assertEqual([record["attempts"] for record in mail["history"]], [1, 2])
        reply = {"answer": "deferred", "code": 450, "enhanced": "4.7.1", "text": "greylisted"}
        self.assertEqual(mail["replies"], {"one@example.org": reply})


class Changing(OperatorsTest):
    def states(self) -> list[State]:
        return [mail.state for mail in self.queue.admin.mails()]

    def test_says_what_it_did(self) -> None:
        """Mail by mail."""
        name = self.put()
        for verb, words in (("hold", "held"), ("release", "released"), ("retry", "will be tried now")):
            self.assertEqual(self.ok(verb, name).splitlines()[0], f"{name}: {words}")
        self.assertEqual(self.objects("remove", name), [{"name": name, "verb": "remove", "done": True, "error": ""}])
        self.assertEqual(list(self.queue.admin.names()), [])

    def test_says_what_it_could_not_do(self) -> None:
        """With what can be done instead; the others are done."""
        held, ready = self.put(), self.put()
        self.queue.admin.hold(held)
        self.assertEqual(self.call("hold", self.path, held, ready), 1)
        self.assertIn("it is held; possible: release, retry, reroute, bounce, remove", self.complained)
        self.assertTrue(self.said.endswith("1 mail held, 1 not\n"))
        [first, second] = self.objects("hold", held, ready)
        self.assertEqual((first["done"], second["done"]), (False, False))

    def test_leaves_mail_alone_that_is_being_sent(self) -> None:
        """Safe while processors run."""
        name = self.put()
        [lease] = self.queue.claim()
        self.assertRefused(1, "it is being sent", "remove", self.path, name)
        self.assertEqual(self.ok("hold", "--all"), "0 mails held\n")
        lease.release()

    def test_by_filters_means_the_states_that_make_sense(self) -> None:
        """As the help says; others have to be named."""
        self.put_four()
        self.assertIn("2 mails will be tried now", self.ok("retry", "--all"))
        self.assertEqual(self.states(), [State.READY, State.READY, State.HELD, State.READY])
        self.assertIn("will be tried now", self.ok("retry", "--state", "held"))
        self.assertIn("4 mails held", self.ok("hold", "--recipient", "@example.org"))
        self.assertIn("2 mails released", self.ok("release", "--all", "--limit", "2"))
        self.assertEqual(self.states(), [State.READY, State.READY, State.HELD, State.HELD])

    def test_by_filters_may_mean_nothing(self) -> None:
        """Which is no failure."""
        self.assertEqual(self.ok("retry", "--reply", "450"), "0 mails will be tried now\n")

    def test_says_that_mail_is_due_already(self) -> None:
        """Which is why it is not among those that will be tried; it needs nobody."""
        self.put()
        self.assertEqual(self.ok("retry", "--all", "--dry-run").splitlines()[1:], ["1 mail is due already"])
        self.put()
        self.assertEqual(self.ok("retry", "--all").splitlines()[1], "2 mails are due already")
        self.assertNotIn("due", self.ok("retry", "--all", "--state", "ready"))
        self.call("retry", self.path, "--all", "--json")
        self.assertEqual(self.said, "")

    def test_does_not_stop_when_the_reader_has_seen_enough(self) -> None:
        """`| head` shortens what is said, not what is done; however standard output is buffered."""
        for verb, buffering, state in (("hold", "1", State.HELD), ("release", "", State.READY)):
            with self.subTest(verb):
                while len(self.states()) < 3:
                    self.put()
                reader, writer = os.pipe()
                os.close(reader)
                done = subprocess.run(
                    [sys.executable, "-m", "zope.sendmail.cli", "queue", verb, "--all", self.path],
                    stdout=writer,
                    stderr=subprocess.PIPE,
                    env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": buffering},
                    check=False,
                )
                os.close(writer)
                self.assertEqual((done.returncode, done.stderr), (0, b""))
                self.assertEqual(self.states(), [state] * 3)

    def test_does_not_stop_at_a_history_that_is_no_file(self) -> None:
        """That mail cannot be changed; those behind it are."""
        names = [self.put() for _ in range(3)]
        os.mkfifo(os.path.join(self.path, "history", names[0]))
        os.symlink("/dev/null", os.path.join(self.path, "history", names[1]))
        self.assertEqual(self.call("hold", self.path, "--all"), 1)
        self.assertIn(f"{names[0]} is not a regular file", self.complained)
        self.assertIn("1 mail held, 2 not", self.said)
        self.assertEqual(self.names("--state", "held"), names[2:])

    def test_wakes_processors(self) -> None:
        """They need not look by themselves."""
        name = self.put()
        self.settle(GREYLISTED)
        self.ok("retry", name)
        self.queue.wait(3600.0)
        self.assertEqual([lease.name for lease in self.queue.claim()], [name])

    def test_does_not_stop_at_what_is_no_mail(self) -> None:
        """A directory cannot be removed; the mails behind it are."""
        os.mkdir(os.path.join(self.path, "new", "thing"))
        self.put()
        self.assertEqual(self.call("remove", self.path, "--all", "--yes"), 1)
        self.assertEqual(list(self.queue.admin.names()), ["thing"])


class Removing(OperatorsTest):
    def setUp(self) -> None:
        super().setUp()
        self.names_ = [self.put() for _ in range(3)]

    def test_one_mail_needs_no_word_more(self) -> None:
        """Named, or the only one that fits."""
        self.ok("remove", self.names_[0])
        self.ok("remove", "--all", "--limit", "1")
        self.assertEqual(list(self.queue.admin.names()), self.names_[2:])

    def test_several_are_asked_for_at_a_terminal(self) -> None:
        """Only yes is yes."""
        for answer in ("", "n\n", "what?\n"):
            self.assertEqual(self.call("remove", self.path, "--all", answer=answer), 1)
            self.assertIn("Remove 3 mails for good? [y/N]", self.complained)
        self.assertEqual(list(self.queue.admin.names()), self.names_)
        self.assertEqual(self.call("remove", self.path, "--all", answer="y\n"), 0)
        self.assertEqual(list(self.queue.admin.names()), [])

    def test_what_a_script_filters_needs_yes(self) -> None:
        """However many it means now: a script that was tried with one mail works with two."""
        self.ok("remove", "--yes", *self.names_[:2])
        self.assertRefused(2, "1 mail would be removed", "remove", self.path, "--state", "ready")
        self.ok("remove", "--yes", "--state", "ready")
        self.assertRefused(2, "0 mails would be removed", "remove", self.path, "--state", "ready")

    def test_several_need_yes_elsewhere(self) -> None:
        """A script says what it means; so does one that was started without a standard input."""
        self.assertRefused(2, "3 mails would be removed", "remove", self.path, *self.names_)
        for nothing in (None, object()):
            with mock.patch.object(sys, "stdin", nothing):
                self.assertRefused(2, "3 mails would be removed", "remove", self.path, *self.names_)
        self.assertTrue(self.ok("remove", "--yes", *self.names_).endswith("3 mails removed\n"))


class ASpool(OperatorsTest):
    """The directory that other programs drop mail into."""

    def setUp(self) -> None:
        super().setUp()
        self.path = os.path.join(os.path.dirname(self.path), "spool")
        os.mkdir(self.path)
        self.drop("one")

    def drop(self, name: str) -> None:
        with open(os.path.join(self.path, name), "wb") as file:
            file.write(b"##To:one@example.org\n##From:sender@example.org\n" + MESSAGE)

    def test_is_named_by_its_prefix(self) -> None:
        """What was dropped is counted, also before any daemon has seen it."""
        self.assertEqual(self.call("count", "spool:" + self.path), 0, self.complained)
        self.assertIn("ready", self.said)

    def test_is_known_by_its_directory(self) -> None:
        """Once something was taken in; its own directory is not asked for."""
        daemon = open_queue("spool:" + self.path)
        self.addCleanup(daemon.close)
        daemon.claim(0)
        self.drop("two")
        self.assertEqual(len(self.names()), 2)
        self.ok("hold", "--all")
        self.assertEqual(len(self.names("--state", "held")), 2)

    def test_may_be_several(self) -> None:
        """The mails of all are listed."""
        other = self.path + "2"
        os.mkdir(other)
        self.assertEqual(self.call("list", f"spool:{self.path};{other}"), 0, self.complained)
        self.assertIn("one@example.org", self.said)

    def test_has_to_be_there(self) -> None:
        """Nothing is made by a look at a name that was spelled wrong, or at an ordinary directory."""
        for path, words in (
            ("spool:" + self.path + "x", "there is no queue"),
            ("spool:" + __file__, "is not a spool"),
            ("spool:", "names no directory"),
            (self.path, "spool:"),
        ):
            self.assertEqual(self.call("count", path), 78)
            self.assertIn(words, self.complained)
        self.assertEqual(os.listdir(self.path), ["one"])
        self.assertFalse(os.path.exists(self.path + "x"))


class Names(unittest.TestCase):
    ALL = ("1800.1.host.123", "1800.1.host.124", "1801.1.host.5", "1802.7.host.55", "msg")

    def found(self, text: str) -> Sequence[str]:
        return matching([text], self.ALL)[text]

    def test_may_be_short(self) -> None:
        """An unambiguous beginning, or the last part as the table shows it."""
        for text in ("1801", "1801.1.host.5", "5", ".rejected-1801", "/var/queue/new/.sending-1801.1.host.5"):
            self.assertEqual(self.found(text), ["1801.1.host.5"], text)
        self.assertEqual(self.found("55"), ["1802.7.host.55"])
        self.assertEqual(self.found("m"), ["msg"])

    def test_may_be_ambiguous_or_unknown(self) -> None:
        """All candidates, or none."""
        self.assertEqual(self.found("1800"), ["1800.1.host.123", "1800.1.host.124"])
        for text in ("", "x", "host", "new/"):
            self.assertEqual(self.found(text), [])

    def test_that_are_whole_are_never_ambiguous(self) -> None:
        """Also if they begin another."""
        self.assertEqual(matching(["a"], ["a", "ab"]), {"a": ["a"]})

    def test_in_the_table_are_the_last_part(self) -> None:
        """Of names that are ours; others are whole, and harmless."""
        self.assertEqual(
            [short(name) for name in ("1.2.ho.st.0012", "a.b", "1.2.h.x", "\x1b[2J")], ["0012", "a.b", "1.2.h.x", "[2J"]
        )

    def test_of_mail_with_terms_are_as_short(self) -> None:
        """What was asked for is no part of it, and the mail is found all the same."""
        name = "1803.1.host.77,P=l,E=1896307735"
        self.assertEqual(short(name), "77")
        self.assertEqual(matching(["77"], (*self.ALL, name)), {"77": [name]})


class NamesOnTheCommandLine(OperatorsTest):
    def test_are_told_if_they_are_ambiguous_or_unknown(self) -> None:
        """What is clear is done."""
        one, _ = self.put(), self.put()
        beginning = one.partition(".")[0][:4]
        self.assertEqual(self.call("hold", self.path, one.rpartition(".")[2], beginning, "nope"), 1)
        self.assertIn(f"{beginning} is ambiguous: {one}, ", self.complained)
        self.assertIn("no mail 'nope'", self.complained)
        self.assertEqual(self.said, f"{one}: held\n")

    def test_that_mean_the_same_mail_are_one(self) -> None:
        """It is not held twice."""
        name = self.put()
        self.assertEqual(self.ok("hold", name, name.rpartition(".")[2]), f"{name}: held\n")


class Counting(OperatorsTest):
    def test_is_by_state(self) -> None:
        """And tells how long the oldest has been waiting."""
        self.assertEqual(self.ok("count"), "no mails\n")
        self.put_four()
        self.clock.advance(3720)
        lines = self.ok("count").splitlines()
        self.assertEqual(
            [line.split() for line in lines[:-1]], [[s, "1"] for s in ("ready", "deferred", "held", "rejected")]
        )
        self.assertEqual(lines[-1], "the oldest that waits was written 1h 2m ago")

    def test_names_every_state_to_programs(self) -> None:
        """So nobody has to ask whether a key is there."""
        self.assertEqual(
            self.objects("count"),
            [
                dict.fromkeys(("staged", "scheduled", "ready", "sending", "deferred", "held", "rejected"), 0)
                | {"oldest": None, "waiting_for": {}}
            ],
        )

    def test_is_not_misled_by_foreign_files(self) -> None:
        """The oldest that waits is a mail."""
        name = self.put()
        Disk().create(os.path.join(self.path, "new", "README"), b"text")
        self.assertEqual(self.objects("count")[0]["oldest"], float(name.partition(".")[0]))


class TheDoctor(OperatorsTest):
    FINDINGS = (
        Finding(Kind.LEFTOVER, Severity.NOTE, "locks/x", "A note.", "None."),
        Finding(Kind.HELD, Severity.WARNING, "1.2.h.3", "A warning.", "Look."),
        Finding(Kind.REJECTED, Severity.PROBLEM, "1.2.h.4", "A problem.\x1b", "Act."),
    )

    def examine(self, *found: Finding) -> contextlib.AbstractContextManager[Any]:
        return mock.patch.object(MaildirAdmin, "examine", side_effect=lambda: iter(found))

    def test_says_when_all_is_well(self) -> None:
        """Status 0, also with notes; a warning needs attention."""
        with self.examine():
            self.assertEqual(self.ok("doctor"), f"{self.path}: nothing is wrong\n")
        with self.examine(*self.FINDINGS[:1]):
            self.assertIn("1 note", self.ok("doctor"))
        with self.examine(*self.FINDINGS[:2]):
            self.assertEqual(self.call("doctor", self.path), 1)

    def test_says_by_its_status_that_mail_is_not_moving(self) -> None:
        """So that it can be monitored."""
        for kind in (Kind.RELAY, Kind.WAITING, Kind.ROOM):
            with self.examine(Finding(kind, Severity.PROBLEM, "", "Text.", "Cure.")):
                self.assertEqual(self.call("doctor", self.path), 2)
            with self.examine(Finding(kind, Severity.WARNING, "", "Text.", "Cure.")):
                self.assertEqual(self.call("doctor", self.path), 1)

    def test_says_the_worst_first(self) -> None:
        """Status 1 if a person is needed."""
        with self.examine(*self.FINDINGS):
            self.assertEqual(self.call("doctor", self.path), 1)
        self.assertEqual(
            self.said.splitlines()[:6],
            [
                f"{self.path}: 1 problem, 1 warning, 1 note",
                "",
                "PROBLEM  rejected: 1.2.h.4",
                "    A problem.",
                "    Cure: Act.",
                "",
            ],
        )
        self.assertNotIn("\x1b", self.said)

    def test_does_not_repeat_itself_for_ever(self) -> None:
        """What has one cause is told once, with the number, what concerns most mails first; programs get all."""
        few = [Finding(Kind.REJECTED, Severity.PROBLEM, f"1.2.h.{n}", "Few.", "Act.", "550 few") for n in range(3)]
        many = [Finding(Kind.REJECTED, Severity.PROBLEM, f"1.2.h.{n}", "Many.", "Act.", "550 many") for n in range(304)]
        with self.examine(*few, *many):
            self.call("doctor", self.path)
            self.assertIn(
                "PROBLEM  304 rejected: 550 many\n    The first: Many. They are 0, 1, 2 and 301 more.", self.said
            )
            self.assertLess(self.said.index("550 many"), self.said.index("550 few"))
            self.assertEqual(len(self.objects("doctor")), 307)

    def test_gives_commands_for_all_that_has_one_cause(self) -> None:
        """They do what they say to all of these mails, and to no other."""
        for _ in range(3):
            self.put()
            self.settle(UNKNOWN_USER)
        held = self.put()
        self.ok("hold", held)
        self.call("doctor", self.path)
        [remove] = [line for line in self.said.splitlines() if " remove " in line and "--state rejected" in line]
        self.ok(*(word for word in shlex.split(remove)[2:] if word != self.path), "--yes")
        self.assertIn("3 mails removed", self.said)
        self.assertEqual([each["name"] for each in self.objects("list")], [held])

    def test_tells_all_that_concerns_the_queue_itself(self) -> None:
        """Two things of one kind are not one with two mails."""
        words = ("It is a copy.", "It forgets.")
        with self.examine(*(Finding(Kind.DATABASE, Severity.PROBLEM, "", each, "Act.") for each in words)):
            self.call("doctor", self.path)
        for each in words:
            self.assertIn(f"PROBLEM  database\n    {each}\n", self.said)

    def test_fits_the_terminal(self) -> None:
        """Long texts are wrapped."""
        finding = Finding(Kind.HELD, Severity.NOTE, "x", "word " * 100, "cure " * 100)
        self.assertLessEqual(max(map(len, finding_lines([finding], 80, self.path))), 80)

    def test_sees_what_is_there(self) -> None:
        """From the queue to the exit status."""
        self.put()
        self.settle(UNKNOWN_USER)
        found = self.objects("doctor")
        self.assertIn("rejected", [each["kind"] for each in found])
        self.assertEqual(self.call("doctor", self.path), 1)


class LookingVerbs(OperatorsTest):
    def test_change_nothing(self) -> None:
        """Not even in a Maildir that 7.3 made."""
        for name in ("history", "locks"):
            shutil.rmtree(os.path.join(self.path, name))
        name = "1600000000.1.host.5"
        Disk().create(os.path.join(self.path, "new", name), b"X-Zope-From: a@b.org\nX-Zope-To: c@d.org\n\nx")
        before = self.snapshot()
        for verb in ("list", "count", "doctor", "show"):
            self.call(verb, self.path, *([name, "--message"] if verb == "show" else []))
            self.call(verb, self.path, "--json", *([name] if verb == "show" else []))
        self.assertEqual(self.snapshot(), before)

    def snapshot(self) -> list[tuple[str, int, int]]:
        paths = [self.path] + [
            os.path.join(top, name) for top, names, files in os.walk(self.path) for name in names + files
        ]
        return [(path, os.stat(path).st_mtime_ns, os.stat(path).st_mode) for path in sorted(paths)]

    def test_say_to_programs_what_the_help_promises(self) -> None:
        """The keys, in their order."""
        name = self.put()
        self.queue.admin.hold(name)
        for verb, arguments in {"list": [], "show": [name], "count": [], "doctor": [], "retry": [name]}.items():
            promised = re.sub(r" \([^)]*\)|, headers or.*", "", KEYS.get(verb, KEYS_OF_A_CHANGE)).split(", ")
            for values in self.objects(verb, *arguments):
                self.assertEqual(list(values), promised)


class Text(unittest.TestCase):
    def test_from_outside_is_harmless(self) -> None:
        """No control character, no change of direction, nothing invisible, one line."""
        self.assertEqual(clean("a\x1b[2Jb\nc\x9bd\u202ee\u200bf\udc80"), "a [2Jb c d e f")
        self.assertEqual(clean_line(b"a\tb\x1bc\x07\xe2\x80\xaed\xff\r\n"), "a\tb\ufffdc\ufffd\ufffdd\ufffd")

    def test_fits_terminals_that_know_little(self) -> None:
        """What an encoding does not have is written in escapes."""
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "ascii")) as said:
            say("gr\xfc\xdfe")
            said.flush()
            self.assertEqual(said.buffer.getvalue(), b"gr\\xfc\\xdfe\n")


if __name__ == "__main__":
    unittest.main()


class Status(OperatorsTest):
    def test_tells_what_became_of_mails(self) -> None:
        """By Message-Id, with brackets or without; for people and for programs."""
        self.put("one@example.org")
        said = self.ok("status", "<1@example.org>", "2@example.org")
        self.assertRegex(
            said, r"1@example\.org  queued\n +in the queue as [\w.-]+\n2@example\.org  unknown: it is not in the queue"
        )
        self.settle(GREYLISTED)
        said = self.ok("status", "1@example.org")
        self.assertIn("1@example.org  deferred, next attempt in 1m: 450 4.7.1 greylisted", said)
        values = json.loads(self.ok("status", "--json", "1@example.org"))
        self.assertEqual(set(values), set(KEYS["status"].split(", ")))
        self.assertEqual((values["standing"], values["sent"]), ("deferred", None))
