-- A claim may be repeated, with the same lease, after a connection broke while it was being committed.  Who had the mail
-- before stays in its row until it is written down what that one left: `inherit`, `succeed`.

-- name: claim_fresh
with due as (
    select id, coalesce(was, nullif(owner, %(me)s)) as was,
        coalesce(was_lease, case when owner <> %(me)s then lease end) as was_lease
    from zope_sendmail.mail
    where queue = %(queue)s and state = 0 and due is null and priority = %(priority)s and id > %(cursor)s
        and (owner is null or owner = any(%(dead)s) or (owner = %(me)s and lease = any(%(mine)s))) and id <> all(%(parked)s)
        and exists (select from zope_sendmail.epoch where since < clock_timestamp() - interval '5 s')
    order by id limit %(limit)s for update skip locked
)
update zope_sendmail.mail m set owner = %(me)s, lease = %(lease)s, was = due.was, was_lease = due.was_lease
from due where m.id = due.id
returning m.id, m.envelope, m.record, m.message_id, m.size, extract(epoch from m.since)::float8, m.was, m.was_lease,
    case when m.size <= 65536 then (select b.data from zope_sendmail.body b where b.mail = m.id and b.no = 0) end

-- name: claim_again
with due as (
    select id, coalesce(was, nullif(owner, %(me)s)) as was,
        coalesce(was_lease, case when owner <> %(me)s then lease end) as was_lease
    from zope_sendmail.mail
    where queue = %(queue)s and state = 0 and priority = %(priority)s and due <= to_timestamp(%(now)s)
        and (owner is null or owner = any(%(dead)s) or (owner = %(me)s and lease = any(%(mine)s))) and id <> all(%(parked)s)
        and exists (select from zope_sendmail.epoch where since < clock_timestamp() - interval '5 s')
    order by due, id limit %(limit)s for update skip locked
)
update zope_sendmail.mail m set owner = %(me)s, lease = %(lease)s, was = due.was, was_lease = due.was_lease
from due where m.id = due.id
returning m.id, m.envelope, m.record, m.message_id, m.size, extract(epoch from m.since)::float8, m.was, m.was_lease,
    case when m.size <= 65536 then (select b.data from zope_sendmail.body b where b.mail = m.id and b.no = 0) end

-- name: claim_these
with due as (
    select id, coalesce(was, nullif(owner, %(me)s)) as was,
        coalesce(was_lease, case when owner <> %(me)s then lease end) as was_lease
    from zope_sendmail.mail
    where id = any(%(ids)s) and queue = %(queue)s and state = 0 and (due is null or due <= to_timestamp(%(now)s))
        and (owner is null or owner = any(%(dead)s) or (owner = %(me)s and lease = any(%(mine)s)))
        and exists (select from zope_sendmail.epoch where since < clock_timestamp() - interval '5 s')
    order by id limit %(limit)s for update skip locked
)
update zope_sendmail.mail m set owner = %(me)s, lease = %(lease)s, was = due.was, was_lease = due.was_lease
from due where m.id = due.id
returning m.id, m.envelope, m.record, m.message_id, m.size, extract(epoch from m.since)::float8, m.was, m.was_lease,
    case when m.size <= 65536 then (select b.data from zope_sendmail.body b where b.mail = m.id and b.no = 0) end

-- name: claim_expired
-- What its sender wants given up by now, whenever it is due.
with due as (
    select id, coalesce(was, nullif(owner, %(me)s)) as was,
        coalesce(was_lease, case when owner <> %(me)s then lease end) as was_lease
    from zope_sendmail.mail
    where queue = %(queue)s and state = 0 and expires <= to_timestamp(%(now)s)
        and (owner is null or owner = any(%(dead)s) or (owner = %(me)s and lease = any(%(mine)s)))
        and exists (select from zope_sendmail.epoch where since < clock_timestamp() - interval '5 s')
    order by expires limit %(limit)s for update skip locked
)
update zope_sendmail.mail m set owner = %(me)s, lease = %(lease)s, was = due.was, was_lease = due.was_lease
from due where m.id = due.id
returning m.id, m.envelope, m.record, m.message_id, m.size, extract(epoch from m.since)::float8, m.was, m.was_lease,
    case when m.size <= 65536 then (select b.data from zope_sendmail.body b where b.mail = m.id and b.no = 0) end

