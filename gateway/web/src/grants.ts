// SPDX-License-Identifier: Apache-2.0
// The sentence of a grant: suggestions that fit the kind, and the sentence read back before it is said.
import { find } from './dom.ts';

export function wireGrantForm(): void {
  const form = find('[data-grant-form]', HTMLFormElement);
  if (!form) return;
  const field = <T extends HTMLElement>(name: string, kind: new () => T) => find(`[name="${name}"]`, kind, form);
  const kind = field('on_kind', HTMLSelectElement);
  const value = field('on_value', HTMLInputElement);
  const user = field('user', HTMLSelectElement);
  const role = field('role', HTMLSelectElement);
  const hours = field('hours', HTMLSelectElement);
  const window = field('step_up_seconds', HTMLSelectElement);
  const record = field('record', HTMLInputElement);
  const holder = find('[data-on-value]', HTMLElement, form);
  const sentence = find('[data-sentence]', HTMLElement, form);
  if (!kind || !value || !user || !role || !hours || !window || !record || !holder || !sentence) return;
  const said = (select: HTMLSelectElement) => select.selectedOptions[0]?.textContent?.trim() ?? '';
  const say = () => {
    const everything = kind.value === 'everything';
    holder.hidden = everything;
    value.required = !everything;
    if (everything) value.value = '';
    else value.setAttribute('list', `on-${kind.value}`);
    const ready = user.value && role.value && (everything || value.value.trim());
    sentence.hidden = !ready;
    const name = value.value.trim();
    const machine = kind.value === 'machine' ? [...find('#on-machine', HTMLDataListElement)?.options ?? []].find((o) => o.value === name)?.textContent : null;
    sentence.textContent = `${said(user)} may act as ${role.value} on ${said(kind)}${everything ? '' : ` ${machine ? `${machine} (${name})` : name}`}, `
      + `${hours.value ? `for ${said(hours)} from now` : 'until somebody revokes it'}, with a fresh code ${said(window)}, `
      + `${record.checked ? 'recorded' : 'not recorded'}.`;
  };
  form.addEventListener('input', say);
  say();
}
