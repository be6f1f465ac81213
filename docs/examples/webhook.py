"""Tells another server what became of mail, by HTTP; nothing is lost while that is down.

Each event is a file until the other side has said yes. Files are written by the subscriber, and posted by a thread (or
by cron, with `post_waiting`); a death in between posts one twice, which its ``id`` shows.
"""

import json
import os
import threading
import time
import urllib.request
import uuid

import zope.event

from zope.sendmail.interfaces import IMailErrorEvent, IMailEvent, IMailSentEvent

KINDS = {IMailSentEvent: "sent", IMailErrorEvent: "rejected"}


class Webhook:
    def __init__(self, directory, url, interval=5.0, timeout=10.0):
        self.directory, self.url, self.interval, self.timeout = directory, url, interval, timeout
        self._changed = threading.Event()
        self._ended = False
        os.makedirs(directory, exist_ok=True)

    def subscribe(self):
        """Be told of all mail of this process, and start to post."""
        zope.event.subscribers.append(self.on_event)
        self._thread = threading.Thread(target=self._run, name="webhook", daemon=True)
        self._thread.start()

    def stop(self):
        zope.event.subscribers.remove(self.on_event)
        self._ended = True
        self._changed.set()
        self._thread.join()

    def on_event(self, event):
        """Keep what happened. It is called by the thread that sends mail: it writes one small file."""
        kind = next((kind for interface, kind in KINDS.items() if interface.providedBy(event)), None)
        if kind is None or not IMailEvent.providedBy(event):
            return
        replies = {who: str(reply) for who, reply in event.replies.items()}
        told = {"id": uuid.uuid4().hex, "event": kind, "message_id": event.messageId, "replies": replies}
        name = f"{time.time_ns():020}-{told['id']}.json"  # events come one behind the other, so names tell their order
        hidden = os.path.join(self.directory, f".{name}")
        with open(hidden, "w", encoding="utf-8") as file:
            json.dump(told, file)
        os.rename(hidden, os.path.join(self.directory, name))
        self._changed.set()

    def post_waiting(self):
        """Post what waits, oldest first; stop at the first that is not taken. Return how many were."""
        waiting = [each.path for each in os.scandir(self.directory) if not each.name.startswith(".")]
        for count, path in enumerate(sorted(waiting)):
            with open(path, "rb") as file:
                request = urllib.request.Request(self.url, file.read(), {"Content-Type": "application/json"})
            try:
                urllib.request.urlopen(request, timeout=self.timeout).close()
            except OSError:  # not there, or it said no: URLError and HTTPError are kin
                return count
            os.remove(path)
        return len(waiting)

    def _run(self):
        while not self._ended:
            self.post_waiting()
            self._changed.wait(self.interval)
            self._changed.clear()
