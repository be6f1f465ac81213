"""This release and the newest one before it at one queue, really: each in processes of its own.

The other one is in an environment of its own, whose Python ``ZOPE_SENDMAIL_BEFORE`` names; ``.ci/switch`` makes it
from the package index.  Without it everything here is skipped, and says so.
"""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from collections import Counter
from contextlib import redirect_stdout
from itertools import product
from typing import Any

import transaction

from zope.sendmail.cli import queuecommands
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.lifecycle.retry import Schedule
from zope.sendmail.lifecycle.states import State
from zope.sendmail.mailer import SMTPMailer
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.testing.relay import Hang, Relay
from zope.sendmail.tests.support import older

BEFORE = os.environ.get("ZOPE_SENDMAIL_BEFORE", "")

#: What 7.3 has and nobody was promised: its own inner functions, each with what is there instead.
GONE = {
    "delivery._NoOpSavepoint": "MailDataManager.savepoint gives the manager itself",
    "queue._config_str": "arguments.read_ini",
    "queue.ConsoleApp._load_config": "arguments.read_ini",
    "queue.ConsoleApp._process_args": "ConsoleApp._merged",
}

#: Attributes of ZCML and values for each; the first is what a directive has without it.
MAILERS = [
    ["", 'hostname="relay.example.org"'],
    ["", 'port="587"'],
    ["", 'username="jane" password="pass word"', 'username="" password=""'],
    ["", 'implicit_tls="false"', 'implicit_tls="no"'],
    ["", 'timeout="3"', 'timeout="2.5"'],
]
QUEUED = [
    ["", 'name="Mail"', 'name="other"', 'name=""'],
    ["", 'permission="zope.Public"'],
    ['queuePath="QUEUE"'],
    ["", 'processorThread="no"', 'processorThread="False"', 'processorThread="true"'],
]
REFUSED = [
    '<mail:queuedDelivery mailer="none" queuePath="QUEUE" />',
    '<mail:queuedDelivery queuePath="QUEUE" />',
    '<mail:queuedDelivery mailer="m" queuePath="QUEUE" permission="never.defined" />',
    '<mail:directDelivery mailer="none" />',
    "<mail:smtpMailer />",
    '<mail:smtpMailer name="n" port="many" />',
    '<mail:smtpMailer name="m" hostname="twice" />',
]

#: The same for the command line ...
OPTIONS = [
    ["QUEUE"],
    ["", "--daemon"],
    ["", "--interval 7", "--interval=0.5"],
    ["", "--hostname relay.example.org --port 587", "--host relay.example.org"],
    ["", "--username jane --password secret"],
    ["", "--no-tls", "--force-tls"],
]
CALLS = ["", "QUEUE more", "--no-tls --force-tls QUEUE", "--username jane QUEUE", "--port x QUEUE", "--config /nowhere"]

#: ... and ini files.
_SECTION = "[app:zope-sendmail]\nqueue_path = QUEUE\n"
INI = [
    _SECTION,
    _SECTION
    + "interval = 33\nhostname = h\nport = 2525\nusername = u\npassword = p\nforce_tls = False\nno_tls = True\n",
    _SECTION + "username = None\npassword = None\nforce_tls = yes\n",
    _SECTION + "force_tls =\nno_tls = 0\nusername = u\npassword = a b;c #d\n",
    "[app:other]\nx = y\n" + _SECTION + "; words\nForce_TLS: t\n",
    _SECTION + "username = u\n",
]

#: Seconds after which a test gives up.
DEADLINE = 300.0


