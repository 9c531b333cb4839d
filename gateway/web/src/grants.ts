// SPDX-License-Identifier: Apache-2.0
// The sentence of a grant: things are found and added to its list, and it is read back before it is said.
import { find } from './dom.ts';
import { matches } from './machines.ts';

/** Things shown at once; more are named by their number. */
const SHOWN = 8;

export function wireGrantForm(): void {
  // What was asked for comes first, wherever it stands on the page.
  find('[data-try] [data-foreseen]', HTMLElement)?.focus();
  const form = find('[data-grant-form]', HTMLFormElement);
  if (!form) return;
  find('[data-foreseen]', HTMLElement, form)?.focus();
  const field = <T extends HTMLElement>(name: string, kind: new () => T) => find(`[name="${name}"]`, kind, form);
  const list = field('on', HTMLTextAreaElement);
  const user = field('user', HTMLSelectElement);
  const role = field('role', HTMLSelectElement);
  const hours = field('hours', HTMLSelectElement);
  const until = field('until', HTMLInputElement);
  const window = field('step_up_seconds', HTMLSelectElement);
  const record = field('record', HTMLInputElement);
  const forbid = field('forbid', HTMLInputElement);
  const sentence = find('[data-sentence]', HTMLElement, form);
  if (!list || !user || !role || !hours || !until || !window || !record || !forbid || !sentence) return;
  const lines = () => list.value.split('\n').map((line) => line.trim()).filter((line) => line);
  const said = (select: HTMLSelectElement) => select.selectedOptions[0]?.textContent?.trim() ?? '';
  const say = () => {
    const things = lines();
    sentence.hidden = !user.value || !role.value || things.length === 0;
    const on = things.length > 3 ? `${things.length} things` : things.join(', ');
    const end = until.value ? `until ${until.value}` : hours.value ? `for ${said(hours)} from now` : 'until somebody revokes it';
    const conditions = forbid.checked ? '' : `, with a fresh code ${said(window)}, ${record.checked ? 'recorded' : 'not recorded'}`;
    sentence.textContent = `${said(user)} ${forbid.checked ? 'must not' : 'may'} ${role.value.includes('/') ? said(role).replace(/^[^:]*: /, '') : `act as ${role.value}`} on ${on}, ${end}${conditions}.`;
  };
  form.addEventListener('input', say);
  wireFinder(form, (things) => {
    const had = lines();
    list.value = [...had, ...things.filter((thing) => !had.includes(thing))].join('\n');
    say();
  });
  say();
}

function wireFinder(form: HTMLFormElement, add: (things: string[]) => void): void {
  const box = find('[data-thing-box]', HTMLInputElement, form);
  const found = find('[data-thing-found]', HTMLUListElement, form);
  const status = find('[data-thing-status]', HTMLElement, form);
  const every = find('[data-thing-all]', HTMLButtonElement, form);
  const known = find('#things', HTMLDataListElement, form);
  if (!box || !found || !status || !every || !known) return;
  const things = [...known.options].map((option) => {
    const name = option.textContent ?? '';
    return { value: option.value, name, words: `${option.value} ${name}`.toLowerCase() };
  });
  const hint = status.textContent;
  let hits: string[] = [];
  const show = () => {
    const query = box.value.trim();
    const all = query ? things.filter((thing) => matches(thing.words, query)) : [];
    // What is added by its number are machines: a tag or a hypervisor says more than it shows.
    hits = all.filter((thing) => thing.value.startsWith('machine:')).map((thing) => thing.value);
    found.replaceChildren(...all.slice(0, SHOWN).map((thing) => {
      const button = document.createElement('button');
      button.type = 'button';
      button.className = 'button link';
      button.textContent = `${thing.name} (${thing.value})`;
      button.addEventListener('click', () => add([thing.value]));
      const item = document.createElement('li');
      item.append(button);
      return item;
    }));
    const more = all.length - SHOWN;
    status.textContent = !query ? hint : all.length === 0 ? 'Nothing matches.' : more > 0 ? `and ${more} more` : '';
    every.hidden = hits.length < 2;
    every.textContent = `Add these ${hits.length} machines`;
  };
  box.addEventListener('input', show);
  box.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter') return;
    event.preventDefault();
    found.querySelector('button')?.click();
  });
  every.addEventListener('click', () => add(hits));
}
