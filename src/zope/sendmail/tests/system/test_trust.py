"""Paths on which other users may have put something."""

from __future__ import annotations

import os
import stat
import tempfile
import unittest

from zope.sendmail.errors import QueueError
from zope.sendmail.system.trust import TrustedOwners, check_place

US, NEIGHBOUR, ADMIN = 1001, 1002, 1003
DIRECTORY, LINK = stat.S_IFDIR, stat.S_IFLNK


class Places:
    """Parts of paths with their owners and modes; what is not among them does not exist."""

    def __init__(self) -> None:
        self.parts = {"/": (0, DIRECTORY | 0o755)}

    def lstat(self, path: str) -> os.stat_result:
        if path not in self.parts:
            raise FileNotFoundError(path)
        owner, mode = self.parts[path]
        return os.stat_result((mode, 1, 1, 1, owner, 1, 0, 0, 0, 0))


class Fixture(unittest.TestCase):
    """A queue at /srv/mail/q; each test says what is different."""

    def setUp(self) -> None:
        self.places = Places()
        self.put("/srv", 0)
        self.put("/srv/mail", US, 0o700)
        self.put("/srv/mail/q", US, 0o700)

    def put(self, path: str, owner: int, mode: int = 0o755, kind: int = DIRECTORY) -> None:
        self.places.parts[path] = (owner, kind | mode)

    def check(self, owners: TrustedOwners, path: str = "/srv/mail/q") -> bool:
        return check_place(path, owners, us=US, lstat=self.places.lstat)

    def assertRefused(self, text: str, *owners: TrustedOwners) -> None:
        for each in owners or TrustedOwners:
            with self.subTest(each), self.assertRaisesRegex(QueueError, text):
                self.check(each)

    def assertTaken(self, *owners: TrustedOwners, stays: bool = True) -> None:
        for each in owners or TrustedOwners:
            with self.subTest(each):
                self.assertEqual(self.check(each), stays)


class APlaceOfOurs(Fixture):
    def test_is_taken(self) -> None:
        """Ours, below what is root's; also while it is still to be made."""
        self.assertTaken()
        del self.places.parts["/srv/mail/q"]
        self.assertTaken()
        del self.places.parts["/srv/mail"]
        self.assertTaken()

    def test_is_taken_in_a_user_namespace(self) -> None:
        """There, what is root's outside belongs to the overflow user: the owner of the root directory is root."""
        self.put("/", 65534)
        self.put("/srv", 65534)
        self.assertTaken()

    def test_is_taken_where_everybody_or_a_group_may_write(self) -> None:
        """Ours is ours; with a sticky bit it stays, without one it may be renamed at any time."""
        for mode, stays in ((0o1777, True), (0o1770, True), (0o3775, True), (0o777, False), (0o2775, False)):
            with self.subTest(mode=oct(mode)):
                self.put("/srv", 0, mode)
                self.assertTaken(stays=stays)


class APlaceThatOthersReach(Fixture):
    def test_is_refused_if_a_neighbour_made_it(self) -> None:
        """Wherever others may make names: the queue, or a directory on the way."""
        for mode in (0o1777, 0o777, 0o1770, 0o2775):
            for path in ("/srv/mail/q", "/srv/mail"):
                with self.subTest(path, mode=oct(mode)):
                    self.setUp()
                    self.put(os.path.dirname(path), 0, mode)
                    self.put(path, NEIGHBOUR)
                    self.assertRefused(f"^{path} is a directory of user {NEIGHBOUR}, and .* may write to")

    def test_is_refused_behind_a_link_of_a_neighbour(self) -> None:
        """It leads to a place of ours today, and tomorrow elsewhere."""
        self.put("/srv", 0, 0o1770)
        self.put("/srv/link", NEIGHBOUR, 0o777, LINK)
        with self.assertRaisesRegex(QueueError, f"/srv/link is a symbolic link of user {NEIGHBOUR}"):
            self.check(TrustedOwners.PLACED, "/srv/link/q")

    def test_is_refused_if_it_is_a_link_where_everybody_may_write(self) -> None:
        """Whoever it belongs to; without a sticky bit its owner says nothing."""
        self.put("/srv", 0, 0o777)
        self.put("/srv/mail", US, 0o777, LINK)
        self.assertRefused("is a symbolic link")


class APlaceThatWasGivenAway(Fixture):
    """An administrator gave it to another user: the one that owns an installation, or the one in a container."""

    def test_is_trusted_by_a_queue_of_ours_alone(self) -> None:
        """Nobody else can have made it; a spool, to which others write, wants all to be ours."""
        for path in ("/srv/mail", "/srv/mail/q"):
            with self.subTest(path):
                self.setUp()
                self.put("/srv/mail", 0)
                self.put(path, ADMIN)
                self.assertTaken(TrustedOwners.PLACED)
                self.assertRefused(f"^{path} is a directory of user {ADMIN}: ", TrustedOwners.OURS)

    def test_may_belong_to_the_owner_of_a_group_s_directory(self) -> None:
        """Who owns the directory above could do anything anyway; another member of its group is refused."""
        self.put("/srv", ADMIN, 0o2775)
        self.put("/srv/mail", ADMIN)
        self.assertTaken(TrustedOwners.PLACED, stays=False)
        self.put("/srv/mail", NEIGHBOUR)
        self.assertRefused("a group may write", TrustedOwners.PLACED)


class RealLinks(unittest.TestCase):
    """On a disk: the way behind a link counts."""

    def setUp(self) -> None:
        self.path = os.path.realpath(self.enterContext(tempfile.TemporaryDirectory()))
        os.makedirs(f"{self.path}/ours/deep")
        self.shared = f"{self.path}/shared"
        os.mkdir(self.shared)
        os.chmod(self.shared, 0o1770)
        os.mkdir(f"{self.shared}/q")

    def lstat(self, path: str) -> os.stat_result:
        """The neighbour owns what is below shared."""
        status = os.lstat(path)
        if not path.startswith(f"{self.shared}/"):
            return status
        return os.stat_result((*status[:4], status.st_uid + 1, *status[5:]))

    def test_lead_to_what_is_judged(self) -> None:
        """A link of our own into a shared directory, absolute, relative, or by another link."""
        for number, (target, refused) in enumerate(
            (
                (f"{self.shared}/q", True),
                ("../shared/q", True),
                ("deep/../../shared/q/", True),
                (f"{self.path}/ours/0", True),
                (f"{self.path}/ours/deep", False),
                ("./deep", False),
            )
        ):
            link = f"{self.path}/ours/{number}"
            os.symlink(target, link)
            for owners in TrustedOwners:
                with self.subTest(target, owners=owners):
                    if refused:
                        with self.assertRaisesRegex(QueueError, f"{self.shared}/q is a directory of user"):
                            check_place(f"{link}/new", owners, lstat=self.lstat)
                    else:
                        self.assertTrue(check_place(f"{link}/new", owners, lstat=self.lstat))

    def test_that_lead_in_a_circle_are_told(self) -> None:
        """As by the kernel."""
        os.symlink("b", f"{self.path}/a")
        os.symlink("a", f"{self.path}/b")
        with self.assertRaisesRegex(QueueError, "leads to itself"):
            check_place(f"{self.path}/a")


if __name__ == "__main__":
    unittest.main()
