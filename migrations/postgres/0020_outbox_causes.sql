-- SPDX-License-Identifier: Apache-2.0
-- Whose doing a message is: nobody fills the outbox for everybody else. Empty where it is nobody's.
alter table outbox add column cause text not null default '';
create index outbox_by_cause on outbox (way, cause);
