-- Mail that leaves for another queue, or comes from one; see zope.sendmail.queue.transit.

-- name: has
select from zope_sendmail.mail where id = %(id)s and queue = %(queue)s and state < 10

-- name: head_to_move
select envelope, size, extract(epoch from since)::float8, state from zope_sendmail.mail where id = %(id)s

-- name: leave_for_another
with gone as (delete from zope_sendmail.mail where id = any(%(ids)s) and queue = %(queue)s returning id, queue, since),
bodies as (delete from zope_sendmail.body b using gone where b.mail = gone.id),
told as (delete from zope_sendmail.history h using gone where h.mail = gone.id)
insert into zope_sendmail.moved (queue, mail, at) select queue, id, since from gone on conflict do nothing

-- name: traces
select mail, extract(epoch from at)::float8 from zope_sendmail.moved where queue = %(queue)s order by mail

-- name: left_behind
select mail from zope_sendmail.moved where queue = %(queue)s order by mail limit %(limit)s

-- name: arriving
select id from zope_sendmail.mail
where queue = %(queue)s and state <> 0 and state = any(array[10, 11, 12]::smallint[]) order by id limit %(limit)s

-- name: forget_moved
delete from zope_sendmail.moved where queue = %(queue)s and mail = any(%(ids)s)

-- name: known_here
select queue from zope_sendmail.mail where id = %(id)s and state < 10

-- name: arrive
insert into zope_sendmail.mail (id, queue, state, priority, due, expires, since, size, message_id, envelope, record, maker)
values (%(id)s, %(queue)s, %(state)s, %(priority)s, to_timestamp(%(due)s), to_timestamp(%(expires)s), to_timestamp(%(since)s), %(size)s, %(message_id)s,
    %(envelope)s, %(record)s, %(maker)s)

-- name: tell
insert into zope_sendmail.history (mail, record) values (%(mail)s, %(record)s)

-- name: arrived
select id, maker from zope_sendmail.mail
where queue = %(queue)s and state <> 0 and state = any(array[10, 11, 12]::smallint[]) order by state, id limit %(limit)s

-- name: appear
-- The mail is one like all others from now on.
update zope_sendmail.mail set state = state - 10, maker = null
where id = any(%(ids)s) and queue = %(queue)s and state between 10 and 12

-- name: discard_arrived
with gone as (
    delete from zope_sendmail.mail where id = any(%(ids)s) and queue = %(queue)s and state between 10 and 12 returning id
),
bodies as (delete from zope_sendmail.body b using gone where b.mail = gone.id)
delete from zope_sendmail.history h using gone where h.mail = gone.id
