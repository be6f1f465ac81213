"""The URL of a queue in a database: what it means, and that no password is ever seen."""

from __future__ import annotations

import unittest

from zope.sendmail.config.location import check_location
from zope.sendmail.errors import InvalidLocation
from zope.sendmail.queue import open_queue
from zope.sendmail.tests.support.postgresql import require_psycopg

_SECRET = "s3cr3t-W0rd"


class LocationTests(unittest.TestCase):
    """What `open_queue` makes of a URL; nothing is connected to."""

    def setUp(self) -> None:
        require_psycopg()

    def test_a_url_is_a_queue_in_postgresql(self) -> None:
        """Its location is what was written; libpq's other word for the scheme is understood."""
        url = "postgresql://app@db.example.org/site?queue=news"
        self.assertEqual(open_queue(url).location, url)
        self.assertEqual(open_queue("postgres:///site").location, "postgresql:///site")

    def test_queue_is_ours_and_the_rest_libpqs(self) -> None:
        """`queue` names the queue in its database; what is not said has a default."""
        from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation

        location = DatabaseLocation.parse("postgresql://app@db:6432/site?queue=news&sslmode=require")
        self.assertEqual(location.queue, "news")
        expected = {"user": "app", "host": "db", "port": "6432", "dbname": "site", "sslmode": "require"}
        self.assertLessEqual(expected.items(), location.parameters.items())
        self.assertNotIn("queue", location.parameters)
        self.assertEqual(DatabaseLocation.parse("postgresql:///site").queue, "mail")

    def test_of_several_servers_the_one_that_writes_is_meant(self) -> None:
        """After a failover that is another one."""
        from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation

        location = DatabaseLocation.parse("postgresql://one,two/site")
        self.assertEqual(location.parameters["target_session_attrs"], "read-write")

    def test_a_password_is_refused_and_not_repeated(self) -> None:
        """Wherever in the URL it stands, before anything is connected to."""
        for url in (
            f"postgresql://app:{_SECRET}@db/site",
            f"postgres://app:{_SECRET}@db/site?queue=x",
            f"postgresql:///site?password={_SECRET}",
            f"postgresql:///site?sslpassword={_SECRET}&queue=x",
            f"postgresql:///site?PassWord={_SECRET}",
            f"postgresql:///site?%70assword={_SECRET}",
        ):
            for refuse in (open_queue, check_location):
                with self.assertRaises(InvalidLocation) as caught:
                    refuse(url)
                self.assertNotIn(_SECRET, str(caught.exception))
                self.assertIn("passfile", str(caught.exception))

    def test_what_is_no_url_is_refused(self) -> None:
        """With the form that is right."""
        for url in (
            "postgresql://app@db/site?queue=",
            "postgresql://app@db/site?queue=a%20b",
            "postgresql://app@db/site?queue=a&queue=b",
            "postgresql://app@db/site?nosuchparameter=1",
            "postgresql://[::1/site",
        ):
            with self.assertRaises(InvalidLocation, msg=url):
                open_queue(url)

    def test_nothing_of_a_queue_shows_its_parameters(self) -> None:
        """Neither its representation nor that of its location."""
        from zope.sendmail.queue.postgresql.databaselocation import DatabaseLocation

        location = DatabaseLocation.parse("postgresql://db/site?passfile=/secret/place")
        self.assertNotIn("parameters", repr(location))
