"""`zope.sendmail.queue.maildir.keys`: what the files of keys say, beside other processes at each moment."""

from __future__ import annotations

import contextlib
import functools
import os
import tempfile
import unittest
from collections.abc import Callable, Iterator

from zope.sendmail.errors import KeyInUse, KeyTaken, NotPossible
from zope.sendmail.lifecycle.states import State
from zope.sendmail.maildir import unique_name
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.terms import Terms
from zope.sendmail.queue.maildir.keys import Keys
from zope.sendmail.queue.maildir.layout import Layout
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.queue.maildir.uncommitted import DAY
from zope.sendmail.system.disk import Disk
from zope.sendmail.testing.contracts import MESSAGE, ManualClock

KEY = "order 17"


class MeantimeDisk(Disk):
    """Lets something happen once, right before a call on a path that ends so, behind so many others."""

    def __init__(self, call: str, end: Callable[[], str], work: Callable[[], object], behind: int = 0) -> None:
        self._call, self._end, self._work, self._behind = call, end, work, behind
        self.is_over = False

    def _meanwhile(self, call: str, path: str) -> None:
        if call != self._call or self.is_over or not path.endswith(self._end()):
            return
        self._behind -= 1
        if self._behind < 0:
            self.is_over = True
            self._work()

    def stat(self, path: str) -> os.stat_result:
        self._meanwhile("stat", path)
        return super().stat(path)

    @contextlib.contextmanager
    def locked(self, path: str) -> Iterator[int | None]:
        self._meanwhile("locked", path)
        with super().locked(path) as fd:
            self._meanwhile("when locked", path)
            yield fd


class KeysTest(unittest.TestCase):
    def setUp(self) -> None:
        self.path = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "queue")
        self.clock = ManualClock(float(unique_name().partition(".")[0]))
        self.queue = MaildirQueue(self.path, clock=self.clock)
        self.addCleanup(self.queue.close)
        self.queue.stage()  # makes the directories
        self.layout = Layout(self.path)
        self.keys = self.keys_on(Disk())
        self.until = self.clock.time() + 3600

    def keys_on(self, disk: Disk) -> Keys:
        return Keys(self.layout, disk, self.clock)

    def file(self) -> str:
        """Return the path of the only key's file."""
        [name] = [name for name in os.listdir(self.layout.keys) if name[0] != "."]
        return os.path.join(self.layout.keys, name)

    def names(self) -> list[str]:
        return os.listdir(self.layout.keys)

    def take(self, message_id: str = "1@example.org", mail: str = "1.2.gone.3") -> None:
        """Let a mail that is not there any more have the key."""
        self.keys.reserve(KEY, message_id, mail, self.until)
        self.keys.prepared([KEY])
        self.keys.committed([KEY])

    def staged(self, count: int = 1, key: str = KEY) -> str:
        """Let a process of another host have staged so many mails, the last of them with the key; return its entry."""
        made = self.queue.stage()
        for number in range(count):
            terms = Terms(key=key, key_until=self.until) if number == count - 1 else Terms()
            made.add(Envelope("a@example.org", ("b@example.org",), terms=terms), MESSAGE)
        made.prepare()
        made._let_go()
        [name] = os.listdir(self.layout.tmp)
        left = ".".join([name.split(".")[0], "1", "elsewhere", name.split(".")[-1]])
        if count == 1:
            with open(self.file(), "r+b") as stream:
                text = stream.read().replace(name.encode(), left.encode())
                stream.seek(0)
                stream.write(text)
                stream.truncate()
        os.rename(os.path.join(self.layout.tmp, name), os.path.join(self.layout.tmp, left))
        return left


class AFile(KeysTest):
    def test_that_says_nothing_leaves_its_key_free(self) -> None:
        """Torn by a loss of power, or another program's."""
        for text in (b"", b"torn", b"[1]\n", b"[1, 2, 3, 4, 5]\n", b'["k", "i", "m", "soon"]\n', b"[" * 100_000):
            self.take()
            with open(self.file(), "wb") as stream:
                stream.write(text)
            self.keys.check(KEY)
            self.take("2@example.org")
            with self.assertRaises(KeyTaken) as caught:
                self.keys.check(KEY)
            self.assertEqual(caught.exception.message_id, "2@example.org")
            os.unlink(self.file())

    def test_that_was_left_while_it_was_written_goes_after_an_hour(self) -> None:
        """Not before: its process may be about to give it its name."""
        self.take()
        left = os.path.join(self.layout.keys, ".new-1.2.host.3")
        Disk().create(left)
        os.utime(left, (self.clock.time(), self.clock.time()))
        for seconds, there in ((3000, True), (700, False)):
            self.clock.advance(seconds)
            self.keys.forget()
            self.assertEqual(os.path.exists(left), there)


