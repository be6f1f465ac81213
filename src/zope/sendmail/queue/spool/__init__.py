"""A queue that other programs fill by dropping files: MaildropHost's ``##To:`` directory."""
