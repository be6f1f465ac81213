-- How often operators changed mail of a queue: processors that leave some alone look which ones, where no notification
-- reaches them.
alter table zope_sendmail.queue add column changes bigint not null default 0;
