-- SPDX-License-Identifier: Apache-2.0
-- Times are microseconds since 1970-01-01 UTC, ids are simple UUIDs, flags are the time at which they were set.

-- one counter that moves whenever somebody may have gained or lost something: nodes poll it
create table epoch (
    only_row bigint not null constraint epoch_pk primary key constraint epoch_is_one_row check (only_row = 1),
    value bigint not null
);
insert into epoch (only_row, value) values (1, 1);

create table users (
    id text not null constraint users_pk primary key,
    name text not null constraint users_name_is_short check (length(name) between 1 and 64),
    name_key text not null constraint users_name_key_is_unique unique,
    display_name text not null constraint users_display_name_is_short check (length(display_name) <= 128),
    password_hash text constraint users_password_is_argon2id check (password_hash is null or password_hash like '$argon2id$%'),
    created_at bigint not null,
    disabled_at bigint
);

create table password_history (
    user_id text not null constraint password_history_user_fk references users (id) on delete cascade,
    hash text not null,
    set_at bigint not null,
    constraint password_history_pk primary key (user_id, hash)
);

-- user_id null: whoever holds it becomes the first administrator
create table invitations (
    hash bytea not null constraint invitations_pk primary key constraint invitations_hash_is_sha256 check (length(hash) = 32),
    user_id text constraint invitations_user_fk references users (id) on delete cascade,
    created_at bigint not null,
    expires_at bigint not null,
    constraint invitations_end_after_they_begin check (expires_at > created_at)
);
create index invitations_by_user on invitations (user_id);

create table totp_factors (
    id text not null constraint totp_factors_pk primary key,
    user_id text not null constraint totp_factors_user_fk references users (id) on delete cascade,
    name text not null constraint totp_factors_name_is_short check (length(name) between 1 and 64),
    secret bytea not null,
    created_at bigint not null,
    confirmed_at bigint,
    last_step bigint not null default -1
);
create index totp_factors_by_user on totp_factors (user_id);

create table recovery_codes (
    user_id text not null constraint recovery_codes_user_fk references users (id) on delete cascade,
    hash bytea not null constraint recovery_codes_hash_is_sha256 check (length(hash) = 32),
    created_at bigint not null,
    used_at bigint,
    constraint recovery_codes_pk primary key (user_id, hash)
);

create table sessions (
    id_hash bytea not null constraint sessions_pk primary key constraint sessions_hash_is_sha256 check (length(id_hash) = 32),
    session_id text not null constraint sessions_session_is_unique unique,
    user_id text constraint sessions_user_fk references users (id) on delete cascade,
    signed_in_at bigint,
    data text not null constraint sessions_data_is_short check (length(data) <= 65536),
    created_at bigint not null,
    seen_at bigint not null,
    expires_at bigint not null,
    ended_at bigint,
    ended_why text,
    peer text,
    agent text,
    constraint sessions_end_with_a_reason check ((ended_at is null) = (ended_why is null))
);
create index sessions_by_user on sessions (user_id);
create index sessions_by_expiry on sessions (expires_at);

create table grants (
    id text not null constraint grants_pk primary key,
    user_id text not null constraint grants_user_fk references users (id) on delete cascade,
    role text not null,
    selector_kind text not null constraint grants_selector_is_known
        check (selector_kind in ('everything', 'hypervisor', 'pool', 'tag', 'machine')),
    selector_value text not null,
    from_at bigint not null,
    until_at bigint,
    conditions text not null,
    source text not null constraint grants_source_is_known
        check (source in ('administrator', 'setup', 'policy-file', 'access-request', 'identity-provider')),
    created_by text,
    created_at bigint not null,
    revoked_at bigint,
    revoked_by text,
    constraint grants_end_after_they_begin check (until_at is null or until_at > from_at)
);
create index grants_by_user on grants (user_id);

create table tokens (
    id text not null constraint tokens_pk primary key,
    hash bytea not null constraint tokens_hash_is_unique unique constraint tokens_hash_is_sha256 check (length(hash) = 32),
    user_id text not null constraint tokens_user_fk references users (id) on delete cascade,
    name text not null constraint tokens_name_is_short check (length(name) between 1 and 64),
    hypervisor text,
    created_at bigint not null,
    expires_at bigint not null,
    revoked_at bigint,
    last_used_at bigint,
    constraint tokens_end_after_they_begin check (expires_at > created_at)
);
create index tokens_by_user on tokens (user_id);

create table tickets (
    hash bytea not null constraint tickets_pk primary key constraint tickets_hash_is_sha256 check (length(hash) = 32),
    session_id text not null,
    user_id text not null constraint tickets_user_fk references users (id) on delete cascade,
    machine text not null,
    mode text not null constraint tickets_mode_is_known check (mode in ('view', 'control')),
    created_at bigint not null,
    expires_at bigint not null,
    constraint tickets_end_after_they_begin check (expires_at > created_at)
);
create index tickets_by_expiry on tickets (expires_at);

-- consecutive failures: the lock lasts longer with each
create table lockouts (
    kind text not null,
    subject text not null,
    failures bigint not null,
    last_at bigint not null,
    constraint lockouts_pk primary key (kind, subject)
);

-- tries inside a sliding window
create table strikes (
    kind text not null,
    subject text not null,
    id text not null,
    at bigint not null,
    constraint strikes_pk primary key (kind, subject, id)
);
create index strikes_by_time on strikes (at);

create table recordings (
    id text not null constraint recordings_pk primary key,
    machine text not null,
    user_id text not null,
    user_name text not null,
    session_id text not null,
    node text not null,
    started_at bigint not null,
    ended_at bigint,
    sealed_key bytea not null,
    bytes bigint not null default 0,
    chunks bigint not null default 0,
    head bytea,
    ending text,
    constraint recordings_end_with_an_ending check ((ended_at is null) = (ending is null))
);
create index recordings_by_start on recordings (started_at);

-- an index only: each node's own log is the truth, and this table can be rebuilt from it
create table trail_events (
    node text not null,
    seq bigint not null,
    at bigint not null,
    request text not null,
    phase text not null constraint trail_events_phase_is_known check (phase in ('opened', 'closed', 'noted')),
    closes bigint,
    kind text not null,
    user_id text,
    user_name text,
    peer text,
    action text,
    resource text not null,
    outcome text not null,
    reason text not null,
    segment bigint not null,
    position bigint not null,
    constraint trail_events_pk primary key (node, seq),
    constraint trail_events_closed_names_its_opening check ((phase = 'closed') = (closes is not null))
);
create index trail_events_by_time on trail_events (at);
create index trail_events_by_user on trail_events (user_id, at);
create index trail_events_by_request on trail_events (request);

create table favourites (
    user_id text not null constraint favourites_user_fk references users (id) on delete cascade,
    machine text not null,
    added_at bigint not null,
    constraint favourites_pk primary key (user_id, machine)
);
