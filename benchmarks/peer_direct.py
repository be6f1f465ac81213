"""smtplib and aiosmtplib as measured senders: connections are kept, and there is no queue.

What is "in the queue" is in the memory of this process; they show what a conversation costs without a promise.
"""

from __future__ import annotations

import asyncio
import smtplib
import ssl
import time
from typing import Any

from letters import RECIPIENT, SENDER, measured, text
from serve import serve

_now: dict[str, Any] = {}


def prepare(relay: dict[str, Any], settings: dict[str, Any], **_: object) -> dict[str, Any]:
    """Remember where the relay is."""
    _now.update(relay=relay, mails=[], **settings)
    return {}


def fill(first: int, mails: int, size: int) -> dict[str, Any]:
    """Keep them in memory."""
    _now["mails"] = [text(number, size) for number in range(first, first + mails)]
    return {}


def drain(**_: object) -> dict[str, Any]:
    """Send what is there, over new connections."""
    mails, _now["mails"] = _now["mails"], []
    if "connections" in _now:
        return measured(lambda: asyncio.run(_send_side_by_side(mails, _now["connections"])))
    return measured(lambda: _send(mails))


def stand() -> dict[str, Any]:
    """Connect."""
    _now["connection"] = _connect()
    return {}


def moment(number: int, size: int) -> dict[str, Any]:
    """Send one mail over the kept connection."""
    if "connection" not in _now:
        stand()
    began = time.monotonic()
    _now["connection"].sendmail(SENDER, [RECIPIENT], text(number, size))
    return {"began": began, "done": time.monotonic()}


def waiting() -> dict[str, Any]:
    """Return that nothing is left: what was in the memory of a dead process is gone."""
    return {"mails": 0}


def _connect() -> smtplib.SMTP:
    relay = _now["relay"]
    connection = smtplib.SMTP("127.0.0.1", relay["port"], timeout=60)
    if relay["login"]:
        connection.starttls(context=ssl.create_default_context(cafile=relay["cafile"]))
        connection.login("name", "secret")
    return connection


def _send(mails: list[bytes]) -> None:
    with _connect() as connection:
        for each in mails:
            connection.sendmail(SENDER, [RECIPIENT], each)


async def _send_side_by_side(mails: list[bytes], connections: int) -> None:
    import aiosmtplib

    relay, left = _now["relay"], iter(mails)
    context = ssl.create_default_context(cafile=relay["cafile"]) if relay["login"] else None
    login = {"username": "name", "password": "secret", "start_tls": True, "tls_context": context}

    async def work() -> None:
        client = aiosmtplib.SMTP(hostname="127.0.0.1", port=relay["port"], **(login if relay["login"] else {}))
        async with client:
            for each in left:
                await client.sendmail(SENDER, [RECIPIENT], each)

    await asyncio.gather(*(work() for _ in range(min(connections, len(mails)))))


if __name__ == "__main__":
    serve({each.__name__: each for each in (prepare, fill, drain, stand, moment, waiting)})
