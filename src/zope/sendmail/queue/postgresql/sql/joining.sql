-- On the application's connection, whichever driver it has: so everything says of which type it is.

-- name: join_mail
insert into zope_sendmail.mail (id, queue, priority, size, message_id, envelope, due, expires)
values (%(id)s::uuid, %(queue)s, %(priority)s, %(size)s, %(message_id)s, %(envelope)s, to_timestamp(%(due)s::float8),
    to_timestamp(%(expires)s::float8))

-- name: join_body
insert into zope_sendmail.body (mail, no, data) values (%(mail)s::uuid, %(no)s, %(data)s::bytea)

-- name: reveal_on
-- On the connection of RelStorage, whose driver knows no named parameters.
update zope_sendmail.mail set state = 0, since = clock_timestamp(), maker = null
where id = any(%s::uuid[]) and state = 3

-- name: join_take_back
with gone as (delete from zope_sendmail.mail where id = any(%(ids)s::uuid[])),
keys as (delete from zope_sendmail.key where mail = any(%(ids)s::uuid[]))
delete from zope_sendmail.body where mail = any(%(ids)s::uuid[])
