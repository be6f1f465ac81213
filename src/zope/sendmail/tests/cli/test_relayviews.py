"""Operators and relays: what they see of them, and how they get mail past one that is down."""

from __future__ import annotations

import json
import os
import shutil
import unittest
from dataclasses import replace
from email import message_from_bytes
from typing import Any
from unittest import mock

from zope.sendmail.lifecycle.outcome import Answer, Reply
from zope.sendmail.lifecycle.relaystate import ProcessorState, RelayState
from zope.sendmail.lifecycle.replypattern import pattern_of
from zope.sendmail.lifecycle.states import State
from zope.sendmail.message.envelope import Envelope
from zope.sendmail.message.relayname import RelayName
from zope.sendmail.message.routes import Routes
from zope.sendmail.queue.maildir.queue import MaildirQueue
from zope.sendmail.tests.support.operators import GREYLISTED, UNKNOWN_USER, OperatorsTest

LOGIN = Reply(Answer.DEFERRED, "authentication failed", 535, "5.7.8")
ROUTES = Routes("main", frozenset({"main", "bulk"}), frozenset({("spare.example.org", 25)}), {"@news.org": "bulk"})


class RelaysTest(OperatorsTest):
    """A queue whose processor has told of two relays, one of which it cannot use."""

    def setUp(self) -> None:
        super().setUp()
        self.queue.claim(0)
        self.main = RelayState("main", "mail.example.org:587", since=self.clock.time(), asked=self.clock.time())
        self.bulk = RelayState(
            "bulk", "bulk.example.org:587", LOGIN, self.clock.time(), self.clock.time() + 40, self.clock.time(), 3
        )
        self.report(self.main, self.bulk)

    def report(self, *relays: RelayState, **more: Any) -> None:
        now = self.clock.time()
        self.queue.report(
            ProcessorState(4711, "here", now - 60, now, relays=relays, routes=ROUTES, **{"per_minute": 12.0, **more})
        )


class SeveralRelays(RelaysTest):
    """Behind one mailer."""

    def test_are_shown_one_by_one(self) -> None:
        """Below the relay whose mail they get."""
        now = self.clock.time()
        first = RelayState("a.example.org:25", "a.example.org:25", LOGIN, now - 400, now + 20, now, 3)
        second = RelayState("b.example.org:25", "b.example.org:25", since=now - 400, asked=now)
        third = RelayState("c.example.org:25", "c.example.org:25")
        self.report(replace(self.main, members=(first, second, third)))
        lines = self.ok("relays").splitlines()
        self.assertIn("main (mail.example.org:587)  works", lines[0])
        self.assertRegex(lines[1], "^    a.example.org:25  CANNOT BE USED since .*; next try in 20s")
        self.assertEqual(lines[2], "        535 5.7.8 authentication failed")
        self.assertIn("    b.example.org:25  works", lines[4])
        self.assertEqual(lines[5], "    c.example.org:25  was not asked yet")
        [main] = [each for each in self.objects("relays") if each.get("relay") == "main"]
        self.assertEqual([each["usable"] for each in main["members"]], [False, True, True])
        self.assertEqual(self.call("doctor", self.path), 1)
        self.assertIn("because another relay of main", " ".join(self.said.split()))


class NoRelayToAsk(RelaysTest):
    def test_that_is_not_known_is_told(self) -> None:
        """A slip of the pen flushes nothing, and looks like nothing else."""
        self.put("a@example.org")
        self.assertEqual(self.call("flush", self.path, "mian"), 1)
        self.assertIn("no relay 'mian' is known; there are: bulk, main, spare.example.org:25", self.complained)
        self.assertEqual(self.call("flush", self.path, "mian", "--dry-run"), 1)
        self.assertIn("no relay 'mian' is known", self.complained)
        for known in ("main", "mail.example.org:587", "spare.example.org:25"):
            self.assertEqual(self.call("flush", self.path, known), 0, self.complained)
            self.assertEqual(self.call("flush", self.path, known, "--dry-run"), 0, self.complained)

    def test_where_no_processor_has_told_of_any(self) -> None:
        """A name that may be a slip of the pen is not answered as one that has no mail."""
        shutil.rmtree(os.path.join(self.path, "processors"))
        self.put("a@example.org")
        self.assertEqual(self.call("flush", self.path, "main"), 1)
        self.assertIn("no processor has told which relays there are; one that starts", self.complained)

    def test_while_no_processor_is_at_work(self) -> None:
        """That is said, for "now" is when one starts."""
        words = "no processor of this release is at work; mail is tried when one starts"
        name = self.put("a@example.org")
        self.assertNotIn(words, self.ok("retry", name))
        self.queue.close()  # the one that has told of its relays
        self.clock.advance(86400)
        self.assertIn(words, self.ok("retry", name))
        self.assertIn(words, self.ok("retry", "--all", "--state", "ready"))
        self.assertIn(words, self.ok("retry", "--all"))
        self.call("retry", self.path, "--json", name)
        self.assertNotIn(words, self.said)


