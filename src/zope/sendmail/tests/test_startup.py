"""When queue processors start and stop, also across forks."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap
import threading
import unittest
from collections.abc import Sequence
from unittest import mock

import transaction
from zope.testing.cleanup import cleanUp

from zope.sendmail import startup
from zope.sendmail.delivery import QueuedMailDelivery
from zope.sendmail.processor.thread import QueueProcessorThread
from zope.sendmail.startup import Declaration, Processors, Start
from zope.sendmail.tests.support.layers import Processes, in_layer

#: Seconds after which a test gives up waiting.
DEADLINE = 300.0


class Mailer:
    """Takes mail; can be made to hold one in hand."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.arrived = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()

    def send(self, fromaddr: str, toaddrs: Sequence[str], message: bytes) -> None:
        self.arrived.set()
        self.may_go.wait(DEADLINE)
        self.sent.extend(toaddrs)


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.mailer = Mailer()
        self.processors = Processors()
        self.addCleanup(self.processors.reset)

    def declare(self, name: str = "Mail", start: Start = Start.DATABASE, **options: object) -> Declaration:
        path = os.path.join(self.directory, name)
        declaration = Declaration(name, path, self.mailer, start, options)
        self.processors.declare(declaration)
        return declaration

    def send(self, name: str = "Mail") -> None:
        QueuedMailDelivery(os.path.join(self.directory, name)).send("a@example.org", ["b@example.org"], "")
        transaction.commit()


class ADeclaration(Fixture):
    def test_starts_nothing(self) -> None:
        """Declaring makes no thread and no directory."""
        self.declare()
        self.assertEqual((self.processors.running(), os.listdir(self.directory)), ([], []))

    def test_is_remembered(self) -> None:
        """What was declared can be asked for, in that order."""
        declared = [self.declare("One"), self.declare("Two")]
        self.assertEqual(self.processors.declared(), declared)

    def test_of_the_same_name_replaces_the_first(self) -> None:
        """The thread of a declaration that was replaced by a different one ends."""
        self.declare()
        (thread,) = self.processors.start()
        self.declare(interval=1.0)
        thread.join(DEADLINE)
        self.assertFalse(thread.is_alive())
        self.assertEqual([each.interval for each in self.processors.start()], [1.0])

    def test_that_says_the_same_again_changes_nothing(self) -> None:
        """A declaration that is repeated keeps its thread."""
        self.declare()
        threads = self.processors.start()
        self.declare()
        self.assertEqual(self.processors.running(), threads)


class TheOpeningOfTheDatabase(Fixture):
    def test_starts_what_waits_for_it(self) -> None:
        """Only processors declared for the database start with it."""
        self.declare("Mail")
        self.declare("Later", Start.EXPLICIT)
        self.declare("Never", Start.NEVER)
        (thread,) = self.processors.start_automatically()
        self.assertEqual(os.path.basename(thread.queuePath), "Mail")

    def test_lets_mail_go(self) -> None:
        """A started processor sends what is committed."""
        self.declare()
        self.processors.start_automatically()
        self.send()
        self.assertTrue(self.mailer.arrived.wait(DEADLINE))


class TheModule(unittest.TestCase):
    def setUp(self) -> None:
        cleanUp()
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.addCleanup(cleanUp)  # before the directory goes: it ends the threads that work there
        startup.declare(Declaration("Mail", os.path.join(self.directory, "q"), Mailer()))

    def opened(self, word: str) -> int:
        with mock.patch.dict(os.environ, {startup.SWITCH: word}):
            startup.database_opened(object())
        return len(startup.running())

    def test_starts_with_the_database(self) -> None:
        """The subscriber starts what is declared."""
        self.assertEqual(self.opened(""), 1)

    def test_has_an_off_switch(self) -> None:
        """A script that loads a site can forbid the automatic start."""
        for word in ("never", "off", "0", "no", " NEVER "):
            self.assertEqual(self.opened(word), 0, word)

    def test_obeys_an_explicit_start_whatever_the_switch_says(self) -> None:
        """The switch is about what happens by itself."""
        with mock.patch.dict(os.environ, {startup.SWITCH: "never"}):
            self.assertEqual(len(startup.start()), 1)

    def test_refuses_a_switch_that_it_does_not_know(self) -> None:
        """A misspelled switch is neither on nor off."""
        with self.assertRaisesRegex(ValueError, "ZOPE_SENDMAIL_START='nevr' is neither on nor off"):
            self.opened("nevr")

    def test_forgets_everything_between_tests(self) -> None:
        """zope.testing's cleanup stops the threads and forgets the declarations."""
        (thread,) = startup.start()
        cleanUp()
        self.assertFalse(thread.is_alive())
        self.assertEqual(startup.declared(), [])


