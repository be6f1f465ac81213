"""The conversation with a relay.

Pure, in `zope.sendmail.smtp.protocol`: one mail as commands and replies (``transaction``, and its parts), a message in
ASCII (``sevenbit``), what relays say about their limits (``limits``); ``startover``: when a mail is begun anew; in
``auth``: mechanisms and one login.  With a socket: ``connect`` opens a connection with smtplib, ``tls`` loads our
certificate, ``auth.login`` logs in, ``channel`` carries bytes and replies over it, ``connection`` runs transactions,
``session`` keeps the connection between mails, ``pipeline`` lets a run of mails through it, ``relaymemory`` remembers
what relays have shown, ``smtperrors`` and ``classification`` tell how an attempt ended.  ``sendmailconnection`` and
``sendonly`` are for what is not smtplib's.
"""
