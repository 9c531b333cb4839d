// SPDX-License-Identifier: Apache-2.0
// While the screen has the focus every key goes to the machine, Tab included. Ctrl+Alt+Shift is the way out: the last
// of the three is kept from the machine, and when all are up again the focus is in the bar.

const HELD = { ControlLeft: 'ctrl', ControlRight: 'ctrl', AltLeft: 'alt', ShiftLeft: 'shift', ShiftRight: 'shift' } as const;

export function wireWayOut(inScreen: () => boolean, leave: () => void): void {
  const down = new Set<string>();
  let leaving = false;
  const kind = (code: string) => HELD[code as keyof typeof HELD];
  addEventListener('keydown', (event) => {
    // AltGr is Ctrl and the right Alt on some systems, and is a character's key: only the left Alt counts.
    const held = kind(event.code);
    if (!held || event.getModifierState('AltGraph')) return;
    down.add(held);
    if (down.size === 3 && inScreen()) {
      leaving = true;
      event.preventDefault();
      event.stopImmediatePropagation();
    }
  }, { capture: true });
  addEventListener('keyup', (event) => {
    const held = kind(event.code);
    if (!held) return;
    down.delete(held);
    if (leaving && down.size === 0) {
      leaving = false;
      // After the screen has seen this key go up, or the machine would hold it for ever.
      setTimeout(leave);
    }
  }, { capture: true });
  addEventListener('blur', () => {
    down.clear();
    leaving = false;
  });
}
