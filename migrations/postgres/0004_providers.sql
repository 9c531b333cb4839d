-- SPDX-License-Identifier: Apache-2.0
-- Whom an identity provider vouches for: issuer and subject name a person, and nothing else does.
create table provider_people (
    issuer text not null,
    subject text not null constraint provider_people_subject_is_short check (length(subject) between 1 and 255),
    provider text not null,
    user_id text not null constraint provider_people_user_fk references users (id) on delete cascade
        constraint provider_people_user_has_one_provider unique,
    linked_at bigint not null,
    seen_at bigint not null,
    constraint provider_people_pk primary key (issuer, subject)
);

-- A browser's sign-in through a provider, from the answer of the provider on; session_id is null until both factors were
-- proven. Tokens are sealed.
create table provider_sessions (
    id text not null constraint provider_sessions_pk primary key,
    provider text not null,
    issuer text not null,
    subject text not null,
    sid text,
    user_id text not null constraint provider_sessions_user_fk references users (id) on delete cascade,
    session_id text,
    id_token bytea not null,
    refresh_token bytea,
    created_at bigint not null,
    renewed_at bigint not null,
    ended_at bigint
);
create index provider_sessions_by_person on provider_sessions (issuer, subject);
create index provider_sessions_by_sid on provider_sessions (issuer, sid);
create index provider_sessions_by_user on provider_sessions (user_id);
create index provider_sessions_by_session on provider_sessions (session_id);

-- Logout tokens that were used: each counts once.
create table provider_logouts (
    issuer text not null,
    jti text not null constraint provider_logouts_jti_is_short check (length(jti) between 1 and 255),
    expires_at bigint not null,
    constraint provider_logouts_pk primary key (issuer, jti)
);
create index provider_logouts_by_expiry on provider_logouts (expires_at);
