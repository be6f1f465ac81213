"""The conversation with a relay.

Pure: `replies`, `commands`, `body`, `progress`, `steps`, and `dialogue`: one mail, made of `talk` and `asking`;
`saslprep`, `exchange`, `scram`: one login.  With a socket: `connect` opens a connection with smtplib, `certificate`
loads our own, `sasl` logs in, `channel` carries bytes and replies over it, `transaction` runs a dialogue, `session`
keeps the connection between mails, `stream` lets a run of mails through it, `errors` and `verdict` tell how that ended.
`handover` and `sendonly` are for what is not smtplib's.
"""