class MailBehindARelay(RelaysTest):
    def test_says_for_what_it_waits(self) -> None:
        """In every view, with the relay's words and when it is tried next."""
        self.put("a@example.org")
        name = self.put("b@news.org", message=b"Message-Id: <news@shop>\n\n")
        for verb, arguments in {"list": [], "show": [name], "status": ["news@shop"], "count": [], "relays": []}.items():
            with self.subTest(verb):
                said = self.ok(verb, *arguments)
                self.assertIn("535 5.7.8 authentication failed", said)
                self.assertIn("40s", said)
        self.call("doctor", self.path)
        self.assertIn("1 mail waits: relay bulk (bulk.example.org:587) cannot be used", " ".join(self.said.split()))
        [mail] = self.objects("list", "--relay", "bulk")
        self.assertEqual((mail["name"], mail["relays"], mail["waits_for"]["relay"]), (name, ["bulk"], "bulk"))
        self.assertEqual(self.objects("count")[0]["waiting_for"], {"bulk": 1})

    def test_is_found_by_the_reply(self) -> None:
        """By its code or its words; and by the relay's name or address."""
        self.put("a@example.org")
        name = self.put("b@news.org")
        for words in (
            ["--reply", "535"],
            ["--reply", "Authentication"],
            ["--relay", "bulk"],
            ["--relay", "bulk.example.org:587"],
        ):
            self.assertEqual(self.names(*words), [name], words)

    def test_does_not_wait_for_it_before_its_time(self) -> None:
        """What is deferred waits for its next attempt."""
        self.put("b@news.org")
        self.settle(GREYLISTED)
        self.assertIsNone(self.objects("list")[0]["waits_for"])
        self.clock.advance(61)
        self.assertEqual(self.objects("list")[0]["waits_for"]["relay"], "bulk")

    def test_is_no_alarm_while_none_waits(self) -> None:
        """The doctor notes it, and no more."""
        self.assertEqual(self.call("doctor", self.path), 0)
        self.assertIn("No mail waits: relay bulk", self.said)


class TheRelays(RelaysTest):
    def test_are_listed_the_worst_first(self) -> None:
        """With who is at work."""
        said = self.ok("relays")
        self.assertLess(said.index("bulk (bulk.example.org:587)  CANNOT BE USED since"), said.index("main"))
        self.assertIn("next try in 40s", said)
        self.assertIn("Cure: The login is refused", said)
        self.assertRegex(said, r"process 4711 on here is at work since .*: 0 sent, 12 a minute")

    def test_are_objects_for_programs(self) -> None:
        """Each relay, then each processor."""
        main, bulk, processor = self.objects("relays")
        self.assertEqual(
            (main["relay"], main["usable"], bulk["usable"], bulk["reply"]["code"]), ("main", True, False, 535)
        )
        self.assertEqual((processor["processor"], processor["alive"]), (4711, True))

    def test_may_be_those_of_a_processor_that_has_ended(self) -> None:
        """What it knew stays, and it is said that nobody is at work."""
        self.report(self.bulk, ended=self.clock.time())
        self.queue.close()
        said = self.ok("relays")
        self.assertIn("no processor of this release is at work", said)
        self.assertIn("the last was process 4711 on here; it was stopped 0s ago", said)
        self.assertIn("authentication failed", said)

    def test_may_be_those_of_a_pass_that_has_ended(self) -> None:
        """Which may have sent nothing, as its relay could not be used."""
        self.report(self.bulk, ended=self.clock.time(), forever=False)
        self.queue.close()
        self.assertIn("the last was process 4711 on here; its pass ended 0s ago", self.ok("relays"))

    def test_may_be_unknown(self) -> None:
        """Before the first processor."""
        os.remove(os.path.join(self.path, "processors", self.queue._owner.name))
        self.assertIn("no processor has told of a relay yet", self.ok("relays"))

    def test_show_their_limits(self) -> None:
        """As they said them."""
        self.report(replace(self.main, connections=3, rate=0.5, limit="421 too many connections"))
        self.assertIn(
            "no more than 3 connections and 0.5 mails a second; it said: 421 too many connections", self.ok("relays")
        )

    def test_cannot_do_anything_to_a_terminal(self) -> None:
        """Whatever they say."""
        self.report(replace(self.bulk, fault=Reply(Answer.DEFERRED, "no\x1b[2J\u202e"), name="b\x1b[2Jk"))
        for verb in ("relays", "list", "count", "errors", "shape", "top"):
            self.assertNotRegex(self.ok(verb), "[\x1b\u202e]")


