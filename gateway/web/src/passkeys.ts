// SPDX-License-Identifier: Apache-2.0
// Passkeys: asks the gateway what is to be signed, asks the browser for it, and sends the answer with the form that
// wanted it. A form says so itself: data-passkey (where to ask), data-passkey-new (to make one).
import { all, find, leadingBack, ownPath } from './dom.ts';

/** What came of asking: an answer for the gateway, words for the person, or nothing when another page comes. */
export type Told = { answer: string } | { problem: string } | null;

interface Descriptor { type: 'public-key'; id: string; transports?: AuthenticatorTransport[] }

/** The gateway's words: what WebAuthn calls the options, with bytes in base64url (WebAuthn Level 3, 5.1.9 and 5.1.10). */
interface Options {
  challenge: string;
  timeout?: number;
  rpId?: string;
  rp?: PublicKeyCredentialRpEntity;
  user?: { id: string; name: string; displayName: string };
  pubKeyCredParams?: PublicKeyCredentialParameters[];
  allowCredentials?: Descriptor[];
  excludeCredentials?: Descriptor[];
  authenticatorSelection?: AuthenticatorSelectionCriteria;
  userVerification?: UserVerificationRequirement;
  attestation?: AttestationConveyancePreference;
  extensions?: AuthenticationExtensionsClientInputs;
}

export const canUsePasskeys = 'PublicKeyCredential' in globalThis;

export function decode(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(atob(text.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
}

export function encode(bytes: ArrayBuffer): string {
  const text = Array.from(new Uint8Array(bytes), (b) => String.fromCharCode(b)).join('');
  return btoa(text).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

const descriptors = (list: Descriptor[] = []) => list.map((d) => ({ ...d, id: decode(d.id) }));

/** Asks the gateway what is to be signed. */
async function ask(path: string): Promise<Options | { problem: string } | null> {
  let answer: Response;
  try {
    answer = await fetch(path, { headers: { Accept: 'application/json' }, redirect: 'error' });
  } catch {
    return { problem: 'The gateway does not answer. Check your network and try again.' };
  }
  let body: Record<string, unknown> = {};
  try {
    body = await answer.json() as Record<string, unknown>;
  } catch {
    // An answer without JSON is told by its status alone.
  }
  if (answer.ok && body['publicKey']) return body['publicKey'] as Options;
  const stepUp = ownPath(answer.headers.get('X-Step-Up'));
  if (stepUp) {
    location.assign(leadingBack(stepUp, location.pathname));
    return null;
  }
  if (answer.status === 401) {
    location.reload();
    return null;
  }
  if (answer.status === 404) return { problem: 'You have no passkey here yet.' };
  return { problem: typeof body['detail'] === 'string' ? body['detail'] : `The gateway answered ${answer.status}.` };
}

/** What a browser's refusal means for the person. */
export function problemOf(error: unknown, making: boolean): string {
  const name = error instanceof Error ? error.name : '';
  if (name === 'InvalidStateError') return 'You have a passkey for this gateway on that device already.';
  if (name === 'NotSupportedError') return 'That device cannot make a passkey that this gateway takes.';
  if (name === 'SecurityError') return 'The browser lets this page use no passkey: its certificate may not be trusted.';
  if (name === 'NotAllowedError' || name === 'AbortError') {
    return making ? 'No passkey was made: the question was closed, or it took too long. Try again.'
      : 'No passkey was used: the question was closed, or it took too long. Try again.';
  }
  return 'The browser could not use a passkey. Try again, or take another way.';
}

async function make(options: Options): Promise<unknown> {
  if (!options.rp || !options.user || !options.pubKeyCredParams) throw new Error('not what makes a passkey');
  const made = await navigator.credentials.create({
    publicKey: {
      ...options,
      rp: options.rp,
      pubKeyCredParams: options.pubKeyCredParams,
      challenge: decode(options.challenge),
      user: { ...options.user, id: decode(options.user.id) },
      allowCredentials: undefined,
      excludeCredentials: descriptors(options.excludeCredentials),
    } as PublicKeyCredentialCreationOptions,
  });
  if (!(made instanceof PublicKeyCredential) || !(made.response instanceof AuthenticatorAttestationResponse)) {
    throw new Error('no passkey');
  }
  const { response } = made;
  return {
    id: made.id, rawId: encode(made.rawId), type: made.type, clientExtensionResults: made.getClientExtensionResults(),
    response: {
      clientDataJSON: encode(response.clientDataJSON), attestationObject: encode(response.attestationObject),
      transports: response.getTransports?.() ?? [],
    },
  };
}

async function use(options: Options): Promise<unknown> {
  const used = await navigator.credentials.get({
    publicKey: {
      ...options,
      challenge: decode(options.challenge),
      allowCredentials: descriptors(options.allowCredentials),
    } as PublicKeyCredentialRequestOptions,
  });
  if (!(used instanceof PublicKeyCredential) || !(used.response instanceof AuthenticatorAssertionResponse)) {
    throw new Error('no passkey');
  }
  const { response } = used;
  return {
    id: used.id, rawId: encode(used.rawId), type: used.type, clientExtensionResults: {},
    response: {
      clientDataJSON: encode(response.clientDataJSON), authenticatorData: encode(response.authenticatorData),
      signature: encode(response.signature), userHandle: response.userHandle ? encode(response.userHandle) : null,
    },
  };
}

/** Asks for a passkey, or for a new one. */
export async function askForPasskey(path: string, making = false): Promise<Told> {
  const options = await ask(path);
  if (!options || 'problem' in options) return options;
  try {
    return { answer: JSON.stringify(await (making ? make(options) : use(options))) };
  } catch (error) {
    return { problem: problemOf(error, making) };
  }
}

export function wirePasskeys(): void {
  for (const form of all('form[data-passkey]', HTMLFormElement)) {
    const field = find('[data-passkey-answer]', HTMLInputElement, form);
    const problem = find('[data-passkey-problem]', HTMLElement, form);
    const button = find('button', HTMLButtonElement, form);
    if (!field || !problem || !button) continue;
    if (!canUsePasskeys) {
      button.disabled = true;
      problem.textContent = 'This browser has no passkeys.';
      continue;
    }
    form.addEventListener('submit', async (event) => {
      if (field.value) return;
      event.preventDefault();
      if (button.disabled) return;
      problem.textContent = '';
      button.disabled = true;
      const told = await askForPasskey(form.dataset['passkey'] ?? '', form.dataset['passkeyNew'] !== undefined);
      button.disabled = false;
      if (!told) return;
      if ('problem' in told) {
        problem.textContent = told.problem;
        button.focus();
        return;
      }
      field.value = told.answer;
      form.requestSubmit(button);
    });
  }
  // A page that the browser kept comes back with an answer in it that was used.
  window.addEventListener('pageshow', () => {
    for (const field of all('[data-passkey-answer]', HTMLInputElement)) field.value = '';
  });
}
