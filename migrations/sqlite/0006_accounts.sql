-- SPDX-License-Identifier: Apache-2.0
-- Kinds: a person signs in; a service account never does, its tools present tokens; a break-glass account is entered
-- with a sealed code only. A lock stops somebody at once, and nothing of theirs is lost by it.
alter table users add column kind text not null default 'person'
    constraint users_kind_is_known check (kind in ('person', 'service', 'break-glass'));
alter table users add column locked_at integer;
alter table users add column locked_why text;

-- networks: prefixes separated by blanks, from which alone the token counts; empty means from everywhere
alter table tokens add column networks text not null default ''
    constraint tokens_networks_are_few check (length(networks) <= 1024);
alter table tokens add column made_by text;
alter table tokens add column last_used_from text;

-- what somebody has to have confirmed, such as a training, and until when it counts
create table attestations (
    user_id text not null constraint attestations_user_fk references users (id) on delete cascade,
    what text not null constraint attestations_what_is_known check (what in ('training')),
    said_at integer not null,
    until_at integer not null,
    said_by text,
    constraint attestations_pk primary key (user_id, what),
    constraint attestations_end_after_they_begin check (until_at > said_at)
) strict;

-- sealed codes for emergencies; a row stays after its use, for the review that has to follow
create table break_glass (
    hash blob not null constraint break_glass_pk primary key constraint break_glass_hash_is_sha256 check (length(hash) = 32),
    id text not null constraint break_glass_id_is_unique unique,
    user_id text not null constraint break_glass_user_fk references users (id) on delete cascade,
    number integer not null,
    created_at integer not null,
    revoked_at integer,
    used_at integer,
    used_from text,
    reviewed_at integer,
    reviewed_by text,
    review_who text,
    review_why text,
    constraint break_glass_used_from_somewhere check ((used_at is null) = (used_from is null)),
    constraint break_glass_reviewed_after_use check (reviewed_at is null or used_at is not null),
    constraint break_glass_review_says_who_and_why check (
        (reviewed_at is null) = (reviewed_by is null) and (reviewed_at is null) = (review_who is null)
        and (reviewed_at is null) = (review_why is null)
    )
) strict;
