// SPDX-License-Identifier: Apache-2.0
// Which keys make which characters on a machine's keyboard. A machine sees keys, not characters: the layout that
// counts is the one set inside the machine.

export interface Stroke { code: string; keysym: number; shift: boolean; altGr: boolean; dead: boolean }

export interface Layout { id: string; name: string; strokes: Map<string, Stroke> }

const ROWS = [
  ['Backquote', 'Digit1', 'Digit2', 'Digit3', 'Digit4', 'Digit5', 'Digit6', 'Digit7', 'Digit8', 'Digit9', 'Digit0', 'Minus', 'Equal'],
  ['KeyQ', 'KeyW', 'KeyE', 'KeyR', 'KeyT', 'KeyY', 'KeyU', 'KeyI', 'KeyO', 'KeyP', 'BracketLeft', 'BracketRight', 'Backslash'],
  ['KeyA', 'KeyS', 'KeyD', 'KeyF', 'KeyG', 'KeyH', 'KeyJ', 'KeyK', 'KeyL', 'Semicolon', 'Quote'],
  ['IntlBackslash', 'KeyZ', 'KeyX', 'KeyC', 'KeyV', 'KeyB', 'KeyN', 'KeyM', 'Comma', 'Period', 'Slash'],
] as const;

// A space in a row means that the key makes nothing of use there.
interface Rows { plain: string[]; shift: string[]; altGr?: Record<string, string>; dead?: string }

const TABLES: Record<string, [string, Rows]> = {
  us: ['US English', {
    plain: ['`1234567890-=', 'qwertyuiop[]\\', "asdfghjkl;'", ' zxcvbnm,./'],
    shift: ['~!@#$%^&*()_+', 'QWERTYUIOP{}|', 'ASDFGHJKL:"', ' ZXCVBNM<>?'],
  }],
  gb: ['UK English', {
    plain: ['`1234567890-=', 'qwertyuiop[]#', "asdfghjkl;'", '\\zxcvbnm,./'],
    shift: ['¬!"£$%^&*()_+', 'QWERTYUIOP{}~', 'ASDFGHJKL:@', '|ZXCVBNM<>?'],
    altGr: { Digit4: '€' },
  }],
  de: ['German', {
    plain: ['^1234567890ß´', 'qwertzuiopü+#', 'asdfghjklöä', '<yxcvbnm,.-'],
    shift: ['°!"§$%&/()=?`', "QWERTZUIOPÜ*'", 'ASDFGHJKLÖÄ', '>YXCVBNM;:_'],
    altGr: { Digit2: '²', Digit3: '³', Digit7: '{', Digit8: '[', Digit9: ']', Digit0: '}', Minus: '\\', KeyQ: '@', KeyE: '€', BracketRight: '~', IntlBackslash: '|', KeyM: 'µ' },
    dead: '^´`',
  }],
  fr: ['French', {
    plain: ['²&é"\'(-è_çà)=', 'azertyuiop $*', 'qsdfghjklmù', '<wxcvbn,;:!'],
    shift: [' 1234567890°+', 'AZERTYUIOP £µ', 'QSDFGHJKLM%', '>WXCVBN?./§'],
    altGr: { Digit2: '~', Digit3: '#', Digit4: '{', Digit5: '[', Digit6: '|', Digit7: '`', Digit8: '\\', Digit9: '^', Digit0: '@', Minus: ']', Equal: '}', KeyE: '€' },
  }],
};

/** The X11 keysym of a character. */
export function keysymOf(character: string): number {
  const point = character.codePointAt(0) ?? 0;
  if (character === '€') return 0x20ac;
  return point < 0x100 ? point : 0x01000000 | point;
}

function layout(id: string, name: string, rows: Rows): Layout {
  const strokes = new Map<string, Stroke>();
  const put = (character: string, code: string, shift: boolean, altGr: boolean) => {
    if (character === ' ' || strokes.has(character)) return;
    strokes.set(character, { code, keysym: keysymOf(character), shift, altGr, dead: rows.dead?.includes(character) ?? false });
  };
  ROWS.forEach((codes, r) => codes.forEach((code, c) => put([...rows.plain[r] ?? ''][c] ?? ' ', code, false, false)));
  ROWS.forEach((codes, r) => codes.forEach((code, c) => put([...rows.shift[r] ?? ''][c] ?? ' ', code, true, false)));
  for (const [code, character] of Object.entries(rows.altGr ?? {})) put(character, code, false, true);
  const plain = (character: string, code: string, keysym: number) => strokes.set(character, { code, keysym, shift: false, altGr: false, dead: false });
  plain(' ', 'Space', 0x20);
  plain('\n', 'Enter', 0xff0d);
  plain('\t', 'Tab', 0xff09);
  return { id, name, strokes };
}

export const LAYOUTS: readonly Layout[] = Object.entries(TABLES).map(([id, [name, rows]]) => layout(id, name, rows));

/** The strokes for a text, and the characters that the keyboard does not have. */
export function strokesFor(text: string, on: Layout): { strokes: Stroke[]; missing: string[] } {
  const strokes: Stroke[] = [];
  const missing = new Set<string>();
  for (const character of text.replaceAll('\r\n', '\n').replaceAll('\r', '\n').normalize('NFC')) {
    const stroke = on.strokes.get(character);
    if (stroke) strokes.push(stroke);
    else missing.add(character);
  }
  return { strokes, missing: [...missing] };
}
