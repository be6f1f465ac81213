"""The commands of each finding: whole lines for a shell, which name the queue and never a password."""

from __future__ import annotations

import inspect
import os
import shlex
import subprocess
import unittest

from zope.sendmail.cli.queuearguments import make_parser
from zope.sendmail.lifecycle.finding import HERE, Finding, Kind, Severity, queue_command
from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.record import Record
from zope.sendmail.lifecycle.relaystate import RelayState
from zope.sendmail.lifecycle.states import State
from zope.sendmail.queue import diagnosis, queuefindings
from zope.sendmail.queue.postgresql import databasefindings

NAME, PATH = "1700000000.1.host.0000000000000", "new/it's a file"
LOCATION, DIRECTORY = "/var/mail of/shop", "/var/mail of/shop"

DOWN = RelayState("relay:25", since=1.0, fault=Reply(Answer.DEFERRED, "Connection refused"))

#: Each finding that there can be, by what says it.
ALL = {
    "held": diagnosis.waits_for_a_person(NAME, None, Record(State.HELD)),
    "waits_for_a_person": diagnosis.waits_for_a_person(NAME, None, None),
    "set_aside_twice": diagnosis.set_aside_twice(NAME),
    "in_doubt": diagnosis.in_doubt("tmp/it's", group=False, written="today", why="it is dead"),
    "staged_for_long": diagnosis.staged_for_long("tmp/x", written="today", pid=7),
    "committed_group": diagnosis.committed_group("new/.group-x", 3, alive=False),
    "no_mail": diagnosis.no_mail(NAME, "it is empty"),
    "unreadable": diagnosis.unreadable(PATH, OSError(5, "Input/output error")),
    "foreign": diagnosis.foreign(PATH, "a directory", Severity.PROBLEM),
    "not_trusted": diagnosis.not_trusted("it is another user's"),
    "long_name": diagnosis.long_name("new/" + "x" * 255, alive=False),
    "somebody_elses": diagnosis.somebody_elses(PATH, 1, 2),
    "closed_to_its_owner": diagnosis.closed_to_its_owner("new", 0o500),
    "read_only": diagnosis.read_only(),
    "not_taken": diagnosis.not_taken("../dropped", "it does not begin with ##To:"),
    "locked_by_others": diagnosis.locked_by_others("../dropped", 7200.0, 86400.0),
    "not_looked_at": diagnosis.not_looked_at("../dropped", 7200.0),
    "orphaned": diagnosis.orphaned(NAME, "opened", alive=False),
    "old_lock": diagnosis.old_lock(NAME, 60.0, orphan=""),
    "strange_lock": diagnosis.strange_lock("new/.sending-x", "a directory"),
    "leftover": diagnosis.leftover("locks/x", "A bell"),
    "interrupted_move": diagnosis.interrupted_move(3, "moved/x", came=False),
    "dead_owner": diagnosis.dead_owner("locks/x", alive=False),
    "relay_down": queuefindings.relay_down(DOWN, 3, NAME, 1000.0),
    "relay_left_out": queuefindings.relay_left_out(DOWN, DOWN, 1000.0),
    "nobody_at_work": queuefindings.nobody_at_work(3, 600.0, NAME, long=True),
    "unattended": queuefindings.unattended(3, 60.0, NAME, 120.0),
    "between_passes": queuefindings.between_passes(3, 60.0, NAME, 120.0),
    "nothing_moves": queuefindings.nothing_moves(3, 600.0, NAME, long=True),
    "open_to_others": queuefindings.open_to_others("new", 0o755, 1, writable=False),
    "no_room": queuefindings.no_room("0 MiB", scarce=False),
    "large_list": queuefindings.large_list("sent/2026-11-30", 2**31),
    "from_the_future": queuefindings.from_the_future(NAME, 1),
    "torn_history": diagnosis.torn_history(NAME),
    "postgresql.in_doubt": databasefindings.in_doubt(NAME, 1.0, "process 7"),
    "postgresql.is_a_copy": databasefindings.is_a_copy(),
    "postgresql.pinned": databasefindings.pinned("a transaction", 60.0),
    "postgresql.not_durable": databasefindings.not_durable("fsync"),
    "postgresql.not_synchronous": databasefindings.not_synchronous(1),
}

