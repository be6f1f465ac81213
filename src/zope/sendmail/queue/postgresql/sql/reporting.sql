-- name: report
with gone as (delete from zope_sendmail.processor_state where queue = %(queue)s and processor = any(%(absorbed)s))
insert into zope_sendmail.processor_state (queue, processor, state) values (%(queue)s, %(processor)s, %(state)s)
on conflict (queue, processor) do update set state = excluded.state
returning set_config('synchronous_commit', 'off', true)

-- name: reports
select s.processor, s.state, exists (
    select from zope_sendmail.processor p where p.id = s.processor and p.ended is null)
from zope_sendmail.processor_state s where s.queue = %(queue)s

-- name: silent
-- The living processors that have mail of this queue in hand and have told nothing of it yet.  By keys: neither all slots
-- are read, nor all mail of the queue.
select p.id, p.pid, p.host from zope_sendmail.processor p, lateral (
    select from zope_sendmail.attempt a, lateral (
        select from zope_sendmail.mail m where m.id = a.mail and m.lease = a.lease and m.queue = %(queue)s limit 1) as mine
    where a.processor = p.id and a.phase > 0 limit 1) as in_hand
where p.ended is null and not exists (
    select from zope_sendmail.processor_state s where s.queue = %(queue)s and s.processor = p.id)

-- name: ask_for_probe
insert into zope_sendmail.probe (queue, relay, at) values (%(queue)s, %(relay)s, to_timestamp(%(at)s))
on conflict (queue, relay) do update set at = excluded.at

-- name: probe_asked
select extract(epoch from at)::float8 from zope_sendmail.probe where queue = %(queue)s and relay = %(relay)s

-- name: take_turns
-- One row for a relay: all processors that reach this database share its turns.
insert into zope_sendmail.turn as t (relay, next)
    values (%(relay)s, clock_timestamp() + make_interval(secs => %(seconds)s))
on conflict (relay) do update
    set next = greatest(t.next, clock_timestamp()) + make_interval(secs => %(seconds)s)
returning greatest(0, extract(epoch from t.next - clock_timestamp())::float8 - %(seconds)s),
    set_config('synchronous_commit', 'off', true)
