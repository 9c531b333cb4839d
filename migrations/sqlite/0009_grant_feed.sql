-- SPDX-License-Identifier: Apache-2.0
-- Nodes read again only what is newer than what they know, and ask who holds a few strong roles.
create index groups_by_version on groups (version);
create index grants_by_role on grants (role);
