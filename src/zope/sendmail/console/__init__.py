"""A console for operators in the browser: a WSGI application.  Needs the extra ``console``.

``zope-sendmail console DIRECTORY`` serves it on this host; `Console` is mounted in a Pyramid, Flask or Zope
application, which then decides about access.  It shows; it changes something only if it is told ``writable=True``.  No
text of a mail is ever taken for HTML, nothing comes from another host, and no page needs JavaScript.
``docs/howto/console.rst`` has the rest.
"""

from zope.sendmail.console.app import Console

__all__ = ["Console"]
