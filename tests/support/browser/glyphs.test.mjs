// SPDX-License-Identifier: Apache-2.0
// The comparison must be able to fail: each way in which a canvas can be wrong is tried.
import assert from 'node:assert/strict';
import test from 'node:test';
import { compare } from './glyphs.mjs';
import { textOf } from '../peers/qmp.mjs';

const [BLACK, GREY, WHITE] = [0xff000000, 0xffaaaaaa, 0xffffffff];
const TEXT = ['This is web-1, a machine.', '', 'guest# echo portcullis-$((6*7))', 'portcullis-42', 'guest# '];

/** A font in which every character has its own look. */
function fontOf() {
  const font = new Uint8Array(256 * 32);
  for (let code = 33; code < 256; code++) {
    for (let y = 2; y < 13; y++) font[code * 32 + y] = (code * (y + 7) * 37) % 255 | (y === 2 ? code : 0);
  }
  return font;
}

function cellsOf(lines, attribute = 7) {
  const cells = new Uint8Array(80 * 25 * 2);
  for (let i = 0; i < cells.length; i += 2) [cells[i], cells[i + 1]] = [32, attribute];
  lines.forEach((line, row) => [...line].forEach((c, column) => { cells[(row * 80 + column) * 2] = c.charCodeAt(0); }));
  return cells;
}

function paint(cells, font, { width = 9, ink = GREY, ground = BLACK, cursor } = {}) {
  const picture = { width: 80 * width, height: 400, pixels: new Uint32Array(80 * width * 400).fill(ground) };
  for (let cell = 0; cell < 2000; cell++) {
    const [row, column, code] = [Math.floor(cell / 80), cell % 80, cells[cell * 2]];
    for (let y = 0; y < 16; y++) {
      for (let x = 0; x < 8; x++) {
        const lit = (font[code * 32 + y] >> (7 - x)) & 1 || (cell === cursor && y > 13);
        if (lit) picture.pixels[(row * 16 + y) * picture.width + column * width + x] = ink;
      }
    }
  }
  return picture;
}

const font = fontOf();
const cells = cellsOf(TEXT);

test('a screen that shows its text passes, with cells of eight and of nine pixels', () => {
  for (const width of [8, 9]) {
    const found = compare(paint(cells, font, { width }), cells, font);
    assert.deepEqual(found.faults, []);
    assert.equal(found.letters, TEXT.join('').replaceAll(' ', '').length);
    assert.ok(found.kinds > 15);
  }
});

test('a cursor may cover one cell', () => {
  assert.deepEqual(compare(paint(cells, font, { cursor: 4 * 80 + 7 }), cells, font).faults, []);
});

test('a dark, a lit and a noisy canvas do not pass', () => {
  const dark = paint(cellsOf([]), font);
  const lit = { ...dark, pixels: new Uint32Array(dark.pixels.length).fill(WHITE) };
  const noise = { ...dark, pixels: dark.pixels.map((_, i) => (i * 2654435761) >>> 0) };
  for (const picture of [dark, lit, noise]) assert.notDeepEqual(compare(picture, cells, font).faults, []);
});

test('one wrong letter, one wrong pixel and the text of a moment ago are found', () => {
  const before = cellsOf([...TEXT.slice(0, 3), 'portcullis-43', TEXT[4]]);
  const found = compare(paint(before, font), cells, font);
  assert.deepEqual(found.faults, ['row 4, column 13 does not show "2"']);
  const picture = paint(cells, font);
  picture.pixels[5 * picture.width + 4] ^= 0xffffff;
  assert.equal(compare(picture, cells, font).faults.length, 1);
  assert.notDeepEqual(compare(paint(cellsOf(TEXT.slice(0, 2)), font), cells, font).faults, []);
});

test('another font, invisible ink and another size do not pass', () => {
  const other = font.map((byte, i) => (Math.floor(i / 32) === 'e'.charCodeAt(0) ? byte ^ 0x18 : byte));
  assert.notDeepEqual(compare(paint(cells, font), cells, other).faults, []);
  assert.notDeepEqual(compare(paint(cells, font, { ink: 0xff050505 }), cells, font).faults, []);
  assert.match(compare({ width: 640, height: 480, pixels: new Uint32Array(640 * 480) }, cells, font).faults[0], /640x480/);
});

test('text is read from cells line by line', () => {
  assert.equal(textOf(cells), TEXT.join('\n').trimEnd());
});
