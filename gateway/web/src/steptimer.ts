// SPDX-License-Identifier: Apache-2.0
// Shows for how long no fresh code is asked for.
import { find } from './dom.ts';
import { span } from './time.ts';

export function startStepTimer(): void {
  const holder = find('[data-step-until]', HTMLElement);
  const text = holder && find('[data-step-text]', HTMLElement, holder);
  const until = Date.parse(holder?.dataset['stepUntil'] ?? '');
  if (!holder || !text || Number.isNaN(until)) return;
  const tick = () => {
    const left = until - Date.now();
    if (left <= 0) {
      holder.hidden = true;
      return;
    }
    text.textContent = `Confirmed for ${span(left).replaceAll(' ', '\u00a0')}`;
    setTimeout(tick, 1000);
  };
  tick();
}
