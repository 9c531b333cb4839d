// SPDX-License-Identifier: Apache-2.0
// Finding and making elements. Text goes in as text: nothing here, or anywhere else, parses markup.

export function find<T extends Element>(selector: string, kind: new () => T, root: ParentNode = document): T | null {
  const found = root.querySelector(selector);
  return found instanceof kind ? found : null;
}

export function need<T extends Element>(selector: string, kind: new () => T, root: ParentNode = document): T {
  const found = find(selector, kind, root);
  if (!found) throw new Error(`the page has no ${selector}`);
  return found;
}

export function all<T extends Element>(selector: string, kind: new () => T, root: ParentNode = document): T[] {
  return [...root.querySelectorAll(selector)].filter((e): e is T => e instanceof kind);
}

export function make<K extends keyof HTMLElementTagNameMap>(tag: K, className = '', text = ''): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

/** Says something to people who listen to the page. */
export function speak(text: string): void {
  const spoken = find('#spoken', HTMLElement);
  if (!spoken) return;
  spoken.textContent = '';
  // An empty moment in between, or the same words are not said twice.
  setTimeout(() => { spoken.textContent = text; }, 50);
}

/** The session's CSRF token, for requests that scripts make. */
export function csrf(): string {
  return find('meta[name="csrf-token"]', HTMLMetaElement)?.content ?? '';
}

/** A path of this gateway, or null: whatever an answer says, a script leads nowhere else. */
/** Where somebody confirms that it is them, with the way back to a page. */
export function leadingBack(place: string, here: string): string {
  if (place.includes('next=')) return place;
  return `${place}${place.includes('?') ? '&' : '?'}next=${encodeURIComponent(here)}`;
}

export function ownPath(text: unknown): string | null {
  if (typeof text !== 'string' || !text.startsWith('/')) return null;
  const url = URL.parse ? URL.parse(text, location.origin) : new URL(text, location.origin);
  return url && url.origin === location.origin && !url.pathname.startsWith('//') ? url.pathname + url.search + url.hash : null;
}
