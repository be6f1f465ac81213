-- name: stage
with m as (
    insert into zope_sendmail.mail (id, queue, state, priority, size, message_id, envelope, due, expires, maker)
    values (%(id)s, %(queue)s, %(state)s, %(priority)s, %(size)s, %(message_id)s, %(envelope)s, to_timestamp(%(due)s),
        to_timestamp(%(expires)s), %(maker)s) on conflict do nothing
)
insert into zope_sendmail.body (mail, no, data) values (%(id)s, 0, %(data)s) on conflict do nothing

-- name: body
insert into zope_sendmail.body (mail, no, data) values (%(mail)s, %(no)s, %(data)s)

-- name: copy_mail
copy zope_sendmail.mail (id, queue, state, priority, size, message_id, envelope, due, expires, maker) from stdin (format binary)

-- name: copy_body
copy zope_sendmail.body (mail, no, data) from stdin (format binary)

-- name: reveal
-- The instant of success.  Harmless when repeated.
update zope_sendmail.mail set state = 0, since = clock_timestamp(), maker = null where id = any(%(ids)s) and state = 3

-- name: discard
with gone as (delete from zope_sendmail.mail where id = any(%(ids)s) and state = 3 returning id),
keys as (delete from zope_sendmail.key k using gone where k.mail = gone.id)
delete from zope_sendmail.body where mail = any(%(ids)s) and not exists (
    select from zope_sendmail.mail m where m.id = body.mail and m.state <> 3)
