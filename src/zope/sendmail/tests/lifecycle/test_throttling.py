"""What a relay means that says "too many"."""

from __future__ import annotations

import unittest

from zope.sendmail.lifecycle.outcome import Answer, Outcome, Reply
from zope.sendmail.lifecycle.throttling import TooMuch, complaints_in, too_much
from zope.sendmail.smtp.protocol.progress import reply_about_mail, reply_about_recipient

#: As providers and servers say it: code and text.
CONNECTIONS = (
    (432, "4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded [Hostname=AM0P.example]"),
    (432, "4.3.2 Concurrent connections limit exceeded. Visit https://aka.ms/concurrent_sending for more information."),
    (432, "4.3.2 come again"),
    (421, "4.7.0 mail.example.org Error: too many connections from 192.0.2.1"),
    (421, "4.3.2 The maximum number of concurrent connections has exceeded a limit, closing transmission channel"),
    (421, "4.3.2 The maximum number of concurrent connections per source has exceeded a limit"),
    (421, "Too many concurrent SMTP connections; please try again later."),
    (421, "Too many concurrent SMTP connections from this IP address; please try again later."),
    (421, "4.3.2 Too many open connections."),
    (421, "4.3.2 Connection rate limit exceeded."),
    (421, "Connection refused, too many sessions from 192.0.2.1. Please lower the number of concurrent sessions."),
    (421, "too many connections, slow down."),
    (454, "4.7.0 Error: too many new TLS sessions from 192.0.2.1"),
    (421, "4.3.2 number of open threads is at its maximum"),
    (421, "4.3.2 connection limit reached"),
    (421, "4.3.2 connections from your host exceed what is allowed"),
    (421, "4.3.2 your concurrency is too high"),
    (421, "4.3.2 too many of these SMTP or TLS connections"),
)
MAILS = (
    (451, "4.7.500 Server busy. Please try again later from [192.0.2.1]. (S77719)"),
    (451, "4.7.500 Please try again later"),
    (450, "4.7.1 Error: too much mail from 192.0.2.1"),
    (450, "4.7.1 Error: too many recipients from 192.0.2.1"),
    (450, "4.7.1 Error: too many AUTH commands from 192.0.2.1"),
    (451, "message rate exceeded"),
    (421, "4.4.2 Message submission rate for this client has exceeded the configured limit"),
    (454, "Throttling failure: Maximum sending rate exceeded."),
    (454, "Throttling failure: Daily message quota exceeded."),
    (421, "4.7.28 Gmail has detected an unusual rate of unsolicited mail originating from your IP address."),
    (421, "4.7.0 Our system has detected an unusual rate of unsolicited mail originating from your IP address."),
    (450, "4.2.1 Peak SMTP relay limit exceeded for customer. This is a temporary error."),
    (421, "4.4.5 Server busy, try again later."),
    (451, "4.4.5 Rate limit exceeded, try again later."),
    (452, "4.4.5 Rate limit exceeded, try again later."),
    (421, "4.7.0 [TSS04] Messages from 192.0.2.1 temporarily deferred due to unexpected volume or user complaints"),
    (450, "4.2.2 mail rejected as the hourly limit was exceeded"),
    (451, "4.7.1 Sender rate overlimit - 12.3 / 1h"),
    (451, "4.7.1 Rate limited, try again later"),
    (421, "4.1.0 192.0.2.1 Throttled - try again later"),
    (450, "Requested mail action not taken: mailbox unavailable. Mail send limit exceeded."),
    (421, "4.7.1 Messages to example.org deferred due to excessive volume."),
    (450, "4.7.0 You are sending too many messages too quickly; slow down"),
    (421, "4.3.2 server busy"),
    (421, "4.7.28 come again"),
    (451, "4.4.5 come again"),
    # Each is there for words that stand alone, and beside others that are about receiving.
    (421, "4.1.0 throttled; receiving again in a minute"),
    (421, "4.1.0 rate of your host is over what we are receiving"),
    (421, "4.1.0 high rate; receiving again in a minute"),
    (421, "4.1.0 ratelimit; receiving again in a minute"),
    (421, "4.1.0 overlimit; receiving again in a minute"),
    (421, "4.1.0 daily limit; receiving again tomorrow"),
    (421, "4.1.0 slow down; receiving again in a minute"),
    (421, "4.1.0 too quickly; receiving again in a minute"),
)
#: As a permanent refusal.
QUOTAS = (
    (550, "5.4.5 Daily sending quota exceeded"),
    (
        550,
        "5.4.5 Daily user sending limit exceeded. For more information on Gmail sending limits go to https://x.example",
    ),
    (550, "5.4.5 Daily SMTP relay limit exceeded for customer"),
    (550, "5.4.5 https://support.google.com/mail/?p=DailyLimitExceeded"),
    (550, "5.4.6 mail rate exceeded limit"),
    (550, "5.4.6 Unusual sending activity detected. Please try after sometime"),
    (554, "5.7.1 <a@b.example>: Recipient address rejected: You have exceeded your Outmail quota."),
    (550, "exceeded hour limit"),
    (550, "User a@b.example has exceeded its 24-hour sending limit. Messages to 25 recipients out of 25 allowed"),
    (554, "5.2.0 STOREDRV.Submission.Exception:SubmissionQuotaExceededException; Failed to process message"),
    (554, "5.7.1 <DATA>: Data command rejected: limit of 400 rcpts per 24 hours for client a@b.example reached"),
    (554, "5.7.1 <DATA>: Data command rejected: only 10 messages per day"),
    (554, "5.7.1 <a@b.example>: Recipient address rejected: Policy Rejection- Quota Exceeded."),
    (554, "5.7.1 <a@b.example>: Sender address rejected: sorry, max 2 requests per hour."),
    (550, "User has exceeded outgoing email quota"),
    (550, "Domain b.example has exceeded the max emails per hour (250/250 (100%)) allowed.  Message discarded."),
    (550, "5.1.90 Your message can't be sent because you've reached your daily limit for message recipients"),
    (550, "5.7.233 Your message can't be sent because your tenant exceeded its daily limit"),
    (550, "5.7.705 Access denied, tenant has exceeded threshold"),
    (554, "5.7.1 Rate limit exceeded"),
    (550, "5.7.1 You have reached a limit for sending mail"),
    (550, "Too many messages this hour"),
    (554, "5.7.0 Your account has exceeded its daily sending quota"),
    (550, "maximum number of messages in 24 hours exceeded"),
    (550, "5.7.1 throttled"),
    (550, "5.7.1 rate-limit"),
    (550, "5.7.1 unusual sending activity"),
    (550, "5.7.1 policy rejection: quota"),
)
NO_QUOTAS = (
    (552, "5.2.2 Mailbox full"),
    (552, "5.2.2 The email account that you tried to reach is over quota and inactive."),
    (550, "5.2.2 user over quota"),
    (552, "5.2.2 daily sending limit exceeded"),
    (554, "Mailbox quota exceeded; try again in an hour"),
    (552, "5.3.4 Message size exceeds the maximum"),
    (552, "5.2.3 Message exceeds the size limit of the day"),
    (554, "5.4.6 Hop count exceeded - possible mail loop"),
    (550, "5.4.14 Hop count exceeded"),
    (550, "5.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages"),
    (550, "5.2.121 The recipient has exceeded their limit on the number of messages they can receive per hour"),
    (550, "5.7.1 Message rejected as spam; see https://example.org/daily-sending-limit-exceeded"),
    (550, "5.5.3 too many recipients"),
    (550, "Maximum line length exceeded (see RFC 5321 4.5.3.1.6)"),
    (554, "5.6.0 header size exceeds maximum permitted"),
    (550, "5.1.1 no such user here"),
    (550, "5.7.1 Relaying denied"),
    (554, "5.7.1 Service unavailable; Client host [192.0.2.1] blocked using a list of the last days"),
    (550, "5.7.26 Unauthenticated email from b.example is not accepted due to the domain's DMARC policy"),
    (550, "5.1.1 <a@b.example>: over and out"),
    (554, "Transaction failed: Recipient count exceeds 50."),
    (554, "5.7.1 Inbox limit per day exceeded"),
    (554, "5.7.1 Mailbox: daily limit exceeded"),
    (554, "5.7.1 Size: daily limit exceeded"),
    (554, "5.7.1 Attachment: daily limit exceeded"),
    (554, "5.7.1 They receive too many messages per hour; limit exceeded"),
    (554, "5.7.1 Greylisted: daily limit exceeded"),
    (554, "5.7.1 Daily limit exceeded: header too long"),
    (554, "5.7.1 The one whom you are trying to contact has exceeded a daily limit"),
)
SOMETHING_ELSE = (
    (450, "4.2.0 <jane@example.org>: Recipient address rejected: Greylisted, see http://postgrey.example/"),
    (451, "4.7.1 Greylisting in action, please come back in 00:05:00"),
    (450, "4.7.1 Graylisted: too many new senders, please try again in 300 seconds"),
    (
        450,
        "4.2.1 The user you are trying to contact is receiving mail at a rate that prevents additional messages from",
    ),
    (450, "4.2.1 The user you are trying to contact is receiving mail too quickly. Please resend your message later."),
    (452, "4.5.3 Error: too many recipients"),
    (452, "4.5.3 Your message has too many recipients. For more information, visit https://support.example"),
    (451, "4.5.3 Recipient limit exceeded"),
    (452, "4.2.2 Mailbox full"),
    (452, "4.2.2 The email account that you tried to reach is over quota and inactive."),
    (452, "4.2.2 <jane@example.org> Quota exceeded (mailbox for user is full)"),
    (452, "4.2.2 Quota exceeded"),
    (452, "4.2.2 Mailbox size limit exceeded"),
    (452, "4.3.4 Message size limit exceeded"),
    (421, "4.7.0 mail.example.org Error: too many errors"),
    (421, "4.5.2 Too many unrecognized commands, goodbye"),
    (452, "4.3.1 Insufficient system storage"),
    (451, "4.4.5 Maximum number of messages per session exceeded."),
    (421, "too many messages in this connection"),
    (421, "4.3.2 Service shutting down"),
    (421, "4.3.0 mail.example.org out of memory"),
    (451, "4.3.0 Temporary lookup failure"),
    (450, "4.1.8 <a@b.example>: Sender address rejected: Domain not found"),
    (451, "4.7.1 Please try again later"),
    (450, "4.1.1 User unknown, rated as probably a typing error"),
    (450, "4.7.1 Greylisting: rate limit for new senders"),
    (450, "4.7.1 Graylisting: rate limit for new senders"),
    (450, "4.2.1 The recipient has a high rate of mail"),
    (452, "4.2.2 Mailbox full: message quota exceeded"),
    (452, "4.2.2 message quota exceeded (jane@example.org)"),
    (452, "4.3.4 This message has exceeded the size limit"),
    (452, "4.3.4 Message size exceeded"),
    (452, "4.3.4 Message too large: relay limit exceeded"),
    (452, "4.5.3 message recipient count exceeded"),
    (452, "4.5.3 sending limit of 50 addresses per message"),
    (451, "4.4.5 sending limit of 50 per session"),
)