class Trying(RelaysTest):
    def test_a_paused_relay_is_what_retry_does_for_mail_that_waits_for_it(self) -> None:
        """The mail itself stays as it is; processors hear of it."""
        name = self.put("b@news.org")
        said = self.ok("retry", name)
        self.assertIn("relay bulk (bulk.example.org:587): it is tried now", said)
        self.assertEqual(self.queue.probe_asked("bulk"), self.clock.time())
        self.assertEqual(self.queue.probe_asked("main"), 0.0)
        self.assertEqual(list(self.queue.admin.show(name).history), [])
        self.queue.wait(3600.0)

    def test_a_relay_without_a_processor_is_not_possible(self) -> None:
        """That is said, and a failure."""
        name = self.put("b@news.org")
        self.queue.close()
        self.assertEqual(self.call("retry", self.path, name), 1)
        self.assertIn("no processor is at work; it is tried when one starts", self.complained)

    def test_a_relay_fails_if_the_disk_refuses(self) -> None:
        """Then it is said until when the mail waits."""
        name = self.put("b@news.org")
        with mock.patch("zope.sendmail.queue.maildir.admin.MaildirAdmin.probe", side_effect=OSError(28, "No space")):
            self.assertEqual(self.call("retry", self.path, name), 1)
        self.assertIn("next try in 40s", self.complained)

    def test_all_mail_for_a_relay_is_flush(self) -> None:
        """Deferred mail is due at once, and the relay is tried, by name or by address."""
        news = self.put("b@news.org")
        self.settle(GREYLISTED)
        other = self.put("a@example.org")
        self.settle(GREYLISTED)
        self.assertIn("1 mail would be tried now", self.ok("flush", "bulk", "--dry-run"))
        self.assertEqual(self.queue.probe_asked("bulk"), 0.0)
        for relay in ("bulk", "bulk.example.org:587"):
            self.assertIn("relay bulk (bulk.example.org:587): it is tried now", self.ok("flush", relay))
        states = {name: self.queue.admin.show(name).state for name in (news, other)}
        self.assertEqual(states, {news: State.READY, other: State.DEFERRED})


class Rerouting(RelaysTest):
    def test_gives_mail_to_another_relay(self) -> None:
        """The file says so, the message is untouched, and it is due at once."""
        name = self.put("b@news.org")
        self.settle(GREYLISTED)
        before = self.queue.admin.read(name).read()
        self.assertEqual(self.ok("reroute", "--to", "main", "--relay", "bulk"), f"{name}: rerouted\n")
        mail = self.queue.admin.show(name)
        assert mail.envelope is not None
        self.assertEqual(
            (mail.envelope.relay, mail.state, mail.relays), (RelayName(mailer="main"), State.READY, ("main",))
        )
        self.assertEqual(mail.envelope.recipients, ("b@news.org",))
        self.assertEqual(self.queue.admin.read(name).read(), before)
        self.assertEqual(mail.history[-1].attempts, 1)
        [lease] = self.queue.claim()
        self.assertEqual(lease.name, name)

    def test_to_the_default_lets_the_routes_decide(self) -> None:
        """As if the mail had never named a relay."""
        name = self.put("b@news.org")
        self.ok("reroute", name, "--to", "spare.example.org:25")
        self.assertEqual(self.queue.admin.show(name).relays, ("spare.example.org:25",))
        self.ok("reroute", name, "--to", "default")
        self.assertEqual(self.queue.admin.show(name).relays, ("bulk",))

    def test_leaves_what_is_held(self) -> None:
        """It goes elsewhere when it is released."""
        name = self.put("b@news.org")
        self.ok("hold", name)
        self.ok("reroute", name, "--to", "main")
        self.assertIs(self.queue.admin.show(name).state, State.HELD)

    def test_to_a_relay_that_there_is_not_changes_nothing(self) -> None:
        """The processor would set the mail aside."""
        name = self.put("b@news.org")
        self.assertRefused(2, "there is no mailer 'nonesuch'", "reroute", self.path, name, "--to", "nonesuch")
        self.assertRefused(2, "may not name the relay", "reroute", self.path, name, "--to", "other.example.org:25")
        self.assertIsNone(self.queue.admin.show(name).envelope.relay)  # type: ignore[union-attr]  # it has an envelope

    def test_is_as_safe_as_every_change(self) -> None:
        """Not while it is being sent."""
        name = self.put("b@news.org")
        [lease] = self.queue.claim()
        self.assertRefused(1, "it is being sent", "reroute", self.path, name, "--to", "main")
        lease.release()


