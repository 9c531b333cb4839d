// SPDX-License-Identifier: Apache-2.0
// A first administrator's first minutes, in headless Chromium: set-up link, password, authenticator, recovery codes,
// sign-in, machine, console (looked at and typed into), the other pages, sign-out.
//   node journey.mjs --url URL --link SET-UP-LINK --certificate PEM --pictures DIR --machine NAME=MONITOR-SOCKET …
// Prints a line a step; exit 0 only when all of it happened. Looks at the guests' own memory through their monitors.
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { Monitor } from '../peers/qmp.mjs';
import { awaitText, picture, type } from './screen.mjs';
import { compare } from './glyphs.mjs';
import { Authenticator } from './totp.mjs';

const { values: given } = parseArgs({ options: {
  url: { type: 'string' }, link: { type: 'string' }, certificate: { type: 'string' }, pictures: { type: 'string' },
  machine: { type: 'string', multiple: true }, name: { type: 'string', default: 'ada' },
  password: { type: 'string', default: randomBytes(12).toString('base64url') },
} });
const machines = given.machine.map((m) => ({ name: m.slice(0, m.indexOf('=')), socket: m.slice(m.indexOf('=') + 1) }));
const WIDE = { width: 1400, height: 900 }, NARROW = { width: 360, height: 740 };
/** Runs without a display, as root, and asks nothing of the outside. */
const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-dev-shm-usage',
  '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** Only the gateway's own certificate is accepted: this is its public key's digest, any other key is refused. */
function pinOf(file) {
  const key = new X509Certificate(readFileSync(file)).publicKey.export({ type: 'spki', format: 'der' });
  return `--ignore-certificate-errors-spki-list=${createHash('sha256').update(key).digest('base64')}`;
}

const plain = (text) => text.replace(/\u001b\[[0-9;]*m/g, '');

let page, taken = 0;
const noticed = [];

/** One step with a deadline; what it waits for is said when the deadline passes. */
async function step(what, seconds, work) {
  const began = Date.now();
  page.setDefaultTimeout(seconds * 1000);
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`nothing came of it within ${seconds} s`)), seconds * 1000 + 500);
  });
  try {
    const more = await Promise.race([work(), late]);
    console.log(`  ✓ ${what}${more ? ` (${more})` : ''}  ${((Date.now() - began) / 1000).toFixed(1)} s`);
  } catch (error) {
    const text = await page.innerText('body', { timeout: 2000 }).catch(() => '');
    const file = join(given.pictures, 'failed.png');
    await page.screenshot({ path: file, timeout: 5000 }).catch(() => {});
    console.log(`  ✗ ${what}\n    ${plain(error.message).split('\n').join('\n    ')}\n    The page is ${page.url().replace(/#.*/, '#…')}, see ${file}; it says:`);
    console.log(text.split('\n').filter((l) => l.trim()).slice(0, 25).map((l) => `      ${l}`).join('\n'));
    for (const line of noticed.slice(-10)) console.log(`    browser: ${line}`);
    throw error;
  } finally { clearTimeout(timer); }
}

/** Pictures of the page in both widths, and in the dark. A page that is wider than its window is a mistake. */
async function look(name) {
  taken++;
  const file = (label) => join(given.pictures, `${String(taken).padStart(2, '0')}-${name}-${label}.png`);
  for (const [size, label] of [[NARROW, 360], [WIDE, 1400]]) {
    await page.setViewportSize(size);
    await page.screenshot({ path: file(label), fullPage: label === 360 });
    const wide = await page.evaluate(() => document.documentElement.scrollWidth);
    if (wide > size.width) throw new Error(`the page ${name} is ${wide} pixels wide on a screen of ${size.width}`);
  }
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.screenshot({ path: file('dark') });
  await page.emulateMedia({ colorScheme: 'light' });
}

async function submit(button) {
  await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), button.click()]);
}

async function see(heading) {
  await page.getByRole('heading', { name: heading, level: 1 }).waitFor();
}

async function enterCode(app, button) {
  await page.getByRole('textbox', { name: 'Six-digit code' }).fill(await app.code());
  await submit(page.getByRole('button', { name: button, exact: true }));
}

async function openConsole(machine, app) {
  const opened = page.locator('#console[data-state=open]');
  const stepUp = page.getByRole('heading', { name: 'Confirm that it is you' });
  await opened.or(stepUp).first().waitFor();
  if (await stepUp.count()) {
    await enterCode(app, 'Continue');
    await opened.waitFor();
  }
  await page.locator('#screen canvas').first().waitFor();
}

