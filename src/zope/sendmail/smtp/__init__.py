"""The conversation with a relay, on smtplib.

`connect` opens it, `transaction` carries one mail, `verdict` judges how that ended, `session` keeps the
connection between mails, `sendonly` does the same for a mailer that only has ``send()``.
"""