class GivingUp(RelaysTest):
    def test_reports_to_the_sender(self) -> None:
        """About those who were not served; the mail is kept as rejected."""
        name = self.put("a@example.org", "b@example.org", message=b"Message-Id: <7@shop>\nSubject: bill\n\nx\n")
        self.settle(Reply(Answer.ACCEPTED, "ok", 250), GREYLISTED)
        self.ok("bounce", "7@shop")
        self.assertIs(self.queue.admin.show(name).state, State.REJECTED)
        [report] = self.queue.admin.mails([State.READY])
        assert report.envelope is not None
        self.assertEqual((report.envelope.sender, report.envelope.recipients), ("", ("shop@example.org",)))
        text = message_from_bytes(self.queue.admin.read(report.name).read())
        self.assertEqual(text.get_content_type(), "multipart/report")
        said = text.as_string()
        self.assertIn("Final-Recipient: rfc822; b@example.org", said)
        self.assertIn("given up by an operator; last: 450 4.7.1 greylisted", " ".join(said.split()))
        self.assertNotIn("a@example.org", said.replace("shop@example.org", ""))

    def test_of_a_report_reports_nothing(self) -> None:
        """Nobody is told twice (RFC 5321, 4.5.5)."""
        name = self.put("a@example.org", sender="")
        self.ok("bounce", name)
        self.assertEqual(list(self.queue.admin.names()), [name])

    def test_asks_before_several_are_given_up(self) -> None:
        """As remove does."""
        self.put("a@example.org")
        self.put("b@example.org")
        self.assertRefused(2, "2 mails would be given up for good", "bounce", self.path, "--all")
        self.assertEqual(self.call("bounce", self.path, "--all", answer="y\n"), 0)
        self.assertEqual(self.queue.admin.count()[State.REJECTED], 2)

    def test_is_possible_once(self) -> None:
        """What is rejected is rejected; its sender gets no second report."""
        name = self.put("a@example.org")
        self.ok("bounce", name)
        self.assertRefused(1, "cannot bounce", "bounce", self.path, name)


class ARehearsal(RelaysTest):
    def test_changes_nothing(self) -> None:
        """With each verb, and the same mails are meant as without it."""
        deferred, rejected, held, ready = self.put_four()
        before = [self.queue.admin.show(name) for name in self.queue.admin.names()]
        for verb, meant in {
            "retry": [deferred, rejected],
            "hold": [deferred, ready],
            "release": [held],
            "remove": [deferred, rejected, held, ready],
            "bounce": [deferred, held, ready],
            "reroute": [deferred, ready],
        }.items():
            with self.subTest(verb):
                more = ["--to", "main"] if verb == "reroute" else []
                said = self.ok(verb, "--all", "--dry-run", *more)
                self.assertEqual([line.partition(":")[0] for line in said.splitlines() if ": would be" in line], meant)
                self.assertIn("nothing was done", said)
                self.assertEqual([self.queue.admin.show(name) for name in self.queue.admin.names()], before)


class Shapes(RelaysTest):
    def test_tell_how_old_mail_is(self) -> None:
        """By relay, domain, sender or reply; as Postfix's qshape."""
        self.put("a@example.org", "b@example.net")
        self.put("c@news.org", sender="news@example.org")
        self.clock.advance(12 * 60)
        total, *rows = self.ok("shape", "--by", "domain").splitlines()[1:]
        self.assertEqual(total.split(), ["TOTAL", "2", "0", "0", "2", *["0"] * 7])
        self.assertEqual({row.split()[0] for row in rows}, {"example.org", "example.net", "news.org"})
        by_relay = {values["key"]: values["total"] for values in self.objects("shape")}
        self.assertEqual(by_relay, {"main": 1, "bulk": 1})
        self.assertEqual(self.objects("shape", "--by", "sender", "--sender", "news@example.org")[0]["total"], 1)
        self.assertIn(pattern_of(LOGIN), [values["key"] for values in self.objects("shape", "--by", "reply")])


