// SPDX-License-Identifier: Apache-2.0
// My machines: the list narrows while one types, and a favourite is kept without leaving the page.
import { all, find, speak } from './dom.ts';

/** Whether every word of a query stands somewhere in a text. */
export function matches(text: string, query: string): boolean {
  return query.toLowerCase().split(/\s+/).every((word) => text.includes(word));
}

export function wireMachines(): void {
  const box = find('[data-filter="machines"]', HTMLInputElement);
  const table = find('#machines', HTMLTableElement);
  if (box && table) wireFilter(box, table);
  for (const form of all('[data-favourite-form]', HTMLFormElement)) wireFavourite(form);
}

function wireFilter(box: HTMLInputElement, table: HTMLTableElement): void {
  const rows = all('tbody tr', HTMLTableRowElement, table);
  const count = find('[data-filter-count]', HTMLElement);
  const empty = find('[data-filter-empty]', HTMLElement);
  const before = count?.textContent ?? '';
  const asked = box.value;
  const narrow = () => {
    // The server already searched for what the page came with; the list can only narrow that further.
    const query = box.value === asked ? '' : box.value.trim();
    let shown = 0;
    for (const row of rows) {
      row.hidden = !matches(row.dataset['words'] ?? '', query);
      if (!row.hidden) shown += 1;
    }
    table.hidden = shown === 0;
    if (empty) empty.hidden = shown !== 0;
    if (count) count.textContent = query ? `${shown} of the ${rows.length} shown here match` : before;
  };
  box.addEventListener('input', narrow);
  box.addEventListener('keydown', (event) => {
    if (event.key === 'Escape' && box.value) {
      event.preventDefault();
      box.value = '';
      narrow();
    }
    if (event.key === 'ArrowDown') {
      const link = rows.find((row) => !row.hidden)?.querySelector('a.button');
      if (link instanceof HTMLElement) {
        event.preventDefault();
        link.focus();
      }
    }
  });
  // "/" goes to the search box, as people know it from elsewhere.
  document.addEventListener('keydown', (event) => {
    const typing = event.target instanceof Element && event.target.closest('input, textarea, select, dialog');
    if (event.key === '/' && !typing && !event.ctrlKey && !event.altKey && !event.metaKey) {
      event.preventDefault();
      box.focus();
      box.select();
    }
  });
}

function wireFavourite(form: HTMLFormElement): void {
  const button = find('button', HTMLButtonElement, form);
  const set = find('input[name="set"]', HTMLInputElement, form);
  if (!button || !set) return;
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const on = set.value === 'on';
    button.disabled = true;
    try {
      const body = new URLSearchParams();
      for (const [name, value] of new FormData(form)) if (typeof value === 'string') body.append(name, value);
      const answer = await fetch(form.action, { method: 'POST', body, redirect: 'manual' });
      // The answer to a form is a redirect; a page that says no is none.
      if (answer.type !== 'opaqueredirect' && !answer.ok) throw new Error(String(answer.status));
      set.value = on ? 'off' : 'on';
      button.setAttribute('aria-pressed', String(on));
      form.closest('tr')?.toggleAttribute('data-favourite', on);
      speak(on ? 'Kept on top' : 'No longer kept on top');
    } catch {
      form.submit();
    } finally {
      button.disabled = false;
      button.focus();
    }
  });
}
