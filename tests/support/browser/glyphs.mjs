// SPDX-License-Identifier: Apache-2.0
// Reads a text screen from pixels, glyph by glyph, against what the guest itself has in memory: its text page says
// which character stands in which cell, its font memory says which pixels such a character has. A canvas that shows
// anything else (nothing, noise, a picture of another moment, another guest) does not pass.
import { COLUMNS, ROWS } from '../peers/qmp.mjs';

const GLYPH_ROWS = 16, GLYPH_COLUMNS = 8;
/** A blinking cursor may cover one cell; it paints whole rows of it. */
const CURSOR_CELLS = 1;
/** Least difference of brightness between letters and ground, of 255. */
const CONTRAST = 80;

/**
 * Compares a picture with a guest's text page.
 * @param picture {width, height, pixels: Uint32Array} one number a pixel, 0xAABBGGRR
 * @param cells 80x25 pairs of character and attribute
 * @param font 256 glyphs of 32 bytes, 16 of them shown
 * @returns {letters, kinds, faults} how many cells hold ink, how many different characters, and what is wrong
 */
export function compare(picture, cells, font) {
  const [cellWidth, cellHeight] = [picture.width / COLUMNS, picture.height / ROWS];
  if (cellHeight !== GLYPH_ROWS || (cellWidth !== 8 && cellWidth !== 9)) {
    return { letters: 0, kinds: 0, faults: [`the picture is ${picture.width}x${picture.height}, no screen of 80x25 characters`] };
  }
  const found = { letters: 0, kinds: new Set(), faults: [], covered: 0, colours: new Map() };
  for (let row = 0; row < ROWS; row++) {
    for (let column = 0; column < COLUMNS; column++) compareCell(found, picture, cells, font, cellWidth, row, column);
  }
  if (found.covered > CURSOR_CELLS) found.faults.push(`${found.covered} cells look covered by a cursor`);
  const [ground, ink] = [found.colours.get(0), found.colours.get(7)];
  if (ground !== undefined && ink !== undefined && Math.abs(brightness(ground) - brightness(ink)) < CONTRAST) {
    found.faults.push('letters and ground have nearly the same colour');
  }
  return { letters: found.letters, kinds: found.kinds.size, faults: found.faults };
}

function compareCell(found, picture, cells, font, cellWidth, row, column) {
  const at = (row * COLUMNS + column) * 2;
  const [code, attribute] = [cells[at], cells[at + 1]];
  const [ink, ground] = [attribute & 15, (attribute >> 4) & 7];
  const [wrongRows, inkRows] = [new Set(), new Set()];
  let inked = false;
  for (let y = 0; y < GLYPH_ROWS; y++) {
    const bits = font[code * 32 + y];
    const start = (row * GLYPH_ROWS + y) * picture.width + column * cellWidth;
    let solid = true;
    for (let x = 0; x < cellWidth; x++) {
      // The ninth column is ground, but for line drawing characters, which run on into the next cell.
      if (x === GLYPH_COLUMNS && code >= 0xb0 && code <= 0xdf) continue;
      const set = x < GLYPH_COLUMNS && (bits >> (7 - x)) & 1;
      inked ||= Boolean(set);
      const pixel = picture.pixels[start + x];
      if (pixel !== colour(found, set ? ink : ground, pixel)) wrongRows.add(y);
      if (x < GLYPH_COLUMNS && pixel !== found.colours.get(ink)) solid = false;
    }
    if (solid) inkRows.add(y);
  }
  if (inked) { found.letters++; found.kinds.add(code); }
  if (wrongRows.size === 0) return;
  if ([...wrongRows].every((y) => inkRows.has(y))) found.covered++;
  else found.faults.push(`row ${row + 1}, column ${column + 1} does not show ${shown(code)}`);
}

/** What a colour number looks like: the first pixel that has it tells, all others must agree. */
function colour(found, number, pixel) {
  if (!found.colours.has(number)) found.colours.set(number, pixel);
  return found.colours.get(number);
}

function brightness(pixel) {
  return ((pixel & 255) * 299 + ((pixel >> 8) & 255) * 587 + ((pixel >> 16) & 255) * 114) / 1000;
}

function shown(code) { return code > 32 && code < 127 ? `"${String.fromCharCode(code)}"` : `character ${code}`; }
