"""Several users at one spool: none of them gets at the mail of another.  Only root can be several users."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import unittest
from collections.abc import Callable

from zope.sendmail.errors import QueueError
from zope.sendmail.queue.spool.queue import SpoolQueue

DAEMON, MALLORY, JANE, GROUP = 31001, 31002, 31003, 32000
MAIL = b"##To:jane@example.org\n##From:shop@example.org\nSubject: secret\n\nsecret\n"


def as_user(user: int, call: Callable[[], object]) -> str:
    """What `call` raises when a member of the group calls it; the empty text if it does not."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.setgroups([GROUP])
            os.setgid(user)
            os.setuid(user)
            os.umask(0)
            call()
        except BaseException as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(write)
    with open(read, "rb") as said:
        text = said.read().decode()
    os.waitpid(child, 0)
    return text


def write(path: str, text: bytes = MAIL) -> None:
    with open(path, "wb") as file:
        file.write(text)


def make_queue(path: str) -> None:
    """A Maildir into which everybody can look."""
    for name in ("", "tmp", "new", "cur", "history", "locks", "sent"):
        os.mkdir(os.path.join(path, name))


@unittest.skipUnless(os.geteuid() == 0, "only root can be several users")
class Neighbours(unittest.TestCase):
    def setUp(self) -> None:
        # Not below TemporaryDirectory's own: its mode keeps the others out.
        self.base = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.base)
        os.chmod(self.base, 0o755)

    def spool(self, mode: int, name: str = "spool") -> str:
        """A spool of the daemon's user, for the group."""
        path = os.path.join(self.base, name)
        os.mkdir(path)
        os.chown(path, DAEMON, GROUP)
        os.chmod(path, mode)
        return path

    def claim(self, path: str) -> Callable[[], None]:
        def claim() -> None:
            with contextlib.closing(SpoolQueue(path)) as queue:
                if queue.claim(10):
                    raise LookupError("claimed")

        return claim

    def test_send_through_a_group_s_spool(self) -> None:
        """As the manual says: mode 1770."""
        path = self.spool(0o1770)
        self.assertEqual(as_user(JANE, lambda: write(f"{path}/order")), "")
        self.assertEqual(as_user(DAEMON, self.claim(path)), "LookupError: claimed")
        self.assertEqual(os.stat(f"{path}/.queue").st_mode & 0o777, 0o700)

    def test_who_make_the_queue_first_are_refused(self) -> None:
        """A directory or a link, with or without a sticky bit; the mail stays where it is, and none is staged."""
        for mode in (0o1770, 0o2775, 0o1777, 0o777):
            for kind in ("directory", "link"):
                with self.subTest(kind, mode=oct(mode)):
                    path, own = self.spool(mode, f"{mode:o}{kind}"), os.path.join(self.base, f"own{mode:o}{kind}")
                    os.mkdir(own)
                    os.chown(own, MALLORY, GROUP)

                    def prepare(path: str = path, own: str = own, kind: str = kind) -> None:
                        make_queue(f"{path}/.queue" if kind == "directory" else f"{own}/q")
                        if kind == "link":
                            os.symlink(f"{own}/q", f"{path}/.queue")

                    self.assertEqual(as_user(MALLORY, prepare), "")
                    write(f"{path}/order")
                    os.chown(f"{path}/order", JANE, GROUP)
                    for call in (self.claim(path), SpoolQueue(path).stage):
                        self.assertRegex(as_user(DAEMON, call), rf"QueueError: .*/\.queue is .* of user {MALLORY}")
                    self.assertTrue(os.path.exists(f"{path}/order"))

    def test_who_make_the_queue_first_are_named_by_the_doctor(self) -> None:
        """With the part of the path, the owner, and the cure."""
        path = self.spool(0o1770)
        self.assertEqual(as_user(MALLORY, lambda: make_queue(f"{path}/.queue")), "")

        def examine() -> None:
            raise LookupError([each.text for each in SpoolQueue(path).admin.examine() if each.kind == "owner"])

        said = as_user(DAEMON, examine)
        self.assertRegex(said, rf"No mail is put into this queue or taken from it: .*/\.queue is .* of user {MALLORY}")

    def test_who_own_a_part_of_the_way_are_refused(self) -> None:
        """A directory below 1770, 2775 or 1777, also behind a link of the daemon's own."""
        for mode in (0o1770, 0o2775, 0o1777):
            common = self.spool(mode, f"common{mode:o}")
            self.assertEqual(as_user(MALLORY, lambda: os.mkdir(f"{common}/theirs", 0o777)), "")  # noqa: B023 - called at once
            link = os.path.join(self.base, f"link{mode:o}")
            os.symlink(f"{common}/theirs", link)
            os.lchown(link, DAEMON, GROUP)
            for path in (f"{common}/theirs/spool", f"{link}/spool"):
                with self.subTest(path):
                    self.assertRegex(as_user(DAEMON, self.claim(path)), f"QueueError: .*/theirs is .* user {MALLORY}")

    def test_who_put_another_queue_in_place_later_are_refused(self) -> None:
        """Without a sticky bit they can rename it: it is looked at before each use."""
        path = self.spool(0o2775)

        (turn, says_turn), (done, says_done) = os.pipe(), os.pipe()

        def daemon() -> None:
            with contextlib.closing(SpoolQueue(path)) as queue:
                queue.claim()
                os.write(says_turn, b".")
                os.read(done, 1)
                for call in (queue.stage, queue.claim):
                    with self.assertRaises(QueueError):
                        call()

        def mallory() -> None:
            os.read(turn, 1)
            os.rename(f"{path}/.queue", f"{path}/.gone")
            make_queue(f"{path}/.queue")
            os.write(says_done, b".")

        said: list[str] = []
        thread = threading.Thread(target=lambda: said.append(as_user(MALLORY, mallory)))
        thread.start()
        self.assertEqual(as_user(DAEMON, daemon), "")
        thread.join()
        self.assertEqual(said, [""])
        self.assertEqual(os.stat(f"{path}/.queue").st_uid, MALLORY)
        self.assertEqual(os.listdir(f"{path}/.queue/new"), [])


if __name__ == "__main__":
    unittest.main()
