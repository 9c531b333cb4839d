// SPDX-License-Identifier: Apache-2.0
// Asking the gateway for the one-use ticket that opens a stream.
import { csrf, leadingBack, ownPath } from '../dom.ts';

export type Mode = 'control' | 'view';

export interface Ticket { ticket: string; mode: Mode; recorded: boolean; until: number | null; idleSeconds: number }

export type Answer =
  | { kind: 'ticket'; ticket: Ticket }
  | { kind: 'go'; path: string }
  | { kind: 'refused'; title: string; detail: string };

/** The subprotocols of the stream: what it carries, and the ticket, which so stays out of every address and log. */
export function protocols(ticket: Ticket): string[] {
  return ['binary', `portcullis.ticket.${ticket.ticket}`];
}

export function streamAddress(path: string): string {
  const url = new URL(path, location.href);
  url.protocol = url.protocol === 'http:' ? 'ws:' : 'wss:';
  return url.href;
}

export async function askForTicket(path: string, mode: Mode, here: string): Promise<Answer> {
  let answer: Response;
  try {
    answer = await fetch(path, {
      method: 'POST',
      headers: { 'Content-Type': 'application/json', Accept: 'application/json', 'X-CSRF-Token': csrf() },
      body: JSON.stringify({ mode }),
      redirect: 'error',
    });
  } catch {
    return { kind: 'refused', title: 'The gateway does not answer', detail: 'Check your network, then open it again.' };
  }
  let body: Record<string, unknown> = {};
  try {
    const read: unknown = await answer.json();
    if (read && typeof read === 'object') body = read as Record<string, unknown>;
  } catch {
    // An answer without JSON is told by its status alone.
  }
  const text = (name: string) => (typeof body[name] === 'string' ? body[name] : '');
  if (answer.ok && text('ticket')) {
    const until = Date.parse(text('until'));
    const idle = Number(body['idle_seconds']);
    return {
      kind: 'ticket',
      ticket: {
        ticket: text('ticket'),
        mode: text('mode') === 'view' ? 'view' : mode,
        recorded: body['recorded'] === true,
        until: Number.isNaN(until) ? null : until,
        idleSeconds: Number.isFinite(idle) && idle > 0 ? idle : 0,
      },
    };
  }
  // Where a fresh code is given; it leads back here, and then straight in.
  const stepUp = ownPath(body['step_up'] ?? answer.headers.get('X-Step-Up'));
  if (stepUp) return { kind: 'go', path: leadingBack(stepUp, here) };
  if (answer.status === 401) return { kind: 'go', path: `/sign-in?next=${encodeURIComponent(here)}` };
  const request = text('request');
  return {
    kind: 'refused',
    title: text('title') || 'The console did not open',
    detail: (text('detail') || `The gateway answered ${answer.status}.`) + (request ? ` Number of this request: ${request}` : ''),
  };
}
