"""The queue in the memory of a process, for tests of applications, and to read what a queue is."""

from zope.sendmail.queue.memory.queue import (
    MemoryQueue,
    MemoryStagedMail,
    forget_shared_memory,
    open_memory,
    shared_memory,
)

__all__ = ["MemoryQueue", "MemoryStagedMail", "forget_shared_memory", "open_memory", "shared_memory"]
