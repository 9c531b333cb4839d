// SPDX-License-Identifier: Apache-2.0
// An administrator adds a hypervisor in headless Chromium and removes it again: by the pages alone, each looked at for its
// width; the credential is in none of them.
//   node adding.mjs --url URL --link SET-UP-LINK --certificate PEM --address ADDRESS --secret SECRET [--pictures DIR]
import { createHash, X509Certificate } from 'node:crypto';
import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { Authenticator } from './totp.mjs';

const { values: given } = parseArgs({ options: {
  url: { type: 'string' }, link: { type: 'string' }, certificate: { type: 'string' }, address: { type: 'string' },
  secret: { type: 'string' }, pictures: { type: 'string' },
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
page.on('pageerror', (error) => complaints.push(error.message));

function expect(what, holds) {
  if (!holds) throw new Error(`${what}; at ${page.url()}`);
  console.log(`✓ ${what}`);
}

/** The page in both widths, light and dark; none is wider than its window, and none holds the credential. */
async function look(name) {
  for (const colorScheme of ['light', 'dark']) {
    for (const width of [360, 1400]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 900 });
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      if (wide > width) throw new Error(`${name} is ${wide} pixels wide on a screen of ${width}`);
      if (!given.pictures) continue;
      mkdirSync(given.pictures, { recursive: true });
      await page.screenshot({ path: join(given.pictures, `${name}-${colorScheme}-${width}.png`), fullPage: true });
    }
  }
  if ((await page.content()).includes(given.secret)) throw new Error(`${name} shows the credential`);
}

const go = (button) => Promise.all([page.waitForNavigation({ waitUntil: 'load' }), button.click()]);
const press = (name) => go(page.getByRole('button', { name, exact: true }));

try {
  await page.goto(given.link);
  await page.waitForFunction(() => !location.hash && document.getElementById('token')?.value);
  await page.getByLabel('Name to sign in with').fill('ada');
  await page.getByLabel('Your name, as others see it').fill('Ada Lovelace');
  await page.getByLabel('New password').fill('seven maroon kettles hum');
  await press('Continue to the second factor');
  const app = new Authenticator(await page.getByLabel('Or type this key into the app').innerText());
  await page.getByRole('textbox', { name: 'Six-digit code' }).fill(await app.code());
  await press('Confirm');
  await page.goto(`${given.url}/hypervisors`);
  await look('none');
  await go(page.getByRole('link', { name: 'Add a hypervisor' }));
  await look('kinds');
  await go(page.getByRole('link', { name: 'Proxmox VE' }));
  await page.getByLabel('Name', { exact: true }).fill('pve-1');
  await page.getByLabel('Address', { exact: true }).fill('http://nowhere');
  await press('See who answers there');
  expect('a wrong address is told beside its field', await page.locator('#address-problem').isVisible());
  await look('wrong-address');
  await page.getByLabel('Address', { exact: true }).fill(given.address);
  await page.getByLabel('Tools reach its API').check();
  await page.getByLabel('Host name for tools').fill('pve-1.hv.example.org');
  await press('See who answers there');
  expect('its certificate is shown', (await page.locator('main').innerText()).includes('Signed by'));
  await look('certificate');
  await page.getByLabel('API token').fill(`${given.secret}x`);
  await page.getByLabel('That is what it shows').check();
  await press('Try it and add');
  expect('a wrong credential is told beside its field', await page.locator('#secret-problem').isVisible());
  await look('wrong-credential');
  await page.getByLabel('API token').fill(given.secret);
  await page.getByLabel('That is what it shows').check();
  await press('Try it and add');
  expect('it is added', new URL(page.url()).pathname === '/hypervisors/pve-1');
  // One of its rows is of another shape: that needs attention, and hides no machine.
  const isUp = async () => /answers|needs attention/.test(await page.locator('main').innerText());
  for (let turn = 0; turn < 40 && !(await isUp()); turn += 1) {
    await page.waitForTimeout(250);
    await page.reload();
  }
  expect('it answers within seconds', await isUp());
  await look('hypervisor');
  await go(page.getByRole('link', { name: 'Change it' }));
  expect('what is known of it stands there', await page.getByLabel('Address', { exact: true }).inputValue() === given.address
    && await page.getByLabel('Host name for tools').inputValue() === 'pve-1.hv.example.org');
  await look('change');
  await press('See who answers there');
  await look('change-certificate');
  await page.getByLabel('That is what it shows').check();
  await page.getByLabel('API token').fill(given.secret);
  await press('Try it and change');
  expect('it is changed', (await page.locator('main').innerText()).includes('pve-1 is changed'));
  await look('changed');
  for (let turn = 0; turn < 20 && await isUp(); turn += 1) {
    await page.waitForTimeout(250);
    await page.reload();
  }
  expect('the one before is let go', !(await isUp()));
  for (let turn = 0; turn < 60 && !(await isUp()); turn += 1) {
    await page.waitForTimeout(250);
    await page.reload();
  }
  expect('it answers again within seconds', await isUp());
  await page.goto(`${given.url}/hypervisors`);
  await look('list');
  await go(page.getByRole('link', { name: 'pve-1' }));
  await page.setViewportSize({ width: 1400, height: 900 });
  await page.getByRole('button', { name: 'Remove', exact: true }).click();
  const dialog = page.locator('#confirm');
  await dialog.waitFor();
  await look('remove');
  await go(dialog.getByRole('button', { name: 'Remove' }));
  expect('it is removed', new URL(page.url()).pathname === '/hypervisors');
  await page.waitForTimeout(2500);
  await page.reload();
  expect('and gone', !(await page.locator('main').innerText()).includes('pve-1'));
  expect(`nothing was held back: ${complaints.join('; ') || 'no complaint'}`, complaints.length === 0);
} finally {
  await browser.close();
}
