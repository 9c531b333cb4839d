# SPDX-License-Identifier: Apache-2.0
"""nova-compute with Nova's own fake driver, whose consoles lead to the VNC server at SHOWN_VNC (host:port)."""
import os
import sys

import nova.cmd.compute as compute  # patches the standard library, so it comes first
import nova.virt
from nova.console import type as console
from nova.virt import fake


class ShownDriver(fake.FakeDriver):
    def get_vnc_console(self, context, instance):
        host, port = os.environ["SHOWN_VNC"].rsplit(":", 1)
        return console.ConsoleVNC(host=host, port=int(port))


# Nova takes drivers from below nova.virt only.
nova.virt.shown = sys.modules["nova.virt.shown"] = sys.modules[__name__]
sys.argv[0] = "nova-compute"
compute.main()