@unittest.skipUnless(BEFORE, "ZOPE_SENDMAIL_BEFORE names no Python with the release before this one; see .ci/switch")
class Mixed(unittest.TestCase):
    """A queue, a relay, and processes of both releases."""

    def setUp(self) -> None:
        transaction.abort()
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.relay = self.enterContext(Relay())
        self.processes: list[subprocess.Popen[str]] = []
        self.addCleanup(self.kill_all)

    def kill_all(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.communicate()

    def start(self, *command: object) -> subprocess.Popen[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, sys.path))
        process = subprocess.Popen(
            [str(each) for each in command],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def old(self, *arguments: object) -> subprocess.Popen[str]:
        return self.start(BEFORE, "-I", older.__file__, *arguments)

    def new(self, *arguments: object) -> subprocess.Popen[str]:
        return self.start(sys.executable, "-m", "zope.sendmail.tests.support.worker", *arguments)

    def ready(self, process: subprocess.Popen[str]) -> subprocess.Popen[str]:
        assert process.stdout is not None
        self.assertEqual(process.stdout.readline(), "ready\n")
        return process

    def end(self, process: subprocess.Popen[str]) -> str:
        output = process.communicate(timeout=DEADLINE)[0]
        self.assertEqual(process.returncode, 0, output)
        return output

    def drain(self) -> QueueProcessorThread:
        """One pass of ours."""
        processor = QueueProcessorThread(schedule=Schedule())
        processor.setMailer(SMTPMailer(hostname="127.0.0.1", port=self.relay.port))
        processor.setQueuePath(self.path)
        processor.run(forever=False)
        return processor

    def delivered(self) -> Counter[str]:
        return Counter(who for mail in self.relay.mails for who in mail.recipients)


class ProcessorsOfBoth(Mixed):
    def test_share_a_queue(self) -> None:
        """500 mails, half written by each release and sent by two processors of each: every one once."""
        drainers = [self.ready(self.old("drain", self.path, self.relay.port)) for _ in range(2)]
        drainers += [self.ready(self.new("drain", self.path, self.relay.port)) for _ in range(2)]
        committers = [self.old("commit", self.path, "old", 250, 5), self.new("commit", self.path, "new", 250, 5)]
        for committer in committers:
            self.end(committer)
        self.relay.wait_until(lambda: len(self.delivered()) >= 500, DEADLINE)
        for drainer in drainers:
            drainer.send_signal(signal.SIGTERM)
        for drainer in drainers:
            drainer.communicate(timeout=DEADLINE)
        expected = {f"{kind}-{number}@example.org" for kind in ("old", "new") for number in range(250)}
        self.assertEqual(self.delivered(), Counter(expected))
        self.assertEqual(MaildirQueue(self.path).admin.count(), {})
        # smtplib, which sends for the other release, writes its commands in small letters.
        shares = Counter(line[:5] for line in self.relay.commands)
        self.assertGreater(shares["MAIL "], 10, shares)
        self.assertGreater(shares["mail "], 10, shares)


class AQueueOfTheOtherRelease(Mixed):
    def leave(self) -> dict[str, str]:
        """Let the other release work at a queue and be killed at its third mail; return the names by recipient."""
        self.end(self.old("commit", self.path, "m", 6, 1))
        names = {}
        for name in os.listdir(os.path.join(self.path, "new")):
            with open(os.path.join(self.path, "new", name), encoding="utf-8") as file:
                names[file.read().partition("X-Zope-To: ")[2].partition("@")[0]] = name
        self.relay.on("RCPT", "550 5.1.1 nobody", about="m-1@")
        hang = Hang()
        self.relay.on("RCPT", hang, about="m-2@")
        process = self.ready(self.old("drain", self.path, self.relay.port))
        self.assertTrue(hang.reached.wait(DEADLINE))
        process.kill()
        process.communicate()
        self.relay.forgive()
        return names

    def age(self, name: str, hours: float) -> None:
        path = os.path.join(self.path, "new", name)
        then = time.time() - hours * 3600
        os.utime(path, (then, then))

    def doctor(self) -> str:
        said = io.StringIO()
        with redirect_stdout(said):
            queuecommands.main(["doctor", "--all", self.path])
        return " ".join(said.getvalue().split())

    def test_is_taken_over(self) -> None:
        """What was locked goes when the lock is three hours old, what was rejected when an operator says so."""
        names = self.leave()
        new = os.path.join(self.path, "new")
        self.assertIn(f".rejected-{names['m-1']}", os.listdir(new))
        self.assertIn(f".sending-{names['m-2']}", os.listdir(new))
        self.drain()
        self.assertEqual(set(self.delivered()), {f"m-{number}@example.org" for number in (0, 3, 4, 5)})
        self.age(names["m-2"], 3.1)
        self.drain()
        queue = MaildirQueue(self.path)
        self.assertEqual(queue.admin.count(), {State.REJECTED: 1})
        queue.admin.retry(names["m-1"])
        self.drain()
        self.assertEqual(self.delivered(), Counter(f"m-{number}@example.org" for number in range(6)))
        self.assertEqual(os.listdir(new), [])

    def test_is_explained(self) -> None:
        """By the doctor: the lock, the rejected mail, what a crash left in tmp."""
        names = self.leave()
        litter = os.path.join(self.path, "tmp", f"{int(time.time()) - 200_000}.99999.host.1")
        with open(litter, "w", encoding="utf-8") as file:
            file.write("X-Zope-From: a@example.org\nX-Zope-To: b@example.org\n\nx\n")
        self.age(names["m-2"], 1)
        text = self.doctor()
        for words in ("an older release did it", "given up after three hours: in 1h 59m", names["m-1"], names["m-2"]):
            self.assertIn(words, text)
        self.assertIn(os.path.basename(litter), text)
        self.age(names["m-2"], 4)
        self.assertIn("at the next look", self.doctor())


class AQueueOfOurs(Mixed):
    def test_is_drained_by_the_other_release(self) -> None:
        """Mails of small and large transactions, as the bytes that were sent."""
        self.end(self.new("commit", self.path, "single", 1, 1))
        self.end(self.new("commit", self.path, "group", 5, 5))
        self.end(self.new("commit", self.path, "bundle", 50, 50))
        MaildirQueue(self.path).admin.count()  # as `queue count` before going back: unfolds what is bundled
        self.end(self.old("once", self.path, self.relay.port))
        self.assertEqual(len(self.delivered()), 56)
        self.assertEqual(max(self.delivered().values()), 1)
        texts = {mail.recipients[0]: mail.data for mail in self.relay.mails}
        text = texts["bundle-49@example.org"]
        head = rb"Message-Id: <[^>]+>\r?\nDate: [^\r\n]+\r?\nFrom: sender@example\.org\r?\n"
        self.assertRegex(text, rb"^" + head + rb"Subject: bundle 49\r?\n\r?\nText\r?\n")
        self.assertNotIn(b"X-Zope", text)
        self.assertEqual(MaildirQueue(self.path).admin.count(), {})

    def test_keeps_the_other_release_from_what_is_being_sent(self) -> None:
        """It respects our locks."""
        QueuedMailDelivery(self.path).send("s@example.org", ["one@example.org"], "Subject: x\n\nx\n")
        transaction.commit()
        queue = MaildirQueue(self.path)
        [lease] = queue.claim()
        self.end(self.old("once", self.path, self.relay.port))
        self.assertEqual(self.relay.mails, [])
        lease.release()
        queue.close()
        self.end(self.old("once", self.path, self.relay.port))
        self.assertEqual(len(self.relay.mails), 1)


class TheSameConfiguration(Mixed):
    """What 7.3 understands means the same to us."""

    def assertSame(self, verb: str, texts: list[str]) -> None:
        before = json.loads(self.end(self.old(verb, *texts)))
        now = json.loads(self.end(self.start(sys.executable, "-m", older.__name__, verb, *texts)))
        for text, expected, found in zip(texts, before, now, strict=True):
            with self.subTest(text):
                self.assertEqual(found, expected)

    def test_of_mailers(self) -> None:
        """All attributes, together and alone; ``implicit_tls`` never worked."""
        self.assertSame("zcml", [f'<mail:smtpMailer name="m" {" ".join(chosen)} />' for chosen in product(*MAILERS)])

    def test_of_deliveries(self) -> None:
        """Likewise, and what both refuse."""
        mailer = '<mail:smtpMailer name="m" />'
        queued = [f'<mail:queuedDelivery mailer="m" {" ".join(chosen)} />' for chosen in product(*QUEUED)]
        direct = [f'<mail:directDelivery mailer="m" {" ".join(chosen)} />' for chosen in product(*QUEUED[:2])]
        both = [queued[0] + direct[0], queued[0] + direct[0].replace('"m"', '"m" name="direct"')]
        texts = [each.replace("QUEUE", self.path) for each in (*queued, *direct, *both, *REFUSED)]
        self.assertSame("zcml", [mailer + each for each in texts])

    def test_of_the_console_script(self) -> None:
        """All options and all settings of the ini file, together and alone."""
        files = {}
        for number, lines in enumerate(INI):
            files[f"INI{number}"] = path = os.path.join(os.path.dirname(self.path), f"{number}.ini")
            with open(path, "w", encoding="utf-8") as file:
                file.write(lines)
        calls = [" ".join(chosen) for chosen in product(*OPTIONS)] + [*CALLS, *(f"--config {name}" for name in files)]
        for name, path in files.items():
            calls = [call.replace(name, path) for call in calls]
        self.assertSame("console", calls)


class Everything(Mixed):
    def test_that_it_defines_is_here(self) -> None:
        """Functions, classes, their members and arguments, as the other release shows them."""
        told: dict[str, Any] = json.loads(self.end(self.old("names")))
        self.assertLess(int(told["version"].split(".")[0]), 8)
        missing = [text for module, names in told["modules"].items() for text in lacking(module, names)]
        self.assertEqual([text for text in missing if text.partition("(")[0] not in GONE], [])


def lacking(module: str, names: dict[str, Any]) -> list[str]:
    """What of another release's module is not here."""
    ours = __import__(f"zope.sendmail.{module}", fromlist=["*"])
    missing = []
    for name, described in names.items():
        found = getattr(ours, name, None)
        if found is None:
            missing.append(f"{module}.{name}")
            continue
        if differing(found, described["arguments"]):
            missing.append(f"{module}.{name}()")
        missing += [f"{module}.{name}.{each} may be left out" for each in described["optional"] if found[each].required]
        for member, arguments in described["members"].items():
            if hasattr(found, "names"):
                present = member in found.names(all=True)
            else:
                present = hasattr(found, member)
            if not present or differing(getattr(found, member, None), arguments):
                missing.append(f"{module}.{name}.{member}")
    return missing


def differing(found: Any, arguments: list[str] | None) -> bool:
    """Whether fewer arguments can be passed by place."""
    here = older.arguments(found)
    return arguments is not None and here is not None and len(here) < len(arguments)


del Mixed

if __name__ == "__main__":
    unittest.main()
