// SPDX-License-Identifier: Apache-2.0
// Asks before a form does something that cannot be taken back, and for a fresh code where one is needed: one dialog for
// one intent. A form says so itself: data-confirm (the question), data-confirm-reason, data-fresh.
import { adoptFrom } from './csrf.ts';
import { csrf, find, need } from './dom.ts';

/** Until when no fresh code is asked for. The server decides; this only spares a refusal. */
let freshUntil = Date.parse(document.body.dataset['freshUntil'] ?? '') || 0;

/** Gives a fresh code; the answer is a problem in words, empty when the code was taken. */
async function giveCode(code: string): Promise<string> {
  let answer: Response;
  try {
    answer = await fetch('/step-up', { method: 'POST', body: new URLSearchParams({ csrf: csrf(), code, next: '/step-up' }) });
  } catch {
    return 'The gateway does not answer. Check your network and try again.';
  }
  const path = new URL(answer.url).pathname;
  if (answer.redirected && path !== '/step-up') {
    location.reload();
    return 'You are no longer signed in.';
  }
  if (answer.status === 429) return 'Too many codes. Wait a while, then try again.';
  if (!answer.redirected || !answer.ok) return 'That code was not taken. Each works once: wait for the next one.';
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
  let intent: { form: HTMLFormElement; button: HTMLElement | null } | null = null;
  let passing = false;

  document.addEventListener('submit', (event) => {
    const form = event.target;
    if (!(form instanceof HTMLFormElement) || form === asking || passing) return;
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
    codeField.hidden = !stale;
    code.required = stale;
    for (const field of [reason, code]) field.value = '';
    problem.textContent = '';
    dialog.showModal();
    (stale && reasonField.hidden ? code : reasonField.hidden ? no : reason).focus();
  });
  asking.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (!intent || yes.disabled) return;
    if (!codeField.hidden) {
      yes.disabled = true;
      problem.textContent = '';
      const wrong = await giveCode(code.value.trim());
      yes.disabled = false;
      if (!intent) return;
      if (wrong) {
        problem.textContent = wrong;
        code.select();
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
  });
  no.addEventListener('click', () => dialog.close());
  dialog.addEventListener('close', () => {
    code.value = '';
    intent = null;
  });
}