class AMailOfAGroup(KeysTest):
    """That is staged, by another host."""

    def test_has_its_key_as_long_as_its_transaction_may_commit(self) -> None:
        """A file of its own, one beside others, and one in a bundle; then it is in doubt, and the key is free."""
        for count in (1, 3, 12):
            self.staged(count)
            with self.assertRaises(KeyInUse):
                self.keys.check(KEY)
            self.clock.wall += DAY + 60
            self.keys.check(KEY)
            [mail] = self.queue.admin.mails([State.STAGED])
            self.queue.admin.remove(mail.name)
            self.assertEqual(os.listdir(self.layout.tmp), [])
            self.assertEqual(self.names(), [])
            self.clock.wall -= DAY + 60

    def test_gets_its_key_back_when_an_operator_commits_it(self) -> None:
        """Although another mail had it meanwhile, whose time is over; not while that lasts."""
        entry = self.staged(2)
        self.clock.advance(DAY + 60)
        self.until = self.clock.time() + 3600
        self.take("2@example.org")  # it is free, as the first one is in doubt
        with self.assertRaisesRegex(NotPossible, "another mail has had its key"):
            self.queue.admin.release(f"tmp/{entry}")
        self.clock.advance(7200)
        self.keys.forget()
        self.queue.admin.release(f"tmp/{entry}")
        self.assertEqual(sum(self.queue.admin.count().values()), 2)
        self.assertEqual([name for name in self.names() if name[0] == "."], [])


class BetweenTwoSteps(KeysTest):
    """Another process does something with the same key."""

    def test_its_transaction_commits_while_its_mail_is_looked_for(self) -> None:
        """The answer is never that the key is free."""
        for behind in (0, 1):
            with self.subTest(behind=behind):
                staged = self.queue.stage()
                terms = Terms(key=KEY, key_until=self.until)
                name = staged.add(Envelope("a@example.org", ("b@example.org",), terms=terms), MESSAGE)
                staged.prepare()
                disk = MeantimeDisk("stat", functools.partial(str, name), staged.commit, behind)
                with self.assertRaises(KeyTaken):
                    self.keys_on(disk).check(KEY)
                self.assertTrue(disk.is_over)
                os.unlink(self.file())

    def test_it_takes_a_key_whose_time_is_over(self) -> None:
        """Right before us, or while we lock its file: one of both has it, and no file is left over."""
        for call in ("locked", "when locked"):
            self.take()
            self.clock.advance(7200)
            self.until = self.clock.time() + 3600
            disk = MeantimeDisk(call, self.file, self.replaced)
            with self.assertRaises(KeyTaken) as caught:
                self.keys_on(disk).reserve(KEY, "3@example.org", "1.2.gone.5", self.until)
            self.assertEqual(caught.exception.message_id, "2@example.org")
            self.assertTrue(disk.is_over)
            self.assertEqual(len(self.names()), 1)
            os.unlink(self.file())

    def replaced(self) -> None:
        """Let another process take the key, in the place of the file that is there."""
        os.unlink(self.file())
        self.take("2@example.org")

    def test_it_has_the_file_locked(self) -> None:
        """It is about to take the key: that is in use for a moment."""
        self.take()
        self.clock.advance(7200)
        with self.keys._disk.locked(self.file()), self.assertRaises(KeyInUse):
            self.keys.reserve(KEY, "2@example.org", "1.2.gone.4", self.clock.time() + 60)
        self.assertEqual(len(self.names()), 1)

    def test_it_forgets_a_key_whose_time_is_over(self) -> None:
        """Before we lock it: then we have it."""
        self.take()
        self.clock.advance(7200)
        disk = MeantimeDisk("locked", self.file, lambda: os.unlink(self.file()))
        self.keys_on(disk).reserve(KEY, "2@example.org", "1.2.gone.4", self.clock.time() + 60)
        self.assertTrue(disk.is_over)
        self.assertEqual(len(self.names()), 1)

    def test_it_takes_a_key_that_is_being_forgotten(self) -> None:
        """The file that was old is not the one that is there: it stays."""
        self.take()
        self.clock.advance(7200)
        self.until = self.clock.time() + 3600
        disk = MeantimeDisk("when locked", self.file, self.replaced)
        self.assertEqual(self.keys_on(disk).forget(), 0)
        self.assertRaises(KeyTaken, self.keys.check, KEY)

    def test_a_key_that_comes_from_another_queue_is_brought_all_the_same(self) -> None:
        """If it was freed here in this moment."""
        self.take()
        self.clock.advance(7200)
        disk = MeantimeDisk("locked", self.file, lambda: os.unlink(self.file()))
        self.keys_on(disk).bring([(KEY, "4@example.org", self.clock.time() + 60)])
        self.assertEqual([taken[1] for taken in self.keys.taken()], ["4@example.org"])


if __name__ == "__main__":
    unittest.main()
