# SPDX-License-Identifier: Apache-2.0
# A mail server on 127.0.0.1 (aiosmtpd) that keeps what it takes in a folder. It wants a name and a password where they
# are given, takes nothing before TLS where that is asked of it, and refuses whoever is called nobody for good.
#   serve.py PORT implicit|starttls|none CERT KEY MAILBOX [USER PASSWORD]
import signal
import ssl
import sys

from aiosmtpd.controller import Controller
from aiosmtpd.handlers import Mailbox
from aiosmtpd.smtp import AuthResult

port, mode, cert, key, mailbox, *login = sys.argv[1:]


class Keeper(Mailbox):
    async def handle_RCPT(self, server, session, envelope, address, options):
        print("RCPT", address, "TLS" if session.ssl or mode == "implicit" else "open", session.authenticated, flush=True)
        if address.startswith("nobody@"):
            return "550 there is nobody of that name"
        envelope.rcpt_tos.append(address)
        return "250 OK"


def known(server, session, envelope, mechanism, data):
    same = [data.login, data.password] == [word.encode() for word in login]
    return AuthResult(success=same, handled=False)


context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(cert, key)
more = {"authenticator": known, "auth_required": True, "auth_require_tls": mode == "starttls"} if login else {}
if mode == "starttls":
    more |= {"tls_context": context, "require_starttls": True}
keeper = Controller(
    Keeper(mailbox), hostname="127.0.0.1", port=int(port), ssl_context=context if mode == "implicit" else None, **more
)
keeper.start()
print("ready", flush=True)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
keeper.stop()
