// SPDX-License-Identifier: Apache-2.0
// A first administrator's first minutes, in headless Chromium: set-up link, password, authenticator, recovery codes,
// sign-in, machine, console (looked at and typed into), the other pages, sign-out.
//   node journey.mjs --url URL --link SET-UP-LINK --certificate PEM --pictures DIR --machine NAME=MONITOR-SOCKET … --broken NAME
//     --program PORTCULLIS --config FILE
// Prints a line a step; exit 0 only when all of it happened. Looks at the guests' own memory through their monitors.
import { createHash, randomBytes, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { Monitor } from '../peers/qmp.mjs';
import * as bar from './bar.mjs';
import * as greyed from './greyed.mjs';
import * as twice from './twice.mjs';
import { plugIn } from './passkey.mjs';
import { awaitText, picture, type } from './screen.mjs';
import { compare } from './glyphs.mjs';
import { Authenticator } from './totp.mjs';

const { values: given } = parseArgs({ options: {
  url: { type: 'string' }, link: { type: 'string' }, certificate: { type: 'string' }, pictures: { type: 'string' },
  program: { type: 'string' }, config: { type: 'string' }, machine: { type: 'string', multiple: true }, broken: { type: 'string' }, name: { type: 'string', default: 'ada' },
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
/** What the browser complained of, and the answers that said no. */
const noticed = [], refused = [];
/** The answers that say no because a step asks for it, in their order; any other is a mistake. */
const REFUSALS = ['422 /sign-in', '422 /sign-in/passkey', '404 /nothing-here', '422 /policy/try'];
/** The complaints that a step asks for: noVNC's own word for the screen that does not open. */
const COMPLAINTS = [/^Failed when connecting: Connection closed \(code: 4004, reason: Lab cannot be reached: /];

/** Keeps what a page complains of. An answer that says no is kept once: the browser's line about it adds nothing. */
function watch(one) {
  one.on('pageerror', (error) => noticed.push(`error: ${error.message}`));
  one.on('response', (answer) => {
    if (answer.status() >= 400) refused.push(`${answer.status()} ${new URL(answer.url()).pathname}`);
  });
  one.on('console', (message) => {
    const told = message.type() === 'error' && !/^Failed to load resource: the server responded with a status of \d+/.test(message.text());
    if (told) noticed.push(`${message.text()} (${message.location().url})`);
  });
}

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
async function look(name, on = page) {
  taken++;
  const file = (label) => join(given.pictures, `${String(taken).padStart(2, '0')}-${name}-${label}.png`);
  for (const [size, label] of [[NARROW, 360], [WIDE, 1400]]) {
    await on.setViewportSize(size);
    await on.screenshot({ path: file(label), fullPage: label === 360 });
    const wide = await on.evaluate(() => document.documentElement.scrollWidth);
    if (wide > size.width) throw new Error(`the page ${name} is ${wide} pixels wide on a screen of ${size.width}`);
  }
  await on.emulateMedia({ colorScheme: 'dark' });
  await on.screenshot({ path: file('dark') });
  await on.emulateMedia({ colorScheme: 'light' });
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
      await submit(page.getByRole('button', { name: 'Continue to the second factor' }));
      await see('Add a second factor');
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
    await withPasskey(app);
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
      if (index === 0) await useBar(machine);
      await step('closing the console says so', 10, async () => {
        await page.getByRole('button', { name: 'Close', exact: true }).click();
        await page.getByRole('heading', { name: 'The console is closed' }).waitFor();
      });
    }
    await step('watching only lets no key through', 15, async () => {
      await page.goto(new URL(`/c/lab/${machines[0].name}?mode=view`, given.url).href);
      await bar.watchOnly(page, machines[0].monitor);
      await look('console-watching');
    });
    await step('the list of live consoles shows it', 10, async () => {
      const other = await page.context().newPage();
      watch(other);
      await other.goto(new URL('/sessions', given.url).href);
      await other.getByRole('row').filter({ hasText: `lab/${machines[0].name}` }).getByText('watching only, recorded').waitFor();
      await look('live-console', other);
      await other.close();
    });
    await step('a screen that cannot be opened says why', 10, async () => {
      await page.goto(new URL(`/c/lab/${given.broken}`, given.url).href);
      await page.getByRole('heading', { name: 'The screen could not be opened' }).waitFor();
      await page.getByText(/^Lab cannot be reached: .*Connection refused/).waitFor();
      await look('console-not-opened');
    });
    await step('a favourite stays on top', 10, async () => {
      const last = machines.at(-1).name;
      const first = () => page.locator('#machines tbody tr').first().getByRole('rowheader').locator('bdi').first().innerText();
      await page.goto(given.url);
      const name = (await first()) === last ? machines[0].name : last;
      await page.getByRole('button', { name: `Keep ${name} on top` }).click();
      await page.locator('#spoken', { hasText: 'Kept on top' }).waitFor({ state: 'attached' });
      await page.reload();
      if ((await first()) !== name) throw new Error(`${await first()} is on top, not ${name}`);
      await look('favourite');
      return name;
    });
    await step('Ctrl-K finds a machine and opens its console', 20, async () => {
      const { name } = machines.at(-1);
      await page.goto(new URL('/me', given.url).href);
      await page.keyboard.press('Control+k');
      await page.locator('#palette-box').waitFor();
      await page.keyboard.type(name);
      await page.getByRole('option', { name }).waitFor();
      await look('palette');
      await page.keyboard.press('Enter');
      await page.waitForURL(`**/c/lab/${name}`);
      await openConsole(machines.at(-1), app);
    });
    await step('a person is invited and looked at', 15, async () => {
      await page.goto(new URL('/users', given.url).href);
      await page.getByLabel('Name to sign in with').fill('grace');
      await page.getByLabel('Name shown to others').fill('Grace Hopper');
      await submit(page.getByRole('button', { name: 'Make a one-time link' }));
      const link = await page.locator('input[readonly]').first().inputValue();
      await look('invited');
      await page.getByRole('link', { name: 'Grace Hopper' }).click();
      await see('Grace Hopper');
      await look('person');
      const guest = await (await page.context().browser().newContext({ viewport: WIDE })).newPage();
      watch(guest);
      await guest.goto(link);
      await guest.getByRole('heading', { name: 'Set up your account' }).waitFor();
      await look('invitation', guest);
      await guest.context().close();
    });
    await step('an event of the trail is there', 10, async () => {
      await page.goto(new URL('/trail?what=console.control', given.url).href);
      await page.locator('table.trail tbody a').first().click();
      await page.getByRole('heading', { name: /^Event \d+$/ }).waitFor();
      await look('trail-event');
    });
    await step('an address that is not there says so', 10, async () => {
      await page.goto(new URL('/nothing-here', given.url).href);
      await see('Not found');
      await look('error');
    });
    await step('a contractor gets twelve machines on three hypervisors in five fields, told beforehand, by one button', 20, async () => {
      await page.goto(new URL('/grants', given.url).href);
      await page.getByLabel('Who', { exact: true }).selectOption({ label: 'Grace Hopper (grace)' });
      await page.getByLabel('May act as').selectOption('console-user');
      await page.getByLabel('For', { exact: true }).selectOption('336');
      const theirs = ['berlin', 'oslo'].flatMap((h) => [1, 2, 3, 4, 5].map((n) => `${h}-${n}`));
      await page.getByLabel('On', { exact: true }).fill([...machines.slice(0, 2).map((m) => `lab/${m.name}`), theirs.join(', ')].join('\n'));
      await page.locator('#note').fill('update of the vendor\'s software');
      await submit(page.getByRole('button', { name: 'Show what it would do' }));
      await page.getByText('Grace Hopper').nth(1).waitFor();
      await look('grant-preview');
      await submit(page.getByRole('button', { name: 'Grant', exact: true }));
      for (const machine of machines.slice(0, 2)) await page.getByText(`machine lab/${machine.name}`).first().waitFor();
      const rows = await page.locator('table.grants tbody tr').filter({ hasText: 'Grace Hopper' }).count()
        || await page.locator('table.grants tbody tr').filter({ hasText: 'grace' }).count();
      if (rows !== 12) throw new Error(`${rows} grants came of it, not one for each of 12 machines on 3 hypervisors`);
      await look('granted');
    });
    await step('who may touch a machine is told, and a person\'s row leads to all that they may do', 15, async () => {
      await page.goto(new URL('/access', given.url).href);
      await page.getByLabel('Machine or hypervisor').fill(`lab/${machines[0].name}`);
      await submit(page.getByRole('button', { name: 'Show' }).last());
      await page.getByRole('heading', { name: `Who may touch lab/${machines[0].name}` }).waitFor();
      await look('access-to-machine');
      await page.getByRole('link', { name: 'Grace Hopper (grace)' }).click();
      await page.getByRole('heading', { name: 'What Grace Hopper (grace) may do' }).waitFor();
      await look('access-of-person');
    });
    await step('a request for access is a form that is filled in', 10, async () => {
      await page.goto(new URL(`/requests/new?on=machine:lab/${machines[0].name}&role=operator`, given.url).href);
      await page.locator('#reason').waitFor();
      await look('request-form');
    });
    let hedy;
    await step('somebody who may do little signs up', 30, async () => { hedy = await greyed.invite(page, given.url, submit, watch, WIDE); });
    await step('a greyed button says why, by keyboard', 15, () => greyed.onList(hedy, look));
    await step('so does one above a screen, and leads to the request', 25, () => greyed.onBar(hedy, given.url, look));
    await hedy.context().close();
    await step('the history of the policy tells of it, and rows are tried', 20, () => greyed.history(page, given.url, submit, look));
    await step('files are taken over by a shell, and the page of their version says what they changed', 30, () => twice.files(page, given, submit, look));
    await step('what takes two people waits for the second one', 30, () => twice.approve(page, given, submit, look));
    for (const [name, path, heading] of [
      ['me', '/me', null], ['step-up', '/step-up', 'Confirm that it is you'], ['users', '/users', 'People'], ['roles', '/roles', 'Roles'], ['groups', '/groups', 'Groups'], ['locks', '/locks', null], ['requests', '/requests', null], ['grants', '/grants', 'Grants'],
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
    await step('the way in with a recovery code is there', 10, async () => {
      await signIn(given.password);
      await page.getByRole('link', { name: /use a recovery code/ }).click();
      await see('Use a recovery code');
      await look('recovery');
      await submit(page.getByRole('link', { name: 'I can use my second factor after all' }));
      await submit(page.getByRole('button', { name: 'Start again with another name' }));
    });
    await step('signing in and opening a console takes no mouse', 45, () => byKeyboard(app));
    const asked = noticed.length === COMPLAINTS.length && COMPLAINTS.every((words, i) => words.test(noticed[i]));
    if (!asked) throw new Error(`the browser complained:\n${noticed.join('\n')}`);
    if (refused.join() !== REFUSALS.join()) throw new Error(`answers that said no: ${refused.join(', ')}; expected: ${REFUSALS.join(', ')}`);
  } finally { for (const monitor of monitors) monitor.close(); }
}

/** A passkey from its making to its end, with the browser's own authenticator in software. */
async function withPasskey(app) {
  const key = await plugIn(page);
  const me = new URL('/me', given.url).href;
  const row = () => page.getByRole('row').filter({ has: page.getByRole('rowheader', { name: /^Passkey: / }) });
  const usePasskey = () => submit(page.getByRole('button', { name: 'Use a passkey', exact: true }));
  await step('a passkey is made by two clicks and a touch', 15, async () => {
    await page.goto(me);
    await page.getByRole('link', { name: 'Add a passkey or an app' }).click();
    await see('Add a second factor');
    await look('enrol-another');
    await submit(page.getByRole('button', { name: 'Create a passkey' }));
    await page.getByText('Your passkey is added.').waitFor();
    await look('me-with-passkey');
    return row().getByRole('rowheader').innerText();
  });
  await step('one that is there already is not made twice', 10, async () => {
    await page.goto(new URL('/enrol', given.url).href);
    await page.getByRole('button', { name: 'Create a passkey' }).click();
    await page.getByText('You have a passkey for this gateway on that device already.').waitFor();
    await look('enrol-twice');
  });
  await step('it signs in without a name', 15, async () => {
    await page.goto(given.url);
    await signOut();
    await usePasskey();
    await see('My machines');
    return `signed ${await key.count()} times`;
  });
  await step('a finger that is not recognised signs nobody in', 15, async () => {
    await signOut();
    await key.recognise(false);
    await page.getByRole('button', { name: 'Use a passkey', exact: true }).click();
    await page.getByText('No passkey was used').waitFor();
    await look('sign-in-no-passkey');
    await key.recognise(true);
  });
  await step('it is the second step after a password', 15, async () => {
    await signIn(given.password);
    await see('Enter the code');
    await look('code-or-passkey');
    await usePasskey();
    await see('My machines');
  });
  await step('it confirms for a console, and leads there', 20, async () => {
    await page.goto(new URL(`/step-up?next=%2Fc%2Flab%2F${machines[0].name}`, given.url).href);
    await see('Confirm that it is you');
    await look('step-up-with-passkey');
    await usePasskey();
    await page.waitForURL(`**/c/lab/${machines[0].name}`);
    await openConsole(machines[0], app);
    await page.getByRole('button', { name: 'Close', exact: true }).click();
  });
  await step('it confirms in the dialog that asks before a danger, by keyboard', 15, async () => {
    await key.forgetConfirmation(() => page.goto(me));
    const before = await key.count();
    await row().getByRole('button', { name: 'Remove' }).press('Enter');
    const dialog = page.getByRole('dialog', { name: 'Remove this second factor?' });
    await dialog.getByRole('textbox', { name: 'Six-digit code' }).waitFor();
    await look('remove-passkey');
    await page.keyboard.press('Tab');
    await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), page.keyboard.press('Enter')]);
    await page.getByText('That second factor no longer works here.').waitFor();
    if (await row().count()) throw new Error('the passkey is still in the list');
    if (await key.count() !== before + 1) throw new Error('the passkey was not asked');
  });
  await step('a passkey that was removed signs nobody in', 15, async () => {
    await signOut();
    await usePasskey();
    await page.getByText('That passkey was not accepted.').waitFor();
    await look('sign-in-refused-passkey');
    await signIn(given.password);
    await enterCode(app, 'Continue');
    await see('My machines');
  });
  await key.unplug();
}

async function useBar({ name, monitor }) {
  await step('the signs tell what is recorded and how long it lasts', 10, () => bar.signs(page));
  await step('"Send text" types it', 15, () => bar.sendText(page, monitor, look));
  await step('full screen opens and closes', 10, () => bar.fullScreen(page));
  await step('"Fit" scales the picture', 10, () => bar.fit(page));
  await step('Ctrl-Alt-Del arrives', 50, () => bar.restart(page, monitor, name));
}

/** Name, password, code, palette, console and back: every key is pressed where the focus happens to be. */
async function byKeyboard(app) {
  const { keyboard } = page;
  const focused = (test) => page.waitForFunction(test);
  await page.goto(new URL('/sign-in', given.url).href);
  await focused(() => document.activeElement?.id === 'name');
  await keyboard.type(given.name);
  await keyboard.press('Tab');
  await keyboard.type(given.password);
  await keyboard.press('Enter');
  await see('Enter the code');
  await focused(() => document.activeElement?.matches('input[inputmode=numeric]'));
  await keyboard.type(await app.code());
  await keyboard.press('Enter');
  await see('My machines');
  const { name } = machines[0];
  await keyboard.press('/');
  await focused(() => document.activeElement?.id === 'q');
  await keyboard.type(name);
  await keyboard.press('ArrowDown');
  await focused(() => document.activeElement?.matches('a.button'));
  await keyboard.press('Enter');
  await page.waitForURL(`**/c/lab/${name}`);
  await page.locator('#console[data-state=open]').waitFor();
  await focused(() => document.activeElement?.matches('canvas'));
  for (const key of ['Control', 'Alt', 'Shift']) await keyboard.down(key);
  for (const key of ['Shift', 'Alt', 'Control']) await keyboard.up(key);
  // From the bar to its last button.
  for (let presses = 0; presses < 12; presses += 1) {
    if (await page.evaluate(() => document.activeElement?.matches('[data-do=disconnect]'))) break;
    await keyboard.press('Tab');
  }
  await keyboard.press('Enter');
  await page.getByRole('heading', { name: 'The console is closed' }).waitFor();
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
  page = await (await browser.newContext({ viewport: WIDE })).newPage();
  watch(page);
  await journey();
} catch (error) {
  process.exitCode = 1;
  if (!page) console.log(`  ✗ the browser did not start: ${error.message}`);
  else console.log(`  ✗ ${plain(error.message).split('\n')[0]}`);
} finally {
  await browser.close();
  console.log(`  pictures of ${taken} pages, narrow, wide and dark: ${given.pictures}`);
}
