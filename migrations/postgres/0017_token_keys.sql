-- SPDX-License-Identifier: Apache-2.0
-- TLS client certificates that stand for a token at one hypervisor's door, by the SHA-256 of the certificate. A row
-- counts only while its token does; at one door a certificate stands for one token.
create table token_keys (
    fingerprint bytea not null constraint token_keys_fingerprint_is_sha256 check (length(fingerprint) = 32),
    hypervisor text not null,
    token_id text not null constraint token_keys_token_fk references tokens (id) on delete cascade,
    bound_at bigint not null,
    constraint token_keys_pk primary key (fingerprint, hypervisor)
);
create index token_keys_by_token on token_keys (token_id);
