// SPDX-License-Identifier: Apache-2.0
// Menus are <details>: they open without a script. With one, Esc and a click elsewhere close them.
import { all, find } from './dom.ts';

export function wireMenus(): void {
  const open = () => all('details.menu[open]', HTMLDetailsElement);
  document.addEventListener('click', (event) => {
    for (const menu of open()) if (!(event.target instanceof Node && menu.contains(event.target))) menu.open = false;
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    for (const menu of open()) {
      menu.open = false;
      find('summary', HTMLElement, menu)?.focus();
      event.preventDefault();
    }
  });
  document.addEventListener('focusout', (event) => {
    const to = event.relatedTarget;
    for (const menu of open()) if (to instanceof Node && !menu.contains(to)) menu.open = false;
  });
  const toggle = find('[data-menu-toggle]', HTMLButtonElement);
  const side = find('#menu', HTMLElement);
  toggle?.addEventListener('click', () => {
    const on = side?.classList.toggle('open') ?? false;
    toggle.setAttribute('aria-expanded', String(on));
    if (on) find('a', HTMLAnchorElement, side ?? document)?.focus();
  });
}
