// SPDX-License-Identifier: Apache-2.0
// Somebody who may do little: what stands behind the buttons that they may not press, by keyboard, and the request that
// one of them leads to. And what the one who gave them that reads of it in the policy's history.
import { Authenticator } from './totp.mjs';

/** One grant by the page of grants. */
async function grant(page, url, submit, [role, networks]) {
  await page.goto(new URL('/grants', url).href);
  await page.getByLabel('Who', { exact: true }).selectOption({ label: 'Hedy Lamarr (hedy)' });
  await page.getByLabel('May act as').selectOption(role);
  await page.getByLabel('On', { exact: true }).fill('lab/web-1');
  if (networks) {
    await page.getByText('With conditions').click();
    await page.getByLabel('Only from these networks').fill(networks);
  }
  await submit(page.getByRole('button', { name: 'Grant', exact: true }));
}

/** Invites somebody, gives them little, and gives back the page of their own browser, signed in. */
export async function invite(page, url, submit, watch, viewport) {
  await page.goto(new URL('/users', url).href);
  await page.getByLabel('Name to sign in with').fill('hedy');
  await page.getByLabel('Name shown to others').fill('Hedy Lamarr');
  await submit(page.getByRole('button', { name: 'Make a one-time link' }));
  const link = await page.locator('input[readonly]').first().inputValue();
  for (const given of [['viewer'], ['machine/console.view'], ['operator', '203.0.113.0/24']]) await grant(page, url, submit, given);
  const other = await (await page.context().browser().newContext({ viewport })).newPage();
  watch(other);
  const go = (button) => Promise.all([other.waitForNavigation({ waitUntil: 'load' }), button.click()]);
  await other.goto(link);
  await other.waitForFunction(() => !location.hash && document.getElementById('token')?.value);
  await other.getByLabel('New password').fill('seven maroon kettles hum');
  await go(other.getByRole('button', { name: 'Continue to the second factor' }));
  const app = new Authenticator(await other.getByLabel('Or type this key into the app').innerText());
  await other.getByRole('textbox', { name: 'Six-digit code' }).fill(await app.code());
  await go(other.getByRole('button', { name: 'Confirm', exact: true }));
  await other.getByRole('link', { name: 'I have saved them' }).click();
  await other.getByRole('heading', { name: 'My machines', level: 1 }).waitFor();
  return other;
}

/** Tabs until a summary with this text has the focus, opens it with Enter, and reads what it says. */
async function openByKey(page, words) {
  for (let presses = 0; presses < 40; presses += 1) {
    if (await page.evaluate((w) => document.activeElement?.matches('summary') && document.activeElement.textContent.includes(w), words)) break;
    await page.keyboard.press('Tab');
  }
  await page.keyboard.press('Enter');
  const sheet = page.locator('details.menu.no[open] .why-not');
  await sheet.waitFor();
  return (await sheet.innerText()).replace(/\s+/g, ' ');
}

function says(text, words) {
  for (const word of words) if (!text.includes(word)) throw new Error(`behind the button it says: ${text}; not: ${word}`);
}

/** The list of machines. */
export async function onList(page, look) {
  says(await openByKey(page, 'Power of web-1 is not open to you'), [
    'You may not switch its power.', 'Your role operator on machine lab/web-1 counts from these networks only: 203.0.113.0/24.', 'You need the role operator',
  ]);
  if ((await page.locator('details.menu.no').first().innerText()).includes('Decided by')) throw new Error('she reads the ids of grants');
  await look('greyed-power', page);
  await page.keyboard.press('Escape');
  await page.locator('details.menu.no[open]').waitFor({ state: 'detached' });
  if (!await page.evaluate(() => document.activeElement?.matches('summary'))) throw new Error('the focus is lost');
}

/** The bar above a screen that is only watched, and the form that its button leads to. */
export async function onBar(page, url, look) {
  await page.goto(new URL('/c/lab/web-1?mode=view', url).href);
  await page.locator('#console[data-state=open]').waitFor();
  says(await openByKey(page, 'Keyboard and mouse of web-1 is not open to you'), ['You may not use its keyboard and mouse.', 'You need the role console-user']);
  await look('greyed-keys', page);
  await page.keyboard.press('Tab');
  await page.keyboard.press('Enter');
  await page.waitForURL('**/requests/new?**');
  const [role, on] = [await page.locator('#role').inputValue(), await page.locator('#on').inputValue()];
  if (role !== 'console-user' || on !== 'machine:lab/web-1') throw new Error(`the form asks for ${role} on ${on}`);
}

/** What was changed, and rows that are tried. */
export async function history(page, url, submit, look) {
  await page.goto(new URL('/policy/history', url).href);
  await page.getByText('hedy: operator on machine lab/web-1').or(page.getByText('operator on machine lab/web-1').first()).first().waitFor();
  await look('policy-history');
  await page.locator('#rows').fill('p, person:hedy, operator, tag:web, , allow\np, person:grace, viewer, everything, hours=mon-fri 08:00-18:00 Europe/Berlin, allow\n');
  await submit(page.getByRole('button', { name: 'Show what they would do' }));
  await page.getByText('Hedy Lamarr').or(page.getByText('hedy')).first().waitFor();
  await page.locator('.foreseen .badge.good').first().waitFor();
  await look('policy-tried');
  await page.locator('#rows').fill('p, person:hedy, operator, tag:web, , perhaps\n');
  await submit(page.getByRole('button', { name: 'Show what they would do' }));
  await page.getByText('rows.csv:1').first().waitFor();
}
