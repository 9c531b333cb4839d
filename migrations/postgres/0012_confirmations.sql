-- SPDX-License-Identifier: Apache-2.0
-- Confirmations that were given for one intent and have been used: proven_at names the confirmation. A row outlives the
-- longest window in which it could be presented again.
create table spent_proofs (
    session_id text not null,
    intent_hash bytea not null constraint spent_proofs_hash_is_sha256 check (length(intent_hash) = 32),
    proven_at bigint not null,
    spent_at bigint not null,
    constraint spent_proofs_pk primary key (session_id, intent_hash, proven_at)
);
create index spent_proofs_by_time on spent_proofs (spent_at);

-- from where a recovery code was used, for its owner to hear of it
alter table recovery_codes add column used_from text;

-- since when a provider no longer vouches for somebody: their tokens do not count until it does
alter table provider_people add column refused_at bigint;