class Errors(RelaysTest):
    def test_are_counted_by_what_they_have_in_common(self) -> None:
        """The most frequent first, with an example."""
        for number in range(3):
            self.put(f"{number}@example.org")
            self.settle(Reply(Answer.REJECTED, f"<{number}@example.org> unknown", 550, "5.1.1"))
        name = self.put("b@news.org")
        first, second = self.objects("errors")
        self.assertEqual((first["count"], first["reply"], first["state"]), (3, "550 5.1.1 * unknown", "rejected"))
        self.assertEqual((second["count"], second["example"], second["relay"]), (1, name, "bulk"))
        self.assertIn("3 rejected 550 5.1.1 * unknown", self.ok("errors"))
        self.assertEqual(len(self.objects("errors", "--reply", "535")), 1)

    def test_may_be_none(self) -> None:
        """That is said."""
        self.assertEqual(self.ok("errors"), "no mail was told anything\n")


class ALook(RelaysTest):
    def test_at_everything_is_top(self) -> None:
        """Rates, relays, the oldest, the last replies; once where there is no terminal."""
        self.put("a@example.org")
        self.settle(UNKNOWN_USER)
        self.put("b@news.org")
        said = self.ok("top")
        for words in ("12 mails a minute", "1 ready", "1 rejected", "CANNOT BE USED", "LAST REPLIES", "no such user"):
            self.assertIn(words, said)
        [values] = [json.loads(line) for line in self.ok("top", "--json").splitlines()]
        self.assertEqual((values["per_minute"], values["counts"]["ready"], len(values["oldest"])), (12.0, 1, 1))


class StagedMail(OperatorsTest):
    def stage_and_die(self) -> str:
        """A mail whose process is gone before its transaction ended."""
        child = os.fork()
        if not child:
            MaildirQueue(self.path, clock=self.clock).stage().add(self.envelope, b"Message-Id: <s@shop>\n\nx")
            os._exit(0)
        os.waitpid(child, 0)
        [name] = os.listdir(os.path.join(self.path, "tmp"))
        return f"tmp/{name}"

    def setUp(self) -> None:
        super().setUp()
        self.envelope = Envelope("shop@example.org", ("one@example.org",))

    def test_is_listed_if_that_is_wanted(self) -> None:
        """By its name below tmp/; else it is left out."""
        name = self.stage_and_die()
        self.assertEqual((self.names(), self.names("--state", "staged")), ([], [name]))
        self.assertIn("message id  s@shop", self.ok("show", name))

    def test_of_a_dead_process_is_released_or_removed(self) -> None:
        """By an operator who knows how the transaction ended."""
        self.ok("remove", self.stage_and_die())
        self.assertEqual(os.listdir(os.path.join(self.path, "tmp")), [])
        name = self.stage_and_die()
        self.ok("release", name)
        self.assertEqual(self.names(), [name.removeprefix("tmp/")])

    def test_has_its_message_id_for_a_name(self) -> None:
        """As any other mail."""
        name = self.stage_and_die()
        self.assertIn(f"name        {name}", self.ok("show", "s@shop"))
        self.assertIn("would be released", self.ok("release", "<s@shop>", "--dry-run"))
        self.ok("remove", "s@shop")
        self.assertEqual(os.listdir(os.path.join(self.path, "tmp")), [])

    def test_of_a_living_process_is_left_alone(self) -> None:
        """Its transaction may still commit."""
        name = "tmp/" + self.queue.stage().add(self.envelope, b"x")
        for verb in (["remove"], ["release"], ["remove", "--dry-run"], ["release", "--dry-run"]):
            self.assertEqual(self.call(*verb, self.path, name), 1)
            self.assertIn("its transaction may still commit", self.complained)
        self.assertTrue(os.path.exists(os.path.join(self.path, name)))

    def test_may_be_gone(self) -> None:
        """Or never have been."""
        self.assertEqual(self.call("remove", self.path, "tmp/1.2.h.3"), 1)
        self.assertEqual(self.call("release", self.path, "tmp/../new"), 1)


if __name__ == "__main__":
    unittest.main()
