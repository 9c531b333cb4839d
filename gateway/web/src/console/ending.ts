// SPDX-License-Identifier: Apache-2.0
// Why a stream ended, in words. The gateway's own words come first; the code says what they mean.

export interface Words { title: string; text: string }

const CODES: Record<number, Words> = {
  1000: { title: 'The console is closed', text: '' },
  1001: { title: 'The gateway is going away', text: 'It is being restarted. Open the console again in a moment.' },
  1002: { title: 'The viewer made a mistake', text: 'The gateway closed the console because of what this viewer sent.' },
  1006: { title: 'The connection broke', text: 'The network or the gateway went away. The machine itself is not touched by that.' },
  1008: { title: 'The viewer made a mistake', text: 'The gateway closed the console because this viewer sent more than is allowed.' },
  1011: { title: 'Something went wrong in the gateway', text: 'Open the console again; if it stays so, tell who runs this gateway.' },
  4000: { title: 'Your access ended', text: '' },
  4001: { title: 'Closed for lack of input', text: 'Nobody pressed a key or moved the mouse for the allowed time.' },
  4002: { title: 'The time is over', text: 'The allowed time for this console has passed.' },
  4003: { title: 'The recording failed', text: 'This console must be recorded and could not be, so it was closed.' },
  4004: { title: 'The machine closed its screen', text: 'It was switched off or restarted, or its hypervisor closed the screen.' },
};

// The same codes where the screen was never there.
const BLOCKED: Words = {
  title: 'The console did not open',
  text: 'The gateway or something between here and it did not let the connection through.',
};
const NEVER: Record<number, Words> = {
  1000: BLOCKED,
  1006: BLOCKED,
  1008: { title: 'Too many consoles are open', text: '' },
  4000: { title: 'The console did not open', text: '' },
  4003: { title: 'The console did not open', text: 'What happens here must be recorded.' },
  4004: { title: 'The screen could not be opened', text: 'Try again in a moment; if it stays so, tell who runs this gateway.' },
};

/** Words for the end of a stream. `opened`: whether the screen was ever there. */
export function endingWords(code: number, reason: string, opened: boolean): Words {
  const words = (opened ? undefined : NEVER[code]) ?? CODES[code] ?? { title: 'The console is closed', text: `Code ${code}.` };
  // The gateway says itself that access ended; the title says it already.
  const said = reason.trim().replace(code === 4000 ? /^access ended:\s*/i : /^$/, '');
  if (!said) return words;
  const sentence = said.charAt(0).toUpperCase() + said.slice(1) + (/[.!?…]$/.test(said) ? '' : '.');
  return { title: words.title, text: words.text ? `${sentence} ${words.text}` : sentence };
}
