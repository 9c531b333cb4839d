// SPDX-License-Identifier: Apache-2.0
// Bundles src/ into dist/: what the program embeds. Run by the server's build script, or by hand: npm run build.
import { build } from 'esbuild';
import { cp, mkdir, readdir, rename, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const here = fileURLToPath(new URL('.', import.meta.url));
const dist = join(here, 'dist');
// Built aside and moved into place, so that whoever reads dist/ meanwhile finds every file whole.
const aside = join(here, 'node_modules', `.dist-${process.pid}`);

const common = {
  absWorkingDir: here,
  bundle: true,
  minify: true,
  charset: 'utf8',
  legalComments: 'none',
  outdir: aside,
  logLevel: 'warning',
  target: ['es2022', 'chrome115', 'firefox115', 'safari16.4'],
};
await mkdir(aside, { recursive: true });
const ours = '/*! Portcullis, Apache-2.0 */';
await Promise.all([
  build({ ...common, entryPoints: { app: 'src/app.ts' }, format: 'esm', banner: { js: ours } }),
  build({
    ...common,
    entryPoints: { console: 'src/console.ts' },
    format: 'esm',
    // noVNC is under MPL-2.0 and unchanged: its source is the npm package named in package.json.
    banner: { js: '/*! Portcullis, Apache-2.0. With noVNC 1.7.0, MPL-2.0, https://github.com/novnc/noVNC, and pako, MIT */' },
  }),
  build({ ...common, entryPoints: { app: 'src/style/app.css', console: 'src/style/console.css' }, banner: { css: ours } }),
  cp(join(here, 'src/static'), aside, { recursive: true }),
]);

await mkdir(dist, { recursive: true });
const made = await readdir(aside);
for (const name of made) await rename(join(aside, name), join(dist, name));
for (const name of await readdir(dist)) {
  if (!made.includes(name) && !name.startsWith('.')) await rm(join(dist, name), { recursive: true });
}
await rm(aside, { recursive: true });
