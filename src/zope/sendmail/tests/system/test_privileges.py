"""`zope.sendmail.system.privileges`: what is left of root's rights."""

from __future__ import annotations

import os
import sys
import tempfile
import unittest
from collections.abc import Callable

from zope.sendmail.config.tokens import TokenFromCommand
from zope.sendmail.system.privileges import act_as_owner, child_identity

#: Nobody's numbers, as far as that can be.
USER, GROUP = 54321, 54322

#: What a program finds: its user and group ids, real, effective and saved, and its groups.
REPORT = "import os; print(*os.getresuid(), *os.getresgid(), *sorted(os.getgroups()), sep='/')"


@unittest.skipUnless(os.geteuid() == 0 and hasattr(os, "getresuid"), "only root can become somebody else")
class RootLooksAfterAnothersQueue(unittest.TestCase):
    def in_child(self, report: Callable[[], str]) -> str:
        """Return what `report` says in a process that acts as the owner of a directory."""
        directory = self.enterContext(tempfile.TemporaryDirectory())
        os.chown(directory, USER, GROUP)
        readable, writable = os.pipe()
        pid = os.fork()
        if not pid:
            words = "nothing"
            try:
                os.setgroups([0, 4])
                act_as_owner(directory)
                words = report()
            except BaseException as error:
                words = repr(error)
            finally:
                os.write(writable, words.encode())
                os._exit(0)
        os.close(writable)
        os.waitpid(pid, 0)
        with os.fdopen(readable, encoding="utf-8") as stream:
            return stream.read()

    def test_nothing_of_root_is_left_to_a_command(self) -> None:
        """No id, saved ones neither, and none of root's groups."""
        # The owner may be unable to read below root's home, where this interpreter may be.
        python = "/usr/bin/python3" if os.access("/usr/bin/python3", os.X_OK) else sys.executable
        told = self.in_child(TokenFromCommand([python, "-c", REPORT]))
        self.assertEqual(told, "/".join(map(str, [USER] * 3 + [GROUP] * 3 + [GROUP])))

    def test_the_process_itself_has_the_owners_groups(self) -> None:
        """A file that only root's groups may read is out of reach."""
        told = self.in_child(lambda: f"{os.geteuid()} {os.getegid()} {os.getgroups()}")
        self.assertEqual(told, f"{USER} {GROUP} [{GROUP}]")


class WhoIsOneselfAllTheTime(unittest.TestCase):
    def test_gives_a_program_what_it_has(self) -> None:
        """Ids and environment are inherited as ever."""
        self.assertEqual(child_identity(), {})


if __name__ == "__main__":
    unittest.main()