class AReply(unittest.TestCase):
    def test_that_wants_fewer_connections(self) -> None:
        """Whatever its code."""
        for code, text in CONNECTIONS:
            with self.subTest(text=text):
                self.assertIs(too_much(Reply.of(code, text)), TooMuch.CONNECTIONS)

    def test_that_wants_less_mail(self) -> None:
        """Now, or a minute."""
        for code, text in MAILS:
            with self.subTest(text=text):
                self.assertIs(too_much(Reply.of(code, text)), TooMuch.MAILS)

    def test_that_is_about_this_mail_or_connection(self) -> None:
        """Greylisting above all: such a mail is deferred as ever, and its retry would not be earlier otherwise."""
        for code, text in SOMETHING_ELSE:
            with self.subTest(text=text):
                self.assertIsNone(too_much(Reply.of(code, text)))

    def test_that_tells_of_a_quota_in_a_final_way(self) -> None:
        """No mail is rejected because the account has sent enough for today; it is as with 4yz."""
        for code, text in QUOTAS:
            with self.subTest(text=text):
                for reply in (reply_about_mail(code, text), reply_about_recipient(code, text)):
                    self.assertEqual((reply.answer, reply.code), (Answer.DEFERRED, code))
                    self.assertIs(too_much(reply), TooMuch.MAILS)
                    self.assertFalse(reply.is_one_too_many)
                self.assertIs(too_much(Reply.of(code - 100, text.replace("5.", "4.", 1))), TooMuch.MAILS)

    def test_that_has_the_code_of_a_quota_tells_of_one(self) -> None:
        """Whatever its words are."""
        for code in ("5.1.90", "5.4.5", "5.7.28", "5.7.232", "5.7.233", "5.7.705"):
            self.assertIs(too_much(reply_about_mail(550, f"{code} come again tomorrow")), TooMuch.MAILS, code)

    def test_that_complains_is_found_among_others(self) -> None:
        """Those that put the mail off; what was taken or refused says nothing of a rate."""
        complaint = Reply.of(450, "4.7.1 rate limit exceeded")
        replies = {"a": complaint, "b": Reply.of(250, "rate limit exceeded"), "c": Reply.of(450, "greylisted")}
        self.assertEqual(complaints_in(Outcome("r", replies)), {"a": complaint})

    def test_that_is_final_is_final(self) -> None:
        """Otherwise 5yz is a rejection, and a yes is a yes, whatever they say; our own words are no relay's."""
        for code, text in NO_QUOTAS:
            with self.subTest(text=text):
                self.assertIs(reply_about_mail(code, text).answer, Answer.REJECTED)
        self.assertIsNone(too_much(Reply.of(250, "rate limit exceeded")))
        self.assertIs(too_much(Reply.of(400, "too many connections")), TooMuch.CONNECTIONS)
        self.assertIsNone(too_much(Reply(Answer.DEFERRED, "too many connections", 500)))
        self.assertIsNone(too_much(Reply.of(600, "throttled")))
        self.assertIsNone(too_much(Reply(Answer.DEFERRED, "too many connections")))


if __name__ == "__main__":
    unittest.main()
