// SPDX-License-Identifier: Apache-2.0
// "Send text": a text typed into the machine as keys, after a preview, and stopped at any key.
import { need, make } from '../dom.ts';
import { LAYOUTS, strokesFor, type Stroke } from './layouts.ts';

/** What typing needs of a screen. */
export interface Keys { sendKey(keysym: number, code: string | null, down?: boolean): void }

const SHIFT: [number, string] = [0xffe1, 'ShiftLeft'];
const ALT_GR: [number, string] = [0xfe03, 'AltRight'];
// Slower than any guest's keyboard queue: a PS/2 one holds 16 bytes, and what does not fit is lost.
const PAUSE = 24;
const LAYOUT = 'portcullis.layout';

const pause = (ms: number) => new Promise<void>((done) => { setTimeout(done, ms); });

function press(keys: Keys, stroke: Stroke): void {
  const held = [...(stroke.shift ? [SHIFT] : []), ...(stroke.altGr ? [ALT_GR] : [])];
  for (const [keysym, code] of held) keys.sendKey(keysym, code, true);
  keys.sendKey(stroke.keysym, stroke.code, true);
  keys.sendKey(stroke.keysym, stroke.code, false);
  for (const [keysym, code] of held.reverse()) keys.sendKey(keysym, code, false);
  // A dead key shows itself when a space follows.
  if (stroke.dead) keys.sendKey(0x20, 'Space');
}

export function wireSendText(button: HTMLButtonElement, keys: () => Keys | null, done: () => void): void {
  const dialog = need('#send-text', HTMLDialogElement);
  const form = need('[data-send-text-form]', HTMLFormElement, dialog);
  const box = need('#send-text-box', HTMLTextAreaElement, dialog);
  const layouts = need('#send-text-layout', HTMLSelectElement, dialog);
  const enter = need('#send-text-enter', HTMLInputElement, dialog);
  const preview = need('[data-preview]', HTMLElement, dialog);
  const progress = need('[data-progress]', HTMLProgressElement, dialog);
  const go = need('[data-send-go]', HTMLButtonElement, dialog);
  const cancel = need('[data-send-cancel]', HTMLButtonElement, dialog);
  let stop: AbortController | null = null;

  for (const layout of LAYOUTS) {
    const option = make('option', '', layout.name);
    option.value = layout.id;
    layouts.append(option);
  }
  layouts.value = localStorage.getItem(LAYOUT) ?? 'us';
  const chosen = () => LAYOUTS.find((l) => l.id === layouts.value) ?? LAYOUTS[0];
  const plan = () => {
    const layout = chosen();
    return layout ? strokesFor(box.value + (enter.checked ? '\n' : ''), layout) : { strokes: [], missing: [] };
  };
  const show = () => {
    const { strokes, missing } = plan();
    const lines = strokes.filter((s) => s.code === 'Enter').length;
    const left = missing.slice(0, 8).join(' ') + (missing.length > 8 ? ' …' : '');
    preview.textContent = box.value === '' ? 'Nothing to type yet.'
      : `${strokes.length} key${strokes.length === 1 ? '' : 's'}, Enter ${lines === 0 ? 'is not pressed' : lines === 1 ? 'is pressed once' : `is pressed ${lines} times`}.`
        + (missing.length ? ` Not on this keyboard and left out: ${left}` : '');
    go.disabled = strokes.length === 0;
  };

  button.addEventListener('click', () => {
    show();
    dialog.showModal();
    box.focus();
  });
  form.addEventListener('input', show);
  layouts.addEventListener('change', () => {
    try {
      localStorage.setItem(LAYOUT, layouts.value);
    } catch {
      // Asked again next time.
    }
  });
  cancel.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => {
    stop?.abort();
    // The text may be a password: it stays nowhere.
    box.value = '';
    done();
  });
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (stop) return;
    const { strokes } = plan();
    const ended = new AbortController();
    stop = ended;
    go.disabled = true;
    box.disabled = true;
    progress.hidden = false;
    progress.max = strokes.length;
    for (let i = 0; i < strokes.length && !ended.signal.aborted; i += 1) {
      const screen = keys();
      const stroke = strokes[i];
      if (!screen || !stroke) break;
      press(screen, stroke);
      progress.value = i + 1;
      preview.textContent = `Typing: ${i + 1} of ${strokes.length}. Cancel stops at once.`;
      await pause(PAUSE);
    }
    stop = null;
    box.disabled = false;
    progress.hidden = true;
    dialog.close();
  });
}