-- name: outlook
-- When the next mail is to be given up; of which priorities, other than the usual one, there is mail that waits; how
-- often operators changed mail.
select (select extract(epoch from expires)::float8 from zope_sendmail.mail
        where queue = %(queue)s and state = 0 and expires is not null and (owner is null or owner = any(%(dead)s))
        order by expires limit 1),
    array_remove(array[
        (select priority from zope_sendmail.mail
            where queue = %(queue)s and state = 0 and priority = 0 and due is null order by priority, id limit 1),
        (select priority from zope_sendmail.mail
            where queue = %(queue)s and state = 0 and priority = 0 and due is not null order by priority, due limit 1),
        (select priority from zope_sendmail.mail
            where queue = %(queue)s and state = 0 and priority = 2 and due is null order by priority, id limit 1),
        (select priority from zope_sendmail.mail
            where queue = %(queue)s and state = 0 and priority = 2 and due is not null order by priority, due limit 1)
    ], null),
    (select changes from zope_sendmail.queue where id = %(queue)s)

-- name: next_due
select extract(epoch from next.due)::float8 from (values (0::smallint), (1::smallint), (2::smallint)) as class (p),
    lateral (
        select due from zope_sendmail.mail
        where queue = %(queue)s and state = 0 and priority = p and due is not null and due > to_timestamp(%(now)s)
            and (owner is null or owner = any(%(dead)s)) and id <> all(%(parked)s)
        order by due limit 1
    ) as next
order by next.due limit 1

-- name: changed
-- Which of these mails, which this processor leaves alone, operators have changed, or are not there any more.
select p.id from unnest(%(parked)s::uuid[]) as p (id) left join zope_sendmail.mail m on m.id = p.id
where m.id is null or (m.owner is null and m.lease = -1)

-- name: anything_new
-- Whether there is mail to claim; how often operators changed mail; when one asked last for a try of a relay.
select (select count(*) > 0 from (  -- `exists` would not read in this order, and so not by the index
        select from zope_sendmail.mail where queue = %(queue)s and state = 0 and due is null
            and owner is null and id <> all(%(parked)s) order by priority, id limit 1) as fresh),
    (select changes from zope_sendmail.queue where id = %(queue)s),
    (select max(at) from zope_sendmail.probe where queue = %(queue)s)

-- name: piece
select data from zope_sendmail.body where mail = %(mail)s and no = %(no)s

-- name: note
-- How far some mails have come: nothing but slots, so that it is short.
with noted as (  -- not joined with the arrays: that would read each slot of this processor
    update zope_sendmail.attempt set mail = (%(mails)s::uuid[])[array_position(%(slots)s::int[], slot)],
        lease = (%(leases)s::bigint[])[array_position(%(slots)s::int[], slot)],
        phase = (%(phases)s::smallint[])[array_position(%(slots)s::int[], slot)]
    where processor = %(me)s::bigint and slot = any(%(slots)s::int[]) and not ended returning slot
)
select case when (select count(*) from noted) < cardinality(%(slots)s::int[])
        then (select coalesce(string_agg(slot::text, ','), '') from noted) end,
    set_config('synchronous_commit', 'off', true)

