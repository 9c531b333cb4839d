-- SPDX-License-Identifier: Apache-2.0
-- Access requests with their history, emergency locks of what is no person, an end for the lock of a person, and the
-- turn that changes of rights take: whoever looked at what others hold writes only if nobody else did meanwhile.
create table requests (
    id text not null constraint requests_pk primary key,
    user_id text not null constraint requests_user_fk references users (id) on delete cascade,
    role text not null,
    selector_kind text not null constraint requests_selector_is_known
        check (selector_kind in ('everything', 'hypervisor', 'pool', 'tag', 'machine', 'pattern')),
    selector_value text not null,
    reason text not null constraint requests_reason_is_short check (length(reason) between 1 and 512),
    seconds bigint not null constraint requests_last_a_while check (seconds between 60 and 31622400),
    start_at bigint,
    asked_at bigint not null,
    expires_at bigint not null,
    state text not null constraint requests_state_is_known check
        (state in ('asked', 'approved', 'active', 'over', 'refused', 'withdrawn', 'expired', 'ended')),
    changed_at bigint not null,
    grant_id text,
    ends_at bigint,
    constraint requests_have_a_grant_once_active check
        ((state in ('active', 'over', 'ended')) = (grant_id is not null and ends_at is not null))
);
create index requests_by_user on requests (user_id);
create index requests_by_state on requests (state);
create table request_steps (
    request_id text not null constraint request_steps_request_fk references requests (id) on delete cascade,
    number bigint not null,
    at bigint not null,
    what text not null constraint request_steps_what_is_known check
        (what in ('asked', 'approved', 'active', 'over', 'refused', 'withdrawn', 'expired', 'ended')),
    user_id text,
    user_name text not null,
    words text not null constraint request_steps_words_are_short check (length(words) <= 512),
    constraint request_steps_pk primary key (request_id, number)
);
-- Nobody's approval counts twice.
create unique index request_steps_approved_once on request_steps (request_id, user_id) where what = 'approved';
create table locks (
    id text not null constraint locks_pk primary key,
    kind text not null constraint locks_kind_is_known check (kind in ('machine', 'hypervisor', 'token')),
    value text not null,
    reason text not null constraint locks_reason_is_short check (length(reason) between 1 and 128),
    from_at bigint not null,
    until_at bigint not null,
    by_user text,
    by_name text not null,
    ended_at bigint,
    ended_by text,
    constraint locks_end_after_they_begin check (until_at > from_at)
);
create index locks_by_end on locks (until_at);
alter table users add column locked_until bigint;
create table turns (
    name text not null constraint turns_pk primary key,
    number bigint not null
);
insert into turns (name, number) values ('rights', 0);