async function journey() {
  const monitors = [];
  let app;
  for (const machine of machines) monitors.push(machine.monitor = await Monitor.open(machine.socket));
  try {
    await step('the sign-in page is there', 10, async () => {
      await page.goto(given.url);
      await see('Sign in');
      await look('sign-in');
    });
    await step('the set-up link opens', 10, async () => {
      await page.goto(given.link);
      await see('Set up the first administrator');
      // The token must not stay in the address, where a history or a screenshot would keep it.
      await page.waitForFunction(() => !location.hash && document.getElementById('token')?.value);
      await look('set-up');
    });
    await step('name and password are set', 15, async () => {
      await page.getByLabel('Name to sign in with').fill(given.name);
      await page.getByLabel('Your name, as others see it').fill('Ada Lovelace');
      await page.getByLabel('New password').fill(given.password);
      await submit(page.getByRole('button', { name: 'Continue to the authenticator app' }));
      await see('Add an authenticator app');
    });
    await step('an authenticator is enrolled from the key on the page', 15, async () => {
      app = new Authenticator(await page.getByLabel('Or type this key into the app').innerText());
      await look('enrol');
      await enterCode(app, 'Confirm');
      await see('Save your recovery codes');
    });
    await step('recovery codes are shown once', 10, async () => {
      const codes = await page.locator('#codes code').allInnerTexts();
      if (new Set(codes).size !== 10) throw new Error(`the page holds ${new Set(codes).size} different recovery codes, not 10`);
      await look('recovery-codes');
      await page.getByRole('link', { name: 'I have saved them' }).click();
      await see('My machines');
    });
    await step('signing out leads to the sign-in page', 10, signOut);
    await step('a wrong password is refused', 15, async () => {
      await signIn(`${given.password}x`);
      await page.getByRole('alert').waitFor();
    });
    await step('password and code sign in', 15, async () => {
      await signIn(given.password);
      await see('Enter the code');
      await look('code');
      await enterCode(app, 'Continue');
      await see('My machines');
      await look('machines');
    });
    for (const [index, machine] of machines.entries()) {
      await step(`search finds ${machine.name}`, 10, async () => {
        await page.goto(given.url);
        await page.getByRole('searchbox').fill(machine.name);
        await page.getByRole('searchbox').press('Enter');
        await page.waitForURL((url) => url.searchParams.get('q') === machine.name);
        const row = page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: machine.name }) });
        await row.getByText('running').waitFor();
        if ((await page.locator('#machines tbody tr').count()) !== 1) throw new Error('the search shows other machines too');
        await row.getByRole('link', { name: /Open console/ }).click();
        return 'running';
      });
      await step(`the console of ${machine.name} opens`, 20, () => openConsole(machine, app));
      await step(`its own text is on the canvas`, 15, async () => {
        const seen = await awaitText(page, machine.monitor, new RegExp(`This is ${machine.name}, a machine behind Portcullis`), 14);
        if (index === 0) await look('console');
        return `${seen.letters} letters, ${seen.kinds} different ones, each as in the guest's font`;
      });
      const others = machines.filter((m) => m !== machine);
      await step('the comparison tells it from another screen', 10, async () => {
        for (const other of others) {
          const [cells, font] = [await other.monitor.cells(), await other.monitor.font()];
          if (compare(await picture(page), cells, font).faults.length === 0) throw new Error(`it looks like ${other.name}`);
        }
      });
      await step('a typed line is answered on the canvas', 15, async () => {
        await page.locator('#screen canvas').first().click();
        await type(page, 'echo portcullis-$((6*7))\n');
        await awaitText(page, machine.monitor, /^guest# echo portcullis-\$\(\(6\*7\)\)\nportcullis-42$/m, 12);
        if (index === 0) await look('console-typed');
        return 'portcullis-42';
      });
      await step('closing the console says so', 10, async () => {
        await page.getByRole('button', { name: 'Close', exact: true }).click();
        await page.getByRole('heading', { name: 'The console is closed' }).waitFor();
      });
    }
    for (const [name, path, heading] of [
      ['me', '/me', null], ['step-up', '/step-up', 'Confirm that it is you'], ['users', '/users', 'People'], ['roles', '/roles', 'Roles'], ['grants', '/grants', 'Grants'],
      ['live-consoles', '/sessions', null], ['hypervisors', '/hypervisors', 'Hypervisors'],
      ['recordings', '/recordings', 'Recordings'], ['trail', '/trail', 'Trail'],
    ]) {
      await step(`the page ${path} is there`, 10, async () => {
        const answer = await page.goto(new URL(path, given.url).href);
        if (answer.status() !== 200) throw new Error(`it answers ${answer.status()}`);
        if (heading) await see(heading);
        if (name === 'recordings' || name === 'trail') {
          for (const machine of machines) await page.getByText(`lab/${machine.name}`).first().waitFor();
        }
        await look(name);
      });
    }
    await step('signing out ends it', 10, async () => {
      await signOut();
      await page.goto(new URL('/users', given.url).href);
      await see('Sign in');
    });
    const wrong = noticed.filter((line) => !/401|403|422|404/.test(line));
    if (wrong.length) throw new Error(`the browser complained:\n${wrong.join('\n')}`);
  } finally { for (const monitor of monitors) monitor.close(); }
}

async function signIn(password) {
  await page.goto(new URL('/sign-in', given.url).href);
  await page.getByLabel('Name', { exact: true }).fill(given.name);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await submit(page.getByRole('button', { name: 'Sign in', exact: true }));
}

async function signOut() {
  await submit(page.getByRole('button', { name: 'Sign out' }));
  await see('Sign in');
}

mkdirSync(given.pictures, { recursive: true });
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: [...FLAGS, pinOf(given.certificate)],
});
try {
  page = await browser.newPage({ viewport: WIDE });
  page.on('pageerror', (error) => noticed.push(`error: ${error.message}`));
  page.on('console', (message) => message.type() === 'error' && noticed.push(message.text()));
  await journey();
} catch (error) {
  process.exitCode = 1;
  if (!page) console.log(`  ✗ the browser did not start: ${error.message}`);
  else console.log(`  ✗ ${plain(error.message).split('\n')[0]}`);
} finally {
  await browser.close();
  console.log(`  pictures of ${taken} pages, narrow, wide and dark: ${given.pictures}`);
}
