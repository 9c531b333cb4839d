// SPDX-License-Identifier: Apache-2.0
// Time left, and the warning before a console closes for lack of input.
import { find } from '../dom.ts';
import { span } from '../time.ts';

const WARN = 60_000;

export class ConsoleClock {
  #input = Date.now();
  #timer = 0;

  constructor(screen: HTMLElement) {
    const seen = () => { this.#input = Date.now(); };
    for (const kind of ['keydown', 'pointermove', 'pointerdown', 'wheel', 'touchstart'] as const) {
      screen.addEventListener(kind, seen, { capture: true, passive: true });
    }
  }

  /** A key that a script sent counts as input, too. */
  touch(): void {
    this.#input = Date.now();
  }

  start(until: number | null, idleSeconds: number, watching: boolean): void {
    this.stop();
    this.#input = Date.now();
    const wrap = find('[data-left-wrap]', HTMLElement);
    const left = find('[data-left]', HTMLElement);
    const idle = find('[data-idle]', HTMLElement);
    const tick = () => {
      const now = Date.now();
      if (wrap && left && until !== null) {
        wrap.hidden = false;
        left.textContent = `${span(until - now)} left`;
        left.classList.toggle('left-soon', until - now < 5 * WARN);
      }
      if (idle && idleSeconds > 0) {
        const rest = this.#input + idleSeconds * 1000 - now;
        const soon = rest < Math.min(WARN, idleSeconds * 500);
        if (soon) {
          idle.textContent = `No input for a while: the console closes in ${span(rest)}. ${watching ? 'You can open it again.' : 'Press a key or move the mouse over the screen to keep it.'}`;
        }
        if (idle.hidden === soon) idle.hidden = !soon;
      }
    };
    tick();
    this.#timer = window.setInterval(tick, 1000);
  }

  stop(): void {
    clearInterval(this.#timer);
    for (const selector of ['[data-left-wrap]', '[data-idle]']) {
      const shown = find(selector, HTMLElement);
      if (shown) shown.hidden = true;
    }
  }
}