#: Nothing has to be done; or what is to be typed holds what only the operator knows: a relay, a configuration, another
#: queue, a program, a server's settings.
WITHOUT = {
    "long_name", "orphaned", "leftover", "dead_owner",
    "committed_group", "not_looked_at", "interrupted_move", "from_the_future",
    "postgresql.pinned", "postgresql.not_durable", "postgresql.not_synchronous",
}  # fmt: skip


def lines_of(finding: Finding, location: str = LOCATION) -> list[str]:
    return finding.within(DIRECTORY).command_lines(location)


class EachFinding(unittest.TestCase):
    def test_is_here(self) -> None:
        """Whatever the two modules can say."""
        said = {name for part in (diagnosis, queuefindings) for name, each in vars(part).items() if _is_of(each, part)}
        said |= {
            f"postgresql.{name}" for name, each in vars(databasefindings).items() if _is_of(each, databasefindings)
        }
        self.assertEqual(said, ALL.keys() - {"held"})

    def test_has_whole_commands(self) -> None:
        """They are words for a shell, and each command of the queue is one that its parser understands."""
        for name, finding in ALL.items():
            with self.subTest(name):
                lines = lines_of(finding)
                self.assertEqual(bool(lines), name not in WITHOUT)
                for line in lines:
                    program, *words = shlex.split(line)
                    if program == "zope-sendmail":
                        command, which, *rest = words
                        self.assertEqual((command, make_parser(which).parse_args(rest).maildir), ("queue", LOCATION))
                    else:
                        self.assertIn(program, {"ls", "rm", "chmod", "chown", "df", "ps"})
                        self.assertTrue(program == "ps" or words[-1].startswith("/var/mail of/"), line)

    def test_names_paths_whole(self) -> None:
        """Within the queue, and beside it in a spool."""
        self.assertEqual(lines_of(ALL["closed_to_its_owner"]), ["chmod u+rwx '/var/mail of/shop/new'"])
        self.assertEqual(lines_of(ALL["locked_by_others"])[1], "rm '/var/mail of/dropped.lck'")
        self.assertEqual(lines_of(ALL["open_to_others"]), ["chmod -R go-rwx '/var/mail of/shop'"])


class AName(unittest.TestCase):
    def test_means_itself_to_a_shell(self) -> None:
        """Whatever is in it; the line is one line, and nothing in it is for the terminal."""
        for name in ("it's", "$(reboot)", "a\nb", "\x1b[2J", "bidi\u202e", "bad\udcff", "back\\slash'\x07"):
            finding = Finding(Kind.FOREIGN, Severity.NOTE, name, "", "", commands=(("printf", "%s", HERE + name),))
            [line] = lines_of(finding)
            self.assertTrue(line.isprintable(), line)
            said = subprocess.run(["bash", "-c", line], capture_output=True, check=True).stdout
            self.assertEqual(said, os.fsencode(f"{DIRECTORY}/{name}"), line)

    def test_that_looks_like_an_option_is_none(self) -> None:
        """As that of a file that another program made."""
        finding = Finding(Kind.HELD, Severity.NOTE, "-x", "", "", commands=(queue_command("show", "-x"),))
        [line] = lines_of(finding)
        self.assertEqual(make_parser("show").parse_args(shlex.split(line)[3:]).names, ["-x"])


def _is_of(function: object, module: object) -> bool:
    """Return whether a function of this module says a finding."""
    return (
        inspect.isfunction(function)
        and function.__module__ == getattr(module, "__name__", "")
        and not function.__name__.startswith("_")
    )


if __name__ == "__main__":
    unittest.main()
