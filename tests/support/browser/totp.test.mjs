// SPDX-License-Identifier: Apache-2.0
import assert from 'node:assert/strict';
import test from 'node:test';
import { Authenticator, codeAt, decodeBase32 } from './totp.mjs';

test('codes are those of RFC 6238, appendix B', () => {
  const key = Buffer.from('12345678901234567890');
  for (const [seconds, code] of [[59, '287082'], [1111111109, '081804'], [2000000000, '279037'], [20000000000, '353130']]) {
    assert.equal(codeAt(key, Math.floor(seconds / 30)), code);
  }
});

test('a key is read with and without its spaces', () => {
  assert.equal(decodeBase32('GEZD GNBV GY3T QOJQ').toString(), '1234567890');
  assert.throws(() => decodeBase32('GEZ0'), /base32/);
});

test('no code is given twice', async () => {
  const app = new Authenticator('GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ');
  const codes = [await app.code(), await app.code(), await app.code()];
  assert.equal(new Set(codes).size, 3);
});
