// SPDX-License-Identifier: Apache-2.0
// The text that every form of a session carries. It changes when the session proves more, in whichever tab that was:
// the tabs of one browser tell each other, so that a form filled in meanwhile is not refused.
import { all, csrf, find } from './dom.ts';

const tabs = 'BroadcastChannel' in window ? new BroadcastChannel('portcullis.csrf') : null;
const LIKE_A_TOKEN = /^[\w.~+/=-]{8,512}$/;

function adopt(token: string): void {
  const meta = find('meta[name="csrf-token"]', HTMLMetaElement);
  if (!meta) return;
  meta.content = token;
  for (const field of all('input[name="csrf"]', HTMLInputElement)) field.value = token;
}

/** Takes the text of a newer page of ours, and tells the other tabs. */
export function adoptFrom(page: string): void {
  const token = /<meta name="csrf-token" content="([^"]+)">/.exec(page)?.[1];
  if (!token || !LIKE_A_TOKEN.test(token)) return;
  adopt(token);
  tabs?.postMessage(token);
}

export function shareCsrf(): void {
  // Pages of strangers belong to no session that another tab could have.
  if (!tabs || document.body.dataset['signedIn'] === undefined) return;
  tabs.addEventListener('message', (event) => {
    if (typeof event.data === 'string' && LIKE_A_TOKEN.test(event.data)) adopt(event.data);
  });
  const own = csrf();
  if (own) tabs.postMessage(own);
}
