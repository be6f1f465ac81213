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

-- name: taken_keys
select key, message_id, extract(epoch from until)::float8 from zope_sendmail.key k
where queue = %(queue)s and key > %(after)s and until > to_timestamp(%(now)s) and not exists (
    select from zope_sendmail.mail m where m.id = k.mail and m.state = 3)
order by key limit %(limit)s

-- name: bring_keys
-- A key that is taken here, or in use, stays as it is.
insert into zope_sendmail.key as k (queue, key, mail, message_id, until)
    select %(queue)s, v.key, gen_random_uuid(), v.message_id, to_timestamp(v.until)
    from unnest(%(keys)s::text[], %(message_ids)s::text[], %(untils)s::float8[]) as v (key, message_id, until)
    order by v.key
on conflict (queue, key) do update
    set mail = excluded.mail, message_id = excluded.message_id, until = excluded.until
    where k.until <= to_timestamp(%(now)s) and not exists (
        select from zope_sendmail.mail m where m.id = k.mail and m.state = 3)

-- name: departures
select message_id, extract(epoch from at)::float8, record from zope_sendmail.sent
where part = %(part)s and queue = %(queue)s and (message_id, at) > (%(message_id)s, to_timestamp(%(at)s)) and at > to_timestamp(%(after)s)
order by message_id, at limit %(limit)s

-- name: note_departures
insert into zope_sendmail.sent (part, queue, at, message_id, record)
    select %(part)s, %(queue)s, to_timestamp(v.at), v.message_id, v.record
    from unnest(%(ats)s::float8[], %(message_ids)s::text[], %(records)s::text[]) as v (at, message_id, record)
    where not exists (
        select from zope_sendmail.sent s where s.part = %(part)s and s.message_id = v.message_id and s.queue = %(queue)s and s.at = to_timestamp(v.at))

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
