// SPDX-License-Identifier: Apache-2.0
// The bar above a console, used as somebody uses it; what came of it is read from the guest itself.
import { setTimeout as sleep } from 'node:timers/promises';
import { awaitText, type } from './screen.mjs';

/** A line typed by "Send text", on an English keyboard, Enter included. */
export async function sendText(page, monitor, look) {
  await page.getByRole('button', { name: 'Send text', exact: true }).click();
  const dialog = page.getByRole('dialog', { name: 'Send text' });
  await dialog.getByRole('textbox', { name: 'Text' }).fill('echo "Sent: $((3*5))" ~/\\|@');
  await dialog.getByLabel('Press Enter at the end').check();
  await dialog.getByText('Enter is pressed once').waitFor();
  await look('send-text');
  await dialog.getByRole('button', { name: 'Type it' }).click();
  await dialog.waitFor({ state: 'hidden' });
  await awaitText(page, monitor, /^Sent: 15 \/\/\|@$/m, 12);
  return 'Sent: 15';
}

/** The three keys restart this guest: its shell, and what was typed into it, are gone. */
export async function restart(page, monitor, name) {
  await page.getByRole('button', { name: 'Ctrl-Alt-Del', exact: true }).click();
  const until = Date.now() + 25_000;
  while (/portcullis-42|Sent: 15/.test(await monitor.text())) {
    if (Date.now() > until) throw new Error(`the guest still shows:\n${await monitor.text()}`);
    await sleep(100);
  }
  await awaitText(page, monitor, new RegExp(`^This is ${name}, a machine behind Portcullis\\.`, 'm'), 25);
  return 'the guest started anew';
}

/** Into full screen and out again. */
export async function fullScreen(page) {
  await page.getByRole('button', { name: 'Full screen', exact: true }).click();
  await page.waitForFunction(() => document.fullscreenElement?.id === 'console');
  await page.getByRole('button', { name: 'Leave full screen', exact: true }).click();
  await page.waitForFunction(() => !document.fullscreenElement);
}

/** Fit makes the picture as large as there is room; without it a pixel is a pixel. */
export async function fit(page) {
  const button = page.getByRole('button', { name: 'Fit', exact: true });
  const width = () => page.locator('#screen canvas').first().evaluate((c) => [Math.round(c.getBoundingClientRect().width), c.width]);
  await button.click();
  const [shown, own] = await width();
  if (shown !== own) throw new Error(`without Fit ${own} pixels are shown ${shown} wide`);
  await button.click();
  const [fitted] = await width();
  if (fitted === own) throw new Error(`with Fit the picture stays ${own} wide`);
}

/** What the page says of recording and time, and the way out of the screen by three keys. */
export async function signs(page) {
  await page.locator('[data-sign=recorded]').getByText('Recorded', { exact: true }).waitFor();
  if (await page.locator('[data-sign=not-recorded]').isVisible()) throw new Error('the page also says that it is not recorded');
  const left = await page.locator('[data-left]').innerText();
  if (!/^11 h 5\d min left$/.test(left)) throw new Error(`the page says: ${left}`);
  await page.locator('#screen canvas').first().click();
  for (const key of ['Control', 'Alt', 'Shift']) await page.keyboard.down(key);
  for (const key of ['Shift', 'Alt', 'Control']) await page.keyboard.up(key);
  await page.waitForFunction(() => document.activeElement?.closest('.tools'));
  return left;
}

/** A console that only watches: a sign says so, there is nothing to type with, and keys do not arrive. */
export async function watchOnly(page, monitor) {
  await page.locator('#console[data-state=open]').waitFor();
  await page.getByText('Watching only', { exact: true }).waitFor();
  for (const name of ['Ctrl-Alt-Del', 'Send text', 'Keys']) {
    if (await page.locator('.tools').getByText(name, { exact: true }).count()) throw new Error(`there is a "${name}" all the same`);
  }
  const before = await monitor.text();
  await page.locator('#screen canvas').first().click();
  await type(page, 'never\n');
  await sleep(500);
  if (await monitor.text() !== before) throw new Error(`the guest shows something new:\n${await monitor.text()}`);
}
