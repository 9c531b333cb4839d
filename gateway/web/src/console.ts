// SPDX-License-Identifier: Apache-2.0
// The console page: asks for a ticket, opens the stream, shows the screen, and says why it ended.
//
//   closed ──> asking ──> connecting ──> open ──> ended ──(Open again)──> asking
//                └──> step-up or sign-in (another page, which leads back here)
//
// Where it stands is in data-state of the frame. The gateway enforces everything that is shown here.
import RFB from '@novnc/novnc';
import { ConsoleClock } from './console/clock.ts';
import { endingWords, type Words } from './console/ending.ts';
import { wireKeys } from './console/keys.ts';
import { wireSendText } from './console/sendtext.ts';
import { askForTicket, protocols, streamAddress, type Mode } from './console/ticket.ts';
import { wireWayOut } from './console/wayout.ts';
import { all, find, need } from './dom.ts';
import { remember } from './palette.ts';

const frame = need('#console', HTMLElement);
const screen = need('#screen', HTMLElement);
const veil = need('#veil', HTMLElement);
const again = need('[data-veil-again]', HTMLAnchorElement);
const clock = new ConsoleClock(screen);
const mode: Mode = frame.dataset['mode'] === 'view' ? 'view' : 'control';
const here = frame.dataset['here'] ?? location.pathname;
let rfb: RFB | null = null;

const tool = (name: string) => find(`[data-do="${name}"]`, HTMLButtonElement);
const text = (selector: string, words: string) => { const e = find(selector, HTMLElement); if (e) e.textContent = words; };

function stand(state: 'closed' | 'asking' | 'connecting' | 'open' | 'ended', words: string): void {
  frame.dataset['state'] = state;
  text('[data-connection]', words);
  for (const name of ['ctrl-alt-del', 'send-text', 'disconnect']) {
    const button = tool(name);
    if (button) button.disabled = state !== 'open';
  }
}

function cover(words: Words, canOpen: boolean): void {
  text('[data-veil-title]', words.title);
  text('[data-veil-text]', words.text);
  again.hidden = !canOpen;
  veil.hidden = false;
}

function ended(words: Words): void {
  rfb = null;
  clock.stop();
  screen.hidden = true;
  wayOutHint(false);
  find('#send-text', HTMLDialogElement)?.close();
  stand('ended', 'closed');
  cover(words, true);
  again.focus();
}

function signs(recorded: boolean): void {
  const show = (sign: string, on: boolean) => { const e = find(`[data-sign="${sign}"]`, HTMLElement); if (e) e.hidden = !on; };
  show('recorded', recorded);
  show('not-recorded', !recorded);
}

let hintTimer = 0;
function wayOutHint(on: boolean): void {
  const hint = find('[data-way-out]', HTMLElement);
  if (!hint) return;
  clearTimeout(hintTimer);
  hint.hidden = !on;
  if (on) hintTimer = window.setTimeout(() => { hint.hidden = true; }, 6000);
}

async function open(): Promise<void> {
  const [ticketPath, streamPath] = [frame.dataset['ticket'], frame.dataset['stream']];
  if (!ticketPath || !streamPath || rfb) return;
  stand('asking', 'opening…');
  cover({ title: 'Opening the console…', text: 'Asking the gateway for a way in.' }, false);
  const answer = await askForTicket(ticketPath, mode, mode === 'view' ? `${here}?mode=view` : here);
  if (answer.kind === 'go') {
    location.assign(answer.path);
    return;
  }
  if (answer.kind === 'refused') {
    ended({ title: answer.title, text: answer.detail });
    return;
  }
  const { ticket } = answer;
  // What the page said before was a guess; the ticket is a promise.
  signs(ticket.recorded);
  stand('connecting', 'connecting…');
  text('[data-veil-text]', 'Connecting to the screen.');
  screen.hidden = false;

  // noVNC tells that a connection ended, not why: the socket is ours, so that its reason can be read.
  const socket = new WebSocket(streamAddress(streamPath), protocols(ticket));
  let opened = false;
  let byPerson = false;
  let fault = '';
  socket.addEventListener('close', (event) => {
    const words = byPerson ? { title: 'The console is closed', text: 'You closed it.' } : endingWords(event.code, event.reason || fault, opened);
    // After noVNC has put its own things away.
    setTimeout(() => ended(words));
  });
  const viewer = new RFB(screen, socket, { shared: true });
  rfb = viewer;
  viewer.viewOnly = ticket.mode === 'view';
  viewer.scaleViewport = tool('fit')?.getAttribute('aria-pressed') !== 'false';
  viewer.showDotCursor = true;
  viewer.background = 'transparent';
  viewer.addEventListener('securityfailure', (event) => {
    fault = String((event as CustomEvent<{ reason?: string }>).detail.reason ?? '');
  });
  viewer.addEventListener('credentialsrequired', () => {
    fault = 'The stream asked for a password, which only the gateway may know.';
    viewer.disconnect();
  });
  viewer.addEventListener('connect', () => {
    opened = true;
    veil.hidden = true;
    stand('open', ticket.mode === 'view' ? 'watching' : 'connected');
    clock.start(ticket.until, ticket.idleSeconds, ticket.mode === 'view');
    remember(here);
    const canvas = find('canvas', HTMLCanvasElement, screen);
    if (canvas) {
      canvas.tabIndex = 0;
      canvas.setAttribute('aria-label', `Screen of ${frame.dataset['name'] ?? 'the machine'}`);
      canvas.addEventListener('focus', () => wayOutHint(ticket.mode === 'control'));
      canvas.addEventListener('blur', () => wayOutHint(false));
    }
    if (ticket.mode === 'control') viewer.focus({ preventScroll: true });
  });
  const close = tool('disconnect');
  if (close) {
    close.onclick = () => {
      byPerson = true;
      viewer.disconnect();
    };
  }
}

const release = wireKeys(() => rfb, () => clock.touch());
wireWayOut(() => screen.contains(document.activeElement), () => {
  rfb?.blur();
  release();
  const bar = all('.tools button:not(:disabled), .tools summary', HTMLElement).find((e) => e.offsetParent !== null);
  bar?.focus();
});
tool('ctrl-alt-del')?.addEventListener('click', () => {
  rfb?.sendCtrlAltDel();
  clock.touch();
  rfb?.focus();
});
const sendText = tool('send-text');
if (sendText) {
  wireSendText(sendText, () => {
    clock.touch();
    return rfb;
  }, () => rfb?.focus());
}
const fit = tool('fit');
fit?.addEventListener('click', () => {
  const on = fit.getAttribute('aria-pressed') !== 'true';
  fit.setAttribute('aria-pressed', String(on));
  if (rfb) rfb.scaleViewport = on;
});
const full = tool('full-screen');
if (full && !document.fullscreenEnabled) full.hidden = true;
full?.addEventListener('click', async () => {
  if (document.fullscreenElement) {
    await document.exitFullscreen();
    return;
  }
  await frame.requestFullscreen();
  // With it Alt+Tab, Esc and the like reach the machine; Esc held down leaves full screen.
  const keyboard = (navigator as { keyboard?: { lock?: () => Promise<void> } }).keyboard;
  await keyboard?.lock?.().catch(() => undefined);
  rfb?.focus();
});
document.addEventListener('fullscreenchange', () => {
  if (full) full.textContent = document.fullscreenElement ? 'Leave full screen' : 'Full screen';
});
again.addEventListener('click', (event) => {
  if (frame.dataset['closed'] !== undefined) return;
  event.preventDefault();
  void open();
});

if (frame.dataset['closed'] === undefined) void open();
else stand('closed', 'not open');
