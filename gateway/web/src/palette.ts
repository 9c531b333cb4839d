// SPDX-License-Identifier: Apache-2.0
// Ctrl-K: three letters, Enter, and the console opens. On "My machines" it reads the list that is there; on other
// pages it asks for it once, when it is first opened.
import { all, find, make, need } from './dom.ts';
import { matches } from './machines.ts';

interface Entry { name: string; where: string; state: string; words: string; href: string | null; favourite: boolean }

const RECENT = 'portcullis.recent';
const MOST = 12;

function recent(): string[] {
  try {
    const kept: unknown = JSON.parse(localStorage.getItem(RECENT) ?? '[]');
    return Array.isArray(kept) ? kept.filter((k): k is string => typeof k === 'string') : [];
  } catch {
    return [];
  }
}

/** Remembers a console as opened lately, in this browser only. */
export function remember(href: string): void {
  try {
    localStorage.setItem(RECENT, JSON.stringify([href, ...recent().filter((h) => h !== href)].slice(0, 8)));
  } catch {
    // A browser that keeps nothing has no recent consoles.
  }
}

function fromPage(): Entry[] | null {
  const rows = all('#machines tbody tr', HTMLTableRowElement);
  if (rows.length === 0) return null;
  return rows.map((row) => ({
    name: row.dataset['name'] ?? '',
    where: row.dataset['where'] ?? '',
    state: row.dataset['state'] ?? '',
    words: row.dataset['words'] ?? '',
    href: row.dataset['href'] ?? null,
    favourite: row.hasAttribute('data-favourite'),
  }));
}

async function fromServer(): Promise<Entry[]> {
  const answer = await fetch('/api/v1/machines', { headers: { Accept: 'application/json' } });
  if (!answer.ok) throw new Error(String(answer.status));
  const body: unknown = await answer.json();
  const list: unknown = Array.isArray(body) ? body : (body as { machines?: unknown }).machines;
  if (!Array.isArray(list)) throw new Error('no list');
  const text = (value: unknown) => (typeof value === 'string' ? value : '');
  return list.map((m: Record<string, unknown>) => {
    const tags = Array.isArray(m['tags']) ? m['tags'].map(text) : [];
    const open = m['console'] === 'control' || m['console'] === 'view';
    const at = `${encodeURIComponent(text(m['hypervisor']))}/${encodeURIComponent(text(m['id'])).replaceAll('%3A', ':')}`;
    return {
      name: text(m['name']),
      where: text(m['hypervisor']),
      state: text(m['state']),
      words: [m['name'], m['hypervisor'], m['id'], m['state'], m['pool'], ...tags].map(text).join(' ').toLowerCase(),
      href: open ? `/c/${at}` : null,
      favourite: m['favourite'] === true,
    };
  });
}

export function wirePalette(): void {
  const dialog = find('#palette', HTMLDialogElement);
  if (!dialog) return;
  const box = need('#palette-box', HTMLInputElement, dialog);
  const list = need('#palette-list', HTMLUListElement, dialog);
  const status = need('[data-palette-status]', HTMLElement, dialog);
  let entries: Entry[] | null = null;
  let shown: Entry[] = [];
  let at = 0;

  const mark = (index: number) => {
    at = Math.max(0, Math.min(index, shown.length - 1));
    [...list.children].forEach((item, i) => item.setAttribute('aria-selected', String(i === at)));
    const item = list.children[at];
    if (item) {
      box.setAttribute('aria-activedescendant', item.id);
      item.scrollIntoView({ block: 'nearest' });
    } else {
      box.removeAttribute('aria-activedescendant');
    }
  };
  const go = (entry: Entry | undefined) => {
    if (entry?.href) location.assign(entry.href);
    else location.assign(`/?q=${encodeURIComponent(entry ? entry.name : box.value.trim())}`);
  };
  const draw = () => {
    const query = box.value.trim();
    const late = recent();
    const rank = (e: Entry) => (e.href && late.includes(e.href) ? late.indexOf(e.href) : e.favourite ? 20 : 30) + (e.href ? 0 : 40)
      - (query && e.name.toLowerCase().startsWith(query.toLowerCase()) ? 100 : 0);
    const found = (entries ?? []).filter((e) => matches(e.words, query)).sort((a, b) => rank(a) - rank(b) || a.name.localeCompare(b.name));
    shown = found.slice(0, MOST);
    list.replaceChildren(...shown.map((entry, i) => {
      const item = make('li');
      item.id = `palette-${i}`;
      item.setAttribute('role', 'option');
      if (!entry.href) item.setAttribute('aria-disabled', 'true');
      item.append(make('bdi', '', entry.name), make('span', 'kind', `${entry.where} · ${entry.state}${entry.href ? '' : ' · no console now'}`));
      item.addEventListener('click', () => go(entry));
      item.addEventListener('pointermove', () => { if (at !== i) mark(i); });
      return item;
    }));
    if (entries) {
      status.textContent = found.length === 0 ? 'Nothing here matches. Enter searches every machine.'
        : found.length > MOST ? `${MOST} of ${found.length} shown` : '';
    }
    mark(0);
  };
  const open = async () => {
    if (dialog.open) return;
    box.value = '';
    entries = fromPage() ?? entries;
    dialog.showModal();
    box.focus();
    draw();
    if (!entries) {
      status.textContent = 'Asking for your machines…';
      try {
        entries = await fromServer();
        draw();
      } catch {
        status.textContent = 'The list did not come. Enter searches on “My machines”.';
      }
    }
  };

  box.addEventListener('input', draw);
  box.addEventListener('keydown', (event) => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step !== undefined) {
      event.preventDefault();
      mark((at + step + shown.length) % Math.max(1, shown.length));
    } else if (event.key === 'Enter' && !event.isComposing) {
      event.preventDefault();
      go(shown[at]);
    }
  });
  dialog.addEventListener('click', (event) => { if (event.target === dialog) dialog.close(); });
  find('[data-palette-open]', HTMLButtonElement)?.addEventListener('click', () => void open());
  document.addEventListener('keydown', (event) => {
    if (event.key.toLowerCase() === 'k' && (event.ctrlKey || event.metaKey) && !event.altKey && !event.shiftKey) {
      event.preventDefault();
      void open();
    }
  });
}
