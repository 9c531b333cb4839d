#!/usr/bin/env node
// SPDX-License-Identifier: Apache-2.0
// QEMU's monitor: what a guest has in its text memory, without looking at pixels.
//   node qmp.mjs SOCKET vnc-port            the TCP port of its VNC server
//   node qmp.mjs SOCKET text                its screen's text
//   node qmp.mjs SOCKET wait REGEX SECONDS  waits until the text matches; exit 1 when it does not
//   node qmp.mjs SOCKET type 'TEXT'         types on its keyboard; \n is Enter
//   node qmp.mjs SOCKET run COMMAND [JSON]  any QMP command
import net from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

export const COLUMNS = 80, ROWS = 25;
/** Physical address of the text page; two bytes a cell: character, attribute. */
const TEXT_PAGE = 0xb8000;
/** QEMU's names of the keys that are not letters or digits; a leading `+` is shift. */
const KEYS = {
  ' ': 'spc', '\n': 'ret', '-': 'minus', '=': 'equal', '/': 'slash', '.': 'dot', ',': 'comma', ';': 'semicolon',
  "'": 'apostrophe', '[': 'bracket_left', ']': 'bracket_right', '\\': 'backslash', '`': 'grave_accent',
  _: '+minus', '+': '+equal', '?': '+slash', '>': '+dot', '<': '+comma', ':': '+semicolon', '"': '+apostrophe',
  '{': '+bracket_left', '}': '+bracket_right', '|': '+backslash', '~': '+grave_accent', '!': '+1', '@': '+2', '#': '+3',
  $: '+4', '%': '+5', '^': '+6', '&': '+7', '*': '+8', '(': '+9', ')': '+0',
};

export class Monitor {
  #socket; #waiting = []; #rest = '';

  static async open(path) {
    const monitor = new Monitor();
    monitor.#socket = net.createConnection(path);
    monitor.#socket.setEncoding('utf8');
    monitor.#socket.on('data', (data) => monitor.#take(data));
    const ended = () => monitor.#waiting.splice(0).forEach((w) => w.reject(new Error(`${path}: the monitor closed`)));
    monitor.#socket.on('error', ended).on('close', ended);
    await monitor.#answer();
    await monitor.run('qmp_capabilities');
    return monitor;
  }

  #answer() { return new Promise((resolve, reject) => this.#waiting.push({ resolve, reject })); }

  #take(data) {
    const lines = (this.#rest + data).split('\n');
    this.#rest = lines.pop();
    for (const line of lines) {
      const message = JSON.parse(line);
      if (message.event) continue;
      const waiting = this.#waiting.shift();
      if (message.error) waiting?.reject(new Error(`QMP: ${message.error.desc}`));
      else waiting?.resolve(message.return ?? message.QMP);
    }
  }

  run(command, args) {
    this.#socket.write(`${JSON.stringify({ execute: command, arguments: args })}\n`);
    return this.#answer();
  }

  /** A command of the human monitor. */
  human(line) { return this.run('human-monitor-command', { 'command-line': line }); }

  /** Bytes of the guest's physical memory. */
  async memory(address, length) {
    const text = await this.human(`xp /${length}xb 0x${address.toString(16)}`);
    const bytes = text.split('\n').flatMap((line) => line.slice(line.indexOf(':') + 1).match(/0x[0-9a-f]{2}/g) ?? []);
    if (bytes.length !== length) throw new Error(`QEMU gave ${bytes.length} of ${length} bytes at 0x${address.toString(16)}`);
    return Uint8Array.from(bytes, Number);
  }

  /** Characters and attributes of all cells, row by row. */
  cells() { return this.memory(TEXT_PAGE, COLUMNS * ROWS * 2); }

  async text() { return textOf(await this.cells()); }

  /**
   * The font that the guest's text mode shows: 256 glyphs of 32 bytes, from plane 2 of its video memory. The planes lie
   * interleaved in the card's memory, whose address is that of its first memory region on the PCI bus.
   */
  async font() {
    const devices = await this.run('query-pci');
    const card = devices.flatMap((bus) => bus.devices).find((d) => d.class_info.class === 0x300);
    const region = card?.regions.find((r) => r.type === 'memory');
    if (!region) throw new Error('the guest has no VGA card on its PCI bus');
    const planes = await this.memory(region.address, 256 * 32 * 4);
    return Uint8Array.from({ length: 256 * 32 }, (_, i) => planes[i * 4 + 2]);
  }

  async vncPort() { return Number((await this.run('query-vnc')).service); }

  async type(text) {
    for (const character of text) {
      let name = KEYS[character] ?? character.toLowerCase();
      const keys = [];
      if (name.startsWith('+') || character !== character.toLowerCase()) keys.push('shift');
      name = name.replace(/^\+/, '');
      keys.push(name);
      await this.run('send-key', { keys: keys.map((data) => ({ type: 'qcode', data })) });
      await sleep(120);
    }
  }

  close() { this.#socket.end(); this.#socket.unref(); }
}

/** Cells as lines of text; what is not ASCII becomes a blank. */
export function textOf(cells) {
  const lines = [];
  for (let row = 0; row < ROWS; row++) {
    let line = '';
    for (let column = 0; column < COLUMNS; column++) {
      const code = cells[(row * COLUMNS + column) * 2];
      line += code >= 32 && code < 127 ? String.fromCharCode(code) : ' ';
    }
    lines.push(line.trimEnd());
  }
  return lines.join('\n').trimEnd();
}

async function main([path, verb, ...rest]) {
  const monitor = await Monitor.open(path);
  try {
    switch (verb) {
      case 'vnc-port': console.log(await monitor.vncPort()); return 0;
      case 'text': console.log(await monitor.text()); return 0;
      case 'type': await monitor.type(rest[0].replaceAll('\\n', '\n')); return 0;
      case 'run': console.log(JSON.stringify(await monitor.run(rest[0], rest[1] && JSON.parse(rest[1])))); return 0;
      case 'wait': {
        const [wanted, until] = [new RegExp(rest[0], 'm'), Date.now() + Number(rest[1] ?? 30) * 1000];
        for (;;) {
          const text = await monitor.text();
          if (wanted.test(text) || Date.now() > until) { console.log(text); return wanted.test(text) ? 0 : 1; }
          await sleep(100);
        }
      }
      default: console.error('qmp.mjs SOCKET vnc-port|text|wait|type|run …'); return 2;
    }
  } finally { monitor.close(); }
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  process.exitCode = await main(process.argv.slice(2)).catch((error) => { console.error(error.message); return 1; });
}
