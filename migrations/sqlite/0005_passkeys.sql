-- SPDX-License-Identifier: Apache-2.0
-- Passkeys and security keys. What verifies their answers is sealed to the row: a key that was put in from outside opens nothing.
create table passkeys (
    id text not null constraint passkeys_pk primary key,
    user_id text not null constraint passkeys_user_fk references users (id) on delete cascade,
    name text not null constraint passkeys_name_is_short check (length(name) between 1 and 64),
    credential_id blob not null constraint passkeys_credential_is_unique unique
        constraint passkeys_credential_is_short check (length(credential_id) between 1 and 1023),
    credential blob not null,
    sign_count integer not null constraint passkeys_count_has_32_bits check (sign_count between 0 and 4294967295),
    created_at integer not null,
    used_at integer
) strict;
create index passkeys_by_user on passkeys (user_id);

-- What a browser was asked to sign and has not answered yet: at most one a session and purpose, taken once. A session that
-- moves to another id leaves its own behind.
create table passkey_ceremonies (
    session_hash blob not null constraint passkey_ceremonies_hash_is_sha256 check (length(session_hash) = 32),
    purpose text not null constraint passkey_ceremonies_purpose_is_known
        check (purpose in ('register', 'sign-in', 'second-step', 'step-up')),
    state text not null constraint passkey_ceremonies_state_is_short check (length(state) <= 262144),
    expires_at integer not null,
    constraint passkey_ceremonies_pk primary key (session_hash, purpose)
) strict;
create index passkey_ceremonies_by_expiry on passkey_ceremonies (expires_at);
