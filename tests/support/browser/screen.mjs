// SPDX-License-Identifier: Apache-2.0
// A console page as somebody in front of it sees and uses it.
import { setTimeout as sleep } from 'node:timers/promises';
import { textOf } from '../peers/qmp.mjs';
import { compare } from './glyphs.mjs';

/** Characters that need Shift on an English keyboard, and the key that has them. */
const SHIFTED = {
  '~': 'Backquote', '!': 'Digit1', '@': 'Digit2', '#': 'Digit3', $: 'Digit4', '%': 'Digit5', '^': 'Digit6', '&': 'Digit7',
  '*': 'Digit8', '(': 'Digit9', ')': 'Digit0', _: 'Minus', '+': 'Equal', '{': 'BracketLeft', '}': 'BracketRight',
  '|': 'Backslash', ':': 'Semicolon', '"': 'Quote', '<': 'Comma', '>': 'Period', '?': 'Slash',
};
/** A screen with less on it proves little. */
const LEAST = { letters: 40, kinds: 15 };

/** The pixels of the largest canvas of a page. */
export async function picture(page) {
  const { width, height, bytes } = await page.evaluate(() => {
    const [canvas] = [...document.querySelectorAll('canvas')].sort((a, b) => b.width * b.height - a.width * a.height);
    if (!canvas?.width || !canvas.height) return { width: 0, height: 0, bytes: '' };
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    let text = '';
    for (let i = 0; i < data.length; i += 32768) text += String.fromCharCode(...data.subarray(i, i + 32768));
    return { width: canvas.width, height: canvas.height, bytes: btoa(text) };
  });
  const copy = Uint8Array.from(Buffer.from(bytes, 'base64'));
  return { width, height, pixels: new Uint32Array(copy.buffer) };
}

/**
 * Waits until a page's canvas shows, glyph by glyph, the text page of a guest, and that text matches.
 * @returns what was compared; the last differences are thrown when the time is over
 */
export async function awaitText(page, monitor, wanted, seconds) {
  const until = Date.now() + seconds * 1000;
  const font = await monitor.font();
  for (;;) {
    // The guest may write between two looks: its memory has to be the same before and after the picture was taken.
    const before = await monitor.cells();
    const seen = compare(await picture(page), before, font);
    const still = Buffer.compare(before, await monitor.cells()) === 0;
    const text = textOf(before);
    if (still && seen.faults.length === 0 && wanted.test(text) && seen.letters >= LEAST.letters && seen.kinds >= LEAST.kinds) {
      return seen;
    }
    if (Date.now() > until) {
      throw new Error(`the canvas shows ${seen.letters} letters of the guest's screen with ${seen.faults.length} differences ` +
        `(${seen.faults.slice(0, 3).join('; ') || 'none'}); the guest's own text, in which ${wanted} was wanted:\n${text}`);
    }
    await sleep(100);
  }
}

/** Types on the keyboard as a hand does: Shift is held for the characters that need it. */
export async function type(page, text) {
  for (const character of text) {
    const key = SHIFTED[character] ?? (/[A-Z]/.test(character) ? `Key${character}` : undefined);
    if (key) {
      await page.keyboard.down('Shift');
      await page.keyboard.press(key);
      await page.keyboard.up('Shift');
    } else {
      await page.keyboard.press(character === '\n' ? 'Enter' : character);
    }
    await sleep(30);
  }
}
