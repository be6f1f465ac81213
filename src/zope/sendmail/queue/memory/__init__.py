"""The queue in the memory of a process, for tests of applications, and to read what a queue is."""

from zope.sendmail.queue.memory.queue import MemoryQueue, forget_shared_memory, open_memory, shared_memory
from zope.sendmail.queue.memory.staging import MemoryStagedMail

__all__ = ["MemoryQueue", "MemoryStagedMail", "forget_shared_memory", "open_memory", "shared_memory"]
