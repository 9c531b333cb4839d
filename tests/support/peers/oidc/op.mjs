// SPDX-License-Identifier: Apache-2.0
// An OpenID provider (npm oidc-provider, certified) with the library's own development pages: any password is taken.
//   PORT, RP (the gateway's address), PEOPLE (a JSON file {login: {claims}}, read at each use), node op.mjs
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const { PORT, RP, PEOPLE } = process.env;
const issuer = `http://localhost:${PORT}`;
const scopes = "openid profile groups offline_access";

function person(login) {
  return JSON.parse(readFileSync(PEOPLE, "utf8"))[login];
}

const key = (kid, type, options) => ({
  ...generateKeyPairSync(type, options).privateKey.export({ format: "jwk" }),
  kid,
  use: "sig",
});

const provider = new Provider(issuer, {
  clients: [
    {
      client_id: "portcullis",
      client_secret: "a-secret-that-only-a-test-knows-0123456789",
      redirect_uris: [`${RP}/sign-in/callback/corp`],
      post_logout_redirect_uris: [`${RP}/sign-in`],
      backchannel_logout_uri: `${RP}/sign-in/backchannel/corp`,
      backchannel_logout_session_required: true,
      grant_types: ["authorization_code", "refresh_token"],
      response_types: ["code"],
      scope: scopes,
      id_token_signed_response_alg: process.env.ALG || "RS256",
    },
  ],
  jwks: { keys: [key("rsa", "rsa", { modulusLength: 2048 }), key("ec", "ec", { namedCurve: "P-256" })] },
  cookies: { keys: [randomBytes(16).toString("hex")] },
  scopes: ["openid", "offline_access"],
  claims: { openid: ["sub"], profile: ["name", "preferred_username"], groups: ["groups"], auth_time: null, sid: null },
  // Whether what the scopes ask for stands in the ID token too, or in userinfo only.
  conformIdTokenClaims: process.env.USERINFO === "only",
  pkce: { required: () => true },
  features: {
    devInteractions: { enabled: true },
    backchannelLogout: { enabled: true },
    rpInitiatedLogout: { enabled: true },
    userinfo: { enabled: true },
  },
  issueRefreshToken: (_ctx, client) => client.grantTypeAllowed("refresh_token"),
  rotateRefreshToken: true,
  ttl: { AccessToken: 300, IdToken: 300, RefreshToken: 3600, Session: 3600, Grant: 3600, Interaction: 600 },
  findAccount(_ctx, login) {
    const claims = person(login);
    return claims && { accountId: login, claims: () => ({ sub: login, ...claims }) };
  },
  // No page that asks for consent.
  async loadExistingGrant(ctx) {
    const { client, session, provider: op } = ctx.oidc;
    const known = ctx.oidc.result?.consent?.grantId || session.grantIdFor(client.clientId);
    if (known) return op.Grant.find(known);
    const grant = new op.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope(scopes);
    await grant.save();
    return grant;
  },
  // The library's own guard refuses addresses of this machine, where the gateway under test listens.
  fetch: (url, options) => globalThis.fetch(url, { ...options, dispatcher: undefined }),
});
for (const event of ["server_error", "grant.error", "authorization.error", "backchannel.error"]) {
  provider.on(event, (_ctx, error) => console.error(event, error.error_description || error.message));
}
provider.on("backchannel.success", (_ctx, client) => console.log("backchannel.success", client.clientId));
createServer(provider.callback()).listen(Number(PORT), "127.0.0.1", () => console.log("ready", issuer));
