"""The end of the process."""

from __future__ import annotations

import subprocess
import sys
import threading
import unittest

from zope.sendmail.processor.shutdown import Keeper, Threads, expect, running, stop_all
from zope.sendmail.reporting import maillog

_where_threads_start = unittest.skipIf(
    (3, 12, 0) <= sys.version_info < (3, 12, 3),
    "CPython 3.12.0 to 3.12.2 start no thread when a program ends (gh-113964)",
)


class Running:
    """A processor's thread."""

    queuePath = "a queue"

    def is_alive(self) -> bool:
        """See `Stoppable`."""
        return True

    def stop(self) -> None:
        """See `Stoppable`."""

    def join(self, timeout: float | None = None) -> None:
        """See `Stoppable`."""


class Restless(Running):
    """While it is asked whether it runs, another one begins in a thread of its own."""

    def __init__(self, threads: Threads[Running]) -> None:
        self.other = Running()
        self.beginning = threading.Thread(target=threads.add, args=(self.other,))

    def is_alive(self) -> bool:
        """See `Stoppable`."""
        if self.beginning.ident is None:
            self.beginning.start()
            self.beginning.join(0.05)  # it may have to wait for us
        return True


class TheThreadsThatRun(unittest.TestCase):
    def test_may_become_more_while_they_are_asked(self) -> None:
        """Else the exit handler would fail, and no processor would finish the message in hand."""
        threads: Threads[Running] = Threads()
        first = Restless(threads)
        threads.add(first)
        self.assertEqual(threads.alive(), [first])
        first.beginning.join()
        self.assertEqual(set(threads.alive()), {first, first.other})

    def test_are_forgotten_with_their_owner(self) -> None:
        """Nothing here keeps a processor alive."""
        threads: Threads[Running] = Threads()
        threads.add(Running())
        self.assertEqual(threads.alive(), [])


class Ending(Running):
    """Writes down what it is told; ends when it is waited for, or does not."""

    def __init__(self, told: list[str], *, ends: bool) -> None:
        self.told = told
        self.ends = ends
        self.alive = True

    def is_alive(self) -> bool:
        """See `Stoppable`."""
        return self.alive

    def stop(self) -> None:
        """See `Stoppable`."""
        self.told.append("stop")

    def finish(self) -> None:
        """See `Finishing`."""
        self.told.append("finish")

    def join(self, timeout: float | None = None) -> None:
        """See `Stoppable`."""
        self.told.append("join")
        self.alive = not self.ends

    def tell_what_waits(self) -> None:
        """See `Finishing`."""
        self.told.append("tell what waits")


class ProcessorsOfAProcess(unittest.TestCase):
    """All are told before one is waited for, so that they end side by side."""

    def setUp(self) -> None:
        self.told: list[str] = []

    def test_are_stopped(self) -> None:
        """The log names each that does not end in time."""
        for ends in (True, False):
            with self.subTest(ends=ends):
                self.told.clear()
                threads = [Ending(self.told, ends=ends) for _ in range(2)]
                for thread in threads:
                    expect(thread)
                with self.assertLogs("QueueProcessorThread") as logs:
                    maillog.started("another queue", "a relay")  # so that there is a line in any case
                    self.assertIs(stop_all(0.0), ends)
                self.assertEqual(self.told, ["stop", "stop", "join", "join"])
                self.assertEqual(len([line for line in logs.output if "a queue" in line]), 0 if ends else 2)
                self.assertEqual({*running()} & {*threads}, set() if ends else {*threads})
                for thread in threads:
                    thread.alive = False

    def test_finish(self) -> None:
        """Each that is not ready in time tells what it leaves."""
        for ends in (True, False):
            with self.subTest(ends=ends):
                self.told.clear()
                keeper = Keeper()
                threads = [Ending(self.told, ends=ends) for _ in range(2)]
                for thread in threads:
                    keeper._expected.add(thread)
                self.assertIs(keeper.let_finish(0.0), ends)
                self.assertEqual(self.told[:4], ["finish", "finish", "join", "join"])
                self.assertEqual(self.told[4:], [] if ends else ["tell what waits"] * 2)

    @_where_threads_start
    def test_finish_when_the_main_thread_has_ended(self) -> None:
        """Before the interpreter takes away the threads that they need; one thread waits for that moment."""
        program = """if True:
            import os, threading
            from zope.sendmail.processor.shutdown import let_finish_at_exit
            def say(words): os.write(1, words.encode() + b"\\n")
            class Processor:
                def is_alive(self): return True
                def finish(self): threading.Thread(target=say, args=("finish",)).start()
                def join(self, timeout): say("join")
                def tell_what_waits(self): say("tell what waits")
            processors = [Processor(), Processor()]
            for each in processors:
                let_finish_at_exit(each)
            say("the end")
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
        self.assertEqual(done.stdout.split("\n")[0], "the end")
        self.assertEqual(
            sorted(done.stdout.split("\n")[1:]), ["", *["finish"] * 2, *["join"] * 2, *["tell what waits"] * 2]
        )

    def test_finish_whenever_the_interpreter_looks_whether_the_main_thread_has_ended(self) -> None:
        """If it finds the lock of the main thread taken it waits for no thread, so that lock is not touched."""
        program = """if True:
            import os, threading
            from zope.sendmail.processor.shutdown import let_finish_at_exit
            main = threading.main_thread()
            main._wait_for_tstate_lock = lambda *arguments: os.write(1, b"it was touched; ")
            class Processor:
                def is_alive(self): return True
                def finish(self): os.write(1, b"finish")
                def join(self, timeout): pass
                def tell_what_waits(self): pass
            processor = Processor()
            let_finish_at_exit(processor)
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
        self.assertEqual((done.stdout, done.stderr), ("finish", ""))

    @_where_threads_start
    def test_finish_if_they_begin_when_the_main_thread_is_about_to_end(self) -> None:
        """As one that another thread begins."""
        program = """if True:
            import os, threading
            from zope.sendmail.processor.shutdown import let_finish_at_exit
            class Processor:
                def is_alive(self): return True
                def finish(self): os.write(1, b"finish")
                def join(self, timeout): pass
                def tell_what_waits(self): pass
            processor, ending = Processor(), threading.Event()
            def begin():
                ending.wait()
                let_finish_at_exit(processor)
            threading._register_atexit(ending.set)
            threading.Thread(target=begin).start()
        """
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
        self.assertEqual((done.stdout, done.stderr), ("finish", ""))


if __name__ == "__main__":
    unittest.main()
