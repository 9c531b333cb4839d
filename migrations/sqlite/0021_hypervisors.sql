-- SPDX-License-Identifier: Apache-2.0
-- Hypervisors that were added while gateways run, beside those of the configuration. `settings`, `trust` (the certificates
-- that were met and agreed to) and `tried` (what the credential was found to be) are JSON without a secret. The credential
-- is sealed to all but the last of them: under another address or another certificate it does not open.
create table hypervisors (
    name text not null constraint hypervisors_pk primary key,
    id text not null constraint hypervisors_id_once unique,
    kind text not null,
    settings text not null constraint hypervisors_settings_are_short check (length(settings) <= 16384),
    trust text not null constraint hypervisors_trust_is_short check (length(trust) <= 16384),
    tried text not null constraint hypervisors_tried_is_short check (length(tried) <= 16384),
    sealed blob not null,
    added_at integer not null,
    added_by text not null constraint hypervisors_added_by_is_short check (length(added_by) <= 256)
) strict;
