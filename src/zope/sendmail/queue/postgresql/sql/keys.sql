-- name: key
-- Who has a key: the Message-Id, until when, and of a staged mail its maker and its age.
select k.mail, k.message_id, extract(epoch from k.until)::float8, m.id is not null, m.maker,
    coalesce(extract(epoch from clock_timestamp() - m.since), 0)::float8
from zope_sendmail.key k left join zope_sendmail.mail m on m.id = k.mail and m.state = 3
where k.queue = %(queue)s and k.key = %(key)s

-- name: take_key
-- A key is free if there is none, if its time is over and its mail is not staged, or if the mail is one that was given up.
insert into zope_sendmail.key as k (queue, key, mail, message_id, until)
values (%(queue)s, %(key)s, %(mail)s::uuid, %(message_id)s, to_timestamp(%(until)s::float8))
on conflict (queue, key) do update
    set mail = excluded.mail, message_id = excluded.message_id, until = excluded.until
    where k.mail = excluded.mail or k.mail = any(%(dead)s::uuid[]) or (k.until <= to_timestamp(%(now)s::float8) and not exists (
        select from zope_sendmail.mail m where m.id = k.mail and m.state = 3))
returning k.mail

-- name: forget_keys
delete from zope_sendmail.key k where k.until <= to_timestamp(%(now)s) and not exists (
    select from zope_sendmail.mail m where m.id = k.mail and m.state = 3)
returning k.queue
