// SPDX-License-Identifier: Apache-2.0
// Takes the one-time token out of the address, where no server and no history entry keeps it, into the form.
import { find } from './dom.ts';

export function takeToken(): void {
  const field = find('[data-token-from-address]', HTMLInputElement);
  if (!field || location.hash.length < 2) return;
  let token = location.hash.slice(1);
  try {
    token = decodeURIComponent(token);
  } catch {
    // Not percent-encoded: taken as it stands.
  }
  history.replaceState(null, '', location.pathname + location.search);
  field.value = token;
  field.readOnly = true;
  const hint = find('[data-token-hint]', HTMLElement);
  if (hint) hint.textContent = 'Taken from your link. It works once.';
  find('input:not([type="hidden"]):not([readonly])', HTMLInputElement, field.form ?? document)?.focus();
}
