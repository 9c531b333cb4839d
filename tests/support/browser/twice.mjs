// SPDX-License-Identifier: Apache-2.0
// What a shell on the gateway's machine does, seen on pages: files that it takes over, and a change that it proposes to a
// second person.
import { execFile } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

/** The program's command line: its exit code and its lines as JSON. */
function shell({ program, config }, ...verb) {
  return new Promise((resolve) => {
    execFile(program, [...verb, '--json', '--config', config], (error, out) => {
      resolve({ code: error ? error.code : 0, lines: out.trim().split('\n').filter((l) => l).map((l) => JSON.parse(l)) });
    });
  });
}

/** Two versions by a shell; the older one's page says what going back would do, and goes back. */
export async function files(page, given, submit, look) {
  const file = join(dirname(given.config), 'night.csv');
  for (const [rows, why] of [
    ['p, group:night, operator, tag:web, , allow\ng, person:grace, group:night\n', 'The night shift begins.'],
    ['p, person:grace, viewer, tag:web, , allow\n', 'The night shift is over.'],
  ]) {
    writeFileSync(file, rows);
    const { code, lines } = await shell(given, 'policy', 'apply', file, '--why', why);
    if (code !== 0) throw new Error(`policy apply: ${code} ${JSON.stringify(lines)}`);
  }
  await page.goto(new URL('/policy/history', given.url).href);
  await page.getByText('The night shift is over.').first().waitFor();
  await look('policy-versions');
  await page.getByRole('link', { name: 'Version 1' }).press('Enter');
  await page.getByRole('heading', { name: 'Version 1', level: 1 }).waitFor();
  await page.getByText('Rows that came and went').press('Enter');
  await page.getByText('p, group:night, operator, tag:web, , allow').first().waitFor();
  await look('policy-version');
}

/** A shell proposes, and the one who looks approves by keyboard. */
export async function approve(page, given, submit, look) {
  const { code, lines: [told] } = await shell(given, 'grant', 'add', 'hedy', 'administrator', 'machine:lab/web-1');
  if (code !== 1 || !told.waits) throw new Error(`grant add: ${code} ${JSON.stringify(told)}`);
  await page.goto(new URL('/requests', given.url).href);
  await page.getByRole('heading', { name: 'Changes of rights that take two people' }).waitFor();
  await look('proposals');
  await page.getByRole('link', { name: /administrator is given to hedy/ }).press('Enter');
  await page.getByRole('heading', { name: 'A change that takes two people' }).waitFor();
  await page.getByText('hedy may act as administrator on machine lab/web-1, until revoked, with fresh code every 5 minutes').first().waitFor();
  await look('proposal');
  await Promise.all([page.waitForNavigation({ waitUntil: 'load' }), page.getByRole('button', { name: 'Approve and make it' }).press('Enter')]);
  await page.getByText('Approved, and made.').waitFor();
  await look('proposal-made');
  await page.goto(new URL('/grants', given.url).href);
  await page.locator('table.grants').getByText('administrator').first().waitFor();
}
