// SPDX-License-Identifier: Apache-2.0
// Keys that a browser, a system or a telephone keeps for itself, as buttons.
import { all } from '../dom.ts';
import type { Keys } from './sendtext.ts';

const KEYSYMS: Record<string, number> = {
  ControlLeft: 0xffe3, AltLeft: 0xffe9, ShiftLeft: 0xffe1, MetaLeft: 0xffeb,
  Escape: 0xff1b, Tab: 0xff09, Enter: 0xff0d, Delete: 0xffff,
  ArrowLeft: 0xff51, ArrowUp: 0xff52, ArrowRight: 0xff53, ArrowDown: 0xff54,
  ...Object.fromEntries(Array.from({ length: 12 }, (_, i) => [`F${i + 1}`, 0xffbe + i])),
};

/** Wires the buttons; the answer lets every held key go. */
export function wireKeys(screen: () => Keys | null, sent: () => void): () => void {
  const held = all('[data-hold]', HTMLButtonElement);
  const hold = (button: HTMLButtonElement, on: boolean) => {
    const code = button.dataset['hold'] ?? '';
    screen()?.sendKey(KEYSYMS[code] ?? 0, code, on);
    button.setAttribute('aria-pressed', String(on));
    sent();
  };
  for (const button of held) {
    button.addEventListener('click', () => hold(button, button.getAttribute('aria-pressed') !== 'true'));
  }
  for (const button of all('[data-key]', HTMLButtonElement)) {
    button.addEventListener('click', () => {
      const code = button.dataset['key'] ?? '';
      screen()?.sendKey(KEYSYMS[code] ?? 0, code);
      sent();
    });
  }
  return () => {
    for (const button of held) if (button.getAttribute('aria-pressed') === 'true') hold(button, false);
  };
}
