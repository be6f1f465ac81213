"""`zope.sendmail.config.tokens`: where tokens come from."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import threading
import unittest
from typing import Any
from unittest import mock

from zope.interface.verify import verifyObject

from zope.sendmail.config import tokens
from zope.sendmail.config.tokens import TokenFromCommand, TokenFromFile, parse_token, split_command
from zope.sendmail.interfaces import IRenewableToken, ITokenProvider, RelayError
from zope.sendmail.testing.contracts import ManualClock

#: Long enough for a loaded machine.
TIMEOUT = 60.0

#: Prints what the file says, and writes down that it was called.
PROGRAM = """
import sys
with open(sys.argv[1] + ".calls", "a") as calls:
    calls.write(".")
with open(sys.argv[1]) as file:
    print(file.read())
"""


class Fixture(unittest.TestCase):
    def setUp(self) -> None:
        self.directory = self.enterContext(tempfile.TemporaryDirectory())
        self.path = os.path.join(self.directory, "token")
        self.clock = ManualClock()

    def write(self, text: str | bytes) -> None:
        with open(self.path, "wb") as file:
            file.write(text.encode() if isinstance(text, str) else text)

    def command(self, program: str = PROGRAM, *arguments: str, timeout: float = TIMEOUT) -> TokenFromCommand:
        """Runs a Python program; without further arguments it is given the path."""
        argv = [sys.executable, "-c", program, *(arguments or (self.path,))]
        return TokenFromCommand(argv, timeout=timeout, clock=self.clock)

    def calls(self) -> int:
        return os.path.getsize(f"{self.path}.calls")

    def assertFails(self, text: str, provider: Any) -> str:
        with self.assertRaisesRegex(RelayError, text) as caught:
            provider()
        return str(caught.exception)


class AFork(Fixture):
    def test_in_the_middle_of_a_fetch(self) -> None:
        """The child fetches a token of its own: nobody is there who would let go of the parent's mutex."""
        provider = self.command("print('token')")
        with provider._lock:
            child = os.fork()
            if not child:
                signal.alarm(int(TIMEOUT))  # else it waits for ever
                os._exit(provider() != "token")
        self.assertEqual(os.waitpid(child, 0)[1], 0)


