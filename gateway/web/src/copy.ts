// SPDX-License-Identifier: Apache-2.0
// Copy, download, print, and showing a password while it is typed.
import { all, find, make, speak } from './dom.ts';

async function copyText(text: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // The page may not be allowed to use the clipboard by itself; a selection can still be copied.
    const holder = make('textarea', 'visually-hidden');
    holder.value = text;
    holder.setAttribute('aria-hidden', 'true');
    document.body.append(holder);
    holder.select();
    const done = document.execCommand('copy');
    holder.remove();
    return done;
  }
}

function copyOn(button: HTMLButtonElement, text: () => string, field: HTMLInputElement | null): void {
  const label = button.textContent ?? 'Copy';
  button.addEventListener('click', async () => {
    const done = await copyText(text());
    if (!done) field?.select();
    button.textContent = done ? 'Copied' : 'Press Ctrl+C';
    speak(done ? 'Copied' : 'Selected. Press Control and C to copy.');
    button.focus();
    setTimeout(() => { button.textContent = label; }, 2500);
  });
}

const lines = (id: string) => all(`#${CSS.escape(id)} li`, HTMLLIElement).map((li) => (li.textContent ?? '').trim()).join('\n') + '\n';

export function wireCopying(): void {
  for (const button of all('[data-copy]', HTMLButtonElement)) {
    const from = find(`#${CSS.escape(button.dataset['copy'] ?? '')}`, HTMLElement);
    const field = from instanceof HTMLInputElement ? from : null;
    if (from) copyOn(button, () => field?.value ?? from.textContent ?? '', field);
  }
  for (const button of all('[data-copy-list]', HTMLButtonElement)) {
    copyOn(button, () => lines(button.dataset['copyList'] ?? ''), null);
  }
  for (const button of all('[data-save-list]', HTMLButtonElement)) {
    button.addEventListener('click', () => {
      const text = `${button.dataset['saveTitle'] ?? ''}\n\n${lines(button.dataset['saveList'] ?? '')}`;
      const link = make('a');
      link.href = URL.createObjectURL(new Blob([text], { type: 'text/plain' }));
      link.download = button.dataset['saveName'] ?? 'codes.txt';
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
    });
  }
  for (const button of all('[data-print]', HTMLButtonElement)) button.addEventListener('click', () => print());
  for (const button of all('[data-show]', HTMLButtonElement)) {
    const field = find(`#${CSS.escape(button.dataset['show'] ?? '')}`, HTMLInputElement);
    if (!field) continue;
    const show = (on: boolean) => {
      field.type = on ? 'text' : 'password';
      button.setAttribute('aria-pressed', String(on));
      button.textContent = on ? 'Hide' : 'Show';
    };
    button.addEventListener('click', () => show(field.type === 'password'));
    // A password that left the page as readable text would be offered as a form entry next time.
    field.form?.addEventListener('submit', () => show(false));
  }
}
