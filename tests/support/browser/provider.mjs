// SPDX-License-Identifier: Apache-2.0
// Somebody of a company signs in at its identity provider and out again, in headless Chromium: what only a browser holds
// against us (cookies that come back from another site, the pages that a form may lead to) is held here.
//   node provider.mjs --url URL --certificate PEM --title TITLE --login LOGIN [--pictures DIR]
import { createHash, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { Authenticator } from './totp.mjs';

const { values: given } = parseArgs({ options: {
  url: { type: 'string' }, certificate: { type: 'string' }, title: { type: 'string' }, login: { type: 'string' },
  pictures: { type: 'string' },
} });
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];
/** Only the gateway's own certificate is accepted: any other key is refused. */
const key = new X509Certificate(readFileSync(given.certificate)).publicKey.export({ type: 'spki', format: 'der' });
FLAGS.push(`--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`);

const browser = await chromium.launch({ executablePath: '/usr/bin/chromium', args: FLAGS });
const page = await (await browser.newContext()).newPage();
page.setDefaultTimeout(20_000);
const complaints = [];
page.on('console', (message) => {
  const ours = message.location().url === '' || message.location().url.startsWith(given.url);
  if (message.type() === 'error' && ours) complaints.push(message.text());
});

async function take(name) {
  if (!given.pictures) return;
  mkdirSync(given.pictures, { recursive: true });
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [360, 1400]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      await page.screenshot({ path: join(given.pictures, `${name}-${colorScheme}-${width}.png`), fullPage: true });
    }
  }
}

function expect(what, holds) {
  if (!holds) throw new Error(`${what}; at ${page.url()}`);
  console.log(`✓ ${what}`);
}

try {
  await page.goto(`${given.url}/machines`);
  await take('sign-in-with-a-provider');
  // With the keyboard alone: from the name on, the button is a few keys away.
  const wanted = `Sign in with ${given.title}`;
  const focused = () => page.evaluate(() => document.activeElement?.textContent.trim());
  for (let keys = 0; keys < 8 && (await focused()) !== wanted; keys += 1) await page.keyboard.press('Tab');
  expect('the keyboard reaches the button', (await focused()) === wanted);
  await page.keyboard.press('Enter');
  await page.waitForSelector('input[name=login]');
  expect('the provider asks who it is', !page.url().startsWith(given.url));
  await page.fill('input[name=login]', given.login);
  await page.fill('input[name=password]', 'any');
  await page.click('button[type=submit]');
  await page.waitForURL(`${given.url}/enrol`);
  expect('the browser comes back to add an authenticator app', true);
  const app = new Authenticator(await page.textContent('#key'));
  await page.fill('#code', await app.code());
  await page.click('form[action="/enrol"] button');
  await page.waitForSelector('.codes');
  await page.goto(`${given.url}/me`);
  expect('they are signed in', new URL(page.url()).pathname === '/me');
  expect('there is no password to change', (await page.$('#password-section')) === null);
  await page.evaluate(() => document.querySelector('form[action="/sign-out"]').requestSubmit());
  await page.waitForSelector('button[value=yes]');
  expect('signing out leads on to the provider', !page.url().startsWith(given.url));
  await page.click('button[value=yes]');
  await page.waitForURL(`${given.url}/sign-in?*`);
  await page.goto(`${given.url}/me`);
  expect('and back, signed out', new URL(page.url()).pathname === '/sign-in');
  expect(`nothing was held back: ${complaints.join('; ') || 'no complaint'}`, complaints.length === 0);
} finally {
  await browser.close();
}