class ACommand(Fixture):
    def test_keeps_its_contract(self) -> None:
        """It is a provider that can renew."""
        self.assertTrue(verifyObject(IRenewableToken, TokenFromCommand(["x"])))

    def test_has_half_a_minute(self) -> None:
        """Unless it is given another time."""
        self.assertEqual(TokenFromCommand(["x"]).timeout, 30.0)

    def test_prints_the_token(self) -> None:
        """In one line."""
        self.write("secret-token")
        self.assertEqual(self.command()(), "secret-token")

    def test_may_print_json(self) -> None:
        """As a token endpoint answers."""
        self.write(json.dumps({"access_token": "secret-token", "token_type": "Bearer", "expires_in": 3600}))
        self.assertEqual(self.command()(), "secret-token")

    def test_is_asked_again_when_the_token_expires(self) -> None:
        """A minute before, because clocks differ; not earlier."""
        for told in (3600, "3600"):
            self.write(json.dumps({"access_token": "one", "expires_in": told}))
            command = self.command()
            command()
            self.write("two")
            self.clock.advance(3539.0)
            self.assertEqual(command(), "one")
            self.clock.advance(1.0)
            self.assertEqual(command(), "two")

    def test_is_asked_now_and_then_if_nobody_says_when_it_expires(self) -> None:
        """What it prints is used for five minutes."""
        for expires_in in (None, "soon", float("nan")):
            self.write(json.dumps({"access_token": "one", "expires_in": expires_in}))
            command = self.command()
            command()
            self.write("two")
            self.clock.advance(299.0)
            self.assertEqual(command(), "one")
            self.clock.advance(1.0)
            self.assertEqual(command(), "two")

    def test_is_asked_at_once_when_a_token_is_refused(self) -> None:
        """However long it should have been valid."""
        self.write(json.dumps({"access_token": "one", "expires_in": 3600}))
        command = self.command()
        command()
        self.write("two")
        self.assertEqual((command.renew("one"), command(), self.calls()), ("two", "two", 2))

    def test_is_asked_where_none_was_before(self) -> None:
        """Also for another token than the one that was refused: an empty one would be as bad."""
        self.write("one")
        for refused in ("", "other"):
            self.assertEqual(self.command().renew(refused), "one")

    def test_is_asked_once_for_several_connections(self) -> None:
        """Who comes with a token that another has replaced gets the new one; no command is run for that."""
        self.write("two")
        command = self.command()
        command()
        self.assertEqual((command.renew("one"), self.calls()), ("two", 1))
        results: list[str] = []
        threads = [threading.Thread(target=lambda: results.append(command())) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual((results, self.calls()), (["two"] * 4, 1))

    def test_is_no_shell(self) -> None:
        """What a shell would take for its own are arguments."""
        text = "$HOME;`id`|*"
        self.assertEqual(self.command("import sys; print(sys.argv[1])", text)(), text)

    def test_has_nothing_to_read(self) -> None:
        """A command that asks something gets no answer, and does not wait for one; what we may read is not its."""
        ours, theirs = os.pipe()
        before = os.dup(0)
        self.addCleanup(os.close, before)
        self.addCleanup(os.dup2, before, 0)
        os.dup2(ours, 0)
        os.close(ours)
        os.write(theirs, b"ours\n")
        os.close(theirs)
        self.assertFails("ended with status 1: EOFError", self.command("input('Password: ')"))

    def test_fails(self) -> None:
        """Its status, and the last line of its complaints."""
        program = "import sys; print('secret-token'); sys.exit('first\\nno refresh token\\x1b[1m')"
        told = self.assertFails(r"ended with status 1: no refresh token \[1m$", self.command(program))
        self.assertNotIn("secret-token", told)
        name = repr(sys.executable)
        why = f"^token command {name} ended with status 3: it said nothing$"
        self.assertFails(why, self.command("import sys; sys.exit(3)"))

    def test_says_what_is_no_text(self) -> None:
        """Octets that are no UTF-8 are told as such."""
        program = "import sys; sys.stderr.buffer.write(b'no\\xff'); sys.exit(1)"
        self.assertFails(r"ended with status 1: no\\xff$", self.command(program))
        self.assertEqual(self.command("import sys; sys.stdout.buffer.write(b'a\\xff')")(), "a\\xff")

    def test_gives_something_else(self) -> None:
        """It is named, but for what looks like a secret."""
        why = f"^token command {sys.executable!r} gave 2 lines; one with the token and nothing else is needed, or JSON$"
        self.assertFails(why, self.command("print('a'); print('b')"))
        self.assertFails("^token command 'KEY=...' cannot be run: No such file", TokenFromCommand(["KEY=secret", "x"]))

    def test_is_killed(self) -> None:
        """The signal is named."""
        name = repr(sys.executable)
        self.assertFails(
            f"^token command {name} was ended by signal 9: it said nothing$",
            self.command("import os; os.kill(os.getpid(), 9)"),
        )

    def test_takes_too_long(self) -> None:
        """It is ended, and the mail waits."""
        why = f"^token command {sys.executable!r} did not end within 0.05 s$"
        self.assertFails(why, self.command("import signal; signal.pause()", timeout=0.05))

    def test_is_ended_when_we_are(self) -> None:
        """What interrupts us interrupts us; that it has ended meanwhile is no error."""
        command = self.command("print('token')")
        kill = mock.patch.object(os, "killpg", side_effect=ProcessLookupError)
        with mock.patch.object(subprocess.Popen, "communicate", side_effect=KeyboardInterrupt), kill as killed:
            self.assertRaises(KeyboardInterrupt, command)
        killed.assert_called_once()

    def test_is_ended_with_all_that_it_has_started(self) -> None:
        """Its own children do not go on: the pipe ends when the last of them does."""
        child = "import time; print('ready', flush=True); time.sleep(600)"
        program = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
        with subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, start_new_session=True
        ) as process:
            assert process.stdout is not None
            self.assertEqual(process.stdout.readline(), b"ready\n")
            tokens._kill(process)
            self.assertEqual(process.stdout.read(), b"")

    def test_cannot_be_run(self) -> None:
        """It is named, with the reason."""
        self.assertFails(
            "token command '/nowhere/oama' cannot be run: No such file", TokenFromCommand(["/nowhere/oama"])
        )
        self.assertFails("cannot be run: Permission denied", TokenFromCommand([self.directory]))

    def test_after_a_failure_it_is_asked_again(self) -> None:
        """No failure is kept, and no old token instead of it."""
        self.write("{}")
        command = self.command()
        self.assertFails("without an access_token", command)
        self.write("one")
        self.assertEqual(command(), "one")
        self.write("{}")
        with self.assertRaises(RelayError):
            command.renew("one")
        self.assertFails("without an access_token", command)

    def test_is_a_list(self) -> None:
        """A text would have to go through a shell, or be cut into letters."""
        wrongs: list[Any] = ["oama access me", [], ()]
        for wrong in wrongs:
            with self.assertRaisesRegex(ValueError, "^a token command is a list: the program and its arguments$"):
                TokenFromCommand(wrong)

    def test_tells_no_secret(self) -> None:
        """Neither the token nor the arguments are in its repr, and no token in a pickle or copy."""
        self.write("secret-token")
        command = self.command()
        command()
        self.assertEqual(repr(command), f"<TokenFromCommand {sys.executable!r}>")
        self.assertNotIn(b"secret-token", pickle.dumps(command))
        twin = copy.deepcopy(command)
        self.assertEqual((twin.argv, twin.timeout), (command.argv, command.timeout))
        self.assertIsInstance(twin.clock, ManualClock)
        self.write("other")
        self.assertEqual(pickle.loads(pickle.dumps(command))(), "other")


