// SPDX-License-Identifier: Apache-2.0
// Checks of the modules that need no page. Run by: npm test.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { build } from 'esbuild';
import { fileURLToPath } from 'node:url';

async function load(file) {
  const path = fileURLToPath(new URL(file, import.meta.url));
  const made = await build({ entryPoints: [path], bundle: true, write: false, format: 'esm', target: 'es2022' });
  return import(`data:text/javascript;base64,${Buffer.from(made.outputFiles[0].contents).toString('base64')}`);
}

const { LAYOUTS, strokesFor, keysymOf } = await load('src/console/layouts.ts');
const { endingWords } = await load('src/console/ending.ts');
const { decode, encode, problemOf } = await load('src/passkeys.ts');
const { span } = await load('src/time.ts');
const { matches } = await load('src/machines.ts');

test('every printable ASCII character can be typed on every layout', () => {
  const ascii = Array.from({ length: 0x7f - 0x20 }, (_, i) => String.fromCharCode(0x20 + i)).join('') + '\n\t';
  for (const layout of LAYOUTS) assert.deepEqual(strokesFor(ascii, layout).missing, [], layout.id);
});

test('a key makes one character without modifiers and one with Shift', () => {
  for (const layout of LAYOUTS) {
    const seen = new Set();
    for (const [character, s] of layout.strokes) {
      const key = `${s.code} ${s.shift} ${s.altGr}`;
      assert.ok(!seen.has(key), `${layout.id}: ${key} twice, at ${character}`);
      seen.add(key);
    }
  }
});

test('keys are those that people know', () => {
  const on = (id, character) => LAYOUTS.find((l) => l.id === id).strokes.get(character);
  assert.deepEqual([on('us', '@').code, on('us', '@').shift], ['Digit2', true]);
  assert.deepEqual([on('de', 'z').code, on('de', '@').altGr, on('de', '^').dead], ['KeyY', true, true]);
  assert.deepEqual([on('fr', 'a').code, on('fr', '1').shift], ['KeyQ', true]);
  assert.equal(on('gb', '#').code, 'Backslash');
  assert.deepEqual([keysymOf('a'), keysymOf('€'), keysymOf('ł')], [0x61, 0x20ac, 0x01000142]);
});

test('characters that a keyboard lacks are named once and left out', () => {
  const { strokes, missing } = strokesFor('a€b€\r\n', LAYOUTS[0]);
  assert.deepEqual([strokes.map((s) => s.code), missing], [['KeyA', 'KeyB', 'Enter'], ['€']]);
});

test('an ending is told in words, the reason first', () => {
  assert.deepEqual(endingWords(4000, 'access ended: you were signed out', true), { title: 'Your access ended', text: 'You were signed out.' });
  assert.match(endingWords(1002, 'rectangle too large', true).text, /^Rectangle too large\. /);
  assert.match(endingWords(1006, '', false).title, /did not open/);
  assert.match(endingWords(1006, '', true).title, /broke/);
  assert.match(endingWords(4999, '', true).text, /4999/);
});

test('a screen that never opened is told as that, with the reason', () => {
  const down = 'Lab cannot be reached: connecting to 192.0.2.1:5900: Connection refused.';
  const words = endingWords(4004, down, false);
  assert.equal(words.title, 'The screen could not be opened');
  assert.ok(words.text.startsWith(`${down} `), words.text);
  assert.match(endingWords(4004, 'the machine closed the screen', true).title, /machine closed/);
  assert.match(endingWords(4004, 'so long that it was c…', false).text, /c… Try/);
  assert.deepEqual(endingWords(1008, 'You have too many consoles open. Close one first.', false), {
    title: 'Too many consoles are open', text: 'You have too many consoles open. Close one first.',
  });
  assert.match(endingWords(1008, 'too many control frames', true).title, /viewer/);
  assert.deepEqual(endingWords(4000, 'access ended: you were signed out', false), { title: 'The console did not open', text: 'You were signed out.' });
  assert.match(endingWords(4003, 'The recording could not be started.', false).text, /^The recording could not be started\. What/);
});

test('lengths of time are told in words', () => {
  assert.deepEqual([span(-5), span(9_000), span(252_000), span(7_500_000)], ['0 s', '9 s', '4 min 12 s', '2 h 05 min']);
});

test('a search needs every word', () => {
  assert.ok(matches('pay-db-01 kvm-berlin running', 'BERLIN pay'));
  assert.ok(matches('anything', ''));
  assert.ok(!matches('pay-db-01 kvm-berlin', 'pay paris'));
});

test('bytes of a passkey survive their text, in the alphabet of addresses and without padding', () => {
  for (const [bytes, text] of [[[], ''], [[0], 'AA'], [[251, 255, 254], '-__-'], [[255, 239], '_-8'], [[1, 2, 3, 4], 'AQIDBA']]) {
    assert.equal(encode(new Uint8Array(bytes).buffer), text);
    assert.deepEqual([...decode(text)], bytes);
  }
  const long = Uint8Array.from({ length: 70_000 }, (_, i) => i * 7);
  assert.deepEqual(decode(encode(long.buffer)), long);
});

test('what a browser refuses is told in words, and never in its own', () => {
  const refused = (name) => problemOf(new DOMException('secret', name), true);
  assert.match(refused('InvalidStateError'), /already/);
  assert.match(refused('NotAllowedError'), /Try again/);
  assert.match(refused('SecurityError'), /certificate/);
  for (const name of ['InvalidStateError', 'NotAllowedError', 'Whatever']) assert.doesNotMatch(refused(name), /secret/);
  assert.match(problemOf('nothing', false), /another way/);
});