-- name: advance
-- The mails that have gone leave, and others are about to go: one round trip for all workers.
with ended as (
    delete from zope_sendmail.mail m
    using unnest(%(sent)s::uuid[], %(sent_leases)s::bigint[], %(records)s::text[]) as s (id, lease, record)
    where m.id = s.id and m.lease = s.lease returning m.id, m.message_id, m.record is not null as tried, s.record
),
bodies as (delete from zope_sendmail.body b using ended where b.mail = ended.id),
told as (delete from zope_sendmail.history h using ended where ended.tried and h.mail = ended.id),
noted as (
    insert into zope_sendmail.sent_{part} (part, queue, at, message_id, record)
        select %(part)s, %(queue)s, to_timestamp(%(now)s), message_id, record from ended where message_id <> ''
),
intents as (  -- as in `note`
    update zope_sendmail.attempt set mail = (%(mails)s::uuid[])[array_position(%(slots)s::int[], slot)],
        lease = (%(leases)s::bigint[])[array_position(%(slots)s::int[], slot)],
        phase = (%(phases)s::smallint[])[array_position(%(slots)s::int[], slot)]
    where processor = %(me)s and slot = any(%(slots)s::int[]) and not ended returning slot
),
back as (
    update zope_sendmail.mail m set owner = null, lease = null
    from unnest(%(back)s::uuid[], %(back_leases)s::bigint[]) as v (id, lease)
    where m.id = v.id and m.lease = v.lease
)
-- Which they were is asked only if some were not there any more.
select case when (select count(*) from ended) < cardinality(%(sent)s::uuid[])
        then (select coalesce(string_agg(id::text, ','), '') from ended) end,
    case when (select count(*) from intents) < cardinality(%(slots)s::int[])
        then (select coalesce(string_agg(slot::text, ','), '') from intents) end,
    set_config('synchronous_commit', 'off', true)

-- name: advance_one
-- The same for one worker that is alone: its last mail leaves, which was never tried before and fits one row.
with ended as (
    delete from zope_sendmail.mail where id = %(sent)s and lease = %(sent_lease)s returning message_id
),
body as (delete from zope_sendmail.body where mail = %(sent)s and no = 0 and exists (select from ended)),
noted as (
    insert into zope_sendmail.sent_{part} (part, queue, at, message_id, record)
        select %(part)s, %(queue)s, to_timestamp(%(now)s), message_id, %(record)s from ended where message_id <> ''
),
intent as (
    update zope_sendmail.attempt set mail = %(mail)s, lease = %(lease)s, phase = %(phase)s
    where processor = %(me)s and slot = %(slot)s and not ended returning slot
)
select case when not exists (select from ended) then '' end, case when not exists (select from intent) then '' end,
    set_config('synchronous_commit', 'off', true)

-- name: keep
-- An attempt has ended, and the mail stays: deferred, rejected or held.
with kept as (
    update zope_sendmail.mail
    set owner = null, lease = null, state = %(state)s, due = to_timestamp(%(due)s), record = %(record)s
    where id = %(id)s and lease = %(lease)s returning id
),
told as (insert into zope_sendmail.history (mail, record) select id, %(record)s from kept)
select count(*), set_config('synchronous_commit', case when %(durable)s then 'on' else 'off' end, true) from kept

-- name: inherit
-- What a dead owner left is written down before anything else is done with the mail: also that it is held from now on.
with kept as (
    update zope_sendmail.mail set state = %(state)s, record = %(record)s, was = null, was_lease = null
    where id = %(id)s and lease = %(lease)s and was is not null returning id
),
told as (insert into zope_sendmail.history (mail, record) select id, %(record)s from kept)
select count(*) from kept

-- name: mend
-- A mail that is claimed and was held, or rejected, before: given back, it does not wait.
update zope_sendmail.mail set state = %(state)s where id = %(id)s and lease = %(lease)s and state = 0

-- name: succeed
-- A dead owner left nothing that has to be written down.
update zope_sendmail.mail set was = null, was_lease = null where id = any(%(ids)s) and owner = %(me)s and was is not null

-- name: resume
-- After a crash, which of these claims hold.  What a failover took back is claimed again if nothing became of the mail.
with given as (
    select * from unnest(%(ids)s::uuid[], %(leases)s::bigint[], %(records)s::text[]) as v (id, lease, record)
),
again as (
    update zope_sendmail.mail m set owner = %(me)s, lease = given.lease from given
    where m.id = given.id and (m.owner is null or m.owner = %(me)s) and m.state = 0 and m.record is not distinct from given.record
    returning m.id
)
select m.id from zope_sendmail.mail m join given on m.id = given.id where m.owner = %(me)s and m.lease = given.lease
union all select id from again