class AFile(Fixture):
    def test_keeps_its_contract(self) -> None:
        """It is a provider."""
        self.assertTrue(verifyObject(ITokenProvider, TokenFromFile("x")))

    def test_holds_the_token(self) -> None:
        """In one line, or as JSON."""
        provider = TokenFromFile(self.path)
        for text in ("secret-token\r\n", '\n{"access_token": "secret-token"}\n'):
            self.write(text)
            self.assertEqual(provider(), "secret-token")

    def test_is_read_again_when_it_changes(self) -> None:
        """Whoever renews the token only has to replace the file."""
        provider = TokenFromFile(self.path)
        self.write("one")
        self.assertEqual(provider(), "one")
        self.write("two")
        self.assertEqual(provider(), "two")

    def test_is_missing(self) -> None:
        """It is named; it may come later."""
        provider = TokenFromFile(self.path)
        self.assertFails(f"^token file '{self.path}' cannot be read: No such file", provider)
        self.write("one")
        self.assertEqual(provider(), "one")

    def test_is_no_text(self) -> None:
        """The error does not show what it is."""
        self.write(b"\xff\xfe")
        self.assertFails(f"^token file '{self.path}' holds something else than text$", TokenFromFile(self.path))
        self.write("two words")
        why = f"^token file '{self.path}' gave 1 lines; one with the token and nothing else is needed, or JSON$"
        self.assertFails(why, TokenFromFile(self.path))

    def test_can_be_pickled(self) -> None:
        """Mailers are stored in a ZODB."""
        self.assertEqual(pickle.loads(pickle.dumps(TokenFromFile("x"))).path, "x")
        self.assertEqual(repr(TokenFromFile("x")), "<TokenFromFile 'x'>")


class WhatWasGiven(unittest.TestCase):
    def test_is_no_token(self) -> None:
        """Nothing, several words, JSON that is none or of something else: refused, and never repeated."""
        cases = {
            "": "gave 0 lines",
            "secret\nsecret\n": "gave 2 lines",
            "my secret": "gave 1 lines; one with the token and nothing else",
            "{secret": "begins like JSON and is none",
            "{" + '"a":[' * 100_000: "begins like JSON and is none",
            '{"access_token": 1}': "without an access_token: no reason given",
            '{"error": "invalid_grant", "error_description": "expired"}': "without an access_token: expired",
            '{"error": "invalid_grant", "refresh_token": "secret"}': "without an access_token: invalid_grant",
        }
        for text, why in cases.items():
            with self.subTest(why), self.assertRaisesRegex(RelayError, f"^it .*{why}") as caught:
                parse_token(text, "it")
            self.assertNotIn("secret", str(caught.exception))

    def test_is_not_in_a_repr(self) -> None:
        """Nor is what was read from it."""
        self.assertNotIn("secret", repr(parse_token('{"access_token": "secret", "expires_in": 5}', "it")))


class ACommandInAText(unittest.TestCase):
    def test_is_split_as_by_a_shell(self) -> None:
        """Quotes keep words together."""
        self.assertEqual(split_command("oama access 'a b@example.org'"), ("oama", "access", "a b@example.org"))

    def test_is_not_repeated(self) -> None:
        """An argument may be a secret, and so may what stands before the program by mistake."""
        with self.assertRaises(ValueError) as caught:
            split_command("oama --secret 'geheim")
        self.assertNotIn("geheim", str(caught.exception))
        with self.assertRaises(RelayError) as failed:
            TokenFromCommand(split_command("SECRET=geheim /nowhere/oama"))()
        self.assertIn("SECRET=...", str(failed.exception))
        self.assertNotIn("geheim", str(failed.exception))

    def test_is_refused_if_it_is_none(self) -> None:
        """An open quote, or nothing."""
        for text, why in (
            ("oama 'access", "this is not a command: No closing quotation; close each quote that is opened"),
            ("  ", "the command is empty; write the program and its arguments"),
        ):
            with self.assertRaises(ValueError) as caught:
                split_command(text)
            self.assertEqual(str(caught.exception), why)


if __name__ == "__main__":
    unittest.main()