class AnExplicitStart(Fixture):
    def test_starts_everything_but_never(self) -> None:
        """Programs without a database start what is declared for it, too."""
        self.declare("Mail")
        self.declare("Later", Start.EXPLICIT)
        self.declare("Never", Start.NEVER)
        names = [os.path.basename(thread.queuePath) for thread in self.processors.start()]
        self.assertEqual(names, ["Mail", "Later"])

    def test_never_gives_two_threads(self) -> None:
        """Starting again, from anywhere, gives the same thread."""
        self.declare()
        found: list[object] = []
        callers = [threading.Thread(target=lambda: found.extend(self.processors.start())) for _ in range(8)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join(DEADLINE)
        self.processors.start_automatically()
        self.assertEqual((len(found), len(set(found))), (8, 1))
        self.assertEqual(len(self.processors.running()), 1)

    def test_replaces_a_thread_that_has_ended(self) -> None:
        """A thread that somebody stopped is made anew, and the log says so."""
        self.declare()
        (dead,) = self.processors.start()
        dead.stop()
        dead.join(DEADLINE)
        with self.assertLogs("zope.sendmail.startup", "ERROR"):
            (alive,) = self.processors.start()
        self.assertIsNot(alive, dead)
        self.assertTrue(alive.is_alive())


class Stopping(Fixture):
    def test_ends_all_threads(self) -> None:
        """After stop() nothing runs, and a new start makes new threads."""
        self.declare("One")
        self.declare("Two")
        threads = self.processors.start()
        self.assertTrue(self.processors.stop(DEADLINE))
        self.assertFalse(any(thread.is_alive() for thread in threads))
        self.assertEqual(self.processors.running(), [])
        self.assertEqual(len(self.processors.start()), 2)

    def test_waits_for_the_message_in_hand(self) -> None:
        """A message that is being sent is finished first."""
        self.mailer.may_go.clear()
        self.declare()
        (thread,) = self.processors.start()
        self.send()
        self.assertTrue(self.mailer.arrived.wait(DEADLINE))

        def stop() -> None:
            QueueProcessorThread.stop(thread)
            self.mailer.may_go.set()

        with mock.patch.object(thread, "stop", stop):
            self.assertTrue(self.processors.stop(DEADLINE))
        self.assertEqual(self.mailer.sent, ["b@example.org"])

    def test_does_not_wait_for_ever(self) -> None:
        """A relay that hangs does not keep the process; the log names the queue."""
        self.mailer.may_go.clear()
        self.declare()
        (thread,) = self.processors.start()
        self.send()
        self.assertTrue(self.mailer.arrived.wait(DEADLINE))
        with self.assertLogs("zope.sendmail.startup", "WARNING") as log:
            self.assertFalse(self.processors.stop(0.01))
        self.assertIn(os.path.join(self.directory, "Mail"), log.output[0])
        self.mailer.may_go.set()
        thread.join(DEADLINE)


PRELUDE = """
import os, sys, threading, time
import transaction
from zope.sendmail import startup
from zope.sendmail.delivery import QueuedMailDelivery

startup.WATCH_INTERVAL = 0.05
QUEUE = sys.argv[1]
OUT = os.open(sys.argv[2], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

class Mailer:
    def send(self, fromaddr, toaddrs, message):
        say("sent", *toaddrs)

def say(*words):
    os.write(OUT, (" ".join(words) + "\\n").encode())

def send(recipient):
    QueuedMailDelivery(QUEUE).send("a@example.org", [recipient], "From: a@example.org")
    transaction.commit()

def until(condition):  # what other processes do sets no event here
    deadline = time.monotonic() + 300
    while not condition():
        if time.monotonic() > deadline:
            say("waited in vain")
            os._exit(1)
        time.sleep(0.01)

def said(*words):
    with open(sys.argv[2]) as file:
        return " ".join(words) + "\\n" in file.readlines()

startup.declare(startup.Declaration("Mail", QUEUE, Mailer()))
"""


class Programs(unittest.TestCase):
    """Real processes.  Each program writes what happens, one line at a time."""

    def run_program(self, program: str, status: int = 0) -> list[str]:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        out = os.path.join(directory, "out")
        # The pipe is closed when the last descendant has ended.
        done = subprocess.run(
            # From Python 3.12 on there is a warning about forks and threads, and that is what this is about.
            [
                sys.executable,
                "-W",
                "ignore::DeprecationWarning",
                "-c",
                PRELUDE + textwrap.dedent(program),
                os.path.join(directory, "q"),
                out,
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        self.assertEqual((done.returncode, done.stderr), (status, ""))
        with open(out, encoding="utf-8") as file:
            return file.read().splitlines()


class AParentThatIsGone(Fixture):
    def test_is_succeeded_as_soon_as_the_system_has_a_thread(self) -> None:
        """The watch goes on where a first try failed: nobody else sends this mail."""
        self.declare()
        self.processors._inherited = frozenset({"Mail"})
        tries = []

        def start(thread: QueueProcessorThread) -> None:
            tries.append(thread)
            if len(tries) == 1:
                raise RuntimeError("can't start new thread")
            threading.Thread.start(thread)

        with (
            mock.patch.object(startup, "WATCH_INTERVAL", 0.001),
            mock.patch.object(QueueProcessorThread, "start", start),
            self.assertLogs("zope.sendmail.startup", "ERROR") as logs,
        ):
            self.processors._watch(parent=-1)
        self.assertEqual((len(tries), len(logs.records)), (2, 1))
        self.assertEqual(self.processors.running(), tries[1:])


class AcrossForks(Programs):
    def test_the_parent_goes_on_and_the_child_has_nothing(self) -> None:
        """A child of a living parent sends nothing by itself."""
        lines = self.run_program(
            """
            startup.start()
            child = os.fork()
            if not child:
                say("child runs", str(len(startup.running())))
                send("from-child@example.org")
                until(lambda: said("sent", "from-child@example.org"))
                say("child still runs", str(len(startup.running())))
                os._exit(0)
            os.waitpid(child, 0)
            send("from-parent@example.org")
            until(lambda: said("sent", "from-parent@example.org"))
            """
        )
        self.assertIn("child runs 0", lines)
        self.assertIn("child still runs 0", lines)
        self.assertEqual(len([line for line in lines if line.startswith("sent")]), 2)

    def test_a_child_is_not_told_that_its_mail_waits(self) -> None:
        """Although its parent's processor, which has just been started, cannot be seen by others yet."""
        lines = self.run_program(
            """
            from zope.sendmail.queue import open_queue
            class AboutToBegin(threading.Thread):
                queue = open_queue(QUEUE)
                def run(self):
                    threading.Event().wait()
            AboutToBegin(daemon=True).start()
            child = os.fork()
            if not child:
                send("from-child@example.org")
                say("committed")
                os._exit(0)
            os.waitpid(child, 0)
            os._exit(0)
            """
        )
        self.assertEqual(lines, ["committed"])

    def test_a_child_takes_over_when_its_parent_is_gone(self) -> None:
        """Workers of a master that was killed send its mail."""
        lines = self.run_program(
            """
            startup.start()
            if not os.fork():
                until(startup.running)
                send("orphan@example.org")
                until(lambda: said("sent", "orphan@example.org"))
                os._exit(0)
            os._exit(0)
            """
        )
        self.assertEqual(lines, ["sent orphan@example.org"])

    def test_a_daemon_takes_over_from_the_program_it_was(self) -> None:
        """Becoming a daemon with two forks after the start loses no mail."""
        lines = self.run_program(
            """
            startup.start()
            if os.fork():
                os._exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
            until(startup.running)
            send("daemon@example.org")
            until(lambda: said("sent", "daemon@example.org"))
            os._exit(0)
            """
        )
        self.assertEqual(lines, ["sent daemon@example.org"])

    def test_a_child_of_a_program_that_sent_nothing_does_not_take_over(self) -> None:
        """Only what the parent had running is taken over."""
        lines = self.run_program(
            """
            parent = os.getpid()
            if not os.fork():
                until(lambda: os.getppid() != parent)
                say("threads", str(threading.active_count()), "running", str(len(startup.running())))
                os._exit(0)
            os._exit(0)
            """
        )
        self.assertEqual(lines, ["threads 1 running 0"])

    def test_an_explicit_start_in_a_child_is_obeyed_at_once(self) -> None:
        """A worker that calls start(), as in gunicorn's post_fork, sends although its parent lives."""
        lines = self.run_program(
            """
            startup.start()
            child = os.fork()
            if not child:
                say("child runs", str(len(startup.start())))
                startup.stop(30)
                os._exit(0)
            os.waitpid(child, 0)
            say("parent runs", str(len(startup.running())))
            """
        )
        self.assertEqual(lines, ["child runs 1", "parent runs 1"])

    def test_a_child_that_was_stopped_stays_so(self) -> None:
        """After stop() in a child the end of its parent starts nothing."""
        lines = self.run_program(
            """
            startup.start()
            parent = os.getpid()
            if not os.fork():
                watchers = [each for each in threading.enumerate() if each.name == "zope.sendmail.startup"]
                startup.stop(30)
                until(lambda: os.getppid() != parent)
                for watcher in watchers:
                    watcher.join(300)
                say("watchers", str(len(watchers)), "running", str(len(startup.running())))
                os._exit(0)
            os._exit(0)
            """
        )
        self.assertEqual(lines, ["watchers 1 running 0"])


class TheEndOfTheProcess(Programs):
    def test_finishes_the_message_in_hand(self) -> None:
        """A program that ends while a message is being sent waits for it."""
        lines = self.run_program(
            """
            arrived = threading.Event()

            class Slow:
                def send(self, fromaddr, toaddrs, message):
                    arrived.set()
                    until(lambda: not threading.main_thread().is_alive())
                    say("sent", *toaddrs)

            startup.declare(startup.Declaration("Mail", QUEUE, Slow()))
            startup.start()
            send("last@example.org")
            arrived.wait(300)
            """
        )
        self.assertEqual(lines, ["sent last@example.org"])


if __name__ == "__main__":
    unittest.main()


load_tests = in_layer(Processes)
