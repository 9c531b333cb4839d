-- SPDX-License-Identifier: Apache-2.0
-- Changes of rights that wait for a second person. What becomes of one is written in the transaction that makes the change.
create table proposals (
    id text not null constraint proposals_pk primary key,
    body text not null,
    words text not null,
    why text not null constraint proposals_why_is_short check (length(why) <= 512),
    by_user text,
    by_name text not null,
    proposed_at bigint not null,
    expires_at bigint not null,
    state text not null constraint proposals_state_is_known check
        (state in ('waiting', 'done', 'refused', 'withdrawn', 'expired', 'void')),
    decided_at bigint,
    decided_by text,
    decided_name text,
    said text constraint proposals_said_is_short check (length(said) <= 512),
    constraint proposals_expire_after_they_were_made check (expires_at > proposed_at),
    constraint proposals_are_decided_once check ((state = 'waiting') = (decided_at is null)),
    constraint proposals_take_two_people check (state <> 'done' or by_user is null or decided_by <> by_user)
);
create index proposals_by_state on proposals (state, proposed_at);
