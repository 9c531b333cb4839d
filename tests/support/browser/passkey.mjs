// SPDX-License-Identifier: Apache-2.0
// Chromium's own authenticator in software, which its developers' protocol plugs into a page: it is touched at once, and
// knows its person's finger, or does not.

export async function plugIn(page) {
  const devtools = await page.context().newCDPSession(page);
  await devtools.send('WebAuthn.enable', { enableUI: false });
  const { authenticatorId } = await devtools.send('WebAuthn.addVirtualAuthenticator', { options: {
    protocol: 'ctap2', ctap2Version: 'ctap2_1', transport: 'internal', hasResidentKey: true, hasUserVerification: true,
    isUserVerified: true, automaticPresenceSimulation: true,
  } });
  return {
    /** How often it has signed. */
    async count() {
      const { credentials } = await devtools.send('WebAuthn.getCredentials', { authenticatorId });
      return credentials[0]?.signCount ?? 0;
    },
    recognise: (isUserVerified) => devtools.send('WebAuthn.setUserVerified', { authenticatorId, isUserVerified }),
    /** Opens a page that stands as it does when the last confirmation is more than five minutes old. */
    async forgetConfirmation(open) {
      const source = "document.addEventListener('readystatechange', () => document.body?.removeAttribute('data-fresh-until'))";
      await devtools.send('Page.enable');
      const { identifier } = await devtools.send('Page.addScriptToEvaluateOnNewDocument', { source });
      await open();
      await devtools.send('Page.removeScriptToEvaluateOnNewDocument', { identifier });
    },
    async unplug() {
      await devtools.send('WebAuthn.removeVirtualAuthenticator', { authenticatorId });
      await devtools.detach();
    },
  };
}
