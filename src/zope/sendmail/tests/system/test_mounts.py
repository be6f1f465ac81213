"""Which file systems are this machine's own."""

from __future__ import annotations

import os
import tempfile
import unittest

from zope.sendmail.system.mounts import LOCAL, is_local, kind_of

MOUNTS = b"""\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw
30 22 0:45 / /net rw,relatime master:1 - nfs4 server:/export rw,local_lock=all
31 22 0:46 / /odd\\040name rw,relatime - tmpfs none rw
torn
"""


class AFileSystem(unittest.TestCase):
    def setUp(self) -> None:
        self.mounts = os.path.join(self.enterContext(tempfile.TemporaryDirectory()), "mountinfo")
        with open(self.mounts, "wb") as file:
            file.write(MOUNTS)

    def test_is_known_by_its_device(self) -> None:
        """Whatever stands before the dash, whose fields are a few or none."""
        kinds = [kind_of(os.makedev(*number), self.mounts) for number in ((8, 1), (0, 45), (0, 46))]
        self.assertEqual(kinds, ["ext4", "nfs4", "tmpfs"])

    def test_that_is_not_listed_is_not_known(self) -> None:
        """Such as a subvolume, and any where the system has no such list."""
        self.assertEqual(kind_of(os.makedev(9, 9), self.mounts), "")
        self.assertEqual(kind_of(os.makedev(8, 1), self.mounts + "-not-there"), "")
        self.assertFalse(is_local(os.makedev(4095, 1048575)))

    def test_of_other_machines_is_not_local(self) -> None:
        """Its locks may hold on one machine only."""
        self.assertTrue(
            LOCAL.isdisjoint({"nfs", "nfs4", "cifs", "9p", "virtiofs", "fuse", "overlay", "gfs2", "ceph", ""})
        )


if __name__ == "__main__":
    unittest.main()
