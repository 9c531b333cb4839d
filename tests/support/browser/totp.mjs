// SPDX-License-Identifier: Apache-2.0
// An authenticator app: RFC 6238 with SHA-1, six digits, 30 seconds.
import { createHmac } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';

const STEP_MS = 30_000;
const ON_ITS_WAY_MS = 5_000;
const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZ234567';

export function decodeBase32(text) {
  const bytes = [];
  let [bits, value] = [0, 0];
  for (const character of text.toUpperCase().replace(/[\s=]/g, '')) {
    const digit = ALPHABET.indexOf(character);
    if (digit < 0) throw new Error(`"${character}" does not belong into a base32 key`);
    value = ((value << 5) | digit) & 0xfff;
    bits += 5;
    if (bits >= 8) {
      bits -= 8;
      bytes.push((value >> bits) & 255);
    }
  }
  return Buffer.from(bytes);
}

export function codeAt(key, step) {
  const counter = Buffer.alloc(8);
  counter.writeBigUInt64BE(BigInt(step));
  const digest = createHmac('sha1', key).update(counter).digest();
  const offset = digest[19] & 15;
  return String((digest.readUInt32BE(offset) & 0x7fffffff) % 1_000_000).padStart(6, '0');
}

/** Codes work once each: every call gives another one, and waits only when the clock has no further one to offer. */
export class Authenticator {
  #key; #last = 0;

  constructor(keyText) { this.#key = decodeBase32(keyText); }

  async code() {
    const now = () => Math.floor(Date.now() / STEP_MS);
    // The oldest code that still counts when it arrives: a step that ends within the next seconds is over by then.
    const oldest = Math.floor((Date.now() + ON_ITS_WAY_MS) / STEP_MS) - 1;
    const step = Math.max(this.#last + 1, oldest);
    // A gateway takes the step before and the step after its own, for clocks that differ.
    while (step > now() + 1) await sleep(200);
    this.#last = step;
    return codeAt(this.#key, step);
  }
}
