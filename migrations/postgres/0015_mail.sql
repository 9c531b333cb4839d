-- SPDX-License-Identifier: Apache-2.0
-- Where mail reaches somebody, and whose word that is: what an administrator wrote, a provider or a directory does not
-- change. It joins nobody to an account.
create table mail_addresses (
    user_id text not null constraint mail_addresses_pk primary key
        constraint mail_addresses_user_fk references users (id) on delete cascade,
    address text not null constraint mail_addresses_are_short check (length(address) between 3 and 254),
    said_by text not null constraint mail_addresses_are_said_by_somebody check
        (said_by in ('administrator', 'provider', 'directory')),
    said_at bigint not null
);

-- Messages that are still to be delivered: tried when they are due, and again later, until they are taken or too old.
create table outbox (
    id text not null constraint outbox_pk primary key,
    way text not null constraint outbox_way_is_known check (way in ('mail', 'webhook')),
    whom text not null,
    body text not null constraint outbox_body_is_short check (length(body) <= 16384),
    made_at bigint not null,
    due_at bigint not null,
    tries bigint not null constraint outbox_tries_are_counted check (tries >= 0)
);
create index outbox_by_time on outbox (way, due_at);

-- when somebody was told that their access ends soon
alter table requests add column warned_at bigint;
