// SPDX-License-Identifier: Apache-2.0
// Asks before a form does something that cannot be taken back, and for a fresh code or a passkey where one is needed: one
// dialog for one intent. A form says so itself: data-confirm (the question), data-confirm-reason, data-fresh.
import { adoptFrom } from './csrf.ts';
import { csrf, find, need } from './dom.ts';
import { askForPasskey, canUsePasskeys } from './passkeys.ts';

/** Until when no fresh code is asked for. The server decides; this only spares a refusal. */
let freshUntil = Date.parse(document.body.dataset['freshUntil'] ?? '') || 0;

/** What this person can confirm themselves with. */
const proves = (document.body.dataset['proves'] ?? 'code').split(' ');

/** Gives a fresh code, or a passkey's answer, for what a form does; what comes back is a problem in words, empty when it
 * was taken. */
async function giveCode(code: string, form: HTMLFormElement): Promise<string> {
  const what = `${form.method.toUpperCase()} ${new URL(form.getAttribute('action') ?? '', location.href).pathname}`;
  const fields = { csrf: csrf(), code, next: '/step-up', for: what };
  let answer: Response;
  try {
    answer = await fetch('/step-up', { method: 'POST', body: new URLSearchParams(fields) });
  } catch {
    return 'The gateway does not answer. Check your network and try again.';
  }
  const path = new URL(answer.url).pathname;
  if (answer.redirected && path !== '/step-up') {
    location.reload();
    return 'You are no longer signed in.';
  }
  if (answer.status === 429) return 'Too many codes. Wait a while, then try again.';
  if (!answer.redirected || !answer.ok) {
    return code.startsWith('{') ? 'That passkey was not taken. Try again.' : 'That code was not taken. Each works once: wait for the next one.';
  }
  adoptFrom(await answer.text());
  freshUntil = Date.now() + 30_000;
  return '';
}

export function askBeforeDanger(): void {
  const dialog = find('#confirm', HTMLDialogElement);
  if (!dialog) return;
  const asking = need('[data-confirm-form]', HTMLFormElement, dialog);
  const title = need('#confirm-title', HTMLElement, dialog);
  const text = need('[data-confirm-text]', HTMLElement, dialog);
  const yes = need('[data-confirm-yes]', HTMLButtonElement, dialog);
  const no = need('[data-confirm-no]', HTMLButtonElement, dialog);
  const reasonField = need('[data-confirm-reason]', HTMLElement, dialog);
  const reason = need('#confirm-reason', HTMLInputElement, dialog);
  const codeField = need('[data-confirm-code]', HTMLElement, dialog);
  const code = need('#confirm-code', HTMLInputElement, dialog);
  const problem = need('#confirm-code-problem', HTMLElement, dialog);
  const passkeyField = need('[data-confirm-passkey]', HTMLElement, dialog);
  const passkeyAlone = need('[data-confirm-passkey-alone]', HTMLElement, dialog);
  const passkey = need('[data-confirm-passkey-go]', HTMLButtonElement, dialog);
  const canCode = proves.includes('code') || !canUsePasskeys;
  const canPasskey = proves.includes('passkey') && canUsePasskeys;
  let intent: { form: HTMLFormElement; button: HTMLElement | null } | null = null;
  let passing = false;

  document.addEventListener('submit', (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || form === asking || passing) return;
    // A button that only looks needs no question.
    if (event.submitter?.dataset['unasked'] !== undefined) return;
    const question = form.dataset['confirm'];
    const stale = form.dataset['fresh'] !== undefined && Date.now() > freshUntil - 3000;
    if (question === undefined && !stale) return;
    event.preventDefault();
    intent = { form, button: event.submitter };
    title.textContent = form.dataset['confirmTitle'] ?? 'Confirm that it is you';
    text.textContent = question ?? '';
    text.hidden = question === undefined;
    yes.textContent = form.dataset['confirmYes'] ?? 'Continue';
    yes.className = question === undefined ? 'button primary' : 'button danger';
    reasonField.hidden = form.dataset['confirmReason'] === undefined;
    codeField.hidden = !stale || !canCode;
    code.required = !codeField.hidden;
    passkeyField.hidden = !stale || !canPasskey;
    passkeyAlone.hidden = canCode;
    passkey.hidden = !canCode;
    for (const field of [reason, code]) field.value = '';
    problem.textContent = '';
    dialog.showModal();
    const first = codeField.hidden ? (stale ? yes : no) : code;
    (reasonField.hidden ? first : reason).focus();
  });
  /** Goes on with what was intended, once the proof was taken; null where none is needed. */
  const goOn = async (prove: (() => Promise<string>) | null) => {
    if (!intent || yes.disabled) return;
    if (prove) {
      for (const button of [yes, passkey]) button.disabled = true;
      problem.textContent = '';
      const wrong = await prove();
      for (const button of [yes, passkey]) button.disabled = false;
      if (!intent) return;
      if (wrong) {
        problem.textContent = wrong;
        if (codeField.hidden) yes.focus();
        else code.select();
        return;
      }
    }
    const { form, button } = intent;
    const why = find('input[name="reason"]', HTMLInputElement, form);
    if (why && !reasonField.hidden) why.value = reason.value;
    dialog.close();
    passing = true;
    form.requestSubmit(button);
    passing = false;
  };
  const byCode = async () => (intent ? giveCode(code.value.trim(), intent.form) : '');
  const byPasskey = async () => {
    const told = await askForPasskey('/api/v1/passkeys/step-up');
    if (!told) return 'You are no longer signed in.';
    if ('problem' in told) return told.problem;
    return intent ? giveCode(told.answer, intent.form) : '';
  };
  asking.addEventListener('submit', (event) => {
    event.preventDefault();
    void goOn(!codeField.hidden ? byCode : !passkeyField.hidden ? byPasskey : null);
  });
  passkey.addEventListener('click', () => void goOn(byPasskey));
  no.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => {
    code.value = '';
    intent = null;
  });
}
