"""Root on somebody else's queue, with a Python and a package that the owner may not read."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

from zope.sendmail.message.envelope import Envelope
from zope.sendmail.queue import open_queue, put
from zope.sendmail.testing.relay import Relay

#: Owns the queue; has no name and no home here.
OWNER = 54321

#: Runs commands, each in a fork, and afterwards says which modules it looked for after root's ids were given up.
WATCHED = """
import json, os, sys
late = []
def watch(event, arguments):
    if event == "import" and os.geteuid() != 0:
        late.append(arguments[0])
sys.addaudithook(watch)
from zope.sendmail.cli.app import main
for words in json.loads(sys.argv[1]):
    if not os.fork():
        try:
            status = main(words)
        except SystemExit as ended:
            status = ended.code
        os.seteuid(0)
        print("LATE", late, "USER", status, *words, flush=True)
        os._exit(0)
    os.wait()
"""


@unittest.skipUnless(os.geteuid() == 0, "only root can become somebody else")
class RootOnSomebodyElsesQueue(unittest.TestCase):
    def setUp(self) -> None:
        directory = self.enterContext(tempfile.TemporaryDirectory())
        os.chmod(directory, 0o755)
        self.path = os.path.join(directory, "queue")
        queue = open_queue(self.path)
        put(queue, [Envelope("shop@example.org", ("one@example.org",))], b"Message-Id: <1@shop>\n\nhello\n")
        queue.close()
        self.relay = self.enterContext(Relay())
        for top, directories, files in os.walk(directory):
            for name in (*directories, *files):
                os.chown(os.path.join(top, name), OWNER, OWNER)

    def run_watched(self, *commands: list[str]) -> str:
        done = subprocess.run(
            [sys.executable, "-c", WATCHED, json.dumps(commands)],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
        )
        self.assertEqual(done.stdout.count("LATE"), len(commands), done.stderr)
        return done.stdout + done.stderr

    def test_imports_nothing_after_its_ids_are_given_up(self) -> None:
        """Whatever the command, as the owner might not be able to read it."""
        relay = ["--hostname", self.relay.host, "--port", str(self.relay.port), "--no-tls"]
        commands = [
            ["queue", "list", self.path],
            ["queue", "doctor", self.path],
            ["queue", "show", self.path, "1@shop", "--message"],
            ["queue", "errors", self.path, "--json"],
            ["queue", "bounce", self.path, "1@shop", "--dry-run"],
            ["queue", "reroute", self.path, "1@shop", "--to", "default"],
            ["queue", "hold", self.path, "1@shop"],
            ["queue", "release", self.path, "1@shop"],
            [*relay, self.path],
        ]
        said = self.run_watched(*commands)
        for words in commands:
            with self.subTest(words[:2]):
                self.assertRegex(said, rf"LATE \[\] USER [01] {re.escape(' '.join(words))}\n")
        self.assertEqual(len(self.relay.mails), 1)

    def test_leaves_no_file_of_its_own(self) -> None:
        """All are the owner's."""
        self.run_watched(["queue", "hold", self.path, "1@shop"])
        owners = {os.stat(os.path.join(top, name)).st_uid for top, _, files in os.walk(self.path) for name in files}
        self.assertEqual(owners, {OWNER})


if __name__ == "__main__":
    unittest.main()
